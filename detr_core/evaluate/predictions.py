"""Writes the predictions of a detector for a split as COCO result files, and computes the metrics from these files.

An evaluation folder contains `bbox.json` and `segm.json` (COCO results), `panoptic.json` with the PNGs in `panoptic/` (COCO
panoptic) and, after `evaluate`, `metrics.json`, `per_class.json` and `errors.json`. `segm.json` exists only if the detector
predicts masks, the panoptic files only if it predicts panoptic maps.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from detr_core.data.fields import category_list, read_content
from detr_core.data.splits import Split
from detr_core.distributed import ProcessContext
from detr_core.evaluate.average_precision import ResultKind, coco_ap, error_breakdown
from detr_core.evaluate.boxes import postprocess
from detr_core.evaluate.config import EvaluateConfig
from detr_core.evaluate.fit import require_evaluation_fits
from detr_core.evaluate.ground_truth import has_masks, instances, read_panoptic
from detr_core.evaluate.inference import EvaluationData, classes_in, forward_pass
from detr_core.evaluate.metric_names import METRICS
from detr_core.evaluate.multi_scale import detected
from detr_core.evaluate.panoptic_quality import panoptic_quality
from detr_core.evaluate.panoptic_sums import ImageSums, TrueMaps, qualities
from detr_core.evaluate.results import box_results, mask_results, panoptic_result, result_rows, things_only
from detr_core.evaluate.segmentation import Extent, segmentation
from detr_core.model.checkpoint import Checkpoint
from detr_core.model.common.detector import Detector
from detr_core.structures import Category, Target, category_labels


@torch.inference_mode()
def predict(
    trained: Checkpoint,
    data: EvaluationData,
    config: EvaluateConfig,
    folder: Path,
) -> None:
    """Writes the detections of every image of `data` to `folder`.

    A detector that predicts masks adds the masks of the detections and, if it predicts panoptic maps, a panoptic map.

    Several processes divide the images, and only the first one writes to the folder. The files are sorted by image and do not
    depend on the number of processes. The detector's categories are matched with the dataset's by id, and only detections of
    shared categories are written. Boxes and masks are written for things only. For panoptic maps the dataset's categories must be
    those of its panoptic file. A mask head runs only on the queries whose masks are written: those that the panoptic merging
    keeps and those of the written detections. With `empty_slot_override` the written detections are all queries whose best
    class other than no-object is a thing, as in the published mask AP; without it, the queries whose best class of all is a
    thing. Raises DatasetError if the checkpoint's categories do not fit the dataset's, and ConfigError if its kind of detector
    does not fit `config`.
    """
    require_evaluation_fits(trained.model.config.kind, config)
    model, classes, maps = trained.model, classes_in(trained.categories, data.dataset), trained.predicts_panoptic_maps
    boxes: list[dict[str, Any]] = []
    masks: list[dict[str, Any]] = []
    panoptic: list[dict[str, Any]] = []
    pictures = _Pictures(folder / "panoptic", data.process) if maps else None
    for targets, padded_size, output in forward_pass(model, data, partial(detected, model, config=config.multi_scale)):
        sizes = [target.original_size for target in targets]
        things = [things_only(image, classes) for image in postprocess(output, sizes, config.empty_slot_override)]
        for target, image in zip(targets, things, strict=True):
            boxes += box_results(result_rows(image, target.image_id, classes))
        if not trained.predicts_masks:
            continue
        predicted = segmentation(model, output, things, _extents(targets, padded_size), classes, config if maps else None)
        for i, (target, image) in enumerate(zip(targets, things, strict=True)):
            masks += mask_results(image, predicted.instances(i, image), target.image_id, classes)
            if pictures is not None:
                panoptic.append(panoptic_result(*predicted.panoptic(i), target.image_id, classes, pictures.folder))
    if pictures is not None:
        pictures.send()
    boxes, masks, panoptic = (_gathered(entries, data.process) for entries in (boxes, masks, panoptic))
    if not data.process.first:
        return
    _write(folder / "bbox.json", boxes)
    if trained.predicts_masks:
        _write(folder / "segm.json", masks)
    if maps:
        _write(folder / "panoptic.json", {"annotations": panoptic})


@torch.inference_mode()
def average_precision_of(model: Detector, categories: Sequence[Category], data: EvaluationData) -> dict[str, float]:
    """Returns COCO's twelve metrics for boxes of things ('AP', 'AP50', ...) without writing files, for validation in training.

    Every query gives a detection with its best class other than no-object, as in the published metrics. Several processes divide
    the images, and each of them returns the metrics of all images.
    """
    classes = classes_in(categories, data.dataset)
    rows = []
    for targets, _, output in forward_pass(model, data):
        sizes = [target.original_size for target in targets]
        images = zip(targets, postprocess(output, sizes, empty_slot_override=True), strict=True)
        rows += [result_rows(things_only(image, classes), target.image_id, classes) for target, image in images]
    return _box_metrics(rows, data)


@torch.inference_mode()
def mask_metrics_of(
    model: Detector, categories: Sequence[Category], data: EvaluationData, masks: bool, merging: EvaluateConfig | None
) -> dict[str, float]:
    """Returns the metrics of boxes, masks and panoptic maps without leaving files, for validation in training.

    The metrics of boxes are those of `average_precision_of`. With `masks` there are the same for masks ('mask/AP', ...), for
    which the instances of the dataset's split must have masks. With `merging` there is panoptic quality ('PQ', 'PQ_things', ...),
    for which the split must have panoptic maps. Only the settings of `merging` that merge segments are used; each image is
    segmented at one size.
    """
    classes = classes_in(categories, data.dataset)
    rows: list[np.ndarray] = []
    mask_rows: list[dict[str, Any]] = []
    maps: dict[int, dict[str, Any]] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for targets, padded_size, output in forward_pass(model, data):
            sizes = [target.original_size for target in targets]
            things = [things_only(image, classes) for image in postprocess(output, sizes, empty_slot_override=True)]
            read = things if masks else [image.chosen(torch.empty(0, dtype=torch.int64)) for image in things]
            predicted = segmentation(model, output, read, _extents(targets, padded_size), classes, merging)
            for i, (target, image) in enumerate(zip(targets, things, strict=True)):
                rows.append(result_rows(image, target.image_id, classes))
                if masks:
                    mask_rows += mask_results(image, predicted.instances(i, image), target.image_id, classes)
                if merging is not None:
                    maps[target.image_id] = panoptic_result(*predicted.panoptic(i), target.image_id, classes, folder)
        metrics = _box_metrics(rows, data)
        if masks:
            metrics |= _mask_metrics(mask_rows, data)
        if merging is not None:
            metrics |= _panoptic_metrics(maps, folder, data)
    return metrics


def _box_metrics(rows: list[np.ndarray], data: EvaluationData) -> dict[str, float]:
    """Returns COCO's twelve metrics for the rows of `result_rows` of all processes. Only the first process computes them."""
    shares, metrics = data.process.gather(rows), None
    if data.process.first:
        all_rows = np.concatenate([np.empty((0, 7)), *(row for share in shares for row in share)])
        by_image = all_rows[all_rows[:, 0].argsort(kind="stable")]
        metrics = coco_ap(instances(data.dataset.split), by_image, "bbox").metrics
    of_first: dict[str, float] = data.process.from_first(metrics)
    return of_first


def _mask_metrics(entries: list[dict[str, Any]], data: EvaluationData) -> dict[str, float]:
    """Returns COCO's twelve metrics ('mask/AP', ...) for the results of all processes. Only the first process computes them."""
    gathered, metrics = _gathered(entries, data.process), None
    if data.process.first:
        of_masks = coco_ap(instances(data.dataset.split), gathered, "segm").metrics
        metrics = {f"mask/{name}": of_masks[name] for name in METRICS}
    of_first: dict[str, float] = data.process.from_first(metrics)
    return of_first


def _panoptic_metrics(maps: dict[int, dict[str, Any]], folder: Path, data: EvaluationData) -> dict[str, float]:
    """Returns panoptic quality over the images of all processes.

    maps: image id -> the annotation of the map that this process predicted, whose PNG is in `folder`. The sums of the images are
    added in the order of the images, so that the result does not depend on the number of processes.
    """
    split = data.dataset.split
    assert split.panoptic is not None, "expected a split with panoptic maps"
    assert split.panoptic_masks is not None, "expected a split with panoptic maps"
    truth = TrueMaps(read_panoptic(split.panoptic), split.panoptic_masks)
    shares = data.process.gather(truth.sums(maps, folder))
    by_image = {number: sums for share in shares for number, sums in share.items()}
    sums = ImageSums(np.stack([by_image[number] for number in sorted(by_image)]), truth.isthing)
    return {name: float(np.nan_to_num(value[0])) for name, value in qualities(sums, np.ones((1, len(by_image)))).items()}


def _extents(targets: Sequence[Target], padded_size: tuple[int, int]) -> list[Extent]:
    return [Extent(padded_size, target.size, target.original_size) for target in targets]


def evaluate(folder: Path, split: Split) -> dict[str, float]:
    """Scores the files that `predict` wrote to `folder` against the split's ground truth.

    Returns flat scalars in 0..1, and writes them to `metrics.json`: 'val/AP' and the rest of COCO's twelve metrics for boxes,
    'val/mask/AP' and so on for masks, 'val/PQ', 'val/SQ', 'val/RQ', and the same with '_things' and '_stuff'. It also writes
    `per_class.json` (under 'bbox' and 'segm' category label -> AP, under 'panoptic' category label -> {'pq', 'sq', 'rq'}) and
    `errors.json` (under 'bbox' and 'segm' the result of `error_breakdown`). Metrics without ground truth are left out: those of
    masks if the instances have no masks, PQ if the split has no panoptic file.
    """
    metrics: dict[str, float] = {}
    per_class: dict[str, dict[str, Any]] = {}
    errors: dict[str, Any] = {}
    truth = instances(split)
    kinds: list[tuple[ResultKind, str]] = [("bbox", ""), ("segm", "mask/")]
    for kind, prefix in kinds:
        results = folder / f"{kind}.json"
        if not results.exists() or (kind == "segm" and not has_masks(truth)):
            continue
        precision = coco_ap(truth, results, kind)
        metrics |= {f"{split.name}/{prefix}{name}": precision.metrics[name] for name in METRICS}
        per_class[kind] = precision.per_class
        errors[kind] = error_breakdown(truth, results, kind)
    if split.panoptic is not None and split.panoptic_masks is not None and (folder / "panoptic.json").exists():
        quality = panoptic_quality(split.panoptic, split.panoptic_masks, folder / "panoptic.json", folder / "panoptic")
        for suffix, row in (("", quality["all"]), ("_things", quality["things"]), ("_stuff", quality["stuff"])):
            metrics |= {
                f"{split.name}/PQ{suffix}": row["pq"],
                f"{split.name}/SQ{suffix}": row["sq"],
                f"{split.name}/RQ{suffix}": row["rq"],
            }
        names = category_labels({number: name for number, name, _ in category_list(read_content(split.panoptic)["categories"])})
        per_class["panoptic"] = {names[category]: row for category, row in quality["per_class"].items()}
    _write(folder / "metrics.json", metrics)
    _write(folder / "per_class.json", per_class)
    _write(folder / "errors.json", errors)
    return metrics


class _Pictures:
    """The PNGs of panoptic maps of all processes: each process writes its own to `folder`, and sends them to the first one.

    In the first process `folder` is the final one; in the others, which may be on other machines, it is a temporary one.
    """

    def __init__(self, final: Path, process: ProcessContext) -> None:
        self.process = process
        self._temporary = None if process.first else TemporaryDirectory()
        self.folder = final if self._temporary is None else Path(self._temporary.name)
        self.folder.mkdir(parents=True, exist_ok=True)

    def send(self) -> None:
        """Sends the files to the first process. All processes must call this method together."""
        own = {} if self._temporary is None else {file.name: file.read_bytes() for file in self.folder.iterdir()}
        for files in self.process.to_first(own):
            for name, content in files.items():
                (self.folder / name).write_bytes(content)
        if self._temporary is not None:
            self._temporary.cleanup()


def _gathered(entries: list[dict[str, Any]], process: ProcessContext) -> list[dict[str, Any]]:
    # All entries of an image come from the same process and keep their order.
    return sorted((entry for share in process.gather(entries) for entry in share), key=lambda entry: int(entry["image_id"]))


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1 if isinstance(content, dict) else None), encoding="utf-8")
