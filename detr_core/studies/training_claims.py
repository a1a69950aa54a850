"""Decides the paper's claims about a training study from the study's table and the results files of its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from detr_core.evaluate.average_precision import METRICS, Difference, GroundTruth, bootstrap_differences
from detr_core.studies.claims import Claim, ClaimConfig, SeedDifference, decide
from detr_core.studies.comparison import SAMPLES, Run, StudyTable, finished

ResultsOf = Callable[[Run], Path]
"""Returns the COCO results file with the boxes of a finished run."""


def decide_claims(
    claims: Sequence[ClaimConfig],
    table: StudyTable,
    variants: Sequence[str],
    results: ResultsOf,
    ground_truth: GroundTruth,
    seed_spreads: Mapping[str, float],
) -> list[Claim]:
    """Returns the verdict on each claim about the study of `table`, which has these variants.

    seed_spreads: metric -> its largest known range over the seeds of a variant (see `known_seed_spreads`).
    Only runs with the same data and code are compared. A run whose metrics are a median over fewer validations than the study
    asks for is not compared either, because its median could be anything.
    """
    runs, bootstrap = _comparable(table), _Bootstrap(results, ground_truth)
    decided = []
    for claim in claims:
        pairs = {pair: _differences(runs, pair, claim.metric, bootstrap) for pair in claim.pairs(variants)}
        verdict = decide(claim, pairs, variants, seed_spreads.get(claim.metric))
        reasons = [text for text in (verdict.reason, _why_not(table, claim, variants)) if text]
        decided.append(replace(verdict, reason="; ".join(reasons)))
    return decided


def known_seed_spreads(tables: Sequence[StudyTable]) -> dict[str, float]:
    """Returns the largest range of each metric over the seeds of one variant, such as {'AP': 0.01}, in these tables."""
    spreads: dict[str, float] = {}
    for table in tables:
        for runs in finished(table).values():
            for name in {name for run in runs for name in run.metrics or {}}:
                values = [run.metrics[name] for run in runs if run.metrics and run.metrics.get(name, -1.0) >= 0]
                if len(values) > 1:
                    metric = name.removeprefix("val/")
                    spreads[metric] = max(spreads.get(metric, 0.0), max(values) - min(values))
    return spreads


class _Bootstrap:
    """Computes bootstrap intervals of the differences between runs, once for each pair of runs."""

    def __init__(self, results: ResultsOf, ground_truth: GroundTruth) -> None:
        self._results, self._ground_truth = results, ground_truth
        self._known: dict[tuple[str, str, int], dict[str, Difference]] = {}

    def difference(self, first: Run, second: Run, metric: str) -> Difference | None:
        """Returns the metric of `second` minus that of `first`; None for a metric without intervals, such as PQ."""
        if metric not in METRICS:
            return None
        key = (first.variant, second.variant, first.seed)
        if key not in self._known:
            files = self._results(first), self._results(second)
            self._known[key] = bootstrap_differences(self._ground_truth, *files, SAMPLES)
        return self._known[key][metric]


def _comparable(table: StudyTable) -> dict[tuple[str, int], Run]:
    """Returns the finished runs of a table by variant and seed, without those that can't be compared with the base."""
    runs = [run for variant in finished(table).values() for run in variant]
    made_by = next((run.made_by for run in runs if run.variant == table.base), None)
    return {(run.variant, run.seed): run for run in runs if run.made_by == made_by and run.validations >= table.median_of}


def _differences(
    runs: Mapping[tuple[str, int], Run], pair: tuple[str, str], metric: str, bootstrap: _Bootstrap
) -> list[SeedDifference]:
    """Returns the differences between the two variants of a pair, for each seed that both have."""
    differences = []
    for (variant, seed), first in runs.items():
        second = runs.get((pair[1], seed))
        if variant != pair[0] or second is None:
            continue
        before, after = ((run.metrics or {}).get(f"val/{metric}", -1.0) for run in (first, second))
        if min(before, after) < 0:
            continue  # -1: the data has nothing to measure the metric on
        interval = bootstrap.difference(first, second, metric)
        if interval is None:
            differences.append(SeedDifference(before, after, None, None))
            continue
        # The interval is that of the last evaluation. Its width is also taken for a median over several validations.
        shift = after - before - interval.value
        differences.append(SeedDifference(before, after, interval.low + shift, interval.high + shift))
    return differences


def _why_not(table: StudyTable, claim: ClaimConfig, variants: Sequence[str]) -> str:
    """Returns why runs of the variants that the claim is about are not compared; '' if all are."""
    claimed_variants = {name for pair in claim.pairs(variants) for name in pair}
    runs = [run for run in table.runs if run.variant in claimed_variants]
    made_by = next((run.made_by for run in table.runs if run.variant == table.base and run.status == "finished"), None)
    reasons = {
        "not finished": [run for run in runs if run.status != "finished"],
        "made by other data or code than the base": [run for run in runs if run.status == "finished" and run.made_by != made_by],
        f"a median over fewer than {table.median_of} validations": [
            run for run in runs if run.status == "finished" and run.validations < table.median_of
        ],
    }
    texts = []
    for reason, excluded in reasons.items():
        if excluded:
            texts.append(f"{', '.join(f'{run.variant} with seed {run.seed}' for run in excluded)}: {reason}")
    return "; ".join(texts)
