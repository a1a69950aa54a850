"""The studies that evaluate the profile's trained detector: what each runs, and what of it MLflow compares."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detr_core.reporter import Reporter
from flows import artifacts
from flows.paths import Paths, whole_or_nothing
from flows.settings import Profile

if TYPE_CHECKING:
    from detr_core.model.checkpoint import Checkpoint


@dataclass(frozen=True)
class Inputs:
    """What a study reads: the whole profile, its own section of it, its detector, and the paths of its data."""

    settings: Profile
    config: Any
    trained: Checkpoint
    paths: Paths
    reporter: Reporter


@dataclass(frozen=True)
class Setting:
    """One setting of a study, as a run of its own in MLflow: its short name, what was varied, and its figures at a step.

    series: which curve over the steps the figures belong to; none where the steps mean nothing.
    """

    name: str
    params: Mapping[str, object]
    metrics: Mapping[str, float]
    step: int = 0
    series: str = ""


@dataclass(frozen=True)
class Evaluating:
    """run: writes the study's results, `metrics.json` among them, into a folder. settings: what such a folder says of each
    setting. figures: draws such a folder into another one; returns the pictures."""

    run: Callable[[Inputs, Path], None]
    settings: Callable[[Path], list[Setting]]
    figures: Callable[[Path, Path], list[Path]]


def run(name: str, settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Carries a study out into runs/<profile>/studies/<name>/, whole or not at all; returns its metrics.json.

    Raises DatasetError, StageError or CheckpointError before work begins.
    """
    artifacts.dataset(paths)
    path = artifacts.detector(paths)
    trained = artifacts.checkpoint(path, paths.profile, artifacts.device(settings.resources.gpus))
    inputs = Inputs(settings, settings.ablations[name], trained, paths, reporter)
    with whole_or_nothing(paths.study(name)) as folder:
        STUDIES[name].run(inputs, folder)
        figures: dict[str, float] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return figures


# The functions below import late: torch takes seconds, and a study is also asked for what it has drawn or found.


def _run_decoder_nms(inputs: Inputs, folder: Path) -> None:
    from detr_core.data.coco import CocoDataset
    from detr_core.data.transforms import evaluation_transform
    from detr_core.evaluate.ground_truth import instances
    from detr_core.studies.decoder_nms import decoder_nms, write_cells

    config, trained, resources = inputs.config, inputs.trained, inputs.settings.resources
    split, device = artifacts.dataset(inputs.paths)["val"], artifacts.device(resources.gpus)
    dataset = CocoDataset(split, artifacts.targets(split), masks=False, transform=evaluation_transform(config.resize), seed=0)
    truth = instances(split)
    cells = decoder_nms(trained.model, trained.categories, dataset, config, truth, device, resources.workers, inputs.reporter)
    write_cells(cells, folder)


def _decoder_nms_settings(folder: Path) -> list[Setting]:
    settings = []
    for cell in json.loads((folder / "cells.json").read_text(encoding="utf-8")):
        depth = cell["decoder_depth"]
        nms = "off" if cell["nms"] is None else f"{cell['nms']:g}"
        figures = {f"val/{name}": value for name, value in cell["figures"].items()}
        params = {"decoder_depth": depth, "nms": nms}
        settings.append(Setting(f"depth {depth}, NMS {nms}", params, figures, depth, f"nms_{nms}"))
    return settings


def _decoder_nms_figures(folder: Path, out: Path) -> list[Path]:
    from detr_core.figures.decoder_nms import decoder_nms_figure

    return decoder_nms_figure(folder / "cells.json", out)


STUDIES = {"decoder-nms": Evaluating(_run_decoder_nms, _decoder_nms_settings, _decoder_nms_figures)}
