"""Measures the effect of empty-slot override and of score thresholds on the metrics (section 4.1 of the paper)."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from detr_core.data.coco_dataset import CocoDataset
from detr_core.evaluate.average_precision import METRICS, MatchedDetections, bootstrap_differences, coco_ap, matched
from detr_core.evaluate.boxes import postprocess_softmax
from detr_core.evaluate.ground_truth import instances
from detr_core.evaluate.inference import classes_in, forward_pass
from detr_core.evaluate.results import result_rows, things_only
from detr_core.studies.claims import SeedDifference
from detr_core.studies.comparison import SAMPLES
from detr_core.studies.study import StudyInputs


@dataclass(frozen=True)
class Selection:
    """The metrics for one way to select detections.

    empty_slot_override: see EvaluateConfig. threshold: detections below this score are dropped. metrics: COCO's twelve metrics,
    and 'precision', 'recall' and 'F1' at IoU 0.5 over all classes together, all in 0..1.
    """

    empty_slot_override: bool
    threshold: float
    metrics: dict[str, float]

    @property
    def name(self) -> str:
        """The name of the selection, such as 'override_on/score_0.5'."""
        return f"override_{'on' if self.empty_slot_override else 'off'}/score_{self.threshold:g}"


@dataclass(frozen=True)
class Scoring:
    """The result of the study.

    selections: the metrics of every way to select detections. override: AP with empty-slot override minus AP
    without it, both without a score threshold.
    """

    selections: list[Selection]
    override: SeedDifference


@torch.inference_mode()
def scoring(inputs: StudyInputs, dataset: CocoDataset, thresholds: Sequence[float], batch_size: int) -> Scoring:
    """Returns the metrics with and without empty-slot override for each threshold, from one pass over the images.

    batch_size: see EvaluateConfig. Raises CheckpointError for a detector of another kind than DETR.
    """
    model = inputs.detr("scoring")
    classes = classes_in(inputs.categories, dataset)
    rows: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for targets, _, output in forward_pass(model, inputs.evaluation_data(dataset, batch_size)):
        logits, boxes = output.logits[-1].cpu(), output.boxes[-1].cpu()
        sizes = [target.original_size for target in targets]
        for override, part in rows.items():
            things = [things_only(image, classes) for image in postprocess_softmax(logits, boxes, sizes, override)]
            part += [result_rows(image, target.image_id, classes) for target, image in zip(targets, things, strict=True)]
    truth = instances(dataset.split)
    results = []
    for override, part in rows.items():
        all_rows = np.concatenate(part)
        matches = matched(truth, all_rows, iou=0.5)
        for threshold in thresholds:
            selected = all_rows[all_rows[:, 5] >= threshold]
            metrics = coco_ap(truth, selected, "bbox").metrics | _precision_and_recall(matches, threshold)
            results.append(Selection(override, threshold, metrics))
    without_override, with_override = (np.concatenate(rows[override]) for override in (False, True))
    gain = bootstrap_differences(truth, without_override, with_override, SAMPLES)["AP"]
    plain = coco_ap(truth, without_override, "bbox").metrics["AP"]
    return Scoring(results, SeedDifference(plain, plain + gain.value, gain.low, gain.high))


def write_scores(results: Sequence[Selection], folder: Path) -> None:
    """Writes to `folder`: `scores.json` (a list of Selection), `scores.csv` (one row per selection), the flat `metrics.json`."""
    (folder / "scores.json").write_text(json.dumps([asdict(selection) for selection in results], indent=1), encoding="utf-8")
    metrics = {f"{selection.name}/{name}": value for selection in results for name, value in selection.metrics.items()}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    names = (*METRICS, "precision", "recall", "F1")
    with (folder / "scores.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["empty_slot_override", "threshold", *names])
        for selection in results:
            table.writerow([selection.empty_slot_override, selection.threshold, *(selection.metrics[name] for name in names)])


def _precision_and_recall(matches: MatchedDetections, threshold: float) -> dict[str, float]:
    # Detections are matched in descending order of the score, so dropping low scores does not change the other matches.
    selected = matches.scores >= threshold
    true = int(matches.true[selected].sum())
    precision = true / int(selected.sum()) if selected.any() else 0.0
    recall = true / matches.objects if matches.objects else 0.0
    f1 = 2 * precision * recall / (precision + recall) if true else 0.0
    return {"precision": precision, "recall": recall, "F1": f1}
