"""This stage writes one self-contained page of all results. `python -m flows.report [--profile demo]`"""

from __future__ import annotations

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds

from collections.abc import Mapping

from prefect import flow

from detr_core.reporter import Reporter
from flows.profile import stage_results
from flows.profile.paths import DEFAULT_PROFILE, Paths, relative
from flows.profile.settings import Profile, load, unsupported_studies
from flows.runtime import stage_runner
from flows.runtime.locks import building
from flows.runtime.progress import Tee, reporter
from flows.studies.digests import shared_digest
from flows.tracking import recorder, ui_addresses
from flows.tracking.prefect_summary import publish

PAGES = {"The report": "index.html", "The paper's claims": "claims.html"}


def run(settings: Profile, paths: Paths, reporter: Reporter, links: Mapping[str, str] | None = None) -> dict[str, float]:
    """Writes reports/<profile>/index.html and its plots from the results of the earlier stages, and shows `links` on the page.

    The page of the paper's claims is reports/<profile>/claims.html.
    The evaluation is required; other results are shown if they exist. Returns no metrics, because the report computes none.
    Raises DatasetError or StageError before work begins.
    """
    stage_results.dataset(paths)
    stage_results.result(paths, paths.evaluation / "metrics.json", "evaluate")

    from detr_core.plots.claims import ProfileStudies
    from detr_core.plots.report import Results, write_report

    unsupported = unsupported_studies(settings)
    supported = [name for name in settings.studies.all if name not in unsupported]
    profile_studies = ProfileStudies(
        {name: _command(name, paths.profile) for name in supported},
        {name: settings.studies.claims(name) for name in supported},
        shared_digest(paths),
        {name: settings.studies.all[name].paper for name in supported},
    )
    results = Results(paths.profile, paths.dataset, paths.detection, paths.panoptic, paths.evaluation, paths.studies)
    with building(paths.report, reporter.message) as out:
        write_report(results, out, settings.report.pictures, dict(links or {}), profile_studies)
    reporter.message(f"the report: {relative(paths.report / 'index.html')}")
    return {}


def is_behind(paths: Paths) -> bool:
    """Returns whether a study has results that are newer than the page, or the page does not exist."""
    page = paths.report / "index.html"
    page_time = page.stat().st_mtime if page.is_file() else 0.0
    return any(file.stat().st_mtime > page_time for file in paths.studies.glob("*/*/*.json"))


def _command(study: str, profile: str) -> str:
    return f"python -m flows.studies {study}" + ("" if profile == DEFAULT_PROFILE else f" --profile {profile}")


@flow(name="report", flow_run_name="report {profile}")
def report(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Writes the report of a profile."""
    settings, paths = load(profile), Paths(profile)
    inputs = [paths.data, paths.dataset, paths.detection, paths.panoptic, paths.evaluation, paths.evaluating_studies]
    with recorder.stage_run("report", paths, settings.flat("report"), inputs) as record:
        with reporter("report") as bar:
            links = {name: ui_addresses.to_open(address) for name, address in record.links().items()}
            metrics = run(settings, paths, Tee(bar, record), links)
        pages = {
            name: paths.report / file
            for name, file in PAGES.items()
            if (paths.report / file).is_file()  # a profile without claims has no page of them
        }
        for page in pages.values():
            record.artifact(page, "report")
    shown = {name: relative(page) for name, page in pages.items()}
    publish("report", profile, metrics, shown | {"MLflow run": record.url()})
    return metrics


def main() -> None:
    stage_runner.main("report", report)


if __name__ == "__main__":
    main()
