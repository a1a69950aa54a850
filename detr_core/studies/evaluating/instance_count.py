"""Defines the study instance-count, section 4.3 and appendix of the paper: copies of one object on a grid with masked cells."""

from __future__ import annotations

import json
from pathlib import Path

from detr_core.studies.claims import PaperClaim, write_measured
from detr_core.studies.measurements.instance_count_config import InstanceCountConfig
from detr_core.studies.study import EvaluatingStudy, Setting, StudyInputs


def run(inputs: StudyInputs, config: InstanceCountConfig, folder: Path) -> None:
    """Writes the missed objects of every class and number of visible cells to `folder`."""
    from detr_core.studies.measurements.instance_count import instance_count, write_counts

    counts = instance_count(inputs, inputs.dataset(None), config)
    write_counts(counts, folder)
    trained = [max(count.most_in_training, 1) for count in counts]
    comparisons = [
        count.compared(number, config.grid**2) for count, number in zip(counts, trained, strict=True) if number < config.grid**2
    ]
    if comparisons:
        claim = CLAIM.with_measurements("missed share", comparisons, unit="object")
    else:
        claim = CLAIM.without_measurements("the grid has no more cells than a training image has objects")
    write_measured([claim], folder)


def settings(folder: Path) -> list[Setting]:
    """Returns a setting for each class."""
    result = []
    for count in json.loads((folder / "counts.json").read_text(encoding="utf-8")):
        missed = zip(count["visible"], count["missed"]["mean"], strict=True)
        metrics = {visible: {"missed": share} for visible, share in missed}
        result.append(Setting(count["name"], {"category": count["name"]}, metrics))
    return result


CLAIM = PaperClaim(
    "More copies than in any training image are missed",
    "all of up to about 50 copies are found, and 30 of 100; a training image has at most 63 instances",
)

STUDY = EvaluatingStudy(InstanceCountConfig, run, settings, (CLAIM,))
