"""Defines the study scoring, section 4.1 of the paper: AP with and without empty-slot override, and by score threshold."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from detr_core.config import require
from detr_core.data.config import ResizeConfig
from detr_core.studies.claims import Comparison, PaperClaim, write_measured
from detr_core.studies.study import EvaluatingStudy, Setting, StudyConfig, StudyInputs


@dataclass(frozen=True)
class ScoringConfig(StudyConfig):
    """The configuration of the study scoring.

    scores: thresholds in ascending order. batch_size, resize: see EvaluateConfig.
    """

    NEEDS = ("no_object",)
    scores: tuple[float, ...]
    batch_size: int
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        require(len(self.scores) > 0, "scores", "one or more thresholds", list(self.scores))
        rising = all(low < high for low, high in itertools.pairwise((-1.0, *self.scores, 1.0)))
        require(rising and min(self.scores) >= 0, "scores", "thresholds in ascending order, from 0 to below 1", list(self.scores))
        require(self.batch_size >= 1, "batch_size", "1 or more", self.batch_size)


def run(inputs: StudyInputs, config: ScoringConfig, folder: Path) -> None:
    """Writes the metrics of every way to select detections to `folder`."""
    from detr_core.studies.scoring import scoring, write_scores

    result = scoring(inputs, inputs.dataset(config.resize), config.scores, config.batch_size)
    write_scores(result.selections, folder)
    comparison = Comparison("with the second-best class for empty slots", result.override)
    write_measured([CLAIM.with_measurements("AP", [comparison])], folder)


def settings(folder: Path) -> list[Setting]:
    """Returns a setting for each threshold, with and without empty-slot override."""
    result = []
    for selection in json.loads((folder / "scores.json").read_text(encoding="utf-8")):
        override, score = "on" if selection["empty_slot_override"] else "off", selection["threshold"]
        metrics = {f"val/{name}": value for name, value in selection["metrics"].items()}
        params = {"empty_slot_override": override, "score": score}
        name = f"empty slots {override}, score {score:g}"
        result.append(Setting(name, params, {round(100 * score): metrics}, f"override_{override}"))
    return result


CLAIM = PaperClaim("Scoring empty slots by their second-best class raises AP", "AP +2")

STUDY = EvaluatingStudy(ScoringConfig, run, settings, (CLAIM,))
