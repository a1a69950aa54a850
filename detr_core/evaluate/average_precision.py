"""COCO's average precision, and what the errors are made of."""

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

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

GroundTruth = Path | COCO
"""An `instances_*.json`, or one that was read before, so that several results are scored against one copy."""

Results = Path | list[dict[str, Any]] | np.ndarray
"""Detections: a COCO results file, its content, or rows [N, 7] of image id, x, y, w, h, score, category id."""

Kind = Literal["bbox", "segm"]


@dataclass(frozen=True)
class APResult:
    """figures: COCO's twelve, by the names in FIGURES, 0..1; -1 where the ground truth has no such object.

    per_class: AP by category label (see `category_labels`), of the categories that the ground truth has objects of.
    """

    figures: dict[str, float]
    per_class: dict[str, float]


def coco_ap(ground_truth: GroundTruth, results: Results, kind: Kind) -> APResult:
    """Average precision and recall of boxes ('bbox') or masks ('segm'), as pycocotools computes them.

    For masks, results must hold no boxes, or objects would be sorted into small, medium and large by box area. Results of
    categories that the ground truth doesn't have are ignored. Without any result, AP and AR are 0.
    """
    evaluator = _evaluator(ground_truth, results, kind)
    evaluator.accumulate()
    with contextlib.redirect_stdout(io.StringIO()):  # summarize() prints its table, and only then gives the figures
        evaluator.summarize()
    values = evaluator.get_results()
    return APResult({name: float(values[name]) for name in FIGURES}, _per_class(evaluator))


def _per_class(evaluator: COCOeval) -> dict[str, float]:
    # By id: the evaluator's own figures are by name, where two categories of one name would be one.
    truth = evaluator.coco_gt
    ids = list(evaluator.params.cat_ids)
    labels = category_labels({category["id"]: category["name"] for category in truth.load_cats(ids)})
    assert evaluator.eval is not None  # it has accumulated
    precision = np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1]  # IoU, recall, category; any area, most detections
    counted = [(number, precision[:, :, place]) for place, number in enumerate(ids)]
    return {labels[number]: float(values[values > -1].mean()) for number, values in counted if (values > -1).any()}


def bootstrap_difference(
    ground_truth: GroundTruth, base: Results, other: Results, samples: int, kind: Kind = "bbox"
) -> tuple[float, float, float]:
    """By how much the AP of `other` is above that of `base`, and the bounds of its 95% interval over samples of the images."""
    truth = read_ground_truth(ground_truth)
    found = compare(_evaluator(truth, base, kind), _evaluator(truth, other, kind), n_bootstrap=samples, seed=0)
    interval = found["ci"]["AP"]
    return float(found["deltas"]["AP"]), float(interval["lower"]), float(interval["upper"])


def error_breakdown(ground_truth: GroundTruth, results: Results, kind: Kind) -> dict[str, Any]:
    """What keeps AP50 from 1, by kind of error (TIDE, Bolya et al. 2020).

    Returns {'AP50': now, 'gain': {kind: AP50 that would be won were these errors mended}, 'count': {kind: errors}}. The kinds
    are Cls (wrong class), Loc (box or mask too far off), Both, Dupe (found twice), Bkg (nothing there) and Miss.
    """
    errors = _evaluator(ground_truth, results, kind).tide_errors()
    kinds = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
    return {
        "AP50": float(errors["ap_base"]),
        "gain": {kind: float(errors["delta_ap"][kind]) for kind in kinds},
        "count": {kind: int(errors["counts"][kind]) for kind in kinds},
    }


@dataclass(frozen=True)
class Matched:
    """Detections with what they turned out to be at one IoU, those that only hit crowds left out.

    scores, true [N]: of each detection, and whether it found an object of its class. objects: how many there were to be found.
    """

    scores: np.ndarray
    true: np.ndarray
    objects: int


def matched(ground_truth: GroundTruth, results: Results, iou: float) -> Matched:
    """Boxes matched with the ground truth as for average precision: from the surest on, class by class, image by image."""
    truth = read_ground_truth(ground_truth)
    evaluator = COCOeval(truth, truth.load_res(str(results) if isinstance(results, Path) else results), "bbox")
    settings = evaluator.params
    largest = max(settings.max_dets)
    settings.iou_thrs, settings.max_dets, settings.area_rng, settings.area_rng_lbl = [iou], [largest], [[0, 1e10]], ["all"]
    evaluator.params = settings
    evaluator.evaluate()
    scores, true, objects = [np.empty(0)], [np.empty(0, dtype=np.bool_)], 0
    for part in evaluator.eval_imgs:  # a class in an image; None where it has neither objects nor detections
        if part is None:
            continue
        counts = ~np.asarray(part["dtIgnore"][0], dtype=np.bool_)
        scores.append(np.asarray(part["dtScores"])[counts])
        true.append(np.asarray(part["dtMatched"][0], dtype=np.bool_)[counts])
        objects += int(np.sum(np.asarray(part["gtInDenominator"], dtype=np.bool_)))
    return Matched(np.concatenate(scores), np.concatenate(true), objects)


def read_ground_truth(ground_truth: GroundTruth) -> COCO:
    """The instances, read from their file if they weren't yet."""
    return read_instances(ground_truth) if isinstance(ground_truth, Path) else ground_truth


def _evaluator(ground_truth: GroundTruth, results: Results, kind: Kind) -> COCOeval:
    truth = read_ground_truth(ground_truth)
    found = truth.load_res(str(results) if isinstance(results, Path) else results)
    evaluator = COCOeval(truth, found, kind)
    evaluator.evaluate()
    return evaluator
