"""Computes bootstrap intervals of differences of panoptic quality over the validation images.

Panoptic quality is not a mean over images: it is computed, for each class, from sums over images. Therefore a sample of images is
scored from the sums of its images, as `panoptic_quality` scores all images.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hotcoco.panoptic import PanopticEval
from numpy.typing import NDArray

from detr_core.errors import ExpectedError
from detr_core.evaluate.average_precision import Difference
from detr_core.evaluate.ground_truth import read_panoptic
from detr_core.studies.measurements.bootstrap import SAMPLES, draw_counts, interval

_SUMS = ("iou", "tp", "fp", "fn")
PARTS = {"": (True, False), "_things": (True,), "_stuff": (False,)}  # end of a metric's name -> values of isthing
PANOPTIC_METRICS = tuple(f"{name}{part}" for part in PARTS for name in ("PQ", "SQ", "RQ"))


class PredictionError(ExpectedError, ValueError):
    """Predictions do not fit the images that they are scored on. The message names the file and the image."""


@dataclass(frozen=True)
class ImageSums:
    """What panoptic quality is computed from.

    values [images, categories, 4]: float64; for each image and category the summed IoU of matched segments, and the numbers of
    matched segments (TP), of unmatched predicted segments (FP) and of unmatched true segments (FN). isthing [categories].
    """

    values: NDArray[np.float64]
    isthing: NDArray[np.bool_]


def image_sums(gt_json: Path, gt_folder: Path, pred_json: Path, pred_folder: Path) -> ImageSums:
    """Scores each image by itself, as `panoptic_quality` does with all images; see there for the arguments.

    The images are all those of the ground truth, in its order; an image without an entry in the annotations has only zeros.
    Raises PredictionError if an image has no prediction.
    """
    truth = read_panoptic(gt_json)
    predicted = {int(entry["image_id"]): entry for entry in json.loads(pred_json.read_bytes())["annotations"]}
    indices = {image["id"]: index for index, image in enumerate(truth["images"])}
    categories = [category["id"] for category in truth["categories"]]
    values = np.zeros((len(indices), len(categories), len(_SUMS)))
    for entry in truth["annotations"]:
        number = entry["image_id"]
        if number not in predicted:
            raise PredictionError(f"{pred_json}: annotations: expected an entry for image {number}, found none; evaluate again")
        image = truth["images"][indices[number]]
        one = {"images": [image], "annotations": [entry], "categories": truth["categories"]}
        evaluator = PanopticEval(
            one, {"annotations": [predicted[number]]}, gt_folder=str(gt_folder), pred_folder=str(pred_folder)
        )
        evaluator.evaluate()
        by_category = evaluator.results()["per_class"]
        values[indices[number]] = [[by_category[category][name] for name in _SUMS] for category in categories]
    return ImageSums(values, np.array([bool(category["isthing"]) for category in truth["categories"]]))


def panoptic_differences(base: ImageSums, other: ImageSums, samples: int = SAMPLES) -> dict[str, Difference]:
    """Returns the differences of PQ, SQ and RQ, `other` minus `base`, by the names in PANOPTIC_METRICS, with their 95% intervals.

    Both are on the same images, and each sample has the same images for both. As in panoptic quality, a class that
    occurs in neither the ground truth nor the prediction of a sample is left out of the sample's means. A metric without any
    class is left out.
    """
    images = len(base.values)
    whole = [_qualities(sums, np.ones((1, images))) for sums in (base, other)]
    counts = draw_counts(images, samples)
    sampled = [_qualities(sums, counts) for sums in (base, other)]
    differences = {}
    for name in PANOPTIC_METRICS:
        value = float(whole[1][name][0] - whole[0][name][0])
        bounds = interval(sampled[1][name] - sampled[0][name])
        if not np.isnan(value) and bounds is not None:
            differences[name] = Difference(value, *bounds)
    return differences


def _qualities(sums: ImageSums, counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Returns PQ, SQ and RQ of every sample, [samples] each; nan where no class occurs. counts [samples, images]."""
    by_class = (counts @ sums.values.reshape(len(sums.values), -1)).reshape(len(counts), -1, len(_SUMS))
    iou, tp, fp, fn = np.moveaxis(by_class, -1, 0)
    segments = tp + fp / 2 + fn / 2
    occurs = segments > 0
    qualities = {
        "PQ": np.divide(iou, segments, out=np.zeros_like(iou), where=occurs),
        "SQ": np.divide(iou, tp, out=np.zeros_like(iou), where=tp > 0),
        "RQ": np.divide(tp, segments, out=np.zeros_like(iou), where=occurs),
    }
    means = {}
    for part, kinds in PARTS.items():
        counted = occurs & np.isin(sums.isthing, kinds)
        number = counted.sum(1)
        for name, values in qualities.items():
            total = np.where(counted, values, 0.0).sum(1)
            means[f"{name}{part}"] = np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)
    return means
