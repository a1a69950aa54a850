"""Defines the study decoder-nms, Figure 4 of the paper: AP of every decoder layer with and without NMS."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from detr_core.config import require
from detr_core.data.config import ResizeConfig
from detr_core.studies.claims import PaperClaim, write_measured
from detr_core.studies.study import EvaluatingStudy, Setting, StudyConfig, StudyInputs


@dataclass(frozen=True)
class DecoderNmsConfig(StudyConfig):
    """The configuration of the study decoder-nms.

    nms: IoU thresholds; null means no NMS. batch_size, resize: see EvaluateConfig.
    """

    NEEDS = ("decoder_layers",)
    nms: tuple[float | None, ...]
    batch_size: int
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        require(len(self.nms) > 0, "nms", "one or more thresholds", list(self.nms))
        require(len(set(self.nms)) == len(self.nms), "nms", "each threshold once", list(self.nms))
        for value in self.nms:
            require(value is None or 0 < value < 1, "nms", "null (off) or an IoU between 0 and 1", value)
        require(self.batch_size >= 1, "batch_size", "1 or more", self.batch_size)


def run(inputs: StudyInputs, config: DecoderNmsConfig, folder: Path) -> None:
    """Writes the table of decoder layers and thresholds to `folder`."""
    from detr_core.studies.decoder_nms import decoder_nms, write_cells

    result = decoder_nms(inputs, inputs.dataset(config.resize), config.nms, config.batch_size, CLAIMS)
    write_cells(result.cells, folder)
    write_measured(result.claims, folder)


def settings(folder: Path) -> list[Setting]:
    """Returns a setting for each decoder layer and threshold."""
    result = []
    for cell in json.loads((folder / "cells.json").read_text(encoding="utf-8")):
        depth, nms = cell["decoder_depth"], "off" if cell["nms"] is None else f"{cell['nms']:g}"
        metrics = {f"val/{name}": value for name, value in cell["metrics"].items()}
        params = {"decoder_depth": depth, "nms": nms}
        result.append(Setting(f"depth {depth}, NMS {nms}", params, {depth: metrics}, f"nms_{nms}"))
    return result


CLAIMS = (
    PaperClaim("AP rises with every decoder layer", "AP +8.2 from the first layer to the last"),
    PaperClaim("NMS raises AP most after the first layer", "a plot, without numbers"),
    PaperClaim("NMS costs AP after the last layer", "AP 0.1 lower with NMS 0.7, measured on a published model"),
)

STUDY = EvaluatingStudy(DecoderNmsConfig, run, settings, CLAIMS)
