"""A run beside its repetition: which values and files differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from flows.recorded import Recorded


@dataclass(frozen=True)
class Comparison:
    """values, files: how many were compared. differences: a sentence for each value or file that is not the same."""

    values: int
    files: int
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether something was compared and nothing differs."""
        return self.values + self.files > 0 and not self.differences


def bit_for_bit(before: Recorded, after: Recorded) -> Comparison:
    """Every value at every step that the first run recorded, and every file of its results, must be equal."""
    values = {(name, step): value for name, steps in before.metrics.items() for step, value in steps.items()}
    differences = []
    for (name, step), value in values.items():
        again = after.metrics.get(name, {}).get(step)
        if not _equal(value, again):
            differences.append(f"{name} at step {step}: {value!r}, again {_said(again)}")
    return Comparison(len(values), len(before.results), (*differences, *_files(before.results, after.results)))


def within(before: Recorded, after: Recorded, tolerance: float) -> Comparison:
    """The last value of each metric may differ by `tolerance`, or where it is above 1 by that share of it; files may differ."""
    differences = []
    for name, steps in before.metrics.items():
        value, again = steps[max(steps)], after.metrics.get(name, {}).get(max(steps))
        if not _equal(value, again) and not (again is not None and abs(again - value) <= tolerance * max(1.0, abs(value))):
            differences.append(f"{name}: {value:.4g}, again {_said(again)}")
    return Comparison(len(before.metrics), 0, tuple(differences))


def _equal(value: float, again: float | None) -> bool:
    return again is not None and (again == value or (math.isnan(again) and math.isnan(value)))


def _files(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: {'not made again' if name not in after else 'other content'}"
        for name, digest in before.items()
        if after.get(name) != digest
    ] + [f"{name}: made only this time" for name in after if name not in before]


def _said(value: float | None) -> str:
    return "nothing" if value is None else repr(value)
