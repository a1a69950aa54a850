"""Collects the results of a study's variants in the study's table, `runs/<profile>/studies/training/<study>/study.json`."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detr_core.config import as_dict
from detr_core.studies.training import TrainingStudyConfig
from flows.profile import artifacts
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from flows.studies import variants
from flows.studies.digests import shared_digest
from flows.studies.variants import Variant

if TYPE_CHECKING:
    from detr_core.evaluate.average_precision import Difference
    from detr_core.studies.claims import Claim
    from detr_core.studies.comparison import Run, Table
    from detr_core.studies.intervals import Intervals


def varied(variant: Variant, keys: list[str]) -> dict[str, Any]:
    """Returns the values of these keys, which the study varies, in this variant, whether it overrides them or not.

    A mapping, such as a whole detector, is represented by its `kind`. A key that the variant does not have is null.
    """
    found = {}
    for key in keys:
        value: Any = as_dict(variant.settings)
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        found[key] = value.get("kind", json.dumps(value)) if isinstance(value, Mapping) else value
    return found


def short_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Shortens keys to parameter names for MLflow, without section and dots: 'encoder_layers', 'positions_kind'."""
    return {(key.partition(".")[2] or key).replace(".", "_"): value for key, value in values.items()}


def write(
    settings: Profile,
    paths: Paths,
    study: str,
    runs: Mapping[str, Variant],
    made: set[str],
    failed: Mapping[str, str],
    intervals: bool,
) -> Path:
    """Writes the table of a study and returns its file.

    runs: every variant under every seed, by label. made: labels of the finished variants. failed: errors by label. intervals:
    whether to compute confidence intervals of the differences from the base, and to decide the claims, which takes a while.
    """
    from detr_core.studies.comparison import Run, Table, write_table  # torch takes seconds to import
    from detr_core.studies.intervals import Intervals

    config = settings.studies.training[study]
    known = Intervals(artifacts.dataset(paths)["val"]) if intervals else None
    made_by = shared_digest(paths)
    rows = []
    for label, variant in runs.items():
        own = variant.paths(paths.profile)
        about = (variant.name, variant.seed, variant.overrides, varied(variant, config.varied))
        if label not in made:
            rows.append(Run(*about, "failed" if label in failed else "open", failed.get(label)))
            continue
        base = next(each for each in runs.values() if (each.name, each.seed) == (config.base, variant.seed))
        apart: dict[str, Difference] = {}
        if known is not None and base.label in made and base.label != label:
            apart = _differences(known, base.paths(paths.profile).evaluation, own.evaluation)
        cost = json.loads((own.runs / "cost" / "cost.json").read_text(encoding="utf-8"))
        last, validations = _last_validations(own, variant.settings.train_detection.epochs, config.median_of)
        if config.median_of > 1 and not variants.is_measured_by_present_code(own, variant.settings.detector.kind):
            last, validations = {}, 0  # the metrics of this variant are those of the evaluation, which is up to date
        metrics = variants.metrics(own) | last
        rows.append(Run(*about, "finished", None, metrics, _curve(own), cost, apart, validations, made_by))
    table = Table(study, paths.profile, config.paper, config.base, rows, config.median_of)
    if known is not None:
        table = dataclasses.replace(table, claims=_claims(settings, paths, table, runs, known))
    return write_table(table, paths.training_studies / study)


def _differences(intervals: Intervals, base: Path, other: Path) -> dict[str, Difference]:
    """Returns the differences of the metrics that both evaluations, given by their folders, have."""
    from detr_core.studies.comparison import COMPARED

    found = {metric: intervals.difference(base, other, metric) for metric in COMPARED}
    return {metric: difference for metric, difference in found.items() if difference is not None}


def _claims(settings: Profile, paths: Paths, table: Table, runs: Mapping[str, Variant], intervals: Intervals) -> list[Claim]:
    """Returns the verdicts on the claims of a study, with what the profile's other studies say about the effect of a seed."""
    from detr_core.studies.comparison import read_table
    from detr_core.studies.training_claims import decide_claims, known_seed_spreads

    config = settings.studies.training[table.study]
    others = [read_table(file) for file in paths.training_studies.glob("*/study.json") if file.parent.name != table.study]
    made = {(variant.name, variant.seed): variant.paths(paths.profile).evaluation for variant in runs.values()}
    return decide_claims(
        config.claims,
        table,
        list(config.overrides()),
        lambda run: made[run.variant, run.seed],
        intervals,
        known_seed_spreads([table, *others]),
    )


def _last_validations(own: Paths, epochs: int, median_of: int) -> tuple[dict[str, float], int]:
    """Returns the medians of the metrics over the validations of the last epochs, and the number of these validations.

    The medians are empty if `median_of` is 1, or if none of the last `median_of` epochs was validated.
    """
    if median_of == 1:
        return {}, 1
    last = [record for record in _history(own) if "val/AP" in record and record["epoch"] > epochs - median_of]
    names = [name for record in last[-1:] for name in record if name.startswith("val/")]
    return {name: statistics.median(record[name] for record in last) for name in names}, len(last)


def is_complete(table: Path, runs: Mapping[str, Variant], config: TrainingStudyConfig) -> bool:
    """Returns whether the table exists, has exactly these runs, all finished and with their differences from the base, and
    decides the claims of the study's present configuration."""
    if not table.is_file():
        return False
    from detr_core.studies.comparison import read_table

    content = read_table(table)
    if (content.base, content.median_of) != (config.base, config.median_of):
        return False
    there = [(run.variant, run.seed, run.status) for run in content.runs]
    asked = [claim.asks(list(config.overrides())) for claim in config.claims]
    complete = [(run.name, run.seed, "finished") for run in runs.values()]
    differ = all(_has_differences(run) for run in content.runs if run.variant != content.base)
    return there == complete and differ and [claim.asks for claim in content.claims] == asked


def _has_differences(run: Run) -> bool:
    """Returns whether a run that is not the base's has the differences of its main metrics from the base's."""
    return all(name in run.differences for name in ("AP", "PQ") if f"val/{name}" in (run.metrics or {}))


def key_metrics(table: Path) -> dict[str, float]:
    """Returns val/PQ, or val/AP if there is no PQ, of each finished run of a table."""
    from detr_core.studies.comparison import read_table

    found = {}
    for run in read_table(table).runs:
        if run.metrics is not None:
            name = "val/PQ" if "val/PQ" in run.metrics else "val/AP"
            found[f"{run.variant}-seed{run.seed}/{name}"] = run.metrics[name]
    return found


def cost_metrics(own: Paths) -> dict[str, float]:
    """Returns the costs of a finished variant: 'cost/parameters' (millions), 'cost/gflops', 'cost/images_per_second'."""
    content = json.loads((own.runs / "cost" / "cost.json").read_text(encoding="utf-8"))
    return {f"cost/{name}": value for name, value in content.items() if name not in ("machine", "size")}


def last_step(own: Paths) -> int:
    """Returns the optimiser step after which a finished variant's detector was evaluated."""
    return int(_history(own)[-1]["step"])


def _curve(own: Paths) -> list[tuple[float, float]]:
    return [(record["epoch"], record["val/AP"]) for record in _history(own) if "val/AP" in record]


def _history(own: Paths) -> list[dict[str, float]]:
    return [json.loads(line) for line in (own.detection / "history.jsonl").read_text(encoding="utf-8").splitlines()]
