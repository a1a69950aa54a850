"""Defines the configuration of the parts that every kind of detector has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from detr_core.config import as_dict, flatten, require

MOST_CHANNELS = 65_536  # the largest width of a layer


@dataclass(frozen=True)
class BackboneConfig:
    """The convolutional backbone.

    name: a torchvision ResNet, or `small`, a residual network of stride 12 for images of about 100 pixels; `small_deep` has twice
    its blocks. dilation: whether the last stride is replaced by dilation (the paper's DC5).
    weights: null trains from scratch, 'imagenet' takes torchvision's weights, else the path of a torchvision state dict.
    norm: `frozen` batch norm (as published; it requires pretrained weights to be useful) or `group` norm, which trains from
    scratch and does not depend on the batch.
    frozen_stages: the number of frozen parts, counted from the stem: 0 trains all, 2 freezes the stem and the first stage as
    published, 5 freezes the whole backbone.
    norm_eps: what frozen batch norm adds to the variance. It is 0 for the weights of torchvision's detectors that were trained
    before it was added, else 1e-5.
    """

    name: Literal["small", "small_deep", "resnet18", "resnet34", "resnet50", "resnet101"]
    dilation: bool
    weights: str | None
    norm: Literal["frozen", "group"]
    frozen_stages: int
    norm_eps: float = field(default=1e-5, metadata={"optional": True})

    def __post_init__(self) -> None:
        require(0 <= self.frozen_stages <= 5, "frozen_stages", "0 (train all) to 5 (train none)", self.frozen_stages)
        if self.name.startswith("small"):
            require(self.weights is None, "weights", "null for the small backbones", self.weights)
        if self.name in ("resnet18", "resnet34"):
            require(not self.dilation, "dilation", f"false, because the blocks of {self.name} can't be dilated", self.dilation)
        require(self.weights is None or self.norm == "frozen", "norm", "frozen with pretrained weights", self.norm)
        require(self.norm_eps >= 0, "norm_eps", "0 or more", self.norm_eps)
        require(self.norm == "frozen" or self.norm_eps == 1e-5, "norm_eps", f"1e-05 with norm {self.norm!r}", self.norm_eps)


class KindConfig(Protocol):
    """The fields that the configuration of every kind of detector has. kind: the name of the kind."""

    @property
    def kind(self) -> str: ...
    @property
    def backbone(self) -> BackboneConfig: ...


def architecture_fields(config: KindConfig) -> dict[str, Any]:
    """Returns the configuration of a detector as a flat mapping, without the fields that concern only its training.

    These are the initial weights of the backbone, the frozen stages and dropout.
    """
    fields = flatten(as_dict(config))
    training = ("backbone.weights", "backbone.frozen_stages", "dropout")
    return {name: value for name, value in fields.items() if name not in training}


class QueryConfig(KindConfig, Protocol):
    """The configuration of a detector with object queries. queries: their number."""

    @property
    def queries(self) -> int: ...


def require_stages(stages: tuple[int, ...]) -> None:
    ordered = len(stages) > 0 and list(stages) == sorted(set(stages)) and set(stages) <= {1, 2, 3, 4}
    require(ordered, "stages", "some of 1, 2, 3, 4 in this order", list(stages))
