"""YOLO and Pascal VOC folders with damage of any kind: each is read or refused in one line, and nothing is lost silently."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from detr_core.errors import ExpectedError
from tests.adopting import adopt_and_check
from tests.flows.new_profile.core_steps import through_the_core

NAMES = count()
Files = dict[str, "bytes | None"]  # None: a folder of this name

ROWS = [
    "0 .5 .5 .2 .2", "1 .4 .4 .3 .3", "0 .5 .5 .2 .2 .9", "0 .5 .5 .2 .2 .9 3", "0 .1 .1 .3 .1 .3 .3 .1 .3", "0 .5 .5",
    "9 .5 .5 .1 .1", "-1 .5 .5 .1 .1", "0 nan .5 .5 .5", "0 inf 1e308 1e308 1e308", "x y z u v", "0 .5 .5 0 0",
    "0 7 7 1 1", "0,.5,.5,.1,.1", "9" * 5000 + " .5 .5 .1 .1", "\0 1 2 3 4", "1e400 .5 .5 .1 .1", "",
    "0 .5 .5 .2 .2 .4 .4 2 .5 .5 1",
]  # fmt: skip
VALUES = [
    "images/train", "images/val", "images", "images/test", "train.txt", "val.txt", "nowhere", "/", "..", "../images/train",
    "", "null", "7", "[]", "[images/train, images/val]", "{a: b}", "[[images/train]]", ".", "images/train/1.png",
    "'a\\0b'", "~", "2021-13-45", "!!python/object:os.system x", "&a [*a]", "-.inf", "x" * 300, '"a\\0b"',
]  # fmt: skip
NAMED = [
    "[red, blue]",
    "{0: red, 1: blue}",
    "{0: red, 2: blue}",
    "[]",
    "red",
    "7",
    "[1, null]",
    "[red, [blue]]",
    "{[1]: 2}",
    "&a [*a]",
]
XML = ["<annotation>", "</annotation>", "<object>", "<name></name>", "<bndbox/>", "<size><width>0</width></size>", "&e;", "\0",
       '<!DOCTYPE a [<!ENTITY e "e">]>', "<xmin>nan</xmin>", "<xmin>1e400</xmin>", "<filename>../../x.png</filename>",
       "<width>99999999999999999999</width>", "<name>" + "x" * 5000 + "</name>", "<a>" * 300, "<!--", "]]>"]  # fmt: skip
BYTES = [
    b"",
    b"\xff\xfe\x00",
    b"\x00" * 40,
    b"\xef\xbb\xbf",
    bytes(range(256)),
    b"\x89PNG\r\n\x1a\n",
    "ü\n".encode("latin-1"),
    None,
]


def yolo(draw: st.DrawFn) -> Files:
    files: Files = {"data.yaml": b"train: images/train\nval: images/val\nnames: [red, blue]\n"}
    if draw(st.booleans()):
        keys = {
            key: draw(st.sampled_from(VALUES))
            for key in draw(st.sets(st.sampled_from(["path", "train", "val", "test", "nc", "kpt_shape"])))
        }
        text = "".join(
            f"{key}: {value}\n" for key, value in {"train": "images/train", "names": draw(st.sampled_from(NAMED)), **keys}.items()
        )
        files = {draw(st.sampled_from(["data.yaml", "config.yaml"])): text.encode()}
    for number in range(1, 8):
        rows = [draw(st.sampled_from(ROWS[:2])), *draw(st.lists(st.sampled_from(ROWS), max_size=1 + number // 7))]
        files[f"labels/{'train' if number < 6 else 'val'}/{number}.txt"] = "\n".join(rows).encode()
    return files | {"train.txt": b"./images/train/1.png\nimages/train/2.png\n../x.png\n", "val.txt": b"images/val/6.png\n"}


def voc(draw: st.DrawFn) -> Files:
    files: Files = {}
    for number in range(1, 8):
        text = (
            f"<annotation><filename>{number}.png</filename><size><width>16</width><height>12</height></size><object><name>red"
            "</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>8</xmax><ymax>8</ymax></bndbox></object></annotation>"
        )
        if draw(st.integers(0, 3)) == 0:
            position = draw(st.integers(0, len(text)))
            text = text[:position] + draw(st.sampled_from(XML)) + text[position + draw(st.sampled_from([0, 0, 30])) :]
        files[f"Annotations/{number}.xml"] = text.encode()
    lists = draw(st.sets(st.sampled_from(["train", "val", "trainval", "test", "default", "fold1"]), max_size=2))
    lines = ["1\n2\n3\n", "4\n5\n", "6\n7 -1\n", "1\nnobody\n", "", "../1\n", "3.png\n4.png\n", "\0\n"]
    return files | {f"ImageSets/Main/{name}.txt": draw(st.sampled_from(lines)).encode() for name in lists}


@st.composite
def folders(draw: st.DrawFn) -> Files:
    """Draws the files of a folder, some of them damaged."""
    images = "images/{}" if (kind := draw(st.sampled_from([yolo, voc]))) is yolo else "JPEGImages"
    files = kind(draw)
    for name in draw(st.lists(st.sampled_from(sorted(files)), max_size=2)):
        files[name] = draw(st.sampled_from(BYTES))
    for number in draw(st.sets(st.integers(1, 7), max_size=2)):
        files[f"{images.format('train' if number < 6 else 'val')}/{number}.png"] = draw(st.sampled_from(BYTES))
    for name in draw(
        st.sets(
            st.sampled_from(["._data.yaml", "Annotations/._1.xml", "labels/train/more.txt", "images/train/1.jpg"]), max_size=1
        )
    ):
        files[name] = b"0 .5 .5 .1 .1\n"
    return files


def write(folder: Path, files: Files) -> None:
    is_voc = any(name.endswith("7.xml") for name in files)
    for number in range(1, 8):
        images = folder / ("JPEGImages" if is_voc else f"images/{'train' if number < 6 else 'val'}")
        images.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 16, 3), 20 * number, np.uint8)).save(images / f"{number}.png")
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink(missing_ok=True)
            path.mkdir()
        else:
            path.write_bytes(content)


def converted(out: Path) -> tuple[int, int]:
    """Returns the numbers of images and annotations in the annotation files that the project wrote."""
    contents = [json.loads(file.read_bytes()) for file in (out / "annotations").glob("instances_*.json")]
    return sum(len(content["images"]) for content in contents), sum(len(content["annotations"]) for content in contents)


@settings(max_examples=25, deadline=None)
@given(folders())
def test_damaged_folders_are_read_or_refused(files: Files) -> None:
    with TemporaryDirectory() as temporary, warnings.catch_warnings():
        write(Path(temporary) / "set", files)
        with suppress(ExpectedError):
            _, account = through_the_core(Path(temporary) / "set", Path(temporary) / "out")
            for entries, number in zip(("images", "objects"), converted(Path(temporary) / "out" / "data"), strict=True):
                assert number == sum(value for key, value in account.items() if key.endswith(f"instances/{entries}/supplied"))


@pytest.mark.long
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(folders(), st.sampled_from(["strict", "lenient"]))
def test_500_damaged_folders_are_used_or_refused_by_the_commands(
    params: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: Files,
    mode: str,
) -> None:
    monkeypatch.setattr("detr_core.plots.data_check.write_data_check", lambda *_: None)  # it takes seconds
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "set"
        write(folder, files)
        adopt_and_check(folder, f"damaged-other-{next(NAMES)}", params, mode)
