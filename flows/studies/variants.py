"""Trains and evaluates one variant of a training study; results that are up to date are kept, interrupted ones continued."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detr_core import directories
from detr_core.atomic import write_text
from detr_core.checksums import digest
from detr_core.config import as_dict
from detr_core.data.splits import targets
from detr_core.reporter import Reporter
from flows import evaluate, train_detection, train_panoptic
from flows.profile import stage_results
from flows.profile.paths import ROOT, Paths
from flows.profile.settings import Profile, variants
from flows.runtime.locks import building, exclusive
from flows.studies import evaluating
from flows.studies.digests import COST, STAGES, VALIDATION, code_digest, combined_digest, data_digests

# Only one thread evaluates at a time, because hotcoco's printed summary is caught by replacing stdout for the whole process.
_evaluating = threading.Lock()


@dataclass(frozen=True)
class Variant:
    """One variant of a study under one seed.

    overrides: values by dotted key, with those that the study sets for all variants. settings: the whole profile with these
    values, and with the evaluating studies that are carried out with its detector. trains_mask_head: whether a mask head is
    trained, too; a detector that learns masks by itself has none.
    """

    study: str
    name: str
    seed: int
    overrides: dict[str, Any]
    settings: Profile
    trains_mask_head: bool

    @property
    def label(self) -> str:
        """The name of the variant's folder, such as '6-seed0'."""
        return f"{self.name}-seed{self.seed}"

    def paths(self, profile: str) -> Paths:
        """Returns the paths of the variant's models and evaluation. profile: the profile's name."""
        return Paths(profile, f"{self.study}/{self.label}")


def variants_of(study: str, settings: Profile) -> list[Variant]:
    """Returns the variants of a training study of this profile, each under each seed."""
    config = settings.studies.training[study]
    profiles, overrides = variants(settings, study), config.overrides()

    def trains_head(profile: Profile) -> bool:
        return config.trains_masks and profile.train_panoptic is not None

    return [
        Variant(study, name, seed, config.set | overrides[name], _seeded(profiles[name], seed), trains_head(profiles[name]))
        for name in profiles
        for seed in config.seeds
    ]


def build_digests(variant: Variant, paths: Paths) -> dict[str, str]:
    """Returns, for each result folder of the variant, a digest of its inputs: settings, data and code.

    paths: the paths of the profile. Raises DatasetError if the profile has no dataset.
    """
    settings, digests = variant.settings, {}
    masks = settings.train_panoptic
    inits = {"detection": settings.train_detection.init, "panoptic": masks and masks.init}
    previous = combined_digest(
        data_digests(paths),
        as_dict(settings.detector),
    )
    for folder, stage in STAGES.items():
        if folder != "panoptic" or variant.trains_mask_head:
            init = inits.get(folder)
            init_digest = init and ROOT.joinpath(init.checkpoint).is_file() and digest(ROOT / init.checkpoint)
            previous = digests[folder] = combined_digest(
                previous, init_digest, as_dict(getattr(settings, stage)), code_digest(stage, settings.detector.kind)
            )
    code = code_digest("studies", settings.detector.kind)
    measured = {study: combined_digest(previous, as_dict(config), code) for study, config in settings.studies.evaluating.items()}
    cost = combined_digest(previous, code_digest("evaluate", settings.detector.kind, *COST))
    return digests | {"cost": cost} | measured


def is_up_to_date(variant: Variant, paths: Paths, digests: dict[str, str]) -> bool:
    """Returns whether all results of the variant exist and were made from inputs with these digests.

    paths: the paths of the profile.
    """
    folder = variant.paths(paths.profile).runs
    return all(_has_digest(folder / name, digest) for name, digest in digests.items())


def run(variant: Variant, paths: Paths, digests: dict[str, str], reporter: Reporter, run_id: str) -> dict[str, float]:
    """Makes the results of the variant that are missing or not up to date, and returns its metrics.

    They go to runs/<profile>/studies/training/<study>/<variant>-seed<k>/. Beside each result folder, a JSON file of the same name
    holds the digest of the folder's inputs and `run_id`, the MLflow run that made it. If another variant of any study has a
    result with the same digest, it is copied. Where training and evaluation have a metric of the same name, the evaluation's
    value is returned. Raises the errors of the stages.
    """
    variant_paths = variant.paths(paths.profile)
    work: dict[str, Callable[[Profile, Paths, Reporter], dict[str, float]]] = {
        "detection": train_detection.run,
        "panoptic": train_panoptic.run,
        "evaluation": evaluate.run,
        "cost": _measure_cost,
    }
    for study in variant.settings.studies.evaluating:
        work[study] = partial(_measure, study)
    with exclusive(variant_paths.runs, tell=reporter.message):
        if "panoptic" not in digests:
            directories.remove(variant_paths.panoptic)  # a mask head of an earlier version of the study would be evaluated
        for name, digest in digests.items():
            with exclusive(digest, tell=reporter.message):
                if not _exists_or_copied(variant_paths.runs / name, digest, reporter):
                    with nullcontext() if name in ("detection", "panoptic") else _evaluating:
                        work[name](variant.settings, variant_paths, reporter)
                    # The validations during a training are measured by code on which the training does not depend.
                    measured_by = code_digest("evaluate", variant.settings.detector.kind, *VALIDATION)
                    note = {"build_digest": digest, "mlflow_run": run_id, "measured_by": measured_by}
                    write_text(_note(variant_paths.runs / name), json.dumps(note) + "\n")
        return metrics(variant_paths)


def makers(variant_paths: Paths, names: Iterable[str]) -> dict[str, str]:
    """Returns the MLflow runs that made these result folders of a finished variant, from the JSON files beside the folders."""
    notes = {name: json.loads(_note(variant_paths.runs / name).read_text(encoding="utf-8")) for name in names}
    return {name: note["mlflow_run"] for name, note in notes.items() if "mlflow_run" in note}


def is_measured_by_present_code(variant_paths: Paths, kind: str) -> bool:
    """Returns whether the validations of a variant's training were measured by the present code of the evaluation.

    kind: the kind of its detector.
    """
    note = json.loads(_note(variant_paths.detection).read_text(encoding="utf-8"))
    return bool(note.get("measured_by") == code_digest("evaluate", kind, *VALIDATION))


def metrics(variant_paths: Paths) -> dict[str, float]:
    """Returns the metrics of a finished variant's stages; if two stages have a metric of the same name, the later stage's."""
    merged: dict[str, float] = {}
    for folder in (variant_paths.detection, variant_paths.panoptic, variant_paths.evaluation):
        if (folder / "metrics.json").is_file():
            merged |= json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return merged


def _exists_or_copied(folder: Path, digest: str, reporter: Reporter) -> bool:
    """Returns whether a result folder with this digest exists; if only another variant has one, copies that folder first."""
    if _has_digest(folder, digest):
        reporter.message(f"{folder.name}: the result is up to date; settings, data and code are unchanged")
        return True
    _note(folder).unlink(missing_ok=True)
    studies = folder.parents[2]  # the folder of all training studies
    equal_results = sorted(candidate for candidate in studies.glob(f"*/*/{folder.name}") if _has_digest(candidate, digest))
    if equal_results:
        reporter.message(
            f"{folder.name}: copying the result of {equal_results[0].parent.relative_to(studies)}, which has the same inputs"
        )
        with building(folder, reporter.message) as copy:
            shutil.copytree(equal_results[0], copy, dirs_exist_ok=True)
        write_text(_note(folder), _note(equal_results[0]).read_text(encoding="utf-8"))
    return bool(equal_results)


def _measure(study: str, settings: Profile, variant_paths: Paths, reporter: Reporter) -> dict[str, float]:
    return evaluating.run_study(study, settings, variant_paths, variant_paths.runs / study, reporter)


def _measure_cost(settings: Profile, variant_paths: Paths, reporter: Reporter) -> dict[str, float]:
    from detr_core.data.coco_dataset import CocoDataset  # torch takes seconds to import
    from detr_core.data.transforms import evaluation_transform
    from detr_core.studies.cost import cost

    split, device = stage_results.dataset(variant_paths)["val"], stage_results.device(settings.resources.gpus)
    transform = evaluation_transform(settings.evaluate.resize)
    dataset = CocoDataset(split, targets(split), masks=False, transform=transform, seed=0)
    result = cost(
        stage_results.checkpoint(stage_results.whole_model(variant_paths), variant_paths.profile, device).model, dataset, device
    )
    with building(variant_paths.runs / "cost", reporter.message) as folder:
        (folder / "cost.json").write_text(json.dumps(dataclasses.asdict(result), indent=1), encoding="utf-8")
    return {}


def _seeded(settings: Profile, seed: int) -> Profile:
    detection, panoptic = settings.train_detection, settings.train_panoptic
    return dataclasses.replace(
        settings,
        train_detection=dataclasses.replace(detection, seed=seed),
        train_panoptic=panoptic and dataclasses.replace(panoptic, seed=seed),
    )


def _note(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _has_digest(folder: Path, digest: str) -> bool:
    note = _note(folder)
    return folder.is_dir() and note.is_file() and json.loads(note.read_text(encoding="utf-8"))["build_digest"] == digest
