"""The study instance-count, section 4.3 and appendix of the paper: copies of one object on a grid with masked cells."""

from __future__ import annotations

import json
from pathlib import Path

from detr_core.studies.instance_count_config import InstanceCountConfig
from detr_core.studies.study import EvaluatingStudy, Setting, StudyInputs


def run(inputs: StudyInputs, config: InstanceCountConfig, folder: Path) -> None:
    """Writes the missed objects of every class and number of visible cells to `folder`."""
    from detr_core.studies.instance_count import instance_count, write_counts

    write_counts(instance_count(inputs, inputs.dataset(None), config), folder)


def settings(folder: Path) -> list[Setting]:
    """Returns a setting for each class."""
    result = []
    for count in json.loads((folder / "counts.json").read_text(encoding="utf-8")):
        missed = zip(count["visible"], count["missed"]["mean"], strict=True)
        metrics = {visible: {"missed": share} for visible, share in missed}
        result.append(Setting(count["name"], {"category": count["name"]}, metrics))
    return result


STUDY = EvaluatingStudy(InstanceCountConfig, run, settings)
