"""COCO datasets as annotation tools export them are read completely."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_core.data.splits import read_dataset
from detr_core.evaluate.average_precision import coco_ap
from detr_core.evaluate.ground_truth import has_masks, instances
from tests.adopting import Outcome, sums
from tests.flows.new_profile.coco_exports import cvat, label_studio, labelme, odd, roboflow, write


@pytest.mark.parametrize(
    ("export", "masks"), [(roboflow, False), (cvat, True), (label_studio, False), (labelme, True), (odd, True)]
)
def test_the_exports_of_annotation_tools_are_read_completely(
    tmp_path: Path, outcome: Callable[..., Outcome], export: Callable[[Path], None], masks: bool
) -> None:
    root = tmp_path / "export"
    root.mkdir()
    export(root)
    result = outcome(root)
    assert (result.error, set(result.findings) - {"category_unused"}) == ("", set())
    assert sums(result, "images") == {"supplied": 8, "used": 8, "left_out": 0}
    assert sums(result, "objects") == {"supplied": 16, "used": 16, "left_out": 0}
    truth = instances(read_dataset(result.paths.dataset)["val"])
    assert has_masks(truth) == masks
    objects = truth.load_anns(truth.get_ann_ids())
    perfect = [
        {"image_id": entry["image_id"], "category_id": entry["category_id"], "bbox": entry["bbox"], "score": 0.9}
        for entry in objects
    ]
    metrics = coco_ap(truth, perfect, "bbox").metrics
    assert metrics["AP"] == pytest.approx(1)
    assert (metrics["APs"], metrics["APm"]) == (pytest.approx(1), pytest.approx(1)), "900 and 2,400 pixels"


def test_unused_images_and_annotations_are_reported(tmp_path: Path, outcome: Callable[..., Outcome]) -> None:
    root = tmp_path / "export"
    root.mkdir()
    roboflow(root)
    shutil.copytree(root / "valid", root / "test")
    first = next((root / "train").glob("*.jpg"))
    shutil.copy(first, root / "train" / "not listed.jpg")
    first.unlink()
    images = len(json.loads((root / "train" / "_annotations.coco.json").read_text())["images"])
    expected = [
        f"train: 1 of {images} images is missing, such as train/{first.name}",
        f"train: 1 of {images} images is in no annotation file and is not used, such as train/not listed.jpg",
    ]
    contents = json.loads((root / "test" / "_annotations.coco.json").read_text())
    test = f"test/_annotations.coco.json ({len(contents['images'])} images, {len(contents['annotations'])} annotations)"
    apart = f"the test set, {test}, is used neither for training nor for validation"
    assert outcome(root).notes[:3] == [apart, *expected]
    for image in (root / "test").glob("*.jpg"):
        image.unlink()  # a test set that isn't used may be without its images
    assert outcome(root).notes[:3] == [apart, *expected]
    shutil.rmtree(root / "test")
    (root / "valid").rename(root / "test")
    assert outcome(root).notes[0] == f"there is no validation set: the test set, {test}, is used for validation"
    shutil.rmtree(root / "test")
    assert outcome(root).notes[0] == "there is no validation set: a share of the training images is used for validation"


def test_annotation_files_may_be_hidden_ones(tmp_path: Path, outcome: Callable[..., Outcome]) -> None:
    root = tmp_path / "export"
    root.mkdir()
    roboflow(root)
    for split in ("train", "valid"):
        (root / split / "_annotations.coco.json").rename(root / split / ".annotations.coco.json")
    assert sums(outcome(root), "objects") == {"supplied": 16, "used": 16, "left_out": 0}


def test_file_names_with_decomposed_accents_match(tmp_path: Path, outcome: Callable[..., Outcome]) -> None:
    root = tmp_path / "größe 1"
    root.mkdir()
    roboflow(root)
    for split in ("train", "valid"):
        content = json.loads((root / split / "_annotations.coco.json").read_text())
        for index, image in enumerate(content["images"]):
            decomposed = f"Gro\u0308ße {split} {index}.jpg"
            (root / split / image["file_name"]).rename(root / split / decomposed)
            image["file_name"] = "images\\" + unicodedata.normalize("NFC", decomposed) if split == "valid" else decomposed
        (root / split / "images").mkdir()
        for image in (root / split).glob("*.jpg") if split == "valid" else ():
            image.rename(root / split / "images" / image.name)
        write(root / split / "_annotations.coco.json", content)
    result = outcome(root)
    assert (result.error, result.notes) == ("", [line for line in result.notes if "category" in line])
    assert sums(result, "objects") == {"supplied": 16, "used": 16, "left_out": 0}


def test_categories_that_differ_between_the_splits_are_reported(tmp_path: Path, outcome: Callable[..., Outcome]) -> None:
    root = tmp_path / "export"
    root.mkdir()
    roboflow(root)
    content = json.loads((root / "valid" / "_annotations.coco.json").read_text())
    last = content["categories"][-1]
    write(
        root / "valid" / "_annotations.coco.json",
        content | {"categories": [*content["categories"][:-1], last | {"name": "stitch"}]},
    )
    number, name = last["id"], last["name"]
    difference = f"only train has {name!r} (id {number}); only val has 'stitch' (id {number})"
    result = outcome(root)
    assert f"the categories differ between the splits, and the check stops at such a dataset: {difference}" in result.notes
    assert f"categories: expected the categories of the train split, but {difference}; write the same" in result.error


def test_adopting_one_split_suggests_the_parent_folder(tmp_path: Path, outcome: Callable[..., Outcome]) -> None:
    root = tmp_path / "export"
    root.mkdir()
    roboflow(root)
    expected = f"valid beside train looks like another split of the dataset: give {root} to use all of them"
    assert expected in outcome(root / "train").notes
    shutil.copytree(root / "valid", root / "test")
    (root / "test_results").mkdir()
    expected = f"test and valid beside train look like other splits of the dataset: give {root} to use all of them"
    assert expected in outcome(root / "train").notes
    assert not any("beside" in line for line in outcome(root).notes)
