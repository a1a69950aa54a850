"""Records each stage as a run in MLflow.

Runs go to a SQLite file of the project, or to the server that MLFLOW_TRACKING_URI names. The report page shows the addresses of
runs; nothing else in a result depends on them. If a run can't be started, the stage stops before its work begins. If MLflow
fails later, for example because its server ends while a model trains, a warning is logged and the stage continues.
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
    # MLflow's defaults, 7 tries of 120 s each, would stop a training for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}.items():
    os.environ.setdefault(_name, _value)  # this comes before the import of mlflow, which reads these variables

import mlflow
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from detr_core.data.annotations import Targets
from detr_core.errors import ExpectedError
from detr_core.redaction import without_credentials
from detr_core.sources.manifest import read_manifest
from flows.profile.paths import ROOT, Paths, relative
from flows.runtime import processes
from flows.runtime.locks import exclusive
from flows.tracking import dead_runs, lineage, model_record, snapshot, ui_addresses
from flows.tracking.tracking_address import FOLDER, public_uri, tracking_uri

BATCH = 500  # the number of metrics in one request; MLflow accepts at most 1,000
SECONDS_BETWEEN_BATCHES = 5.0
SECONDS_AFTER_FAILURE = 60.0
KIND = {"mlflow.experimentKind": "custom_model_development"}  # with this tag MLflow's UI shows the pages for model training
SHOWN = {"val/AP": "AP", "val/AP50": "AP50", "val/mask/AP": "mask AP", "val/PQ": "PQ"}  # metrics in the list of runs
COMPARISON = "comparison"  # this tag of a study's run holds the address of the page that compares its child runs
RERUN_OF = "rerun.of"  # this tag of a repetition holds the id of the run that it repeats
FORMER_RERUN_OF = "again.of"  # the name of this tag in runs of earlier versions
log = logging.getLogger(__name__)


class TrackingError(ExpectedError, RuntimeError):
    """MLflow can't record a run. The message names its address and says what to do."""


def prepare(experiment: str) -> str:
    """Returns the id of the experiment of this name; creates the experiment and the database if they do not exist.

    Only one process at a time does this, because the first use of a database runs MLflow's migrations, which fail if two
    processes run them at the same time. Raises TrackingError.
    """
    uri = tracking_uri()
    mlflow.set_tracking_uri(uri)
    # Artifacts are stored beside the database. By default MLflow would store them below the working directory.
    folder = Path(uri.removeprefix("sqlite:///")).resolve().parent if uri.startswith("sqlite:///") else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # it warns about environments without pip
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns at each try of a request
    try:
        with FileLock(folder / "prepare.lock"):
            client = mlflow.MlflowClient()
            existing = client.get_experiment_by_name(experiment)
            if existing is not None:
                for name, value in (KIND | ui_addresses.VIEW).items():
                    if existing.tags.get(name) != value:  # an earlier version of the project created the experiment
                        client.set_experiment_tag(existing.experiment_id, name, value)
                return str(existing.experiment_id)
            # a server has its own place for artifacts
            location = None if uri.startswith("http") else (folder / "artifacts").as_uri()
            return str(client.create_experiment(experiment, location, tags=KIND | ui_addresses.VIEW))
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"MLflow at {public_uri()}: {reason(error)}; start the server, or unset MLFLOW_TRACKING_URI to record in the project"
        ) from None


def reason(error: Exception) -> str:
    """Returns the message of MLflow's error as one line without credentials."""
    text = str(error).strip() or type(error).__name__
    return "no server answers" if "Max retries exceeded" in text else without_credentials(text.splitlines()[0])[:300]


class RunRecorder:
    """One run in MLflow, open while a stage works. As a Reporter it records metrics, and ignores progress and messages."""

    def __init__(self, run_id: str, experiment_id: str) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self._client = mlflow.MlflowClient()
        self._pending: list[Metric] = []
        self._reached: dict[str, float] = {}  # the last values of the metrics that the list of runs shows
        self._send_at = time.monotonic() + SECONDS_BETWEEN_BATCHES

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None: ...

    def message(self, text: str) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Records named scalars at a step. They are sent to MLflow in batches, the last batch when the run ends."""
        now = int(time.time() * 1000)
        self._pending += [Metric(name, float(value), now, step) for name, value in values.items()]
        self._reached |= {label: values[name] for name, label in SHOWN.items() if name in values}
        if time.monotonic() >= self._send_at:
            self.send()

    def send(self) -> None:
        """Sends the metrics that have not been sent; if MLflow fails, they are kept for the next try."""
        self._send_at = time.monotonic() + SECONDS_AFTER_FAILURE
        with _warning_only("record metrics"):
            while self._pending:
                self._client.log_batch(self.run_id, metrics=self._pending[:BATCH])
                del self._pending[:BATCH]
            self._send_at = time.monotonic() + SECONDS_BETWEEN_BATCHES

    def params(self, values: Mapping[str, object]) -> None:
        """Records flat parameters, `section.key: value`, with values as JSON texts. Credentials in addresses are removed."""
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        params = [Param(key, without_credentials(text)) for key, text in texts.items()]
        for start in range(0, len(params), 100):  # MLflow accepts at most 100 parameters in a batch
            self._client.log_batch(self.run_id, params=params[start : start + 100])

    def tag(self, name: str, value: str) -> None:
        """Sets a tag of the run. Credentials in addresses are removed."""
        with _warning_only(f"record the tag {name}"):
            self._client.set_tag(self.run_id, name, without_credentials(value))

    def describe(self, name: str, description: str) -> None:
        """Sets the run's name and description for the list of runs, with the last values of its main metrics."""
        reached = [f"{label} {value:.3f}" for label, value in self._reached.items()]
        self.tag("mlflow.runName", f"{name}, {reached[0]}" if reached else name)
        self.tag("mlflow.note.content", f"{description}{': ' if reached else ''}{', '.join(reached)}.")

    def dataset(self, folder: Path, digest: str | None, context: str) -> None:
        """Records a dataset folder as the run's input. digest: its DVC hash, if DVC has one; context: the dataset's use.

        For a dataset that is read in place, the recorded source is the folder with the images, and the recorded profile has the
        dataset's manifest.
        """
        manifest = read_manifest(folder)
        source_folder = folder if manifest is None else Path(manifest["root"])
        source = json.dumps({"uri": relative(source_folder)})
        profile = json.dumps({"dvc": digest, **({} if manifest is None else {"manifest": manifest})})
        manifest_digest = manifest and hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:32]
        entity = Dataset(folder.name, digest or manifest_digest or "not-in-dvc", "local", source, profile=profile)
        self._client.log_inputs(self.run_id, datasets=[DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

    def plots(self, files: Sequence[Path], folder: str = "plots") -> None:
        """Adds plots and pictures to the run's artifacts, in `folder`."""
        for file in files:
            self.artifact(file, folder)

    def artifact(self, file: Path, folder: str | None = None) -> None:
        """Adds a file to the run's artifacts."""
        with _warning_only(f"record {file.name}"):
            self._client.log_artifact(self.run_id, str(file), folder)

    def model(self, checkpoint: Path, evaluate: Mapping[str, object], masks: Targets | None = None) -> None:
        """Adds the checkpoint as the run's model; see flows/tracking/model_record.py for `evaluate` and `masks`."""
        with _warning_only("record the model"):
            model_record.log_model(checkpoint, evaluate, masks)

    @contextmanager
    def child(self, name: str, params: Mapping[str, object]) -> Iterator[RunRecorder]:
        """Starts a child run of this run, for one setting or variant of a study, and ends it with the block."""
        tags = {"mlflow.parentRunId": self.run_id} | processes.described()
        run_id = self._client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id
        child = RunRecorder(run_id, self.experiment_id)
        with _ending(child, partial(self._client.set_terminated, run_id)):
            child.params(params)
            yield child

    def url(self) -> str:
        """Returns the address of the run's page in MLflow's UI."""
        return ui_addresses.run_page(self.run_id, self.experiment_id)

    def links(self) -> dict[str, str]:
        """Returns addresses in MLflow's UI: the profile's runs, and for each study the page that compares its latest results."""
        links: dict[str, str] = {}
        runs = self._client.search_runs(
            [self.experiment_id], f"tags.{COMPARISON} LIKE '%'", max_results=200, order_by=["attributes.start_time DESC"]
        )
        for run in runs:
            if not {RERUN_OF, FORMER_RERUN_OF} & run.data.tags.keys():
                study = run.data.tags.get("study", run.data.tags["stage"])
                links.setdefault(f"{study} compared in MLflow", ui_addresses.restored(run.data.tags[COMPARISON]))
        return {"all runs in MLflow": ui_addresses.experiment_page(self.experiment_id)} | dict(sorted(links.items()))


class _SystemMetrics(SystemMetricsMonitor):
    """MLflow's monitor of the machine, restarted after a while if it ends because MLflow's server fails."""

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
) -> Iterator[RunRecorder]:
    """Records a stage as a run in MLflow, with parameters, lineage and system metrics, while the block does the stage's work.

    The run ends as FINISHED, as FAILED after an error, or as KILLED if the stage is interrupted.
    inputs: the folders of earlier stages that the stage reads; if the profile's dataset is one of them, it becomes the run's
    input. sample_seconds: the time between two samples of system metrics, unless MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL is set.
    name: the name of the run, if it is not the stage's name.
    The results of the stage are locked during the block, so that the recorded results are those of this command.
    Raises TrackingError before any work if MLflow can't be reached.
    """
    outputs = [ROOT / output for output in snapshot.outputs(stage, paths, name)]
    with exclusive(*outputs, tell=log.warning), _recorded(stage, paths, params, inputs, sample_seconds, name) as record:
        yield record


@contextmanager
def _recorded(
    stage: str, paths: Paths, params: Mapping[str, object], inputs: Sequence[Path], sample_seconds: float, name: str | None
) -> Iterator[RunRecorder]:
    experiment_id = prepare(f"detr {paths.profile}")
    tags = {"stage": stage, "profile": paths.profile, "mlflow.source.name": f"flows.{stage}"} | lineage.tags(paths, inputs)
    tags |= processes.described()
    tags = {name: without_credentials(value) for name, value in tags.items()}
    mark_dead_runs()
    title = f"{name or stage} {paths.profile}"
    run = mlflow.start_run(experiment_id=experiment_id, run_name=title, tags=tags, log_system_metrics=False)
    record = RunRecorder(run.info.run_id, experiment_id)
    monitor = _SystemMetrics(record.run_id, sampling_interval=sample_seconds)  # type: ignore[no-untyped-call]
    monitor.start()  # type: ignore[no-untyped-call]
    with _ending(record, mlflow.end_run):
        try:
            record.params(params)
            if paths.data in inputs:
                record.dataset(
                    paths.data, tags.get(f"dvc.{relative(paths.data)}"), "training" if "train" in stage else "evaluation"
                )
            snapshot.keep(record, paths)
            yield record
            subject = f"Study {name}" if name else f"Stage {stage}"
            record.describe(title, f"{subject} of profile {paths.profile}")
            snapshot.keep_results(record, stage, paths, name)
        finally:
            monitor.finish()  # type: ignore[no-untyped-call]


def mark_dead_runs() -> None:
    """Marks runs of this machine whose process has ended; see dead_runs.py. Call it after `prepare`."""
    with _warning_only("mark runs whose process has ended"):
        dead_runs.mark_in_mlflow(mlflow.MlflowClient())


@contextmanager
def _ending(record: RunRecorder, terminate: Callable[[str], None]) -> Iterator[None]:
    """Ends the run with the block, with the status FINISHED, FAILED after an error, or KILLED after an interruption."""
    status = "FINISHED"
    try:
        yield
    except Exception as error:
        status = "FAILED"
        record.tag("error", f"{type(error).__name__}: {error}"[:5000])
        raise
    except BaseException:  # the user pressed ctrl-c, or the Prefect run was cancelled
        status = "KILLED"
        raise
    finally:
        record.send()
        with _warning_only("record the end of the run"):
            terminate(status)


@contextmanager
def _warning_only(action: str) -> Iterator[None]:
    """Turns an error of MLflow in the block into a warning, because the stage's work doesn't depend on it.

    action: what MLflow could not do after such an error, for the warning: `record metrics`.
    """
    try:
        yield
    except (MlflowException, OSError) as error:
        log.warning("MLflow at %s could not %s: %s", public_uri(), action, reason(error))
