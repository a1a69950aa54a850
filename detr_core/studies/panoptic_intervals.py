"""Computes bootstrap intervals of differences of panoptic quality over the validation images."""

from __future__ import annotations

import numpy as np

from detr_core.evaluate.average_precision import Difference
from detr_core.evaluate.panoptic_sums import PARTS, ImageSums, qualities
from detr_core.studies.measurements.bootstrap import SAMPLES, draw_counts, interval

PANOPTIC_METRICS = tuple(f"{name}{part}" for part in PARTS for name in ("PQ", "SQ", "RQ"))


def panoptic_differences(base: ImageSums, other: ImageSums, samples: int = SAMPLES) -> dict[str, Difference]:
    """Returns the differences of PQ, SQ and RQ, `other` minus `base`, by the names in PANOPTIC_METRICS, with their 95% intervals.

    Both are on the same images, and each sample has the same images for both. As in panoptic quality, a class that
    occurs in neither the ground truth nor the prediction of a sample is left out of the sample's means. A metric without any
    class is left out.
    """
    images = len(base.values)
    whole = [qualities(sums, np.ones((1, images))) for sums in (base, other)]
    counts = draw_counts(images, samples)
    sampled = [qualities(sums, counts) for sums in (base, other)]
    differences = {}
    for name in PANOPTIC_METRICS:
        value = float(whole[1][name][0] - whole[0][name][0])
        bounds = interval(sampled[1][name] - sampled[0][name])
        if not np.isnan(value) and bounds is not None:
            differences[name] = Difference(value, *bounds)
    return differences
