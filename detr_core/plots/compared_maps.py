"""Draws the panoptic maps of two variants of a study side by side (Figure 11 of the paper), on images chosen by a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from detr_core.data.splits import Split
from detr_core.evaluate.panoptic_quality import quality_of_images
from detr_core.plots.panoptic import PanopticTruth, Prediction
from detr_core.plots.pictures import save, side_by_side
from detr_core.studies.comparison import Run, StudyTable, finished

RULE = (
    "Each picture shows the ground truth and the maps of {other} and of {base}. The images are not selected by hand: sorted by "
    "the PQ of {base} minus that of {other} in the single image, they are the first, the last and evenly spaced ones between "
    "them, so that the worst failures of both are among them."
)


@dataclass(frozen=True)
class Pair:
    """The base of a study and a variant of another kind of detector, both with panoptic maps. Their folders are evaluations."""

    base: str
    base_folder: Path
    other: str
    other_folder: Path

    @property
    def rule(self) -> str:
        """Returns the sentences that say what the pictures show and how their images are chosen."""
        return RULE.format(base=self.base, other=self.other)


def pair_of(table: StudyTable, folder: Path) -> Pair | None:
    """Returns the base and the first variant of another kind of detector, if both are finished and have panoptic maps.

    folder: the folder of the study, with that of each variant. A variant whose maps are not on this machine is left out.
    """
    runs = {variant: seeds[0] for variant, seeds in finished(table).items()}
    base = runs.get(table.base)
    if base is None or not _has_maps(folder, base):
        return None
    kind = base.varied.get("detector")
    for variant, run in runs.items():
        if run.varied.get("detector") != kind and _has_maps(folder, run):
            return Pair(table.base, _evaluation(folder, base), variant, _evaluation(folder, run))
    return None


def compared_pictures(pair: Pair, split: Split, out: Path, count: int) -> list[tuple[Path, str]]:
    """Draws `count` images into `out`, from the one with the lowest difference of PQ to the one with the highest.

    Returns the files and their descriptions; nothing for a split without panoptic ground truth. Raises DatasetError for an image
    or a PNG that can't be read.
    """
    if split.panoptic is None or split.panoptic_masks is None:
        return []
    truth, base, other = PanopticTruth(split), Prediction(pair.base_folder), Prediction(pair.other_folder)
    of_base, of_other = (
        quality_of_images(split.panoptic, split.panoptic_masks, evaluation.file, evaluation.folder)
        for evaluation in (base, other)
    )
    written = []
    for image_id in chosen({number: of_base[number] - of_other[number] for number in of_base.keys() & of_other.keys()}, count):
        panel = truth.image(image_id)
        panels = [truth.map(panel, image_id), truth.map(panel, image_id, other), truth.map(panel, image_id, base)]
        titles = (
            "ground truth",
            f"{pair.other}: PQ {100 * of_other[image_id]:.0f}",
            f"{pair.base}: PQ {100 * of_base[image_id]:.0f}",
        )
        file = save(side_by_side(titles, panels), out / f"compared_{image_id}.jpg")
        written.append((file, f"Image {image_id}: {', '.join(titles)}"))
    return written


def chosen(differences: Mapping[int, float], count: int) -> list[int]:
    """Returns `count` image ids in the order of their differences: the first, the last, and evenly spaced ones between them."""
    ordered = sorted(differences, key=lambda number: (differences[number], number))
    if count >= len(ordered):
        return ordered
    if count <= 1:
        return ordered[:count]
    return [ordered[round(number * (len(ordered) - 1) / (count - 1))] for number in range(count)]


def _evaluation(folder: Path, run: Run) -> Path:
    return folder / f"{run.variant}-seed{run.seed}" / "evaluation"


def _has_maps(folder: Path, run: Run) -> bool:
    return (_evaluation(folder, run) / "panoptic.json").is_file()
