"""This stage carries out the paper's studies. `python -m flows.ablations [STUDY ...|all] [--profile demo]`

Each study has a section in the profile's `ablations`. Without a name the command carries out the studies that only evaluate the
trained model; with `all` also the studies that train variants. If studies are named, the command also updates the report;
`dvc repro` has a stage for that.
"""

from __future__ import annotations

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from detr_core.config import as_dict, flatten
from detr_core.reporter import Reporter
from detr_core.studies.config import EVALUATING
from detr_core.wording import counted
from flows import report
from flows.profile.paths import DEFAULT_PROFILE, Paths, relative
from flows.profile.settings import Profile, left_out, load
from flows.runtime import stage_runner
from flows.runtime.locks import building
from flows.runtime.progress import Tee, reporter
from flows.studies import evaluating, training
from flows.studies.selection import ALL, selected
from flows.studies.training import StudyError
from flows.tracking import dead_runs, recorder, ui_addresses
from flows.tracking.prefect_summary import publish


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Carries out the studies that only evaluate, and writes the results of each to runs/<profile>/studies/<study>/.

    Returns the content of their metrics.json, with names such as `study/name`. Raises DatasetError, StageError or CheckpointError
    before work begins.
    """
    found: dict[str, float] = {}
    _leave_out(settings, paths, reporter.message)
    for name in selected(settings, paths.profile, []):
        found |= {f"{name}/{key}": value for key, value in evaluating.run(name, settings, paths, reporter).items()}
    return found


def _flow_run_name() -> str:
    asked = flow_run.parameters.get("study")
    names = [asked] if isinstance(asked, str) else asked or ["ablations"]
    return f"{', '.join(names)} {flow_run.parameters.get('profile', DEFAULT_PROFILE)}"


@flow(name="ablations", flow_run_name=_flow_run_name, on_running=[dead_runs.claim])
def ablations(profile: str = DEFAULT_PROFILE, study: str | list[str] | None = None) -> dict[str, float]:
    """Carries out studies of a profile, one after the other. If one fails, the others are carried out all the same.

    study: a name, several names, or `all`; without it, the studies that only evaluate the trained model are carried out.
    """
    settings = load(profile)
    asked = [study] if isinstance(study, str) else study or []
    names, logger = selected(settings, profile, asked), get_run_logger()
    if not asked or ALL in asked:
        _leave_out(settings, Paths(profile), logger.info)
    found: dict[str, float] = {}
    failed: list[Exception] = []
    for name in names:
        try:
            if name in EVALUATING:
                metrics = _evaluated(name, settings, Paths(profile))
            else:
                metrics = training.carried_out(name, settings, profile)
        except Exception as error:
            if len(names) > 1:
                logger.error("study %s: %s", name, error)
            failed.append(error)
        else:
            found |= {f"{name}/{key}": value for key, value in metrics.items()}
    if asked and report.is_behind(Paths(profile)):
        _draw_report(Paths(profile))
    if failed and len(names) == 1:
        raise failed[0]
    if failed:
        raise StudyError(
            f"{len(failed)} of {counted(len(names), 'study', 'studies')} failed: {'; '.join(map(str, failed))}"
        ) from failed[0]
    return found


def _draw_report(paths: Paths) -> None:
    """Updates the report, so that it shows the results of the studies that were named."""
    page, logger = relative(paths.report / "index.html"), get_run_logger()
    if (paths.evaluation / "metrics.json").is_file():
        logger.info("%s: writing the report again, so that it shows these results", page)
        report.report(paths.profile)
    else:
        logger.info("%s: the report is not written, because there is no evaluation yet; `dvc repro` makes both", page)


def _leave_out(settings: Profile, paths: Paths, say: Callable[[str], None]) -> None:
    """Reports the studies that do not support the profile's detector, and makes the folders that DVC expects for them."""
    for name in left_out(settings):
        reason = f"study {name}: it is left out, because it does not support detectors of kind {settings.detector.kind!r}"
        say(reason)
        if name in EVALUATING:
            with building(paths.study(name), say) as folder:
                (folder / "left-out.txt").write_text(f"{reason}\n", encoding="utf-8")  # DVC warns of empty folders


def _evaluated(name: str, settings: Profile, paths: Paths) -> dict[str, float]:
    """Carries out a study that evaluates the trained model, as a run in MLflow with a child run for each setting."""
    folder = paths.study(name)
    params = settings.flat("data", "detector") | flatten(as_dict(settings.ablations[name]), f"ablations.{name}.")
    inputs = [paths.data, paths.dataset, paths.detection, paths.panoptic]
    with recorder.stage_run("ablations", paths, params, inputs, name=name) as record:
        record.tag("study", name)
        with reporter(name) as bar:
            metrics = evaluating.run(name, settings, paths, Tee(bar, record))
            links = record_settings(record, evaluating.STUDIES[name].settings(folder))
            if not links:
                record.metrics(metrics, step=0)
            for what, address in links.items():
                bar.message(f"{what}: {ui_addresses.to_open(address)}")
        for file in sorted(folder.iterdir()):
            if file.suffix in (".json", ".csv"):
                record.artifact(file)
        with TemporaryDirectory() as pictures:
            record.plots(evaluating.STUDIES[name].plots(folder, Path(pictures)))
    publish(f"ablations-{name}", paths.profile, metrics, links | {"MLflow run": record.url()})
    return metrics


def record_settings(record: recorder.RunRecorder, settings: Sequence[evaluating.Setting]) -> dict[str, str]:
    """Records a child run for each setting, and the same metrics as series in the parent; returns pages that show them."""
    children: list[str] = []
    lines: list[str] = []
    for setting in settings:
        with record.child(setting.name, setting.params) as child:
            for step, metrics in setting.metrics.items():
                child.metrics(metrics, step)
                if setting.series:
                    record.metrics({f"{name}/{setting.series}": value for name, value in metrics.items()}, step)
                    lines.append(f"{next(iter(metrics))}/{setting.series}")
        children.append(child.run_id)
    links = {}
    if children:
        links["its settings compared in MLflow"] = ui_addresses.compare_page(children, record.experiment_id)
        record.tag(recorder.COMPARISON, ui_addresses.stored(links["its settings compared in MLflow"]))
    if lines:
        links["its curves in MLflow"] = ui_addresses.chart_page(record.run_id, record.experiment_id, list(dict.fromkeys(lines)))
    return links


def main() -> None:
    arguments = command_line.parser("ablations").parse_args()
    stage_runner.run(ablations, arguments.profile, study=arguments.study)


if __name__ == "__main__":
    main()
