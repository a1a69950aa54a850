"""Computes the differences between two evaluations on the same validation images, with bootstrap intervals over these images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from detr_core.data.splits import Split
from detr_core.evaluate.average_precision import Difference, bootstrap_differences
from detr_core.evaluate.ground_truth import has_masks, instances
from detr_core.evaluate.metric_names import METRICS
from detr_core.evaluate.panoptic_sums import ImageSums, image_sums
from detr_core.studies.measurements.bootstrap import SAMPLES
from detr_core.studies.panoptic_intervals import PANOPTIC_METRICS, panoptic_differences

_Kind = Literal["bbox", "segm", "panoptic"]


class Intervals:
    """Differences between evaluations of a split, each of which is computed once.

    An evaluation is its folder with `bbox.json` and, with a mask head, `segm.json` and `panoptic.json`.
    """

    def __init__(self, split: Split) -> None:
        self._split, self._truth = split, instances(split)
        self._has_masks = has_masks(self._truth)
        self._known: dict[tuple[_Kind, Path, Path], dict[str, Difference]] = {}
        self._sums: dict[Path, ImageSums] = {}

    def difference(self, base: Path, other: Path, metric: str) -> Difference | None:
        """Returns a metric of `other` minus that of `base`; None if it has no interval, or if one of the two lacks its results.

        metric: one of COCO's twelve, such as 'AP', for masks 'mask/AP', or one of PANOPTIC_METRICS.
        """
        name = metric.removeprefix("mask/")
        if metric in PANOPTIC_METRICS:
            return self._panoptic(base, other).get(metric)
        if name not in METRICS:
            return None
        return self._average_precision("bbox" if name == metric else "segm", base, other).get(name)

    def _average_precision(self, kind: Literal["bbox", "segm"], base: Path, other: Path) -> dict[str, Difference]:
        if (kind, base, other) not in self._known:
            files = [folder / f"{kind}.json" for folder in (base, other)]
            available = all(file.is_file() for file in files) and (kind == "bbox" or self._has_masks)
            self._known[kind, base, other] = (
                bootstrap_differences(self._truth, files[0], files[1], SAMPLES, kind) if available else {}
            )
        return self._known[kind, base, other]

    def _panoptic(self, base: Path, other: Path) -> dict[str, Difference]:
        if ("panoptic", base, other) not in self._known:
            sums = [self._image_sums(folder) for folder in (base, other)]
            differences = {} if sums[0] is None or sums[1] is None else panoptic_differences(sums[0], sums[1])
            self._known["panoptic", base, other] = differences
        return self._known["panoptic", base, other]

    def _image_sums(self, folder: Path) -> ImageSums | None:
        split, file = self._split, folder / "panoptic.json"
        if split.panoptic is None or split.panoptic_masks is None or not file.is_file():
            return None
        if folder not in self._sums:
            self._sums[folder] = image_sums(split.panoptic, split.panoptic_masks, file, folder / "panoptic")
        return self._sums[folder]
