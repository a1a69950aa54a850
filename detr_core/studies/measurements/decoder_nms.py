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
from detr_core.evaluate.average_precision import GroundTruth, bootstrap_differences, coco_ap
from detr_core.evaluate.boxes import Detections, in_one_row
from detr_core.evaluate.ground_truth import instances
from detr_core.evaluate.inference import classes_in, forward_pass
from detr_core.evaluate.metric_names import METRICS
from detr_core.evaluate.results import result_rows
from detr_core.model.spec import kind_of
from detr_core.structures import RegionOutput
from detr_core.studies.claims import Comparison, MeasuredClaim, PaperClaim, SeedDifference
from detr_core.studies.measurements.bootstrap import SAMPLES
from detr_core.studies.study import StudyInputs

Place = tuple[int, float | None]
"""The place of a cell in the table: its decoder layer, from 1, and its threshold."""


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
    rows: dict[Place, list[np.ndarray]] = {}
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
    results: Mapping[Place, np.ndarray],
    truth: GroundTruth,
    claims: tuple[PaperClaim, PaperClaim, PaperClaim],
) -> list[MeasuredClaim]:
    """Returns the study's claims with bootstrap intervals of their differences of AP.

    claims: that AP rises with every layer, that NMS helps the first layer most, and that it costs AP at the last layer.
    results: (decoder layer, threshold or None) -> rows of detections as `result_rows` makes them. The claims about NMS are those
    of the highest threshold, which removes hardly more than duplicates. A claim has a reason instead of comparisons if the study
    has no results with and without NMS, or the detector has one decoder layer.
    """
    rising_claim, gain_claim, cost_claim = claims
    layers = sorted({layer for layer, nms in results if nms is None})
    thresholds = [nms for _, nms in results if nms is not None]
    if len(layers) < 2:
        reason = "the detector has one decoder layer" if layers else "the study has no results without NMS"
        return [claim.without_measurements(reason) for claim in claims]
    differences = _Differences(results, truth)
    steps = [
        Comparison(
            f"layer {after} against layer {before}",
            differences.between((before, None), (after, None)),
            (f"layer {before}", f"layer {after}"),
        )
        for before, after in itertools.pairwise(layers)
    ]
    measured = [rising_claim.with_measurements("AP", steps)]
    if not thresholds:
        return measured + [claim.without_measurements("the study has no results with NMS") for claim in (gain_claim, cost_claim)]
    gain_comparisons, cost_comparison = _nms_comparisons(differences, layers, max(thresholds))
    measured.append(gain_claim.with_measurements("AP", gain_comparisons))
    measured.append(cost_claim.with_measurements("AP", [cost_comparison]))
    return measured


class _Differences:
    """Computes differences of AP between cells of the table, once for each pair."""

    def __init__(self, results: Mapping[Place, np.ndarray], truth: GroundTruth) -> None:
        self._results, self._truth = results, truth
        self._computed: dict[tuple[Place, Place], SeedDifference] = {}

    def between(self, first: Place, second: Place) -> SeedDifference:
        """Returns the AP of the second cell minus that of the first, with its interval over the validation images."""
        key = (first, second)
        if key not in self._computed:
            gain = bootstrap_differences(self._truth, self._results[first], self._results[second], SAMPLES)["AP"]
            ap = coco_ap(self._truth, self._results[first], "bbox").metrics["AP"]
            self._computed[key] = SeedDifference(ap, ap + gain.value, gain.low, gain.high)
        return self._computed[key]


def _nms_comparisons(differences: _Differences, layers: Sequence[int], nms: float) -> tuple[list[Comparison], Comparison]:
    """Returns the comparisons for the claim that NMS helps the first layer most, and the one for its cost at the last layer."""
    first, last = layers[0], layers[-1]
    gain_of = {layer: differences.between((layer, None), (layer, nms)) for layer in layers}
    without, with_nms = ({layer: f"layer {layer} {how}" for layer in layers} for how in ("without NMS", f"with NMS {nms:g}"))
    gain_comparisons = [
        Comparison(
            f"gain by NMS {nms:g} after layer {first} against layer {after}",
            _less(gain_of[first], gain_of[after]),
            (f"gain after layer {after}", f"gain after layer {first}"),
        )
        for after in layers[1:]
    ]
    first_gain = Comparison(f"NMS {nms:g} after layer {first}", gain_of[first], (without[first], with_nms[first]))
    cost = differences.between((last, nms), (last, None))
    return [first_gain, *gain_comparisons], Comparison(f"no NMS after layer {last}", cost, (with_nms[last], without[last]))


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
