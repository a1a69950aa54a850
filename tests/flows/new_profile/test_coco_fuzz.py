"""COCO folders with damage of any kind: each is read or refused in one line, and no image or annotation is lost silently."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from detr_core.errors import ExpectedError
from flows.new_profile.dataset_layout import find_layout
from tests.adopting import adopt_and_check
from tests.flows.new_profile.core_steps import through_the_core

NAMES = count()
ODD: list[Any] = [
    None, True, -1, 0, 1, 2, 2.0, 1.5, 1e400, -1e400, float("nan"), 10**30, "", "1", "2", "a\0b", "\ud800", "x" * 5000,
    "../1.png", "sub\\1.png", [], [7], {}, [[]], [1, 2, 3, 4], ["1", "2", "3", "4"], [0, 0, 1e9, 1e9],
    {"size": [12, 16], "counts": [192]},
    {"size": [12, 16], "counts": "04"}, [[1, 1, 9, 1, 9, 9]],
]  # fmt: skip
KEYS = ["id", "image_id", "category_id", "file_name", "width", "height", "bbox", "area", "iscrowd", "segmentation", "name"]
OTHER_FILES: list[tuple[str, bytes]] = [
    ("._instances_train.json", b"\0\5\x16\7"), (".DS_Store", b"\0\0\0\1Bud1"), ("empty.json", b""), ("notes.json", b"[1, {}]"),
    ("broken.json", b"{"), ("instances_val.json", b""), ("val.json", b'{"images": 7, "annotations": [], "categories": []}'),
    ("captions_train.json", b'{"images": [], "annotations": []}'),
    ("more.json", b'{"images": [], "annotations": [], "categories": []}'),
]  # fmt: skip


def sound(first: int, images: int) -> dict[str, Any]:
    numbers = range(first, first + images)
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 12, "width": 16} for n in numbers],
        "annotations": [
            {
                "id": 2 * n + k,
                "image_id": n,
                "category_id": 1 + k,
                "bbox": [1, 1, 6, 6],
                "area": 36,
                "iscrowd": 0,
                "segmentation": [],
            }
            for n in numbers
            for k in (0, 1)
        ],
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
    }


@st.composite
def folders(draw: st.DrawFn) -> tuple[dict[str, bytes], set[int]]:
    """Draws the files of a folder by name, and which images are missing."""
    contents = {"instances_train.json": sound(1, 6)}
    if draw(st.booleans()):
        contents["instances_val.json"] = sound(7, 2)
    for content in contents.values():
        for _ in range(draw(st.integers(0, 4))):
            damage(draw, content)
    encode = [lambda text: text.encode(), lambda text: b"\xef\xbb\xbf" + text.encode(), lambda text: text.encode("utf-16")]
    files = {name: draw(st.sampled_from(encode))(json.dumps(content)) for name, content in contents.items()}
    if draw(st.integers(0, 9)) == 0:
        files["instances_train.json"] = files["instances_train.json"][: draw(st.integers(0, 400))]
    for name, content in draw(st.lists(st.sampled_from(OTHER_FILES), max_size=2)):
        files.setdefault(name, content)
    return files, draw(st.sets(st.integers(1, 8), max_size=2))


def odd(draw: st.DrawFn) -> Any:
    """Draws an odd value and copies it, because a later damage may change a list or a mapping in place."""
    return copy.deepcopy(draw(st.sampled_from(ODD)))


def damage(draw: st.DrawFn, content: dict[str, Any]) -> None:
    """Changes, removes or repeats something in one of the lists, or in an entry of it."""
    name = draw(st.sampled_from(["images", "annotations", "annotations", "categories"]))
    entries = content.get(name)
    kind = draw(st.sampled_from(["set", "set", "set", "all", "remove", "repeat", "entry", "list"]))
    if kind == "list":
        content[name] = odd(draw)
    if not isinstance(entries, list) or not entries or kind == "list":
        return
    index = draw(st.integers(0, len(entries) - 1))
    if kind == "repeat":
        entries.append(copy.deepcopy(entries[index]))
    elif kind == "entry":
        entries[index] = odd(draw)
    elif isinstance(entries[index], dict):
        key, value = draw(st.sampled_from(KEYS)), odd(draw)
        for entry in entries if kind == "all" else [entries[index]]:
            if isinstance(entry, dict) and kind == "remove":
                entry.pop(key, None)
            elif isinstance(entry, dict):
                entry[key] = value


def write(folder: Path, files: dict[str, bytes], missing: set[int]) -> None:
    (folder / "images").mkdir(parents=True)
    for number in set(range(1, 9)) - missing:
        Image.fromarray(np.full((12, 16, 3), 20 * (number % 7), np.uint8)).save(
            folder / "images" / f"{number}.png"
        )  # two are alike
    for name, content in files.items():
        (folder / name).write_bytes(content)


def supplied(folder: Path, splits: set[str]) -> dict[str, int]:
    """Returns how many images and annotations the annotation files of the folder list."""
    contents = [json.loads((folder / f"instances_{split}.json").read_bytes()) for split in splits]
    return {part: sum(len(content[part]) for content in contents) for part in ("images", "annotations")}


def require_balance(folder: Path, layout: dict[str, Any], metrics: dict[str, float]) -> None:
    """Asserts that the account's supplied entries are those that the files list, and that each is used or left out."""
    numbers = supplied(folder, {"train", "val"} if layout["val"] and layout["val"]["instances"] else {"train"})
    for counted, name in (("images", "images"), ("objects", "annotations")):
        parts = {
            part: sum(
                value for key, value in metrics.items() if key.startswith("account/") and key.endswith(f"/{counted}/{part}")
            )
            for part in ("supplied", "used", "left_out")
        }
        assert parts["supplied"] == numbers[name] == parts["used"] + parts["left_out"]


@settings(max_examples=25, deadline=None)
@given(folders())
def test_damaged_folders_are_read_or_refused_and_nothing_is_lost(drawn: tuple[dict[str, bytes], set[int]]) -> None:
    with TemporaryDirectory() as temporary:
        write(Path(temporary) / "set", *drawn)
        with suppress(ExpectedError):
            layout, account = through_the_core(Path(temporary) / "set", Path(temporary) / "out")
            require_balance(Path(temporary) / "set", layout, account)


@pytest.mark.long
@pytest.mark.timeout(7200)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(folders(), st.sampled_from(["strict", "lenient"]))
def test_500_damaged_folders_are_used_or_refused_by_the_commands(
    params: Path,
    monkeypatch: pytest.MonkeyPatch,
    drawn: tuple[dict[str, bytes], set[int]],
    mode: str,
) -> None:
    monkeypatch.setattr("detr_core.plots.data_check.write_data_check", lambda *_: None)  # it takes seconds
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "set"
        write(folder, *drawn)
        outcome = adopt_and_check(folder, f"damaged-{next(NAMES)}", params, mode)
        if not outcome.error:
            require_balance(folder, find_layout(folder, 0.25).section, outcome.metrics)
