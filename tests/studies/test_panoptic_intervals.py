"""Intervals of panoptic quality are those of a slow computation that scores each sample of images from its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detr_core.evaluate.average_precision import Difference
from detr_core.evaluate.panoptic_quality import PanopticQuality, panoptic_quality
from detr_core.evaluate.panoptic_sums import ImageSums, PredictionError, image_sums
from detr_core.studies.panoptic_intervals import PANOPTIC_METRICS, panoptic_differences

GOLDEN = Path(__file__).parent.parent / "golden"
PARTS = {"": "all", "_things": "things", "_stuff": "stuff"}


def sums_of(case: Path, maps: str = "pred") -> ImageSums:
    """Returns the sums of the predicted maps of a golden case, or with 'gt' those of its true maps as a prediction."""
    return image_sums(case / "gt.json", case / "gt", case / f"{maps}.json", case / maps)


def flat(quality: PanopticQuality) -> dict[str, float]:
    """Returns panoptic quality by the names in PANOPTIC_METRICS."""
    metrics: dict[str, float] = {}
    for end, part in PARTS.items():
        row = quality[part]  # type: ignore[literal-required]
        metrics |= {f"PQ{end}": row["pq"], f"SQ{end}": row["sq"], f"RQ{end}": row["rq"]}
    return metrics


def scored(case: Path, maps: str, indices: list[int], folder: Path) -> dict[str, float]:
    """Writes the images with these indices, repeated ones as images of their own, and scores them together."""
    for name in ("gt", maps):
        content = json.loads((case / f"{name}.json").read_text())
        order = [image["id"] for image in json.loads((case / "gt.json").read_text())["images"]]
        entries = {entry["image_id"]: entry for entry in content["annotations"]}
        images = {image["id"]: image for image in json.loads((case / "gt.json").read_text())["images"]}
        ids = list(enumerate((order[index] for index in indices), start=1))
        content["images"] = [images[old] | {"id": new} for new, old in ids]
        content["annotations"] = [entries[old] | {"image_id": new} for new, old in ids]
        (folder / f"{name}_sample.json").write_text(json.dumps(content))
    files = (folder / "gt_sample.json", case / "gt", folder / f"{maps}_sample.json", case / maps)
    return flat(panoptic_quality(*files))


@pytest.mark.parametrize("case", ["pq_synthetic", "pq_real"])
def test_the_sums_of_the_images_give_the_quality_of_all_images(case: str) -> None:
    folder = GOLDEN / case
    nothing = ImageSums(np.zeros_like(sums_of(folder).values), sums_of(folder).isthing)
    quality = flat(panoptic_quality(folder / "gt.json", folder / "gt", folder / "pred.json", folder / "pred"))
    perfect = panoptic_differences(sums_of(folder), sums_of(folder, "gt"), samples=1)
    assert list(perfect) == list(PANOPTIC_METRICS)
    for metric, difference in perfect.items():
        assert difference.value == pytest.approx(1 - quality[metric], abs=1e-12), metric
    assert panoptic_differences(nothing, sums_of(folder), samples=1) == {}, "without any segment, it is not defined"


def test_an_interval_is_that_of_samples_whose_files_are_scored(tmp_path: Path) -> None:
    case, samples = GOLDEN / "pq_synthetic", 60
    measured = panoptic_differences(sums_of(case), sums_of(case, "gt"), samples)
    drawn = np.random.default_rng(0).integers(0, len(sums_of(case).values), (samples, len(sums_of(case).values)))
    slow = [
        [scored(case, maps, indices, tmp_path)[metric] for metric in PANOPTIC_METRICS for maps in ("pred", "gt")]
        for indices in drawn.tolist()
    ]
    differences = np.array(slow).reshape(samples, len(PANOPTIC_METRICS), 2)
    bounds = np.quantile(differences[..., 1] - differences[..., 0], [0.025, 0.975], axis=0)
    for index, metric in enumerate(PANOPTIC_METRICS):
        assert (measured[metric].low, measured[metric].high) == pytest.approx(tuple(bounds[:, index]), abs=1e-12), metric


def test_equal_maps_do_not_differ_and_exchanged_maps_have_the_opposite_difference() -> None:
    pred, gt = sums_of(GOLDEN / "pq_synthetic"), sums_of(GOLDEN / "pq_synthetic", "gt")
    assert set(panoptic_differences(pred, pred).values()) == {Difference(0.0, 0.0, 0.0)}
    one, other = panoptic_differences(pred, gt), panoptic_differences(gt, pred)
    for metric, difference in one.items():
        assert (difference.value, difference.low, difference.high) == pytest.approx(
            (-other[metric].value, -other[metric].high, -other[metric].low)
        )


def sums(*images: list[list[float]], isthing: tuple[bool, ...] = (True, False)) -> ImageSums:
    """Returns the sums of images: for each image and category [iou, tp, fp, fn]."""
    return ImageSums(np.array(images, dtype=np.float64), np.array(isthing))


def test_one_image_has_an_interval_without_width() -> None:
    base, other = sums([[0.6, 1, 0, 1], [0, 0, 0, 0]]), sums([[1.6, 2, 0, 0], [0, 0, 0, 0]])
    differences = panoptic_differences(base, other)
    assert differences["PQ"] == Difference(pytest.approx(0.4), pytest.approx(0.4), pytest.approx(0.4))
    assert differences["SQ_things"].value == pytest.approx(0.2)
    assert differences["RQ_things"].value == pytest.approx(1 - 1 / 1.5)
    assert "PQ_stuff" not in differences, "no image has stuff"


def test_a_class_that_a_sample_lacks_is_left_out_of_its_mean() -> None:
    """Two images with one class each: a sample has the first alone, the second alone, or both."""
    empty = [0.0, 0, 0, 0]
    base = sums([[0.5, 1, 0, 0], empty], [empty, [0.8, 1, 0, 0]])
    other = sums([[0.9, 1, 0, 0], empty], [empty, [0.8, 1, 0, 0]])
    differences = panoptic_differences(base, other)
    assert differences["PQ"] == Difference(pytest.approx(0.2), pytest.approx(0.0), pytest.approx(0.4))
    assert differences["PQ_things"] == Difference(pytest.approx(0.4), pytest.approx(0.4), pytest.approx(0.4)), (
        "known samples only"
    )
    assert differences["PQ_stuff"] == Difference(0.0, 0.0, 0.0)


def test_a_class_that_is_only_predicted_counts() -> None:
    base, other = sums([[0.8, 1, 0, 0], [0, 0, 1, 0]]), sums([[0.8, 1, 0, 0], [0, 0, 0, 0]])
    assert panoptic_differences(base, other)["PQ"].value == pytest.approx(0.8 - 0.4)


def test_an_image_without_a_prediction_is_an_error(tmp_path: Path) -> None:
    case = GOLDEN / "pq_synthetic"
    content = json.loads((case / "pred.json").read_text())
    left = content["annotations"].pop(3)["image_id"]
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(PredictionError, match=f"panoptic.json: annotations: expected an entry for image {left}, found none"):
        image_sums(case / "gt.json", case / "gt", tmp_path / "panoptic.json", case / "pred")
