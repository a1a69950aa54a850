"""Defines the study encoder-attention, Figure 3 of the paper: the encoder's self-attention from the centres of objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detr_core.config import require
from detr_core.data.config import ResizeConfig
from detr_core.studies.claims import Comparison, PaperClaim, SeedDifference, write_measured
from detr_core.studies.study import EvaluatingStudy, StudyConfig, StudyInputs


@dataclass(frozen=True)
class EncoderAttentionConfig(StudyConfig):
    """The configuration of the study encoder-attention.

    pictures: the number of val images, evenly spaced by id, that are stored with attention maps. points: the number of maps per
    image, which start at the centres of the largest things. batch_size, resize: see EvaluateConfig.
    """

    NEEDS = ("attention_maps",)
    pictures: int
    points: int
    batch_size: int
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        for name in ("pictures", "points", "batch_size"):
            require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))


def run(inputs: StudyInputs, config: EncoderAttentionConfig, folder: Path) -> None:
    """Writes the attention by region, and the maps of some images, to `folder`."""
    from detr_core.evaluate.ground_truth import has_masks, instances
    from detr_core.studies.encoder_attention import encoder_attention, write_encoder_attention

    split = inputs.splits["val"]
    dataset = inputs.dataset(config.resize, masks=split.panoptic is not None or has_masks(instances(split)))
    attention = encoder_attention(inputs, dataset, config.pictures, config.points, config.batch_size)
    write_encoder_attention(attention, dataset, folder)
    if "same_class/times" in attention.metrics:
        own_times, class_times = attention.metrics["own/times"], attention.metrics["same_class/times"]
        comparison = Comparison("its own object against others of its class", SeedDifference(class_times, own_times, None, None))
        write_measured([CLAIM.with_measurements("attention relative to the area", [comparison])], folder)


CLAIM = PaperClaim("The encoder separates instances", "pictures, without numbers")

STUDY = EvaluatingStudy(EncoderAttentionConfig, run, claims=(CLAIM,))
