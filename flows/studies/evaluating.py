"""Runs the studies that evaluate the profile's trained detector, and lists the settings that MLflow compares."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detr_core.data.splits import targets
from detr_core.reporter import Reporter
from flows.profile import artifacts
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from flows.runtime import launch
from flows.runtime.locks import building

if TYPE_CHECKING:
    import torch

    from detr_core.data.coco_dataset import CocoDataset
    from detr_core.model.checkpoint import Checkpoint
    from detr_core.model.detr.model import Detr


@dataclass(frozen=True)
class Inputs:
    """The inputs of a study: the profile, the study's section of it (`config`), the trained detector, and the paths."""

    settings: Profile
    config: Any
    trained: Checkpoint
    paths: Paths
    reporter: Reporter

    @property
    def device(self) -> torch.device:
        return artifacts.device(self.settings.resources.gpus)

    @property
    def workers(self) -> int:
        return self.settings.resources.workers

    def detr(self, study: str) -> Detr:
        """Returns the detector for a study that supports only DETR. Raises CheckpointError if it is of another kind."""
        from detr_core.model.checkpoint import as_detr

        return as_detr(self.trained.model, f"the study {study}", artifacts.studied_detector(self.settings, self.paths))


@dataclass(frozen=True)
class Setting:
    """One setting of a study, which gets its own run in MLflow: its short name, its parameters, and its metrics by step.

    series: the name of the curve, in the study's run, that also gets these metrics; empty if there is no such curve.
    """

    name: str
    params: Mapping[str, object]
    metrics: Mapping[int, Mapping[str, float]]
    series: str = ""


@dataclass(frozen=True)
class Evaluating:
    """The functions of one evaluating study.

    run: writes the study's results, with `metrics.json`, to a folder. settings: reads the settings from such a folder.
    metrics: draws the plots of such a folder into another folder, and returns their files.
    """

    run: Callable[[Inputs, Path], None]
    settings: Callable[[Path], list[Setting]]
    plots: Callable[[Path, Path], list[Path]]


def run(name: str, settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Carries out a study, and returns the content of its metrics.json.

    runs/<profile>/studies/<name>/ is replaced only when the study has succeeded. Raises DatasetError, StageError or
    CheckpointError before work begins, and ConfigError if the detector lacks the part that the study examines.
    """
    import torch

    artifacts.dataset(paths)
    path = artifacts.studied_detector(settings, paths)
    torch.set_num_threads(min(torch.get_num_threads(), launch.cores()))  # more threads than cores would wait for each other
    trained = artifacts.checkpoint(path, paths.profile, artifacts.device(settings.resources.gpus))
    inputs = Inputs(settings, settings.ablations[name], trained, paths, reporter)
    with building(paths.study(name), reporter.message) as folder:
        STUDIES[name].run(inputs, folder)
        metrics: dict[str, float] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return metrics


# The functions below import inside, because torch takes seconds to import and not every caller needs it.


def _dataset(inputs: Inputs, masks: bool = False) -> CocoDataset:
    from detr_core.data.coco_dataset import CocoDataset
    from detr_core.data.transforms import evaluation_transform

    split = artifacts.dataset(inputs.paths)["val"]
    transform = evaluation_transform(getattr(inputs.config, "resize", None))
    return CocoDataset(split, targets(split), masks=masks, transform=transform, seed=0)


def _run_decoder_nms(inputs: Inputs, folder: Path) -> None:
    from detr_core.evaluate.ground_truth import instances
    from detr_core.studies.decoder_nms import decoder_nms, write_cells

    model, categories, dataset = inputs.trained.model, inputs.trained.categories, _dataset(inputs)
    truth = instances(dataset.split)
    cells = decoder_nms(model, categories, dataset, inputs.config, truth, inputs.device, inputs.workers, inputs.reporter)
    write_cells(cells, folder)


def _decoder_nms_settings(folder: Path) -> list[Setting]:
    settings = []
    for cell in _read(folder / "cells.json"):
        depth = cell["decoder_depth"]
        nms = "off" if cell["nms"] is None else f"{cell['nms']:g}"
        params = {"decoder_depth": depth, "nms": nms}
        settings.append(Setting(f"depth {depth}, NMS {nms}", params, {depth: _val(cell["metrics"])}, f"nms_{nms}"))
    return settings


def _decoder_nms_figures(folder: Path, out: Path) -> list[Path]:
    from detr_core.plots.decoder_nms import decoder_nms_plots

    return decoder_nms_plots(folder / "cells.json", out)


def _run_instance_count(inputs: Inputs, folder: Path) -> None:
    from detr_core.studies.instance_count import instance_count, write_counts

    model, categories, dataset = inputs.detr("instance-count"), inputs.trained.categories, _dataset(inputs)
    train = artifacts.dataset(inputs.paths)["train"]
    write_counts(instance_count(model, categories, dataset, inputs.config, train, inputs.device, inputs.reporter), folder)


def _instance_count_settings(folder: Path) -> list[Setting]:
    return [
        Setting(each["name"], {"category": each["name"]}, {
            visible: {"missed": missed} for visible, missed in zip(each["visible"], each["missed"]["mean"], strict=True)
        })
        for each in _read(folder / "counts.json")
    ]  # fmt: skip


def _instance_count_plots(folder: Path, out: Path) -> list[Path]:
    from detr_core.plots.instance_count import instance_count_plots

    return instance_count_plots(folder / "counts.json", out)


def _run_encoder_attention(inputs: Inputs, folder: Path) -> None:
    from detr_core.evaluate.ground_truth import has_masks, instances
    from detr_core.studies.encoder_attention import encoder_attention, write_encoder_attention

    model = inputs.detr("encoder-attention")
    split = artifacts.dataset(inputs.paths)["val"]
    dataset = _dataset(inputs, masks=split.panoptic is not None or has_masks(instances(split)))
    found = encoder_attention(model, dataset, inputs.config, inputs.device, inputs.workers, inputs.reporter)
    write_encoder_attention(found, dataset, folder)


def _encoder_attention_plots(folder: Path, out: Path) -> list[Path]:
    from detr_core.plots.encoder_attention import encoder_attention_plots

    return encoder_attention_plots(folder, out)


def _run_decoder_attention(inputs: Inputs, folder: Path) -> None:
    from detr_core.studies.decoder_attention import decoder_attention, write_decoder_attention

    model, categories, dataset = inputs.detr("decoder-attention"), inputs.trained.categories, _dataset(inputs)
    found = decoder_attention(model, categories, dataset, inputs.config, inputs.device, inputs.workers, inputs.reporter)
    write_decoder_attention(found, dataset, folder)


def _decoder_attention_plots(folder: Path, out: Path) -> list[Path]:
    from detr_core.plots.decoder_attention import decoder_attention_plots

    return decoder_attention_plots(folder, out)


def _run_scoring(inputs: Inputs, folder: Path) -> None:
    from detr_core.evaluate.ground_truth import instances
    from detr_core.studies.scoring import scoring, write_scores

    model, categories, dataset = inputs.detr("scoring"), inputs.trained.categories, _dataset(inputs)
    truth = instances(dataset.split)
    write_scores(
        scoring(model, categories, dataset, inputs.config, truth, inputs.device, inputs.workers, inputs.reporter), folder
    )


def _scoring_settings(folder: Path) -> list[Setting]:
    settings = []
    for each in _read(folder / "scores.json"):
        override, score = "on" if each["empty_slot_override"] else "off", each["threshold"]
        params = {"empty_slot_override": override, "score": score}
        metrics = {round(100 * score): _val(each["metrics"])}
        settings.append(Setting(f"empty slots {override}, score {score:g}", params, metrics, f"override_{override}"))
    return settings


def _scoring_plots(folder: Path, out: Path) -> list[Path]:
    from detr_core.plots.scoring import scoring_plots

    return scoring_plots(folder / "scores.json", out)


def _no_settings(folder: Path) -> list[Setting]:
    return []


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _val(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"val/{name}": value for name, value in metrics.items()}


STUDIES = {
    "decoder-nms": Evaluating(_run_decoder_nms, _decoder_nms_settings, _decoder_nms_figures),
    "instance-count": Evaluating(_run_instance_count, _instance_count_settings, _instance_count_plots),
    "encoder-attention": Evaluating(_run_encoder_attention, _no_settings, _encoder_attention_plots),
    "decoder-attention": Evaluating(_run_decoder_attention, _no_settings, _decoder_attention_plots),
    "scoring": Evaluating(_run_scoring, _scoring_settings, _scoring_plots),
}
