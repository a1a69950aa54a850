"""Defines the Prefect flow `studies`, which carries out studies of a profile and records them in MLflow.

Each study has a section in params/<profile>.studies.yaml. `python -m flows.studies [STUDY ...|all] [--profile demo]` carries
out the named studies. With `all` it carries out every study; without a name, those that only evaluate the trained model. If
studies are named, the command also updates the report; `dvc repro` has a stage for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from detr_core.config import as_dict, flatten
from detr_core.studies.evaluating import EVALUATING
from detr_core.studies.study import Setting
from detr_core.wording import counted
from flows import report
from flows.profile.paths import DEFAULT_PROFILE, Paths, relative
from flows.profile.settings import Profile, load
from flows.runtime import arguments as command_line
from flows.runtime import stage_runner
from flows.runtime.one_line_errors import one_line_errors
from flows.runtime.progress import Tee, reporter
from flows.studies import evaluating, plan, training
from flows.studies.selection import ALL, selected
from flows.studies.training import StudyError
from flows.tracking import dead_runs, recorder, ui_addresses
from flows.tracking.prefect_summary import publish


def _flow_run_name() -> str:
    requested = flow_run.parameters.get("study")
    names = [requested] if isinstance(requested, str) else requested or ["studies"]
    return f"{', '.join(names)} {flow_run.parameters.get('profile', DEFAULT_PROFILE)}"


@flow(name="studies", flow_run_name=_flow_run_name, on_running=[dead_runs.tag_flow_run])
def studies(profile: str = DEFAULT_PROFILE, study: str | list[str] | None = None) -> dict[str, float]:
    """Carries out studies of a profile, one after the other. If one fails, the others are still carried out.

    study: a name, several names, or `all`; without it, the studies that only evaluate the trained model are carried out.
    """
    settings = load(profile)
    requested = [study] if isinstance(study, str) else study or []
    names, paths, logger = selected(settings, profile, requested), Paths(profile), get_run_logger()
    whole_stage = not requested or ALL in requested
    if whole_stage:
        evaluating.remove_outdated(settings, paths, logger.info)
    results: dict[str, float] = {}
    failed: list[Exception] = []
    for name in names:
        try:
            if name in settings.studies.evaluating:
                metrics = _carry_out_evaluating(name, settings, paths)
            else:
                metrics = training.carry_out(name, settings, profile)
        except Exception as error:
            if len(names) > 1:
                logger.error("study %s: %s", name, error)
            failed.append(error)
        else:
            results |= {f"{name}/{key}": value for key, value in metrics.items()}
    if whole_stage:
        evaluating.write_list_of_studies(settings, paths)
    if requested and report.is_behind(paths):
        _draw_report(paths)
    if failed and len(names) == 1:
        raise failed[0]
    if failed:
        raise StudyError(
            f"{len(failed)} of {counted(len(names), 'study', 'studies')} failed: {'; '.join(map(str, failed))}"
        ) from failed[0]
    return results


def _draw_report(paths: Paths) -> None:
    """Updates the report, so that it shows the results of the studies that were named."""
    page, logger = relative(paths.report / "index.html"), get_run_logger()
    if (paths.evaluation / "metrics.json").is_file():
        logger.info("%s: writing the report again, so that it shows these results", page)
        report.report(paths.profile)
    else:
        logger.info("%s: the report is not written, because there is no evaluation yet; `dvc repro` makes both", page)


def _carry_out_evaluating(name: str, settings: Profile, paths: Paths) -> dict[str, float]:
    """Carries out a study that evaluates the trained model, as a run in MLflow with a child run for each setting."""
    from detr_core.plots.studies import plots_by_study  # matplotlib takes seconds to import

    folder = paths.evaluating_studies / name
    params = settings.flat("data", "detector") | flatten(as_dict(settings.studies.evaluating[name]), f"studies.{name}.")
    inputs = [paths.data, paths.dataset, paths.detection, paths.panoptic]
    with recorder.stage_run("studies", paths, params, inputs, name=name) as record:
        record.tag("study", name)
        with reporter(name) as bar:
            metrics = evaluating.run_study(name, settings, paths, folder, Tee(bar, record))
            links = record_settings(record, EVALUATING[name].settings(folder))
            if not links:
                record.metrics(metrics, step=0)
            for title, address in links.items():
                bar.message(f"{title}: {ui_addresses.to_open(address)}")
        for file in sorted(folder.iterdir()):
            if file.suffix in (".json", ".csv"):
                record.artifact(file)
        with TemporaryDirectory() as pictures:
            record.plots(plots_by_study()[name].plots(folder, Path(pictures)))
    publish(f"studies-{name}", paths.profile, metrics, links | {"MLflow run": record.url()})
    return metrics


def record_settings(record: recorder.RunRecorder, settings: Sequence[Setting]) -> dict[str, str]:
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
        comparison = ui_addresses.compare_page(children, record.experiment_id)
        links["the page that compares its settings in MLflow"] = comparison
        record.tag(recorder.COMPARISON, ui_addresses.stored(comparison))
    if lines:
        links["the page of its curves in MLflow"] = ui_addresses.chart_page(
            record.run_id, record.experiment_id, list(dict.fromkeys(lines))
        )
    return links


def main() -> None:
    arguments = command_line.parser("studies").parse_args()
    if arguments.plan:
        with one_line_errors():
            plan.show(arguments.profile, arguments.study)
        return
    stage_runner.run(studies, arguments.profile, study=arguments.study)
