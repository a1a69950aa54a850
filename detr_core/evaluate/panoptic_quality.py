"""Computes panoptic quality (Kirillov et al. 2019): PQ = SQ x RQ, segmentation quality times recognition quality."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
from hotcoco.panoptic import PanopticEval

from detr_core.evaluate.ground_truth import read_panoptic
from detr_core.evaluate.panoptic_sums import ImageSums, TrueMaps, predictions, qualities


class Quality(TypedDict):
    """The metrics of one class, 0..1."""

    pq: float
    sq: float
    rq: float


class MeanQuality(Quality):
    """The means over classes. n: the number of classes that occur in the ground truth or the prediction."""

    n: int


class PanopticQuality(TypedDict):
    all: MeanQuality
    things: MeanQuality
    stuff: MeanQuality
    per_class: dict[int, Quality]


def panoptic_quality(gt_json: Path, gt_folder: Path, pred_json: Path, pred_folder: Path) -> PanopticQuality:
    """Returns PQ, SQ and RQ over all classes, things and stuff, and of each class that occurs, as panopticapi computes them.

    gt_json, pred_json: COCO panoptic files. gt_folder, pred_folder: the folders of their PNGs. The categories are those of the
    ground truth. The keys of `per_class` are category ids.
    """
    evaluator = PanopticEval(read_panoptic(gt_json), str(pred_json), gt_folder=str(gt_folder), pred_folder=str(pred_folder))
    evaluator.evaluate()
    results = evaluator.results()
    return {
        "all": _mean(results["All"]),
        "things": _mean(results["Things"]),
        "stuff": _mean(results["Stuff"]),
        "per_class": {
            int(category): {"pq": row["pq"], "sq": row["sq"], "rq": row["rq"]}
            for category, row in results["per_class"].items()
            if row["tp"] + row["fp"] + row["fn"] > 0
        },
    }


def quality_of_images(gt_json: Path, gt_folder: Path, pred_json: Path, pred_folder: Path) -> dict[int, float]:
    """Returns the PQ of each image that both files have, by image id: the mean over the classes that occur in that image.

    The arguments are those of `panoptic_quality`.
    """
    truth = TrueMaps(read_panoptic(gt_json), gt_folder)
    by_image = truth.sums(predictions(pred_json), pred_folder)
    if not by_image:
        return {}
    numbers = sorted(by_image)
    sums = ImageSums(np.stack([by_image[number] for number in numbers]), truth.isthing)
    return dict(zip(numbers, np.nan_to_num(qualities(sums, np.eye(len(numbers)))["PQ"]).tolist(), strict=True))


def _mean(row: dict[str, float]) -> MeanQuality:
    return {"pq": row["pq"], "sq": row["sq"], "rq": row["rq"], "n": int(row["n"])}
