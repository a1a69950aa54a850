"""Measures AP after each decoder layer with and without non-maximum suppression (Figure 4 of the paper).

After the first layer, queries do not know the predictions of other queries and predict duplicates, so NMS raises AP. The last
layers avoid duplicates by themselves, and NMS lowers AP slightly.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torchvision import ops

from detr_core.config import ConfigError
from detr_core.data.coco_dataset import CocoDataset
from detr_core.evaluate.average_precision import METRICS, GroundTruth, bootstrap_differences, coco_ap
from detr_core.evaluate.boxes import Detections, in_one_row
from detr_core.evaluate.ground_truth import instances
from detr_core.evaluate.inference import classes_in, forward_pass
from detr_core.evaluate.results import result_rows
from detr_core.model.spec import kind_of
from detr_core.structures import RegionOutput
from detr_core.studies.claims import Comparison, MeasuredClaim, PaperClaim, SeedDifference
from detr_core.studies.comparison import SAMPLES
from detr_core.studies.study import StudyInputs


@dataclass(frozen=True)
class Cell:
    """One cell of the table.

    decoder_depth: the layer, from 1. nms: the IoU threshold, None without NMS. metrics: COCO's twelve metrics in 0..1.
    """

    decoder_depth: int
    nms: float | None
    metrics: dict[str, float]

    @property
    def name(self) -> str:
        """The name of the cell, such as 'depth_1/nms_off' or 'depth_4/nms_0.7'."""
        return f"depth_{self.decoder_depth}/nms_{'off' if self.nms is None else self.nms}"


@dataclass(frozen=True)
class DecoderNms:
    """The result of the study: a cell for each decoder layer and threshold, and the measured claims."""

    cells: list[Cell]
    claims: list[MeasuredClaim]


@torch.inference_mode()
def decoder_nms(
    inputs: StudyInputs,
    dataset: CocoDataset,
    thresholds: Sequence[float | None],
    batch_size: int,
    claims: tuple[PaperClaim, PaperClaim, PaperClaim],
) -> DecoderNms:
    """Returns a cell for each decoder layer and threshold, from one pass over the images, and the measured claims.

    thresholds: IoU, None for no NMS. batch_size: see EvaluateConfig. claims: see `measured_claims`.
    Every query gives a detection with its best class other than no-object, so the last layer without NMS has the metrics of an
    evaluation with `empty_slot_override`. Raises ConfigError for a detector without decoder layers.
    """
    kind = inputs.model.config.kind
    if "decoder_layers" not in kind_of(kind).capabilities:
        raise ConfigError(f"study decoder-nms: expected a checkpoint of a detector with decoder layers, found kind {kind!r}")
    classes = classes_in(inputs.categories, dataset)
    rows: dict[tuple[int, float | None], list[np.ndarray]] = {}
    for targets, _, output in forward_pass(inputs.model, inputs.evaluation_data(dataset, batch_size)):
        sizes = [target.original_size for target in targets]
        assert not isinstance(output, RegionOutput)
        # The detections of a batch are concatenated, because a separate pass per image would be slow for the table's many cells.
        for layer in range(len(output.logits)):
            detections = in_one_row(output, sizes, layer)
            image_ids = np.repeat([target.image_id for target in targets], len(detections.scores) // len(targets))
            thing = classes.thing[detections.labels]
            thing_detections, thing_image_ids = detections.chosen(thing), image_ids[thing.numpy()]
            thing_rows = result_rows(thing_detections, thing_image_ids, classes)
            for nms in thresholds:
                kept_rows = thing_rows if nms is None else thing_rows[kept_by_nms(thing_detections, thing_image_ids, nms)]
                rows.setdefault((layer + 1, nms), []).append(kept_rows)
    truth = instances(dataset.split)
    results = {cell: np.concatenate(part) for cell, part in rows.items()}
    cells = [Cell(*cell, coco_ap(truth, detections, "bbox").metrics) for cell, detections in results.items()]
    return DecoderNms(cells, measured_claims(results, truth, claims))


def measured_claims(
    results: Mapping[tuple[int, float | None], np.ndarray],
    truth: GroundTruth,
    claims: tuple[PaperClaim, PaperClaim, PaperClaim],
) -> list[MeasuredClaim]:
    """Returns the study's claims with bootstrap intervals of their differences of AP.

    claims: that AP rises with every layer, that NMS helps the first layer most, and that it costs AP at the last layer.
    results: (decoder layer, threshold or None) -> rows of detections as `result_rows` makes them. The claims about NMS are those
    of the highest threshold, which removes hardly more than duplicates; without NMS in the study they are left out.
    """

    def difference(first: tuple[int, float | None], second: tuple[int, float | None]) -> SeedDifference:
        key = (first, second)
        if key not in computed:
            gain = bootstrap_differences(truth, results[first], results[second], SAMPLES)["AP"]
            ap = coco_ap(truth, results[first], "bbox").metrics["AP"]
            computed[key] = SeedDifference(ap, ap + gain.value, gain.low, gain.high)
        return computed[key]

    computed: dict[tuple[tuple[int, float | None], tuple[int, float | None]], SeedDifference] = {}
    layers = sorted({layer for layer, nms in results if nms is None})
    measured = []
    rising_claim, gain_claim, cost_claim = claims
    if len(layers) > 1:
        steps = [
            Comparison(f"layer {after} against layer {before}", difference((before, None), (after, None)))
            for before, after in itertools.pairwise(layers)
        ]
        measured.append(rising_claim.with_measurements("AP", steps))
    thresholds = [nms for _, nms in results if nms is not None]
    if len(layers) > 1 and thresholds:
        first, last, nms = layers[0], layers[-1], max(thresholds)
        gain_of = {layer: difference((layer, None), (layer, nms)) for layer in layers}
        name = f"NMS {nms:g}"
        gain_comparisons = [
            Comparison(f"gain by {name} after layer {first} against layer {after}", _less(gain_of[first], gain_of[after]))
            for after in layers[1:]
        ]
        all_gain_comparisons = [Comparison(f"{name} after layer {first}", gain_of[first]), *gain_comparisons]
        measured.append(gain_claim.with_measurements("AP", all_gain_comparisons))
        cost_comparisons = [Comparison(f"no NMS after layer {last}", difference((last, nms), (last, None)))]
        measured.append(cost_claim.with_measurements("AP", cost_comparisons))
    return measured


def _less(gain: SeedDifference, other: SeedDifference) -> SeedDifference:
    """Returns a gain minus another gain, with the widest interval that their intervals allow."""
    assert None not in (gain.low, gain.high, other.low, other.high)
    low, high = cast(float, gain.low) - cast(float, other.high), cast(float, gain.high) - cast(float, other.low)
    return SeedDifference(other.value, gain.value, low, high)


def write_cells(cells: Sequence[Cell], folder: Path) -> None:
    """Writes the table to `folder`: `cells.json` (a list of Cell), `cells.csv` (one row per cell) and the flat `metrics.json`."""
    (folder / "cells.json").write_text(json.dumps([asdict(cell) for cell in cells], indent=1), encoding="utf-8")
    metrics = {f"{cell.name}/{name}": value for cell in cells for name, value in cell.metrics.items()}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    with (folder / "cells.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["decoder_depth", "nms", *METRICS])
        for cell in cells:
            table.writerow([cell.decoder_depth, "off" if cell.nms is None else cell.nms, *(cell.metrics[n] for n in METRICS)])


def kept_by_nms(detections: Detections, image: np.ndarray, threshold: float) -> np.ndarray:
    """Returns which detections NMS keeps, bool [N]. It compares detections of one class in one image only.

    image [N]: the image of each detection. threshold: IoU.
    """
    kept = np.zeros(len(image), dtype=np.bool_)
    if len(image) == 0:
        return kept
    # The boxes of each image and class are shifted far from all others, so that one call of NMS handles the whole batch. The
    # shift needs float64, because float32 would lose fractions of pixels. torchvision's batched_nms shifts too little for boxes
    # that reach beyond the image.
    boxes = detections.boxes.double()
    images = torch.from_numpy(np.unique(image, return_inverse=True)[1])
    group = images * (detections.labels.max() + 1) + detections.labels
    shift = group * (boxes.max() - boxes.min() + 1)
    kept[ops.nms(boxes + shift[:, None], detections.scores.double(), threshold).numpy()] = True
    return kept
