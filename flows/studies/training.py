"""Carries out a training study: it trains the variants, several at a time, each as a Prefect task and a run in MLflow."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from detr_core.config import as_dict
from detr_core.errors import ExpectedError
from detr_core.reporter import Reporter, Silent
from detr_core.wording import counted
from flows.profile import stage_results
from flows.profile.paths import Paths, relative
from flows.profile.settings import VARIED, Profile, load
from flows.runtime import launch
from flows.runtime.progress import Lines, Tee
from flows.studies import results, variants
from flows.tracking import recorder, ui_addresses
from flows.tracking.prefect_summary import publish

TRIES = 2  # how often a variant is tried; the second try continues where the first one stopped


class StudyError(ExpectedError, RuntimeError):
    """Some variants of a study failed. The message names each of them with its error."""


class Study:
    """The state of one training study while it runs: its variants, which of them are finished, and which failed.

    Raises DatasetError if the profile has no dataset.
    """

    def __init__(self, name: str, settings: Profile, paths: Paths) -> None:
        stage_results.dataset(paths)
        self.name, self.settings, self.paths, self.config = name, settings, paths, settings.studies.training[name]
        self.variants = {variant.label: variant for variant in variants.variants_of(name, settings)}
        self.digests = {label: variants.build_digests(variant, paths) for label, variant in self.variants.items()}
        self.failed: dict[str, str] = {}
        self._stopped = threading.Event()
        self._slots: queue.Queue[tuple[int, ...] | None] = queue.Queue()
        for share in shares(launch.gpus(settings.resources), settings.resources.side_by_side):
            self._slots.put(share)

    def is_up_to_date(self, label: str) -> bool:
        """Returns whether the variant's results exist and are up to date."""
        return variants.is_up_to_date(self.variants[label], self.paths, self.digests[label])

    def make(self, label: str, reporter: Reporter, run_id: str) -> dict[str, float]:
        """Trains and evaluates one variant on a share of the GPUs, except for results that are up to date; returns its metrics.

        run_id: the MLflow run of the variant.
        """
        with self._slot() as gpus:
            variant = self.variants[label]
            resources = dataclasses.replace(variant.settings.resources, gpus=gpus)
            variant = dataclasses.replace(variant, settings=dataclasses.replace(variant.settings, resources=resources))
            listeners = Tee(_UntilStopped(self._stopped), reporter)
            listeners.message("the variant begins")
            return variants.run(variant, self.paths, self.digests[label], listeners, run_id)

    def stop(self) -> None:
        """Ends the variants that are running; no further variant begins."""
        self._stopped.set()
        launch.stop_all()

    def write(self, intervals: bool) -> dict[str, float]:
        """Writes study.json and study.csv with the finished variants; returns val/AP (or val/PQ) by variant and seed."""
        finished = {label for label in self.variants if self.is_up_to_date(label)}
        file = results.write(self.settings, self.paths, self.name, self.variants, finished, self.failed, intervals)
        return results.key_metrics(file)

    @contextmanager
    def _slot(self) -> Iterator[tuple[int, ...] | None]:
        share = self._slots.get()
        try:
            yield share
        finally:
            self._slots.put(share)


def shares(gpus: tuple[int, ...], side_by_side: int) -> list[tuple[int, ...] | None]:
    """Divides the GPUs evenly among variants that are trained at the same time; with too few GPUs, variants share one.

    Without GPUs each variant gets None.
    """
    if not gpus:
        return [None] * side_by_side
    return [gpus[slot::side_by_side] or (gpus[slot % len(gpus)],) for slot in range(side_by_side)]


class _UntilStopped(Silent):
    """A Reporter that raises StudyError once the study is stopped, which ends the work that reports to it."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None:
        self.message("")

    def message(self, text: str) -> None:
        if self._stopped.is_set():
            raise StudyError("the variant was stopped, because its study was stopped")


def carried_out(name: str, settings: Profile, profile: str) -> dict[str, float]:
    """Runs the flow `study` under the name of the study, with `resources.side_by_side` variants at the same time."""
    at_once: Any = ThreadPoolTaskRunner(max_workers=settings.resources.side_by_side)
    return study.with_options(flow_run_name=f"{name} {profile}", task_runner=at_once)(name, profile)


@flow(name="study")
def study(name: str, profile: str) -> dict[str, float]:
    """Carries out a training study of a profile, as a run in MLflow with a child run for each variant and seed.

    Returns val/AP (or val/PQ) of each. Results that are up to date are not made again. Raises DatasetError before work begins,
    and StudyError at the end if variants failed.
    """
    settings, paths = load(profile), Paths(profile)
    work, logger = Study(name, settings, paths), get_run_logger()
    table = paths.training_studies / name / "study.json"
    unfinished = [label for label in work.variants if not work.is_up_to_date(label)]
    if not unfinished and results.is_complete(table, work.variants, work.config):
        logger.info(
            "%s: all %d variants are up to date, and nothing is done; the table is %s", name, len(work.variants), relative(table)
        )
        return results.key_metrics(table)
    logger.info("%s: %d of %d variants are to be trained or evaluated", name, len(unfinished), len(work.variants))
    params = settings.flat("data", *VARIED, "resources")
    # Mappings are recorded as one value, because a variant's name may hold characters that MLflow forbids in a parameter's name.
    params |= {f"studies.{name}.{key}": value for key, value in as_dict(work.config).items()}
    with recorder.stage_run("studies", paths, params, [paths.data, paths.dataset], sample_seconds=5, name=name) as record:
        record.tag("study", name)
        children = _make_all(work, record)
        metrics = work.write(intervals=True)
        for file in (table, table.with_suffix(".csv")):
            record.artifact(file)
        comparison = ui_addresses.compare_page(
            [children[label] for label in work.variants if label in children], record.experiment_id
        )
        record.tag(recorder.COMPARISON, ui_addresses.stored(comparison))
        logger.info("%s: the page that compares its variants in MLflow: %s", name, ui_addresses.to_open(comparison))
        from detr_core.plots.study import study_plots

        with TemporaryDirectory() as folder:
            record.plots(study_plots(table, Path(folder)))
        if work.failed:
            raise StudyError(
                f"study {name}: {len(work.failed)} of {counted(len(work.variants), 'variant')} failed: "
                + "; ".join(f"{label}: {error}" for label, error in work.failed.items())
            )
    publish(f"studies-{name}", profile, metrics, {"MLflow run": record.url(), "The variants compared": comparison})
    return metrics


def _make_all(work: Study, record: recorder.RunRecorder) -> dict[str, str]:
    """Trains and evaluates every variant in its own task; returns their MLflow runs by label, and adds failures to `work`."""
    children: dict[str, str] = {}

    def variant(label: str) -> None:
        variant_of_label, keys = work.variants[label], results.varied(work.variants[label], work.config.varied)
        params = (
            variant_of_label.settings.flat(*VARIED)
            | results.short_names(keys)
            | {"variant": variant_of_label.name, "seed": variant_of_label.seed}
        )
        with record.child(f"{work.name} {label}", params) as child:
            children[label] = child.run_id
            child.tag("study", work.name)
            metrics = work.make(label, Tee(Lines(label, get_run_logger().info), child), child.run_id)
            variant_paths = variant_of_label.paths(work.paths.profile)
            for name, run_id in variants.makers(variant_paths, work.digests[label]).items():
                if run_id != child.run_id:
                    child.tag(f"reused.{name}", run_id)
            child.metrics(metrics | results.cost_metrics(variant_paths), step=results.last_step(variant_paths))

    retried_task = task(retries=TRIES - 1, cache_policy=NO_CACHE)(variant)  # digests, not Prefect, show what is up to date
    try:
        futures = {}
        for label in work.variants:
            name = f"{work.name} {label}"
            variant_task = retried_task.with_options(name=name, task_run_name=f"{name} {work.paths.profile}")
            futures[variant_task.submit(label)] = label
        for future in as_completed(list(futures)):
            label, outcome = futures[future], future.result(raise_on_failure=False)
            if isinstance(outcome, BaseException):
                work.failed[label] = " ".join(str(outcome).split()) or type(outcome).__name__
                get_run_logger().error("%s: the variant failed: %s", label, work.failed[label])
            work.write(intervals=False)
    except BaseException:  # the user pressed ctrl-c, or the flow run was cancelled
        work.stop()
        raise
    return children
