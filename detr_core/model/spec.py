"""Defines the kinds of detectors. One row of `KINDS` holds all that the rest of the project has to know about a kind.

A new kind is a folder beside this file, a row, and its configuration (and that of its loss, if it has one of its own) in the two
types of configurations. This module imports configurations only. The functions of a row import the code of their kind when they
are called, so that a process which trains or evaluates one kind never imports the model of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from detr_core.config import ConfigError, build, require
from detr_core.loss.config import FocalLossConfig, SoftmaxLossConfig
from detr_core.model.common.config import KindConfig
from detr_core.model.default_lengths import LONG, SHORT, DefaultLength
from detr_core.model.deformable.config import DeformableConfig
from detr_core.model.detr.config import AttentionMaps, DetrConfig
from detr_core.model.faster_rcnn.config import FasterRcnnConfig, RegionLossConfig
from detr_core.model.mask_rcnn.config import MaskRcnnConfig, MaskRcnnLossConfig
from detr_core.model.panoptic_fpn.config import PanopticFpnConfig, PanopticFpnLossConfig
from detr_core.model.upsnet.config import UpsnetConfig, UpsnetLossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from detr_core.model.common.detector import Detector
    from detr_core.model.panoptic_fpn.model import PanopticFpnSamples
    from detr_core.model.regions.detector import Samples
    from detr_core.model.regions.masks import MaskSamples
    from detr_core.model.upsnet.model import UpsnetSamples

AnyDetectorConfig = DetrConfig | DeformableConfig | FasterRcnnConfig | MaskRcnnConfig | PanopticFpnConfig | UpsnetConfig
AnyLossConfig = (
    SoftmaxLossConfig | FocalLossConfig | RegionLossConfig | MaskRcnnLossConfig | PanopticFpnLossConfig | UpsnetLossConfig
)

Capability = Literal["mask_head", "init", "decoder_layers", "no_object", "attention_maps", "sampling_lr", "masks", "panoptic"]
"""What some kinds of detectors can do.

mask_head: a mask head can be trained on the detector. no_object: one class of the output is no-object, and every query gives at
most one detection. attention_maps: the attention of the encoder and the decoder can be captured. The model of a kind with one of
these three must be a `Detr` or a subclass of it, because the code that trains the mask head and carries out the studies uses the
modules of `Detr`.
init: the training can start from a checkpoint of the detector; the model has the methods `architecture` and `class_weight`.
decoder_layers: the output has the predictions of every decoder layer. sampling_lr: some parameters determine sampling points, and
have their own learning rate.
masks: the detector itself learns and predicts masks, so that it needs no mask head; its output is a `RegionOutput` with masks.
panoptic: it also predicts panoptic maps, and needs targets of things and stuff.
"""


@dataclass(frozen=True)
class DetectorKind:
    """What the project has to know about a kind of detector.

    config: its configuration, whose field `kind` has the key of this row in `KINDS` as its only value. builds_on: the folder
    beside this file whose modules the kind uses in addition to its own folder and `common`; `common` if there is no other.
    build: the constructor, which is called with the configuration and the number of classes, and for a detector with a mask head
    also with the kind of attention maps; a kind with the capability `panoptic` gets, instead of the number, for each class
    whether it is a thing. output: the name of the class in structures.py that the detector returns. capabilities: what it can do.
    objects: the field or property of the configuration that says how many objects of an image the detector can find; `queries`
    is a field, which `flows.adopt` sets to fit a dataset.
    loss: the configuration of its loss. optimizers: the kinds of optimizers that fit, as in the configuration of the training.
    losses: computes the losses of a kind that has losses of its own; called with the result of `Detector.samples`, the number of
    images of an optimizer step and the configuration of the loss, it returns the loss, with its gradient, and its parts. None
    for a kind whose predictions are matched with the objects, and which is trained by the set loss.
    length: how many epochs a new profile trains it.
    merging: the field of EvaluateConfig that says how its results are merged into a panoptic map; None if it makes no such map.
    """

    config: type[AnyDetectorConfig]
    builds_on: Literal["common", "transformer", "regions"]
    build: Callable[..., Detector]
    output: Literal["SoftmaxOutput", "SigmoidOutput", "RegionOutput"]
    capabilities: frozenset[Capability]
    objects: str
    loss: type[AnyLossConfig]
    optimizers: tuple[str, ...]
    losses: Callable[[Any, float, Any], tuple[Tensor, dict[str, Tensor]]] | None
    length: DefaultLength
    merging: str | None = None


def _detr(config: DetrConfig, num_classes: int, attention_maps: AttentionMaps | None = None) -> Detector:
    from detr_core.model.detr.model import Detr

    if attention_maps is None:
        return Detr(config, num_classes, mask_head=False)
    return Detr(config, num_classes, mask_head=True, attention_maps=attention_maps)


def _deformable(config: DeformableConfig, num_classes: int) -> Detector:
    from detr_core.model.deformable.model import DeformableDetr

    return DeformableDetr(config, num_classes)


def _faster_rcnn(config: FasterRcnnConfig, num_classes: int) -> Detector:
    from detr_core.model.regions.detector import FasterRcnn

    return FasterRcnn(config, num_classes)


def _region_losses(samples: Samples, images: float, config: RegionLossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    from detr_core.model.regions.losses import region_losses

    return region_losses(samples, images, config)


def _mask_rcnn(config: MaskRcnnConfig, num_classes: int) -> Detector:
    from detr_core.model.regions.masks import MaskRcnn

    return MaskRcnn(config, num_classes)


def _mask_rcnn_losses(samples: MaskSamples, images: float, config: MaskRcnnLossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    from detr_core.model.regions.mask_losses import mask_rcnn_losses

    return mask_rcnn_losses(samples, images, config)


def _panoptic_fpn(config: PanopticFpnConfig, isthing: Sequence[bool]) -> Detector:
    from detr_core.model.panoptic_fpn.model import PanopticFpn

    return PanopticFpn(config, isthing)


def _panoptic_fpn_losses(
    samples: PanopticFpnSamples, images: float, config: PanopticFpnLossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    from detr_core.model.panoptic_fpn.loss import panoptic_fpn_losses

    return panoptic_fpn_losses(samples, images, config)


def _upsnet(config: UpsnetConfig, isthing: Sequence[bool]) -> Detector:
    from detr_core.model.upsnet.model import Upsnet

    return Upsnet(config, isthing)


def _upsnet_losses(samples: UpsnetSamples, images: float, config: UpsnetLossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    from detr_core.model.upsnet.loss import upsnet_losses

    return upsnet_losses(samples, images, config)


KINDS: dict[str, DetectorKind] = {
    "detr": DetectorKind(
        config=DetrConfig,
        builds_on="transformer",
        build=_detr,
        output="SoftmaxOutput",
        capabilities=frozenset({"mask_head", "init", "decoder_layers", "no_object", "attention_maps"}),
        objects="queries",
        loss=SoftmaxLossConfig,
        optimizers=("adamw",),
        losses=None,
        length=LONG,
        merging="panoptic",
    ),
    "deformable": DetectorKind(
        config=DeformableConfig,
        builds_on="transformer",
        build=_deformable,
        output="SigmoidOutput",
        capabilities=frozenset({"init", "decoder_layers", "sampling_lr"}),
        objects="queries",
        loss=FocalLossConfig,
        optimizers=("adamw",),
        losses=None,
        length=SHORT,
    ),
    "faster_rcnn": DetectorKind(
        config=FasterRcnnConfig,
        builds_on="regions",
        build=_faster_rcnn,
        output="RegionOutput",
        capabilities=frozenset({"init"}),
        objects="proposals",
        loss=RegionLossConfig,
        optimizers=("adamw", "sgd"),
        losses=_region_losses,
        length=SHORT,
    ),
    "mask_rcnn": DetectorKind(
        config=MaskRcnnConfig,
        builds_on="regions",
        build=_mask_rcnn,
        output="RegionOutput",
        capabilities=frozenset({"init", "masks"}),
        objects="proposals",
        loss=MaskRcnnLossConfig,
        optimizers=("adamw", "sgd"),
        losses=_mask_rcnn_losses,
        length=SHORT,
    ),
    "panoptic_fpn": DetectorKind(
        config=PanopticFpnConfig,
        builds_on="regions",
        build=_panoptic_fpn,
        output="RegionOutput",
        capabilities=frozenset({"init", "masks", "panoptic"}),
        objects="proposals",
        loss=PanopticFpnLossConfig,
        optimizers=("adamw", "sgd"),
        losses=_panoptic_fpn_losses,
        length=SHORT,
        merging="panoptic_fpn",
    ),
    "upsnet": DetectorKind(
        config=UpsnetConfig,
        builds_on="regions",
        build=_upsnet,
        output="RegionOutput",
        capabilities=frozenset({"init", "masks", "panoptic"}),
        objects="proposals",
        loss=UpsnetLossConfig,
        optimizers=("adamw", "sgd"),
        losses=_upsnet_losses,
        length=SHORT,
        merging="upsnet",
    ),
}


def kind_of(name: str) -> DetectorKind:
    """Returns the row of the kind with this name. Raises ConfigError, which lists the known kinds, if there is none."""
    if name not in KINDS:
        raise ConfigError(f"detector.kind: expected one of {', '.join(map(repr, KINDS))}, found {name!r}")
    return KINDS[name]


def kinds_with(*capabilities: Capability) -> str:
    """Returns the names of the kinds that have all these capabilities, for an error message: \"'detr' or 'deformable'\"."""
    return " or ".join(repr(name) for name, kind in KINDS.items() if kind.capabilities.issuperset(capabilities))


def detector_config(value: object, where: str) -> AnyDetectorConfig:
    """Returns the configuration of the kind of detector in the mapping `value`. Raises ConfigError as `build` does."""
    return cast(AnyDetectorConfig, build(cast(Any, AnyDetectorConfig), value, where))


def object_count(config: KindConfig) -> int:
    """Returns how many objects of an image the detector can find. Raises ConfigError for an unknown kind."""
    return cast(int, getattr(config, kind_of(config.kind).objects))


def build_detector(
    config: KindConfig,
    num_classes: int,
    attention_maps: AttentionMaps | None = None,
    isthing: Sequence[bool] | None = None,
) -> Detector:
    """Returns a new detector for `num_classes` classes.

    attention_maps: the kind of attention maps of its mask head; None builds a detector without a mask head. isthing: whether each
    class is a thing, which only kinds with the capability `panoptic` need. Raises ConfigError for an unknown kind, if the kind
    can't have a mask head, or if it needs classes of both things and stuff, and one of the two is missing.
    """
    kind = kind_of(config.kind)
    if "panoptic" in kind.capabilities:
        things, stuff = (0, 0) if isthing is None else (sum(isthing), len(isthing) - sum(isthing))
        expected = f"a kind that needs no stuff, or classes of things and of stuff for {config.kind!r}"
        require(things > 0 and stuff > 0, "detector.kind", expected, f"{things} classes of things and {stuff} of stuff")
    if attention_maps is None:
        return kind.build(config, isthing if "panoptic" in kind.capabilities else num_classes)
    supported = "mask_head" in kind.capabilities
    require(supported, "detector.kind", f"{kinds_with('mask_head')}, which can have a mask head", config.kind)
    return kind.build(config, num_classes, attention_maps)
