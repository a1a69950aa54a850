"""Defines the stage `studies`, which carries out the studies of a profile that only evaluate the trained detector."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from detr_core import directories
from detr_core.atomic import write_text
from detr_core.reporter import Reporter
from detr_core.studies.evaluating import EVALUATING
from detr_core.studies.study import StudyInputs
from flows.profile import stage_results
from flows.profile.paths import Paths, relative
from flows.profile.settings import Profile, unsupported_studies
from flows.runtime import launch
from flows.runtime.locks import building, exclusive
from flows.studies.selection import selected

STUDIES_LIST = "studies.json"  # lists the carried-out studies; with it the folder of a profile without such studies is not empty


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Carries out every evaluating study of the profile, and writes each to runs/<profile>/studies/evaluating/<study>/.

    Returns the content of their metrics.json, with names such as `study/name`. Raises DatasetError, StageError or CheckpointError
    before work begins, and ForeignFileError if the folder holds a file that no command wrote.
    """
    metrics: dict[str, float] = {}
    remove_outdated(settings, paths, reporter.message)
    for study in selected(settings, paths.profile, []):
        results = run_study(study, settings, paths, paths.evaluating_studies / study, reporter)
        metrics |= {f"{study}/{name}": value for name, value in results.items()}
    write_list_of_studies(settings, paths)
    return metrics


def run_study(study: str, settings: Profile, paths: Paths, results: Path, reporter: Reporter) -> dict[str, float]:
    """Carries out one study, and returns the content of its metrics.json.

    results: its folder of results, which is replaced only when the study has succeeded. Raises DatasetError, StageError or
    CheckpointError before work begins, and ConfigError if the detector lacks the part that the study examines.
    """
    import torch  # torch takes seconds to import

    splits, file = stage_results.dataset(paths), stage_results.studied_detector(settings, paths)
    torch.set_num_threads(min(torch.get_num_threads(), launch.cores()))  # more threads than cores would wait for each other
    device = stage_results.device(settings.resources.gpus)
    trained = stage_results.checkpoint(file, paths.profile, device)
    workers = launch.worker_count(settings.resources, processes=1)
    inputs = StudyInputs(trained.model, trained.categories, file, splits, device, workers, reporter)
    with building(results, reporter.message) as folder:
        EVALUATING[study].run(inputs, settings.studies.evaluating[study], folder)
        metrics: dict[str, float] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def remove_outdated(settings: Profile, paths: Paths, report: Callable[[str], None]) -> None:
    """Reports the studies that do not support the profile's detector, and removes results of studies that are not carried out.

    Such a study is not, or no longer, in the profile, or does not support its detector. Raises ForeignFileError or StageError,
    and removes nothing more, if there is a file that no command wrote.
    """
    for study in unsupported_studies(settings):
        report(f"study {study}: it is left out, because it does not support detectors of kind {settings.detector.kind!r}")
    _require_list(paths.evaluating_studies / STUDIES_LIST)
    names_to_keep = {*selected(settings, paths.profile, []), STUDIES_LIST}
    existing = sorted(paths.evaluating_studies.iterdir()) if paths.evaluating_studies.is_dir() else []
    for folder in existing:
        if folder.name not in names_to_keep and not folder.name.startswith("."):  # temporary folders start with a dot
            with exclusive(folder, tell=report):
                directories.remove(folder)
            report(f"{relative(folder)}: removed, because the profile has no such study for its detector")


def write_list_of_studies(settings: Profile, paths: Paths) -> None:
    """Lists the profile's evaluating studies that support its detector in a file, so that DVC finds a folder with content."""
    paths.evaluating_studies.mkdir(parents=True, exist_ok=True)
    write_text(paths.evaluating_studies / STUDIES_LIST, json.dumps(selected(settings, paths.profile, [])) + "\n")


def _require_list(file: Path) -> None:
    """Raises StageError if `file` exists and was not written by `write_list_of_studies`, because it would be replaced."""
    if not file.exists():
        return
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        is_list = isinstance(content, list) and all(isinstance(name, str) for name in content)
    except (OSError, ValueError):
        is_list = False
    if not is_list:
        raise stage_results.StageError(f"{relative(file)}: expected a list of studies, found another file; move it elsewhere")
