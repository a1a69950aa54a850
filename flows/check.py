"""This stage checks every annotation and every image before training. `python -m flows.check [--profile demo]`"""

from __future__ import annotations

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import flow
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from detr_core import directories
from detr_core.check.findings import FINDING_KINDS, Finding, counts
from detr_core.data.splits import DatasetError, Split, read_dataset
from detr_core.directories import atomic_directory
from detr_core.model.spec import object_count
from detr_core.reporter import Reporter
from detr_core.wording import counted
from flows.profile import stage_results
from flows.profile.paths import DEFAULT_PROFILE, Paths, relative
from flows.profile.settings import Profile, load
from flows.runtime import stage_runner
from flows.runtime.locks import exclusive
from flows.runtime.progress import Tee, reporter
from flows.tracking import recorder
from flows.tracking.prefect_summary import publish

if TYPE_CHECKING:
    from detr_core.check.inspection import Inspection


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Checks data/<profile>/, and writes the findings and the checked dataset. Returns the content of metrics.json.

    runs/<profile>/check/ gets findings.json, metrics.json and the page index.html. runs/<profile>/dataset/ gets the dataset that
    later stages read, and its index; with `check.mode: lenient` broken images and annotations are left out of it.
    Raises DatasetError if the dataset can't be read, or if it is broken and `check.mode` is `strict`: then the findings are
    written, but not runs/<profile>/dataset/.
    """
    splits = stage_results.unchecked_dataset(paths)
    directories.require_replaceable(paths.dataset)

    from detr_core.check.inspection import inspect
    from detr_core.plots.data_check import write_data_check

    config, queries = settings.check, object_count(settings.detector)
    inspection = inspect(splits, queries, reporter, config.value_range)
    splits = {name: replace(split, value_ranges=inspection.value_ranges) for name, split in splits.items()}
    refusal: DatasetError | None = None
    metrics = _metrics(inspection)
    with exclusive(paths.check, paths.dataset, tell=reporter.message), atomic_directory(paths.check) as out:
        try:
            metrics |= _checked_dataset(settings, paths, splits, inspection)
        except DatasetError as error:
            refusal = error
            directories.remove(paths.dataset)  # otherwise later stages would train on the dataset of an earlier check
        findings = [
            {name: value for name, value in asdict(finding).items() if value not in (None, "")} for finding in inspection.findings
        ]
        (out / "findings.json").write_text(json.dumps(findings, indent=1) + "\n", encoding="utf-8")
        (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        write_data_check(paths.profile, splits, inspection, queries, config.mode == "lenient", config.pictures, out)
    if refusal is not None:
        raise refusal
    return metrics


def _checked_dataset(settings: Profile, paths: Paths, splits: dict[str, Split], inspection: Inspection) -> dict[str, float]:
    from detr_core.check.accounting import accounts
    from detr_core.check.leave_out import write_checked
    from detr_core.data.annotation_cache import write_index
    from detr_core.evaluate import ground_truth

    findings, ranges = inspection.findings, inspection.value_ranges
    _require_usable(settings, paths, findings)
    with atomic_directory(paths.dataset) as folder:
        write_checked(paths.data, findings, folder, ranges)
        metrics: dict[str, float] = {}
        # These functions read the dataset as training and scoring do. If they find a fault that the check has missed, they raise
        # an error, and nothing is trained.
        for name, targets, untrained in write_index(read_dataset(folder)):
            metrics |= {f"untrained/{name}/{targets}/{reason}": float(number) for reason, number in untrained.items()}
        checked = read_dataset(folder)
        for split in checked.values():
            ground_truth.require_objects(split)
        ground_truth.instances(checked["val"])
        metrics |= accounts(splits, inspection.supplied, checked, findings)
        stage_results.write_owner(folder, paths.profile)
    return metrics


def _require_usable(settings: Profile, paths: Paths, findings: Sequence[Finding]) -> None:
    """Raises DatasetError for broken data in the mode `strict`, and in both modes if a split would have nothing to learn from.

    The mode `lenient` is advised only if it leaves something to learn from.
    """
    page = relative(paths.check / "index.html")
    dataset = settings.data.folder.root if settings.data.folder is not None else relative(paths.data)
    broken = [finding for finding in findings if finding.leaves is not None]
    stops = [finding for finding in findings if FINDING_KINDS[finding.kind].stops]
    if broken and settings.check.mode == "strict":
        kinds = Counter(finding.kind for finding in broken)
        counts_of_kinds = "; ".join(
            f"{counted(number, 'finding')}: {FINDING_KINDS[kind].words}" for kind, number in kinds.most_common(3)
        )
        first, splits = broken[0], " and ".join(dict.fromkeys(finding.split for finding in stops))
        lenient = f"or set `check.mode: lenient` in {relative(paths.params)} to leave them out"
        only = f"because without them nothing is left to learn from in {splits}"
        advice = f"correct them, {only if stops else lenient}"
        if kinds["duplicate_across"] and stops:
            advice += "; to validate on a share of the training images, set `val: null` and `val_share: 0.2` in `data.folder`"
        raise DatasetError(
            f"{dataset}: expected a dataset without broken entries, found {counts_of_kinds}; the first is in {first.split}, "
            f"{first.file or first.source}: {first.detail}. See {page}; {advice}"
        )
    for finding in stops:
        where = f"{dataset}: {finding.split}.{finding.source}"
        raise DatasetError(f"{where}: there is nothing to learn from: {finding.detail}. See {page}; correct the annotations")


def _metrics(inspection: Inspection) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, statistics in inspection.statistics.items():
        metrics[f"{name}/images"] = float(sum(statistics.objects.values()))
        metrics[f"{name}/objects"] = float(sum(statistics.sides.values()))
        metrics[f"{name}/crowds"] = float(statistics.crowds)
        metrics[f"{name}/most_objects"] = float(statistics.most_objects)
    return metrics | {f"findings/{kind}": float(number) for kind, number in counts(inspection.findings).items()}


def findings_table(findings: Sequence[Finding]) -> Table:
    """Returns a table of the findings, with one row for each kind and the first finding of that kind."""
    table = Table("finding", "train", "val", "first example", title="The data check", title_justify="left")
    for name, kind in FINDING_KINDS.items():
        kind_findings = [finding for finding in findings if finding.kind == name]
        if kind_findings:
            splits = Counter(finding.split for finding in kind_findings)
            words = f"[red]{kind.words}[/red]" if kind.broken else kind.words
            where = kind_findings[0].file or (
                f"{kind_findings[0].source} {kind_findings[0].entry_index}" if kind_findings[0].entry_index is not None else ""
            )
            first = escape(f"{where} {kind_findings[0].detail}".strip())  # a file's name may look like markup
            table.add_row(words, *(str(splits[split] or "") for split in ("train", "val")), first)
    if not findings:
        table.add_row("no findings", "", "", "")
    return table


def read_findings(file: Path) -> list[Finding]:
    """Reads the findings from a `findings.json`."""
    return [
        Finding(**entry | {"box": tuple(entry["box"])} if "box" in entry else entry) for entry in json.loads(file.read_bytes())
    ]


@flow(name="check", flow_run_name="check {profile}")
def check(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Checks the dataset of a profile."""
    settings, paths = load(profile), Paths(profile)
    params = settings.flat("data", "check") | {"detector.queries": object_count(settings.detector)}
    with recorder.stage_run("check", paths, params, [paths.data]) as record:
        metrics: dict[str, float] = {}
        directories.remove(paths.check)  # so that the findings shown below are those of this check
        try:
            with reporter("check") as bar:
                metrics = run(settings, paths, Tee(bar, record))
        finally:
            if paths.check.is_dir():  # it is written even if the check refuses the dataset
                record.metrics(json.loads((paths.check / "metrics.json").read_text(encoding="utf-8")), step=0)
                for name in ("index.html", "findings.json"):
                    record.artifact(paths.check / name, "check")
                Console().print(findings_table(read_findings(paths.check / "findings.json")))
    page = relative(paths.check / "index.html")
    publish("check", profile, metrics, {"The page": page, "MLflow run": record.url()})
    return metrics


def main() -> None:
    stage_runner.main("check", check)


if __name__ == "__main__":
    main()
