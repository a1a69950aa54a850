"""Computes panoptic quality from sums over images, so that any set of images can be scored without reading their maps again.

Panoptic quality is not a mean over images: it is computed, for each class, from what is summed over the images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hotcoco.panoptic import PanopticEval
from numpy.typing import NDArray

from detr_core.errors import ExpectedError
from detr_core.evaluate.ground_truth import read_panoptic

_SUMS = ("iou", "tp", "fp", "fn")
PARTS = {"": (True, False), "_things": (True,), "_stuff": (False,)}  # end of a metric's name -> values of isthing


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


@dataclass(frozen=True)
class TrueMaps:
    """The true maps of a split. content: that of its panoptic file, as `read_panoptic` returns it. folder: that of its PNGs."""

    content: dict[str, Any]
    folder: Path

    @property
    def isthing(self) -> NDArray[np.bool_]:
        """Whether each category is a thing, in the order of the file."""
        return np.array([bool(category["isthing"]) for category in self.content["categories"]])

    def sums(self, predicted: Mapping[int, dict[str, Any]], folder: Path) -> dict[int, NDArray[np.float64]]:
        """Returns image id -> sums [categories, 4] of each image that has both true and predicted annotations.

        predicted: image id -> the annotation of the image in a COCO panoptic file. folder: that of the predicted PNGs.
        """
        categories = [category["id"] for category in self.content["categories"]]
        images = {image["id"]: image for image in self.content["images"]}
        sums = {}
        for entry in self.content["annotations"]:
            number = entry["image_id"]
            if number not in predicted:
                continue
            one = {"images": [images[number]], "annotations": [entry], "categories": self.content["categories"]}
            folders = {"gt_folder": str(self.folder), "pred_folder": str(folder)}
            evaluator = PanopticEval(one, {"annotations": [predicted[number]]}, **folders)
            evaluator.evaluate()
            by_category = evaluator.results()["per_class"]
            sums[number] = np.array([[by_category[category][name] for name in _SUMS] for category in categories], np.float64)
        return sums


def image_sums(gt_json: Path, gt_folder: Path, pred_json: Path, pred_folder: Path) -> ImageSums:
    """Scores each image by itself, as `panoptic_quality` does with all images; see there for the arguments.

    The images are all those of the ground truth, in its order; an image without an entry in the annotations has only zeros.
    Raises PredictionError if an image has no prediction.
    """
    truth = TrueMaps(read_panoptic(gt_json), gt_folder)
    predicted = predictions(pred_json)
    for entry in truth.content["annotations"]:
        if entry["image_id"] not in predicted:
            message = f"{pred_json}: annotations: expected an entry for image {entry['image_id']}, found none; evaluate again"
            raise PredictionError(message)
    sums = truth.sums(predicted, pred_folder)
    nothing = np.zeros((len(truth.content["categories"]), len(_SUMS)))
    values = [sums.get(image["id"], nothing) for image in truth.content["images"]]
    return ImageSums(np.array(values).reshape(len(values), *nothing.shape), truth.isthing)


def predictions(file: Path) -> dict[int, dict[str, Any]]:
    """Returns image id -> annotation of a COCO panoptic file of predictions."""
    return {int(entry["image_id"]): entry for entry in json.loads(file.read_bytes())["annotations"]}


def qualities(sums: ImageSums, counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Returns PQ, SQ and RQ of samples of the images, [samples] each, by name; nan where no class occurs.

    counts [samples, images]: how often each sample has each image. The names end with '_things', '_stuff' or nothing.
    """
    by_class = (counts @ sums.values.reshape(len(sums.values), -1)).reshape(len(counts), -1, len(_SUMS))
    iou, tp, fp, fn = np.moveaxis(by_class, -1, 0)
    segments = tp + fp / 2 + fn / 2
    occurs = segments > 0
    by_name = {
        "PQ": np.divide(iou, segments, out=np.zeros_like(iou), where=occurs),
        "SQ": np.divide(iou, tp, out=np.zeros_like(iou), where=tp > 0),
        "RQ": np.divide(tp, segments, out=np.zeros_like(iou), where=occurs),
    }
    means = {}
    for part, kinds in PARTS.items():
        counted = occurs & np.isin(sums.isthing, kinds)
        number = counted.sum(1)
        for name, values in by_name.items():
            total = np.where(counted, values, 0.0).sum(1)
            means[f"{name}{part}"] = np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)
    return means
