"""Compares a run with its repetition, and lists the metrics and files that differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from flows.tracking.reader import RecordedRun


@dataclass(frozen=True)
class RunComparison:
    """The result of a comparison.

    values, files: the numbers of values and files that were compared. differences: a line for each of them that is not the same.
    """

    values: int
    files: int
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Returns whether something was compared and nothing differs."""
        return self.values + self.files > 0 and not self.differences


def bit_for_bit(before: RecordedRun, after: RecordedRun) -> RunComparison:
    """Compares every metric at every step that the first run recorded, and every result file; all of them must be equal."""
    values = {(name, step): value for name, steps in before.metrics.items() for step, value in steps.items()}
    differences = []
    for (name, step), value in values.items():
        repeat = after.metrics.get(name, {}).get(step)
        if not _equal(value, repeat):
            differences.append(f"{name} at step {step}: the run has {value!r}, its repetition {_value_text(repeat)}")
    return RunComparison(len(values), len(before.results), (*differences, *_files(before.results, after.results)))


def within(before: RecordedRun, after: RecordedRun, tolerance: float) -> RunComparison:
    """Compares the last value of each metric, which may differ by `tolerance`, relative for values above 1; files may differ."""
    differences = []
    for name, steps in before.metrics.items():
        value, repeat = steps[max(steps)], after.metrics.get(name, {}).get(max(steps))
        if not _equal(value, repeat) and not (repeat is not None and abs(repeat - value) <= tolerance * max(1.0, abs(value))):
            differences.append(f"{name}: the run has {value:.4g}, its repetition {_value_text(repeat)}")
    return RunComparison(len(before.metrics), 0, tuple(differences))


def _equal(value: float, repeat: float | None) -> bool:
    return repeat is not None and (repeat == value or (math.isnan(repeat) and math.isnan(value)))


def _files(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: {'the repetition did not make it' if name not in after else 'the contents differ'}"
        for name, digest in before.items()
        if after.get(name) != digest
    ] + [f"{name}: only the repetition made it" for name in after if name not in before]


def _value_text(value: float | None) -> str:
    return "no value" if value is None else repr(value)
