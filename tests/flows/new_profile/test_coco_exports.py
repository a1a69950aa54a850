"""COCO folders as tools export them: each is read, or refused in one line, and no image or annotation is lost."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detr_core.data.fields import read_content
from detr_core.data.splits import read_dataset
from detr_core.evaluate.average_precision import coco_ap
from detr_core.evaluate.ground_truth import has_masks, instances
from flows.profile import paths, settings
from flows.profile.paths import PARAMS
from tests.adopting import Outcome, carried, write_recipe

Content = dict[str, Any]
BOXES = [[10, 12, 60, 40], [80, 20, 30, 30]]


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs that `tests/field.py` makes: FIELD/<case>/set."""
    place = tmp_path_factory.mktemp("field")
    subprocess.run([sys.executable, str(Path(__file__).parents[2] / "field.py"), str(place)], check=True)
    return place


@pytest.fixture
def params(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of profiles of its own."""
    folder = tmp_path / "params"
    shutil.copytree(PARAMS, folder)
    write_recipe(folder)
    for module in (paths, settings):
        monkeypatch.setattr(module, "PARAMS", folder)
    return folder


@pytest.fixture
def outcome(params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Carries a folder through adopt, data and check, without the check's page, which takes seconds to draw."""
    monkeypatch.setattr("detr_core.plots.data_check.write_data_check", lambda *_: None)
    number = iter(range(100))
    return lambda folder, mode="strict": carried(
        folder, f"{tmp_path.name.replace('_', '-').strip('-')}{next(number)}", params, mode
    )


def sums(found: Outcome, what: str) -> dict[str, float]:
    """The account of both splits' instances together: how many were supplied, used and left out."""
    return {
        part: sum(found.metrics[f"account/{split}/instances/{what}/{part}"] for split in ("train", "val"))
        for part in ("supplied", "used", "left_out")
    }


@pytest.mark.parametrize("case", ["00-plain", "07-bom", "08-appledouble-coco"])
def test_what_makes_no_difference(field: Path, outcome: Callable[..., Outcome], case: str) -> None:
    if case.startswith("08"):
        root = field / case / "set"
        (root / "__MACOSX").mkdir()
        (root / "__MACOSX" / "instances_train.json").write_bytes(b"\0\5\x16\7")
        for name, content in (
            (".DS_Store", b"\0\0\0\1Bud1"),
            ("Thumbs.db", b"\xd0\xcf"),
            ("empty.json", b""),
            ("log.json", b"{}{}"),
        ):
            (root / name).write_bytes(content)
        (root / "settings.json").write_text('{"images": 7}')
    found = outcome(field / case / "set")
    assert (found.error, found.told, found.found) == ("", [], {})
    assert found.images == {"train/images": 24, "val/images": 8}
    assert (found.metrics["train/objects"], found.metrics["val/objects"]) == (48, 17)
    assert sums(found, "objects") == {"supplied": 65, "used": 65, "left_out": 0}


def test_annotations_of_unknown_images_are_seen_without_a_validation_file(field: Path, outcome: Callable[..., Outcome]) -> None:
    found = outcome(field / "05-str-image-id" / "set")
    assert found.found == {"object_without_image": 65, "nothing_to_learn": 2, "category_unused": 2}
    assert "expected a dataset without broken entries, found 65 x an annotation of an unknown image" in found.error
    assert any("annotation of an unknown image: 65 in train" in line for line in found.told)


def test_lenient_leaves_orphans_out_and_counts_them(tmp_path: Path, field: Path, outcome: Callable[..., Outcome]) -> None:
    root = Path(shutil.copytree(field / "05-str-image-id" / "set", tmp_path / "set"))
    content = json.loads((root / "annotations.json").read_text())
    for place, annotation in enumerate(content["annotations"]):
        annotation["image_id"] = int(annotation["image_id"]) if place % 5 else 4000 + place
    (root / "annotations.json").write_text(json.dumps(content))
    found = outcome(root, "lenient")
    assert (found.error, found.found["object_without_image"]) == ("", 13)
    assert sums(found, "objects") == {"supplied": 65, "used": 52, "left_out": 13}
    assert sums(found, "images") == {"supplied": 32, "used": 32, "left_out": 0}


def test_sizes_are_read_from_the_files_and_told(tmp_path: Path, field: Path, outcome: Callable[..., Outcome]) -> None:
    found = outcome(field / "06-no-size" / "set")
    assert (found.error, found.found) == ("", {"image_size_read": 32})
    assert any("without a width and height, which were read from its file: 24 in train, 8 in val" in line for line in found.told)
    split = read_dataset(found.paths.dataset)["val"]
    assert split.instances is not None
    assert {(image["height"], image["width"]) for image in read_content(split.instances)["images"]} == {(120, 160)}

    root = Path(shutil.copytree(field / "06-no-size" / "set", tmp_path / "set"))
    content = json.loads((root / "instances_train.json").read_text())
    for image, size in zip(
        content["images"], ({"width": 0, "height": 0}, {"width": "160", "height": "120"}, {"width": None}), strict=False
    ):
        image |= size
    (root / "instances_train.json").write_text(json.dumps(content))
    (root / "images" / "img007.jpg").unlink()
    found = outcome(root)
    assert found.found["image_size_read"] == 31
    assert "1 x an image entry that lacks a field" in found.error
    assert "img007.jpg: width: expected pixels, found nothing" in found.error
    lenient = outcome(root, "lenient")
    assert sums(lenient, "images") == {"supplied": 32, "used": 31, "left_out": 1}
    assert sums(lenient, "objects")["left_out"] == len([each for each in content["annotations"] if each["image_id"] == 7])


def test_two_images_with_one_id(tmp_path: Path, field: Path, outcome: Callable[..., Outcome]) -> None:
    found = outcome(field / "11-merged-ids" / "set", "lenient")
    assert "train: expected an image that can be used, found none: 24 x an image with the id of another image" in found.error

    root = Path(shutil.copytree(field / "11-merged-ids" / "set", tmp_path / "set"))
    content = json.loads((root / "instances_train.json").read_text())
    for place, image in enumerate(content["images"][15:], start=16):  # three pairs are left
        image["id"] = place
    (root / "instances_train.json").write_text(json.dumps(content))
    found = outcome(root)
    assert "6 x an image with the id of another image" in found.error
    found = outcome(root, "lenient")
    assert found.found["image_id"] == 6
    assert sums(found, "images") == {"supplied": 32, "used": 26, "left_out": 6}
    assert found.metrics["left_out/train/images"] == 6
    shared = [each for each in content["annotations"] if each["image_id"] <= 3]
    assert sums(found, "objects") == {"supplied": 65, "used": 65 - len(shared), "left_out": len(shared)}


def test_areas_of_zero_are_told_and_replaced(field: Path, outcome: Callable[..., Outcome]) -> None:
    found = outcome(field / "14b-zero-area" / "set")
    assert (found.error, found.found) == ("", {"object_area": 65})
    truth = instances(read_dataset(found.paths.dataset)["val"])
    for entry in truth.load_anns(truth.get_ann_ids()):
        assert entry["area"] == entry["bbox"][2] * entry["bbox"][3] > 0


def test_three_images(field: Path, outcome: Callable[..., Outcome]) -> None:
    found = outcome(field / "18-three-images" / "set")
    assert (found.error, found.images) == ("", {"train/images": 3, "val/images": 1})


def test_copies_of_an_image_stay_on_one_side(tmp_path: Path, field: Path, outcome: Callable[..., Outcome]) -> None:
    root = Path(shutil.copytree(field / "05-str-image-id" / "set", tmp_path / "set"))
    content = json.loads((root / "annotations.json").read_text())
    for annotation in content["annotations"]:
        annotation["image_id"] = int(annotation["image_id"])
    (root / "annotations.json").write_text(json.dumps(content))
    for number in range(1, 17):  # in 8 pairs
        shutil.copy(root / "images" / f"img{number:03d}.jpg", root / "images" / f"img{number + 16:03d}.jpg")
    found = outcome(root)
    assert found.error == ""
    assert set(found.found) == {"duplicate_within"}
    assert found.found["duplicate_within"] == 16
    assert found.images["val/images"] in range(6, 11)


def pictures(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(list(name.encode())).integers(0, 255, (90, 160, 3), dtype=np.uint8)).save(
            folder / name
        )


def roboflow(root: Path) -> None:
    for split, name in (("train", "a"), ("valid", "b")):
        files = [f"{name}{number}_jpg.rf.0b1c.jpg" for number in range(4)]
        pictures(root / split, files)
        captured = "2021-03-08T20:04:05+00:00"
        write(root / split / "_annotations.coco.json", {
            "info": {
                "year": "2021", "version": "1", "description": "Exported from roboflow.ai", "contributor": "",
                "url": "https://public.roboflow.ai/object-detection/undefined", "date_created": captured,
            },
            "licenses": [{"id": 1, "url": "https://creativecommons.org/licenses/by/4.0/", "name": "CC BY 4.0"}],
            "categories": [
                {"id": 0, "name": "cells", "supercategory": "none"}, {"id": 1, "name": "RBC", "supercategory": "cells"},
            ],
            "images": [
                {"id": place, "license": 1, "file_name": file, "height": 90, "width": 160, "date_captured": captured}
                for place, file in enumerate(files)
            ],
            "annotations": [
                {"id": 2 * place + number, "image_id": place, "category_id": 1, "bbox": box, "area": box[2] * box[3],
                 "segmentation": [], "iscrowd": 0}
                for place in range(4) for number, box in enumerate(BOXES)
            ],
        })  # fmt: skip


def cvat(root: Path) -> None:
    for split in ("Train", "Validation"):
        files = [f"{split}{number}.png" for number in range(4)]
        pictures(root / "images" / split, files)
        (root / "annotations").mkdir(exist_ok=True)
        write(root / "annotations" / f"instances_{split}.json", {
            "licenses": [{"name": "", "id": 0, "url": ""}],
            "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
            "categories": [{"id": 1, "name": "red", "supercategory": ""}, {"id": 2, "name": "blue", "supercategory": ""}],
            "images": [
                {"id": place, "width": 160, "height": 90, "file_name": file, "license": 0, "flickr_url": "", "coco_url": "",
                 "date_captured": 0}
                for place, file in enumerate(files, start=1)
            ],
            "annotations": [
                {"id": 2 * place + number, "image_id": place, "category_id": number + 1, "segmentation": [polygon(box)],
                 "area": float(box[2] * box[3]), "bbox": box, "iscrowd": 0,
                 "attributes": {"occluded": False, "rotation": 0.0}}
                for place in range(1, 5) for number, box in enumerate(BOXES)
            ],
        })  # fmt: skip


def label_studio(root: Path) -> None:
    files = [f"images\\{number}f1b-photo_{number}.png" for number in range(8)]  # as it writes them on Windows
    pictures(root, [file.replace("\\", "/") for file in files])
    write(root / "result.json", {
        "images": [{"width": 160, "height": 90, "id": place, "file_name": file} for place, file in enumerate(files)],
        "categories": [{"id": 0, "name": "Airplane"}, {"id": 1, "name": "Car"}],
        "annotations": [
            {"id": 2 * place + number, "image_id": place, "category_id": number, "segmentation": [], "bbox": box, "ignore": 0,
             "iscrowd": 0, "area": box[2] * box[3]}
            for place in range(8) for number, box in enumerate(BOXES)
        ],
        "info": {
            "year": 2023, "version": "1.0", "description": "", "contributor": "Label Studio", "url": "",
            "date_created": "2023-05-09 12:17:45.246281",
        },
    })  # fmt: skip


def labelme(root: Path) -> None:
    files = [f"JPEGImages/2011_{number:06d}.jpg" for number in range(8)]
    pictures(root, files)
    write(root / "annotations.json", {
        "info": {
            "description": None, "url": None, "version": None, "year": 2024, "contributor": None,
            "date_created": "2024-02-01 10:00:00.000001",
        },
        "licenses": [{"url": None, "id": 0, "name": None}],
        "images": [
            {"license": 0, "url": None, "file_name": file, "height": 90, "width": 160, "date_captured": None, "id": place}
            for place, file in enumerate(files)
        ],
        "type": "instances",
        "annotations": [
            {"id": 2 * place + number, "image_id": place, "category_id": number, "segmentation": [polygon(box)],
             "area": float(box[2] * box[3]), "bbox": [float(side) for side in box], "iscrowd": 0}
            for place in range(8) for number, box in enumerate(BOXES)
        ],
        "categories": [
            {"supercategory": None, "id": 0, "name": "_background_"}, {"supercategory": None, "id": 1, "name": "person"},
        ],
    })  # fmt: skip


def odd(root: Path) -> None:
    cvat(root)
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        content["licenses"] = [{"id": "MIT", "name": 7, "url": None}, "none"]
        for annotation in content["annotations"]:
            annotation["id"] = f"object-{annotation['id']}"
        file.write_text(json.dumps(content), encoding="utf-8-sig")


def polygon(box: list[int]) -> list[int]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def write(file: Path, content: Content) -> None:
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("export", "masks"), [(roboflow, False), (cvat, True), (label_studio, False), (labelme, True), (odd, True)]
)
def test_the_exports_of_annotation_tools(
    tmp_path: Path, outcome: Callable[..., Outcome], export: Callable[[Path], None], masks: bool
) -> None:
    root = tmp_path / "export"
    root.mkdir()
    export(root)
    found = outcome(root)
    assert (found.error, set(found.found) - {"category_unused"}) == ("", set())
    assert sums(found, "images") == {"supplied": 8, "used": 8, "left_out": 0}
    assert sums(found, "objects") == {"supplied": 16, "used": 16, "left_out": 0}
    truth = instances(read_dataset(found.paths.dataset)["val"])
    assert has_masks(truth) == masks
    objects = truth.load_anns(truth.get_ann_ids())
    perfect = [
        {"image_id": each["image_id"], "category_id": each["category_id"], "bbox": each["bbox"], "score": 0.9} for each in objects
    ]
    metrics = coco_ap(truth, perfect, "bbox").metrics
    assert metrics["AP"] == pytest.approx(1)
    assert (metrics["APs"], metrics["APm"]) == (pytest.approx(1), pytest.approx(1)), "900 and 2,400 pixels"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([7], r"annotations\.json: images: expected entries with a `file_name`, found none"),
        ([], "images: expected entries with a `file_name`, found none"),
        ({"a": 1}, "images: expected a list, found "),
        ([{"id": 1, "file_name": "../1.jpg"}], r"images\.file_name: expected files below .*, found none such as '\.\./1\.jpg'"),
        ([{"id": "x", "file_name": "img001.jpg"}] * 3, r"expected two images of different content or more"),
    ],
)
def test_files_that_make_no_sense_are_told_in_a_line(
    tmp_path: Path, field: Path, outcome: Callable[..., Outcome], images: Any, message: str
) -> None:
    root = Path(shutil.copytree(field / "05-str-image-id" / "set", tmp_path / "set"))
    content = json.loads((root / "annotations.json").read_text()) | {"images": images}
    write(root / "annotations.json", content)
    error = outcome(root).error
    assert re.search(message, error), error


@pytest.mark.parametrize(("content", "message"), [("", "empty"), ("{", "not valid JSON"), ("[" * 100_000, "not valid JSON")])
def test_a_damaged_file_of_the_set_is_not_passed_over(
    tmp_path: Path, field: Path, outcome: Callable[..., Outcome], content: str, message: str
) -> None:
    root = Path(shutil.copytree(field / "00-plain" / "set", tmp_path / "set"))
    (root / "instances_val.json").write_text(content)
    assert f"instances_val.json: {message}" in outcome(root).error


def test_annotation_files_of_no_split_are_told(tmp_path: Path, field: Path, outcome: Callable[..., Outcome]) -> None:
    root = Path(shutil.copytree(field / "00-plain" / "set", tmp_path / "set"))
    shutil.copy(root / "instances_train.json", root / "all.json")
    assert outcome(root).told == ["all.json is not used: 24 images, 48 annotations"]


def test_an_ending_in_capitals_is_read(tmp_path: Path, field: Path, outcome: Callable[..., Outcome]) -> None:
    root = Path(shutil.copytree(field / "00-plain" / "set", tmp_path / "set"))
    (root / "instances_val.json").rename(root / "instances_val.JSON")
    assert outcome(root).images == {"train/images": 24, "val/images": 8}


def test_images_and_annotations_that_nothing_is_made_of_are_told(tmp_path: Path, outcome: Callable[..., Outcome]) -> None:
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
    assert outcome(root).told[:3] == [apart, *expected]
    for image in (root / "test").glob("*.jpg"):
        image.unlink()  # a test set that isn't used may be without its images
    assert outcome(root).told[:3] == [apart, *expected]
    shutil.rmtree(root / "test")
    (root / "valid").rename(root / "test")
    assert outcome(root).told[0] == f"there is no validation set: the test set, {test}, is used for validation"
    shutil.rmtree(root / "test")
    assert outcome(root).told[0] == "there is no validation set: a share of the training images is used for validation"


def test_annotation_files_may_be_hidden_ones(tmp_path: Path, outcome: Callable[..., Outcome]) -> None:
    root = tmp_path / "export"
    root.mkdir()
    roboflow(root)
    for split in ("train", "valid"):
        (root / split / "_annotations.coco.json").rename(root / split / ".annotations.coco.json")
    assert sums(outcome(root), "objects") == {"supplied": 16, "used": 16, "left_out": 0}


def test_names_that_a_mac_has_spelled_with_other_accents_are_found(tmp_path: Path, outcome: Callable[..., Outcome]) -> None:
    root = tmp_path / "größe 1"
    root.mkdir()
    roboflow(root)
    for split in ("train", "valid"):
        content = json.loads((root / split / "_annotations.coco.json").read_text())
        for place, image in enumerate(content["images"]):
            decomposed = f"Gro\u0308ße {split} {place}.jpg"
            (root / split / image["file_name"]).rename(root / split / decomposed)
            image["file_name"] = "images\\" + unicodedata.normalize("NFC", decomposed) if split == "valid" else decomposed
        (root / split / "images").mkdir()
        for image in (root / split).glob("*.jpg") if split == "valid" else ():
            image.rename(root / split / "images" / image.name)
        write(root / split / "_annotations.coco.json", content)
    found = outcome(root)
    assert (found.error, found.told) == ("", [line for line in found.told if "category" in line])
    assert sums(found, "objects") == {"supplied": 16, "used": 16, "left_out": 0}


def test_categories_that_differ_between_the_splits_are_told(tmp_path: Path, outcome: Callable[..., Outcome]) -> None:
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
    found = outcome(root)
    assert f"the categories differ between the splits, and the check stops at such a dataset: {difference}" in found.told
    assert f"categories: expected the categories of the train split, but {difference}; write the same" in found.error


def test_the_parent_of_a_split_is_named(tmp_path: Path, outcome: Callable[..., Outcome]) -> None:
    root = tmp_path / "export"
    root.mkdir()
    roboflow(root)
    expected = f"valid beside train looks like another split of the dataset: give {root} to use all of them"
    assert expected in outcome(root / "train").told
    shutil.copytree(root / "valid", root / "test")
    (root / "test_results").mkdir()
    expected = f"test and valid beside train look like other splits of the dataset: give {root} to use all of them"
    assert expected in outcome(root / "train").told
    assert not any("beside" in line for line in outcome(root).told)
