"""Computes COCO's average precision, bootstrap intervals of differences, and a breakdown of the errors."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from hotcoco import COCO, COCOeval, compare

from detr_core.evaluate.ground_truth import read_instances
from detr_core.structures import category_labels

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

GroundTruth = Path | COCO
"""The path of an `instances_*.json`, or its content as a COCO object, so that several results are scored against one copy."""

Results = Path | list[dict[str, Any]] | np.ndarray
"""Detections: a COCO results file, its content, or rows [N, 7] of image id, x, y, w, h (pixels), score, category id."""

ResultKind = Literal["bbox", "segm"]


@dataclass(frozen=True)
class APResult:
    """COCO's metrics of a set of detections.

    metrics: COCO's twelve metrics by the names in METRICS, 0..1; -1 if the ground truth has no object to measure a metric on.
    per_class: category label (see `category_labels`) -> AP, for the categories that occur in the ground truth.
    """

    metrics: dict[str, float]
    per_class: dict[str, float]


def coco_ap(ground_truth: GroundTruth, results: Results, kind: ResultKind) -> APResult:
    """Returns average precision and recall of boxes ('bbox') or masks ('segm'), as pycocotools computes them.

    For masks, results must hold no boxes, because objects would be divided into small, medium and large by box area. Results of
    categories that the ground truth lacks are ignored. Without any result, AP and AR are 0.
    """
    evaluator = _evaluator(ground_truth, results, kind)
    evaluator.accumulate()
    with contextlib.redirect_stdout(io.StringIO()):  # summarize() prints a table and computes the metrics
        evaluator.summarize()
    values = evaluator.get_results()
    return APResult({name: float(values[name]) for name in METRICS}, _per_class(evaluator))


def _per_class(evaluator: COCOeval) -> dict[str, float]:
    # Categories are selected by id, because the evaluator's own per-class metrics merge categories of the same name.
    truth = evaluator.coco_gt
    ids = list(evaluator.params.cat_ids)
    labels = category_labels({category["id"]: category["name"] for category in truth.load_cats(ids)})
    assert evaluator.eval is not None  # accumulate() has been called
    precision = np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1]  # IoU, recall, category; any area, most detections
    by_class = [(number, precision[:, :, index]) for index, number in enumerate(ids)]
    return {labels[number]: float(values[values > -1].mean()) for number, values in by_class if (values > -1).any()}


@dataclass(frozen=True)
class Difference:
    """A metric (0..1) of some detections minus that of others on the same images.

    low, high: its 95% interval over bootstrap samples of the images.
    """

    value: float
    low: float
    high: float


def bootstrap_differences(
    ground_truth: GroundTruth, base: Results, other: Results, samples: int, kind: ResultKind = "bbox"
) -> dict[str, Difference]:
    """Returns the difference of each of COCO's twelve metrics, `other` minus `base`, by the names in METRICS.

    samples: the number of bootstrap samples.
    """
    truth = read_ground_truth(ground_truth)
    compared = compare(_evaluator(truth, base, kind), _evaluator(truth, other, kind), n_bootstrap=samples, seed=0)
    intervals = {name: compared["ci"][name] for name in METRICS}
    return {
        name: Difference(float(compared["deltas"][name]), float(interval["lower"]), float(interval["upper"]))
        for name, interval in intervals.items()
    }


def error_breakdown(ground_truth: GroundTruth, results: Results, kind: ResultKind) -> dict[str, Any]:
    """Returns the loss of AP50 by kind of error (TIDE, Bolya et al. 2020).

    The keys are 'AP50', 'gain' (kind -> the gain of AP50 if these errors were corrected) and 'count' (kind -> number of errors).
    The kinds are Cls (wrong class), Loc (poorly localised box or mask), Both (Cls and Loc), Dupe (duplicate of a detected
    object), Bkg (background) and Miss (missed object).
    """
    errors = _evaluator(ground_truth, results, kind).tide_errors()
    kinds = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
    return {
        "AP50": float(errors["ap_base"]),
        "gain": {kind: float(errors["delta_ap"][kind]) for kind in kinds},
        "count": {kind: int(errors["counts"][kind]) for kind in kinds},
    }


@dataclass(frozen=True)
class MatchedDetections:
    """Detections matched with the ground truth at one IoU, without detections that match crowds.

    scores [N]: the score of each detection. true [N]: whether it is a true positive. objects: the number of ground-truth objects.
    """

    scores: np.ndarray
    true: np.ndarray
    objects: int


def matched(ground_truth: GroundTruth, results: Results, iou: float) -> MatchedDetections:
    """Matches boxes with the ground truth as for average precision: per class and image, in descending order of the score."""
    truth = read_ground_truth(ground_truth)
    evaluator = COCOeval(truth, truth.load_res(str(results) if isinstance(results, Path) else results), "bbox")
    settings = evaluator.params
    largest = max(settings.max_dets)
    settings.iou_thrs, settings.max_dets, settings.area_rng, settings.area_rng_lbl = [iou], [largest], [[0, 1e10]], ["all"]
    evaluator.params = settings
    evaluator.evaluate()
    scores, true, objects = [np.empty(0)], [np.empty(0, dtype=np.bool_)], 0
    for part in evaluator.eval_imgs:  # one entry per class and image; None without objects and detections
        if part is None:
            continue
        counts = ~np.asarray(part["dtIgnore"][0], dtype=np.bool_)
        scores.append(np.asarray(part["dtScores"])[counts])
        true.append(np.asarray(part["dtMatched"][0], dtype=np.bool_)[counts])
        objects += int(np.sum(np.asarray(part["gtInDenominator"], dtype=np.bool_)))
    return MatchedDetections(np.concatenate(scores), np.concatenate(true), objects)


def read_ground_truth(ground_truth: GroundTruth) -> COCO:
    """Returns the ground truth as a COCO object, which is read from the file if `ground_truth` is a path."""
    return read_instances(ground_truth) if isinstance(ground_truth, Path) else ground_truth


def _evaluator(ground_truth: GroundTruth, results: Results, kind: ResultKind) -> COCOeval:
    truth = read_ground_truth(ground_truth)
    detections = truth.load_res(str(results) if isinstance(results, Path) else results)
    evaluator = COCOeval(truth, detections, kind)
    evaluator.evaluate()
    return evaluator
