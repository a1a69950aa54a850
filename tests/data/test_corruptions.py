"""Datasets with hundreds of corruptions: each is read unchanged, raises DatasetError, or has objects left out and counted."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle

from detr_core.data.annotations import CROWDS, EMPTY
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import DatasetError, Split, read_dataset
from tests.corruptions import ABSURD, CASES, FIELDS, PANOPTIC_CASES, PANOPTIC_FIELDS, is_in, same, sound, sound_panoptic


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with two images, but without annotation files."""
    root = tmp_path_factory.mktemp("corrupted")
    (root / "images").mkdir()
    for number in (1, 2):
        Image.fromarray(np.full((12, 16, 3), number * 40, np.uint8)).save(root / "images" / f"{number}.png")
    return root


def outcome(root: Path, content: str | bytes, panoptic: bool = False) -> list[Any] | str:
    """Returns the targets of an annotation file and the number of objects left out, or the text of the DatasetError.

    Other errors are raised.
    """
    file, before = root / "instances.json", {path.name for path in root.iterdir()}
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    split = (
        Split("val", root / "images", None, file, root / "segments")
        if panoptic
        else Split("val", root / "images", file, None, None)
    )
    try:
        dataset = CocoDataset(split, "panoptic" if panoptic else "instances", True, None, 0)
        targets = [dataset[index].target for index in range(len(dataset))]
    except DatasetError as error:
        return str(error)
    finally:
        assert {path.name for path in root.iterdir()} == before | {"instances.json"}
    results: list[Any] = [dict(dataset.left_out)]
    for target in targets:
        assert target.masks is not None
        assert np.isfinite(target.boxes.numpy()).all()
        results.append((target.image_id, target.labels.tolist(), target.boxes.tolist(), int(target.masks.sum())))
    return results


def test_there_are_enough_damaged_files() -> None:
    assert len(CASES) + len(PANOPTIC_CASES) >= 200


@pytest.mark.parametrize("section", FIELDS)
def test_absurd_values_are_read_as_meant_left_out_or_refused(section: str, folder: Path) -> None:
    whole = outcome(folder, json.dumps(sound()))
    square = (1, [0], [[0.3125, pytest.approx(5 / 12), 0.375, 0.5]], 36)
    assert whole == [{CROWDS: 0, EMPTY: 0}, square, (2, *square[1:])]
    nothing = (1, [], [], 0)
    for _, field, value in [case for case in CASES if case[0] == section]:
        content = sound()
        content[section][0][field] = value
        result = outcome(folder, json.dumps(content))
        if is_in(value, same(section, field)):
            assert result == whole, (field, value)
        elif field == "iscrowd" and value is True:
            assert result == [{CROWDS: 1, EMPTY: 0}, nothing, whole[2]]
        elif field == "segmentation" and value in ([], None):
            assert result == [{CROWDS: 0, EMPTY: 0}, (*square[:3], 0), whole[2]], "an object may have only a box"
        elif field == "segmentation" and value == [[]]:
            assert result == [{CROWDS: 0, EMPTY: 0}, nothing, whole[2]], "an object without a pixel trains nothing"
        else:
            assert isinstance(result, str), (field, value)
            assert result.startswith(str(folder)), result  # which file, then the field or the reason


@pytest.fixture(scope="module")
def panoptic_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with two images and their panoptic PNGs, but without annotation files."""
    root = tmp_path_factory.mktemp("panoptic")
    (root / "images").symlink_to(folder / "images")
    (root / "segments").mkdir()
    pixels = np.zeros((12, 16, 3), np.uint8)
    pixels[:4, :5] = (44, 1, 0)
    for number in (1, 2):
        Image.fromarray(pixels).save(root / "segments" / f"{number}.png")
    return root


@pytest.mark.parametrize("section", PANOPTIC_FIELDS)
def test_absurd_values_of_segments_are_read_as_meant_left_out_or_refused(section: str, panoptic_folder: Path) -> None:
    whole = outcome(panoptic_folder, json.dumps(sound_panoptic()), panoptic=True)
    assert whole[1][3] == 20
    nothing = (1, [], [], 0)
    for _, field, value in [case for case in PANOPTIC_CASES if case[0] == section]:
        content = sound_panoptic()
        entry = content["annotations"][0]
        (entry if section == "annotations" else entry["segments_info"][0])[field] = value
        result = outcome(panoptic_folder, json.dumps(content), panoptic=True)
        if is_in(value, same(section, field)):
            assert result == whole, (field, value)
        elif field == "iscrowd" and value is True:
            assert result == [{CROWDS: 1, EMPTY: 0}, nothing, whole[2]]
        elif field == "segments_info" and value == []:
            assert result == [{CROWDS: 0, EMPTY: 0}, nothing, whole[2]]
        else:
            assert isinstance(result, str), (field, value, result)
            assert result.startswith(str(panoptic_folder)), result


@pytest.mark.parametrize("section", FIELDS)
def test_missing_fields_and_repeated_entries_are_refused(section: str, folder: Path) -> None:
    for field in FIELDS[section]:
        content = sound()
        del content[section][0][field]
        result = outcome(folder, json.dumps(content))
        assert isinstance(result, str) or field in ("id", "iscrowd", "segmentation")
    content = sound()
    content[section].append(deepcopy(content[section][0]))
    assert "every id once" in outcome(folder, json.dumps(content))


def test_what_is_left_out_is_counted(folder: Path) -> None:
    content = sound()
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"][1]["bbox"] = [20, 2, 5, 5]
    result = outcome(folder, json.dumps(content))
    assert result[0] == {CROWDS: 1, EMPTY: 1}
    assert [entry[1] for entry in result[1:]] == [[], []]


def test_a_file_cut_off_anywhere_is_refused(folder: Path) -> None:
    text = json.dumps(sound())
    for end in range(0, len(text), 7):
        assert "expected" in str(outcome(folder, text[:end])) or "not valid JSON" in str(outcome(folder, text[:end]))


def test_too_deeply_nested_json_is_refused(folder: Path) -> None:
    assert "not valid JSON" in outcome(folder, "[" * 200_000)


def test_a_file_with_a_flipped_bit_anywhere_is_read_or_refused(folder: Path) -> None:
    rng, content = random.Random(0), json.dumps(sound()).encode()
    for _ in range(200):
        flipped = bytearray(content)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        assert outcome(folder, bytes(flipped))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_damaged_images_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    from detr_core.data.images import read_image

    file, rng = tmp_path / "a", random.Random(0)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(file, kind)
    content = file.read_bytes()
    for number in range(60):
        damaged = bytearray(content)
        for _ in range(4):
            damaged[rng.randrange(min(len(damaged), 80 if number % 2 else len(damaged)))] = rng.randrange(256)
        file.write_bytes(damaged[: rng.randrange(len(damaged))] if number % 3 == 0 else damaged)
        with suppress(DatasetError):
            assert read_image(file, (12, 16)).shape == (3, 12, 16)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "bbox", "image_id"]), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([(s, f) for s, fields in FIELDS.items() for f in fields]), json_values)
def test_any_value_in_any_field_is_read_or_refused(folder: Path, where: tuple[str, str], value: Any) -> None:
    content = sound()
    content[where[0]][0][where[1]] = value
    assert outcome(folder, json.dumps(content))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12 * 16), max_size=8), st.booleans())
def test_run_lengths_are_decoded_whole_or_refused(folder: Path, counts: list[int], fits: bool) -> None:
    counts = [*counts, 12 * 16 - sum(counts)] if fits and sum(counts) <= 12 * 16 else counts
    content = sound()
    content["annotations"][0]["segmentation"] = {"size": [12, 16], "counts": counts}
    result = outcome(folder, json.dumps(content))
    if sum(counts) != 12 * 16:
        assert "expected run lengths that add up to 12 x 16 pixels" in result
    elif sum(counts[1::2]):
        assert result[1][3] == sum(counts[1::2])
    else:
        assert result[1][1] == [], "an object without a pixel trains nothing"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2 ** (12 * 16) - 1), st.integers(0, 40), st.sampled_from([None, "", "0", "P", "o", "~", "ü"]))
def test_run_lengths_as_text_are_decoded_whole_or_refused(folder: Path, bits: int, index: int, put: str | None) -> None:
    mask = np.array([bits >> pixel & 1 for pixel in range(12 * 16)], dtype=np.uint8).reshape(12, 16)
    text = rle.encode(np.asfortranarray(mask))["counts"].decode()
    damaged = text if put is None else text[:index] + put + text[index + 1 :]
    content = sound()
    content["annotations"][0]["segmentation"] = {"size": [12, 16], "counts": damaged}
    result = outcome(folder, json.dumps(content))
    assert result == outcome(folder, json.dumps(content)), "what the memory held before shows"
    if damaged == text:
        assert result[1][3] == int(mask.sum())
    else:
        assert isinstance(result, str) or 0 <= result[1][3] <= 12 * 16


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=4), st.integers(20, 2000))
def test_damaged_panoptic_masks_are_read_or_refused(panoptic_folder: Path, changes: list[tuple[int, int]], end: int) -> None:
    file = panoptic_folder / "segments" / "1.png"
    content = file.read_bytes()
    damaged = bytearray(content[:end])
    for index, value in changes:
        damaged[index % len(damaged)] = value
    try:
        file.write_bytes(damaged)
        result = outcome(panoptic_folder, json.dumps(sound_panoptic()), panoptic=True)
        assert isinstance(result, list) or str(file) in result
    finally:
        file.write_bytes(content)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["root", "train", "val"]), json_values | st.sampled_from(ABSURD))
def test_any_invalid_value_in_dataset_json_is_refused(folder: Path, field: str, value: Any) -> None:
    split = {"images": "images", "instances": None, "panoptic": None, "panoptic_masks": None}
    content = {"root": str(folder), "train": split, "val": split} | {field: value}
    with TemporaryDirectory() as temporary:
        (Path(temporary) / "dataset.json").write_text(json.dumps(content))
        with pytest.raises(DatasetError):
            read_dataset(Path(temporary))


Corruption = Callable[[Path], None]


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda file: file.unlink(), "found no such file"),
        (lambda file: file.write_bytes(b""), "can't be read"),
        (lambda file: (file.unlink(), file.mkdir()), "can't be read"),
        (lambda file: (file.unlink(), file.symlink_to(file)), "can't be read"),
        (lambda file: (file.unlink(), file.symlink_to(__file__)), "can't be read"),
        (lambda file: (file.unlink(), file.symlink_to("/dev/zero")), "can't be read"),
        (lambda file: Image.new("RGB", (30, 30)).save(file), "expected 16 x 12 pixels"),
    ],
)
def test_faulty_image_files_are_reported(tmp_path: Path, corrupt: Corruption, message: str) -> None:
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        Image.new("RGB", (16, 12)).save(tmp_path / "images" / f"{number}.png")
    corrupt(tmp_path / "images" / "2.png")
    assert message in outcome(tmp_path, json.dumps(sound()))
