"""The record: each stage's run in MLflow. With recorded.py, which reads one back, the only file that imports mlflow.

Runs go to a SQLite file of the project, or to the server that MLFLOW_TRACKING_URI names. No stage reads them back: its result
depends on no record. So a record that can't be begun stops the stage before its work, and one that breaks later (a server that
went away while a model trained for days) is told of and leaves the stage alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

for _name, _value in {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # MLflow's own 7 tries of 120 s each would hold up a training for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}.items():
    os.environ.setdefault(_name, _value)  # before the import, which reads them

import mlflow
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from detr_core.data.manifest import read_manifest
from detr_core.errors import ExpectedError
from detr_core.redaction import without_credentials
from flows import dead_runs, lineage, model_record, origin, pages, processes
from flows.locks import exclusive
from flows.paths import ROOT, Paths, relative
from flows.tracking_address import FOLDER, shown
from flows.tracking_address import tracking_uri as tracking_uri

BATCH = 500  # metrics a request; MLflow takes 1,000 at most
SECONDS_BETWEEN_BATCHES = 5.0
SECONDS_AFTER_FAILURE = 60.0
KIND = {"mlflow.experimentKind": "custom_model_development"}  # of experiment; the UI shows training's pages for it
SHOWN = {"val/AP": "AP", "val/AP50": "AP50", "val/mask/AP": "mask AP", "val/PQ": "PQ"}  # metric: its name in the list of runs
COMPARISON = "comparison"  # the tag of a study's run that holds the page of its runs, compared
AGAIN = "again.of"  # the tag of a run that does another again: that one's id
log = logging.getLogger(__name__)


class TrackingError(ExpectedError, RuntimeError):
    """The record can't be begun. The message names the address and says what to do."""


def prepare(experiment: str) -> str:
    """The id of the experiment of this name; makes it, and the database where there is none yet.

    One process at a time: MLflow's first use of a database runs its migrations, which fail when two do it at once.
    Raises TrackingError.
    """
    uri = tracking_uri()
    mlflow.set_tracking_uri(uri)
    # A database's artifacts lie beside it; by default MLflow puts them below the working directory.
    folder = Path(uri.removeprefix("sqlite:///")).resolve().parent if uri.startswith("sqlite:///") else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # misses pip in environments without it
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # tells of each try
    try:
        with FileLock(folder / "prepare.lock"):
            client = mlflow.MlflowClient()
            known = client.get_experiment_by_name(experiment)
            if known is not None:
                for name, value in (KIND | pages.VIEW).items():
                    if known.tags.get(name) != value:  # made by an earlier version
                        client.set_experiment_tag(known.experiment_id, name, value)
                return str(known.experiment_id)
            place = None if uri.startswith("http") else (folder / "artifacts").as_uri()  # a server knows where its own go
            return str(client.create_experiment(experiment, place, tags=KIND | pages.VIEW))
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"MLflow at {shown()}: {reason(error)}; start it, or unset MLFLOW_TRACKING_URI to record in the project"
        ) from None


def reason(error: Exception) -> str:
    """What MLflow's error says, in one line without credentials."""
    text = str(error).strip() or type(error).__name__
    return "no server answers" if "Max retries exceeded" in text else without_credentials(text.splitlines()[0])[:300]


class Record:
    """One run in MLflow, open while a stage works. It listens as a Reporter: metrics are recorded, progress is not."""

    def __init__(self, run_id: str, experiment_id: str) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self._client = mlflow.MlflowClient()
        self._pending: list[Metric] = []
        self._reached: dict[str, float] = {}  # what a reader of the list of runs looks for
        self._send_at = time.monotonic() + SECONDS_BETWEEN_BATCHES

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None: ...

    def message(self, text: str) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Named scalars at a step; they reach MLflow in batches, the last of them when the run ends."""
        now = int(time.time() * 1000)
        self._pending += [Metric(name, float(value), now, step) for name, value in values.items()]
        self._reached |= {label: values[name] for name, label in SHOWN.items() if name in values}
        if time.monotonic() >= self._send_at:
            self.send()

    def send(self) -> None:
        """Sends the metrics that wait; where MLflow doesn't take them they wait for the next try."""
        self._send_at = time.monotonic() + SECONDS_AFTER_FAILURE
        with _told("metrics"):
            while self._pending:
                self._client.log_batch(self.run_id, metrics=self._pending[:BATCH])
                del self._pending[:BATCH]
            self._send_at = time.monotonic() + SECONDS_BETWEEN_BATCHES

    def params(self, values: Mapping[str, object]) -> None:
        """Flat parameters, `section.key: value`; null, true and lists as JSON has them. Credentials of addresses are removed."""
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        params = [Param(key, without_credentials(text)) for key, text in texts.items()]
        for start in range(0, len(params), 100):  # MLflow's limit of a batch
            self._client.log_batch(self.run_id, params=params[start : start + 100])

    def tag(self, name: str, value: str) -> None:
        """A word about the run that isn't a parameter. Credentials of addresses in it are removed."""
        with _told(f"the tag {name}"):
            self._client.set_tag(self.run_id, name, without_credentials(value))

    def describe(self, name: str, about: str) -> None:
        """The run's name and description for the list of runs, with the figures that it has reached."""
        reached = [f"{label} {value:.3f}" for label, value in self._reached.items()]
        self.tag("mlflow.runName", f"{name}, {reached[0]}" if reached else name)
        self.tag("mlflow.note.content", f"{about}{': ' if reached else ''}{', '.join(reached)}.")

    def dataset(self, folder: Path, digest: str | None, context: str) -> None:
        """A dataset folder as the run's input. digest: its DVC hash, None where DVC has none; context: what it is used for.

        Of one that is read in place the source is where it lies, and the profile what its manifest says of it.
        """
        known = read_manifest(folder)
        where = folder if known is None else Path(known["root"])
        source = json.dumps({"uri": relative(where)})
        profile = json.dumps({"dvc": digest, **({} if known is None else {"manifest": known})})
        own = None if known is None else hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]
        entity = Dataset(folder.name, digest or own or "not-in-dvc", "local", source, profile=profile)
        self._client.log_inputs(self.run_id, datasets=[DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

    def figures(self, files: Sequence[Path], folder: str = "figures") -> None:
        """Pictures, shown in the run's artifacts below `folder`."""
        for file in files:
            self.artifact(file, folder)

    def artifact(self, file: Path, folder: str | None = None) -> None:
        """A file of results."""
        with _told(file.name):
            self._client.log_artifact(self.run_id, str(file), folder)

    def model(self, checkpoint: Path, evaluate: Mapping[str, object], masks: bool = False) -> None:
        """The checkpoint as the run's model; see flows/model_record.py for `evaluate` and `masks`."""
        with _told("the model"):
            model_record.log_model(checkpoint, evaluate, masks)

    @contextmanager
    def child(self, name: str, params: Mapping[str, object]) -> Iterator[Record]:
        """A run below this one: one setting of an ablation."""
        tags = {"mlflow.parentRunId": self.run_id} | processes.described()
        run_id = self._client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id
        child = Record(run_id, self.experiment_id)
        with _ending(child, partial(self._client.set_terminated, run_id)):
            child.params(params)
            yield child

    def url(self) -> str:
        """The run's page in MLflow's UI."""
        return pages.run_page(self.run_id, self.experiment_id)

    def links(self) -> dict[str, str]:
        """Pages of MLflow's UI for a reader of the profile's results: its runs, and the last run of each study compared."""
        links: dict[str, str] = {}
        runs = self._client.search_runs(
            [self.experiment_id], "tags.stage = 'ablations'", max_results=200, order_by=["attributes.start_time DESC"]
        )
        for run in runs:
            if COMPARISON in run.data.tags and AGAIN not in run.data.tags:
                study = run.data.tags.get("study", run.data.tags["stage"])
                links.setdefault(f"{study} compared in MLflow", pages.restored(run.data.tags[COMPARISON]))
        return {"all runs in MLflow": pages.experiment_page(self.experiment_id)} | dict(sorted(links.items()))


class _SystemMetrics(SystemMetricsMonitor):
    """MLflow's monitor of the machine. That one ends at the first failure of MLflow's server; this one begins again later."""

    def monitor(self) -> None:
        while not self._shutdown_event.is_set():
            super().monitor()  # type: ignore[no-untyped-call]
            self._shutdown_event.wait(SECONDS_AFTER_FAILURE)


@contextmanager
def stage_run(
    stage: str,
    paths: Paths,
    params: Mapping[str, object],
    inputs: Sequence[Path],
    sample_seconds: float = 1.0,
    name: str | None = None,
) -> Iterator[Record]:
    """The record of a stage while it works: params, lineage and system metrics; FAILED or KILLED where it doesn't end well.

    inputs: what it reads of earlier stages; the profile's dataset among them becomes the run's input.
    sample_seconds: between two samples of system metrics, unless MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL says otherwise. name:
    of the run, where it isn't the stage's.
    The results of the stage are locked meanwhile: what is recorded is what this command has made.
    Raises TrackingError before any work where MLflow can't be reached.
    """
    own = [ROOT / output for output in origin.outputs(stage, paths) if name is None or Path(output).name == name]
    with exclusive(*own, tell=log.warning), _recorded(stage, paths, params, inputs, sample_seconds, name) as record:
        yield record


@contextmanager
def _recorded(
    stage: str, paths: Paths, params: Mapping[str, object], inputs: Sequence[Path], sample_seconds: float, name: str | None
) -> Iterator[Record]:
    experiment_id = prepare(f"detr {paths.profile}")
    tags = {"stage": stage, "profile": paths.profile, "mlflow.source.name": f"flows.{stage}"} | lineage.tags(paths, inputs)
    tags |= processes.described()
    tags = {name: without_credentials(value) for name, value in tags.items()}
    mark_dead_runs()
    title = f"{name or stage} {paths.profile}"
    run = mlflow.start_run(experiment_id=experiment_id, run_name=title, tags=tags, log_system_metrics=False)
    record = Record(run.info.run_id, experiment_id)
    monitor = _SystemMetrics(record.run_id, sampling_interval=sample_seconds)  # type: ignore[no-untyped-call]
    monitor.start()  # type: ignore[no-untyped-call]
    with _ending(record, mlflow.end_run):
        try:
            record.params(params)
            if paths.data in inputs:
                record.dataset(
                    paths.data, tags.get(f"dvc.{relative(paths.data)}"), "training" if "train" in stage else "evaluation"
                )
            origin.keep(record, paths)
            yield record
            what = f"Study {name}" if name else f"Stage {stage}"
            record.describe(title, f"{what} of profile {paths.profile}")
            origin.keep_results(record, stage, paths, name)
        finally:
            monitor.finish()  # type: ignore[no-untyped-call]


def mark_dead_runs() -> None:
    """Runs of this machine whose process has ended are marked; see dead_runs.py. To be called after `prepare`."""
    with _told("the mark of runs whose process has ended"):
        dead_runs.mark_in_mlflow(mlflow.MlflowClient())


@contextmanager
def _ending(record: Record, terminate: Callable[[str], None]) -> Iterator[None]:
    """Ends the run as its block ends: well, with an error, or interrupted."""
    status = "FINISHED"
    try:
        yield
    except Exception as error:
        status = "FAILED"
        record.tag("error", f"{type(error).__name__}: {error}"[:5000])
        raise
    except BaseException:  # ctrl-c, or the signal that cancels a Prefect run
        status = "KILLED"
        raise
    finally:
        record.send()
        with _told("the end of the run"):
            terminate(status)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """MLflow's refusal of `what` becomes a warning: the stage's work doesn't depend on its record."""
    try:
        yield
    except (MlflowException, OSError) as error:
        log.warning("MLflow at %s doesn't take %s: %s", shown(), what, reason(error))
