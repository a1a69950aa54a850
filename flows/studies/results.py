"""Collects the results of a study's variants in the study's table, `runs/<profile>/studies/training/<study>/study.json`."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detr_core.config import as_dict
from detr_core.evaluate.metric_names import PANOPTIC_METRICS
from detr_core.studies.training import TrainingStudyConfig
from flows.profile import stage_results
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from flows.studies import variants
from flows.studies.digests import shared_digest
from flows.studies.variants import Variant

if TYPE_CHECKING:
    from detr_core.evaluate.average_precision import Difference
    from detr_core.studies.claims import Claim
    from detr_core.studies.comparison import Run, StudyTable
    from detr_core.studies.intervals import Intervals


def varied(variant: Variant, keys: list[str]) -> dict[str, Any]:
    """Returns the values of these keys, which the study varies, in this variant, whether it overrides them or not.

    A mapping, such as a whole detector, is represented by its `kind`. A key that the variant does not have is null.
    """
    values = {}
    for key in keys:
        value: Any = as_dict(variant.settings)
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        values[key] = value.get("kind", json.dumps(value)) if isinstance(value, Mapping) else value
    return values


def short_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Shortens keys to parameter names for MLflow, without section and dots: 'encoder_layers', 'positions_kind'."""
    return {(key.partition(".")[2] or key).replace(".", "_"): value for key, value in values.items()}


def write(
    settings: Profile,
    paths: Paths,
    study: str,
    runs: Mapping[str, Variant],
    finished: set[str],
    failed: Mapping[str, str],
    intervals: bool,
) -> Path:
    """Writes the table of a study and returns its file.

    runs: every variant under every seed, by label. finished: labels of the finished variants. failed: errors by label. intervals:
    whether to compute confidence intervals of the differences from the base, and to decide the claims, which takes a while.
    """
    from detr_core.studies.comparison import Run, StudyTable, write_table  # torch takes seconds to import
    from detr_core.studies.intervals import Intervals

    config = settings.studies.training[study]
    val_intervals = Intervals(stage_results.dataset(paths)["val"]) if intervals else None
    made_by = shared_digest(paths)
    rows = []
    for label, variant in runs.items():
        variant_paths = variant.paths(paths.profile)
        description = (variant.name, variant.seed, variant.overrides, varied(variant, config.varied))
        if label not in finished:
            rows.append(Run(*description, "failed" if label in failed else "open", failed.get(label)))
            continue
        base = next(candidate for candidate in runs.values() if (candidate.name, candidate.seed) == (config.base, variant.seed))
        differences: dict[str, Difference] = {}
        if val_intervals is not None and base.label in finished and base.label != label:
            differences = _differences(val_intervals, base.paths(paths.profile).evaluation, variant_paths.evaluation)
        cost = json.loads((variant_paths.runs / "cost" / "cost.json").read_text(encoding="utf-8"))
        last, validations = _last_validations(variant_paths, variant.settings.train_detection.epochs, config.median_of)
        if config.median_of > 1 and not variants.is_measured_by_present_code(variant_paths, variant.settings.detector.kind):
            last, validations = {}, 0  # the metrics of this variant are those of the evaluation, which is up to date
        detection = _history(variant_paths.detection)
        rows.append(
            Run(
                *description,
                "finished",
                metrics=variants.metrics(variant_paths) | last,
                curve=_curve(detection, "val/AP"),
                cost=cost,
                differences=differences,
                validations=validations,
                made_by=made_by,
                errors=_errors(variant_paths),
                quality_curve=_quality_curve(detection, variant_paths.panoptic),
            )
        )
    table = StudyTable(study, paths.profile, config.paper, config.base, rows, config.median_of)
    if val_intervals is not None:
        table = dataclasses.replace(table, claims=_claims(settings, paths, table, runs, val_intervals))
    return write_table(table, paths.training_studies / study)


def _differences(intervals: Intervals, base: Path, other: Path) -> dict[str, Difference]:
    """Returns the differences of the metrics that both evaluations, given by their folders, have."""
    from detr_core.studies.comparison import COMPARED

    differences = {metric: intervals.difference(base, other, metric) for metric in COMPARED}
    return {metric: difference for metric, difference in differences.items() if difference is not None}


def _claims(settings: Profile, paths: Paths, table: StudyTable, runs: Mapping[str, Variant], intervals: Intervals) -> list[Claim]:
    """Returns the verdicts on the claims of a study, with what the profile's other studies say about the effect of a seed."""
    from detr_core.studies.comparison import read_table
    from detr_core.studies.training_claims import decide_claims, known_seed_spreads

    config = settings.studies.training[table.study]
    other_tables = [read_table(file) for file in paths.training_studies.glob("*/study.json") if file.parent.name != table.study]
    evaluations = {(variant.name, variant.seed): variant.paths(paths.profile).evaluation for variant in runs.values()}
    return decide_claims(
        config.claims,
        table,
        list(config.overrides()),
        lambda run: evaluations[run.variant, run.seed],
        intervals,
        known_seed_spreads([table, *other_tables]),
    )


def _last_validations(variant_paths: Paths, epochs: int, median_of: int) -> tuple[dict[str, float], int]:
    """Returns the medians of the metrics over the validations of the last epochs, and the number of these validations.

    Panoptic quality is left out, because validations compute it with the settings that `evaluate` had during the training. The
    medians are empty if `median_of` is 1, or if none of the last `median_of` epochs was validated.
    """
    if median_of == 1:
        return {}, 1
    last = [record for record in _history(variant_paths.detection) if "val/AP" in record and record["epoch"] > epochs - median_of]
    names = [name for record in last[-1:] for name in record if name.startswith("val/") and name[4:] not in PANOPTIC_METRICS]
    return {name: statistics.median(record[name] for record in last) for name in names}, len(last)


def is_complete(table: Path, runs: Mapping[str, Variant], config: TrainingStudyConfig) -> bool:
    """Returns whether the table is complete.

    A complete table exists, has exactly these runs, which are all finished and have their differences from the base, and decides
    the claims of the study's present configuration.
    """
    if not table.is_file():
        return False
    from detr_core.studies.comparison import read_table

    content = read_table(table)
    if (content.base, content.median_of) != (config.base, config.median_of):
        return False
    actual = [(run.variant, run.seed, run.status) for run in content.runs]
    expected = [(run.name, run.seed, "finished") for run in runs.values()]
    actual_claims = [claim.asks for claim in content.claims]
    expected_claims = [claim.asks(list(config.overrides())) for claim in config.claims]
    compared = all(_has_differences(run) for run in content.runs if run.variant != content.base)
    return actual == expected and compared and actual_claims == expected_claims


def _has_differences(run: Run) -> bool:
    """Returns whether a run that is not the base's has the differences of its main metrics from the base's."""
    return all(name in run.differences for name in ("AP", "PQ") if f"val/{name}" in (run.metrics or {}))


def key_metrics(table: Path) -> dict[str, float]:
    """Returns val/PQ, or val/AP if there is no PQ, of each finished run of a table."""
    from detr_core.studies.comparison import read_table

    metrics = {}
    for run in read_table(table).runs:
        if run.metrics is not None:
            name = "val/PQ" if "val/PQ" in run.metrics else "val/AP"
            metrics[f"{run.variant}-seed{run.seed}/{name}"] = run.metrics[name]
    return metrics


def cost_metrics(variant_paths: Paths) -> dict[str, float]:
    """Returns the costs of a finished variant: 'cost/parameters' (millions), 'cost/gflops', 'cost/images_per_second'."""
    content = json.loads((variant_paths.runs / "cost" / "cost.json").read_text(encoding="utf-8"))
    return {f"cost/{name}": value for name, value in content.items() if name not in ("machine", "size")}


def last_step(variant_paths: Paths) -> int:
    """Returns the optimizer step after which a finished variant's detector was evaluated."""
    return int(_history(variant_paths.detection)[-1]["step"])


def _curve(history: Sequence[Mapping[str, float]], metric: str, earlier_epochs: float = 0) -> list[tuple[float, float]]:
    """Returns pairs (epoch, metric) of the validations that measured the metric."""
    return [(earlier_epochs + record["epoch"], record[metric]) for record in history if metric in record]


def _quality_curve(detection: Sequence[Mapping[str, float]], panoptic: Path) -> list[tuple[float, float]]:
    """Returns pairs (epoch, val/PQ), from the detector's training or, in the folder `panoptic`, from that of its mask head."""
    if not panoptic.exists():
        return _curve(detection, "val/PQ")
    return _curve(_history(panoptic), "val/PQ", detection[-1]["epoch"])


def _errors(variant_paths: Paths) -> dict[str, float]:
    """Returns the loss of AP50 by kind of error of the boxes; empty if the evaluation has none."""
    content = json.loads((variant_paths.evaluation / "errors.json").read_text(encoding="utf-8"))
    errors: dict[str, float] = content.get("bbox", {}).get("gain", {})
    return errors


def _history(training: Path) -> list[dict[str, float]]:
    """Returns the records of a training, given by the folder of its results."""
    return [json.loads(line) for line in (training / "history.jsonl").read_text(encoding="utf-8").splitlines()]
