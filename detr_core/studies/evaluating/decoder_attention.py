"""Defines the study decoder-attention, Figures 6 and 7 of the paper: the decoder's attention, and the boxes of every query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detr_core.config import require
from detr_core.data.config import ResizeConfig
from detr_core.studies.claims import Comparison, PaperClaim, SeedDifference, write_measured
from detr_core.studies.study import EvaluatingStudy, StudyConfig, StudyInputs


@dataclass(frozen=True)
class DecoderAttentionConfig(StudyConfig):
    """The configuration of the study decoder-attention.

    pictures: the number of val images, evenly spaced by id, that are stored with the maps of their detections. score: the lowest
    score of a detection. border: half the width of the band along a box that counts as its extremities, as a share of the box's
    sides. batch_size, resize: see EvaluateConfig.
    """

    NEEDS = ("attention_maps",)
    pictures: int
    score: float
    border: float
    batch_size: int
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        for name in ("pictures", "batch_size"):
            require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        require(0 <= self.score <= 1, "score", "between 0 and 1", self.score)
        require(0 < self.border < 0.5, "border", "a share between 0 and 0.5", self.border)


def run(inputs: StudyInputs, config: DecoderAttentionConfig, folder: Path) -> None:
    """Writes the attention by region, the maps of some images, and the boxes of every query to `folder`."""
    from detr_core.studies.decoder_attention import decoder_attention, write_decoder_attention

    dataset = inputs.dataset(config.resize)
    attention = decoder_attention(inputs, dataset, config.pictures, config.score, config.border, config.batch_size)
    write_decoder_attention(attention, dataset, folder)
    if "extremities/times" in attention.metrics and "interior/times" in attention.metrics:
        extremities, interior = attention.metrics["extremities/times"], attention.metrics["interior/times"]
        comparison = Comparison("extremities against the interior", SeedDifference(interior, extremities, None, None))
        write_measured([CLAIM.with_measurements("attention relative to the area", [comparison])], folder)


CLAIM = PaperClaim("The decoder attends mostly to the extremities of objects", "pictures, without numbers")

STUDY = EvaluatingStudy(DecoderAttentionConfig, run, claims=(CLAIM,))
