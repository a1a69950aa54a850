"""Draws bootstrap samples of images or objects, and gives the interval of a metric that was computed on each sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLES = 1000  # number of bootstrap samples for an interval
SEED = 0  # the same value as in `bootstrap_differences` of evaluate/average_precision.py
COVERED = 0.95


def draw_counts(units: int, samples: int = SAMPLES) -> NDArray[np.float64]:
    """Returns how often each unit is in each sample, [samples, units]: a sample draws `units` units with replacement.

    The same number of units gives the same samples, so that two detectors are compared on the same images.
    """
    drawn = np.random.default_rng(SEED).integers(0, units, (samples, units))
    offsets = units * np.arange(samples)[:, None]
    counts = np.bincount((drawn + offsets).ravel(), minlength=samples * units)
    return counts.reshape(samples, units).astype(np.float64)


def interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Returns the bounds of the middle 95% of a metric over samples [samples], without samples on which it is not defined (nan).

    Returns None if it is defined on no sample.
    """
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return None
    low, high = np.quantile(known, [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return float(low), float(high)


def ratio_interval(
    first: tuple[NDArray[np.float64], NDArray[np.float64]], second: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> tuple[float, float] | None:
    """Returns the interval of the second ratio minus the first; None for fewer than two units, which show no variation.

    Each ratio has its numerators and denominators by unit, [units] each. It is the sum of the former divided by that of the
    latter.
    """
    units = len(first[0])
    if units < 2:
        return None
    counts = draw_counts(units)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = ((counts @ numerators) / (counts @ denominators) for numerators, denominators in (first, second))
    difference = high - low
    difference[~np.isfinite(difference)] = np.nan  # a sample without the region, such as one without a second thing of a class
    return interval(difference)
