"""A dataset from archives on a server: archives with COCO's structure, and malicious archives."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_core.data.splits import DatasetError
from detr_core.reporter import Silent
from detr_core.sources import unpacking
from detr_core.sources.archives import fill
from detr_core.sources.config import ArchiveConfig, DownloadConfig
from detr_core.sources.unpacking import unpack
from tests.recording_reporter import RecordingReporter
from tests.unreliable_server import Site, serving


def zipped(files: dict[str, bytes], **entry: Any) -> bytes:
    """Returns an archive of these files. entry: attributes of every entry."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            info = zipfile.ZipInfo(name, (2017, 9, 1, 12, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            for attribute, value in entry.items():
                setattr(info, attribute, value)
            archive.writestr(info, body)
    return content.getvalue()


pytestmark = pytest.mark.usefixtures("without_pauses")

IMAGES = {f"train/{number}.jpg": bytes([number]) * 3000 for number in range(20)}
MAPS = {f"panoptic/{number}.png": bytes([number]) * 300 for number in range(20)}
OUTER = {"annotations/panoptic.json": b"{}", "annotations/panoptic.zip": zipped(MAPS | {"__MACOSX/panoptic/._0.png": b"fork"})}


@pytest.fixture
def site() -> Iterator[Site]:
    """Yields a server with the archives of a small dataset."""
    with serving(Site({"/train.zip": zipped(IMAGES), "/panoptic.zip": zipped(OUTER)})) as site:
        yield site


def config(site: Site, keep: bool = False) -> DownloadConfig:
    def archive(name: str, *inside: str) -> ArchiveConfig:
        content = site.files[f"/{name}"]
        return ArchiveConfig(f"{site.url}/{name}", len(content), hashlib.sha256(content).hexdigest(), inside)

    return DownloadConfig(3, keep, (archive("panoptic.zip", "annotations/panoptic.zip"), archive("train.zip")))


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".archives" not in path.parts
    }


WHOLE = IMAGES | {"annotations/panoptic.json": b"{}"} | {f"annotations/{name}": body for name, body in MAPS.items()}


def test_a_folder_is_filled_from_archives_once(site: Site, tmp_path: Path) -> None:
    reporter, root = RecordingReporter(), tmp_path / "coco"
    fill(root, config(site), reporter)
    assert files_below(root) == WHOLE
    assert sorted(path.name for path in (root / ".archives").iterdir()) == ["panoptic.zip.json", "train.zip.json"]
    assert (root / "train/3.jpg").stat().st_mtime == 1504267200  # the archive's, so that a second download gives the same
    assert reporter.last_progress[0] == reporter.last_progress[1]
    asked = len(site.asked)
    fill(root, config(site), reporter)
    assert len(site.asked) == asked


def test_deleted_files_are_unpacked_again(site: Site, tmp_path: Path) -> None:
    fill(tmp_path, config(site), Silent())
    (tmp_path / "train/7.jpg").unlink()
    (tmp_path / "train/8.jpg").write_bytes(b"x" * 3000)
    asked = len(site.asked)
    fill(tmp_path, config(site, keep=True), Silent())
    assert files_below(tmp_path) == WHOLE
    assert {path for path, _ in site.asked[asked:]} == {"/train.zip"}
    assert (tmp_path / ".archives/train.zip").is_file()
    (tmp_path / "train/7.jpg").unlink()
    asked = len(site.asked)
    fill(tmp_path, config(site), Silent())
    assert files_below(tmp_path) == WHOLE
    assert len(site.asked) == asked, "the archive was kept"
    assert not (tmp_path / ".archives/train.zip").exists()


def test_an_interruption_at_any_file_leaves_nothing_that_is_taken_for_whole(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = unpacking._write, 0

    def interrupted(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count % 9 == 0:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(unpacking, "_write", interrupted)
    tries = 1
    while True:
        try:
            fill(tmp_path, config(site), Silent())
            break
        except KeyboardInterrupt:
            tries += 1
            assert tries < 100
            if tries % 3 == 0:
                monkeypatch.setattr(unpacking, "_write", write)
    assert files_below(tmp_path) == WHOLE


def test_a_folder_with_other_files_is_not_changed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(DatasetError, match=r"expected a new folder for the download.*or set `source: folder`"):
        fill(tmp_path, config(site), Silent())
    assert files_below(tmp_path) == {"holiday.jpg": b"mine"}
    assert site.asked == []


def test_an_archive_without_a_checksum_is_reported(site: Site, tmp_path: Path) -> None:
    reporter = RecordingReporter()
    known = config(site)
    fill(tmp_path, replace(known, archives=(replace(known.archives[1], size=None, sha256=None),)), reporter)
    assert reporter.messages == [f"{site.url}/train.zip: the profile gives no checksum, so the archive is not verified"]


def test_wrong_archives_are_refused(site: Site, tmp_path: Path) -> None:
    known = config(site)
    for changes, message in (
        ({"sha256": "0" * 64}, "expected a file with sha256 0000"),
        ({"size": 5}, "expected 5 bytes, found"),
        (
            {"inside": ("annotations/other.zip",)},
            "expected that it contains the archive annotations/other.zip, found no such file",
        ),
        ({"inside": ("../other.zip",)}, "expected a relative path without"),
    ):
        with pytest.raises(DatasetError, match=message):
            fill(tmp_path, replace(known, archives=(replace(known.archives[0], **changes),)), Silent())
    fill(tmp_path, known, Silent())
    assert files_below(tmp_path) == WHOLE


HARM: dict[str, tuple[dict[str, bytes], dict[str, Any]]] = {
    "a way out": ({"../out": b"x"}, {}),
    "a way out and in": ({"a/../../folder/b": b"x"}, {}),
    "an absolute name": ({"/tmp/out": b"x"}, {}),
    "a drive": ({"C:/out": b"x"}, {}),
    "a backslash": ({"..\\out": b"x"}, {}),
    "dots": ({"a/./b": b"x"}, {}),
    "an empty part": ({"a//b": b"x"}, {}),
    "a new line": ({"a\nb": b"x"}, {}),
    "an endless name": ({"a" * 300: b"x"}, {}),
    "a link": ({"a": b"/etc/passwd"}, {"external_attr": (stat.S_IFLNK | 0o777) << 16}),
    "a device": ({"a": b""}, {"external_attr": (stat.S_IFCHR | 0o777) << 16}),
    "a file as folder": ({"a": b"x", "a/b": b"x"}, {}),
    "a bomb": ({"a": bytes(50_000_000)}, {}),
    "our notes": ({".archives/train.zip.json": b"{}"}, {}),
}


@pytest.mark.parametrize("name", HARM)
def test_malicious_archives_write_nothing(name: str, tmp_path: Path) -> None:
    files, entry = HARM[name]
    (tmp_path / "folder").mkdir()
    (tmp_path / "harm.zip").write_bytes(zipped({"good": b"x"} | files, **entry))
    with pytest.raises(DatasetError, match=r"harm\.zip: .*expected"):
        unpack(tmp_path / "harm.zip", tmp_path / "folder", {".archives"}, Silent())
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["folder", "harm.zip"]
    assert not Path("/tmp/out").exists()


def test_a_folder_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "folder" / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a.zip").write_bytes(zipped(IMAGES))
    with pytest.raises(DatasetError, match="found a link to"):
        unpack(tmp_path / "a.zip", tmp_path / "folder", (), Silent())
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("make", [Path.write_bytes, lambda file, _: file.symlink_to(file.parent.parent / "mine")])
def test_a_file_that_the_archive_did_not_bring_is_neither_replaced_nor_followed(
    tmp_path: Path, make: Callable[[Path, bytes], Any]
) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "folder").mkdir()
    for name in ("b", ".b.part"):
        make(tmp_path / "folder" / name, b"mine")
    (tmp_path / "a.zip").write_bytes(zipped({"a": b"x", "b": b"x"}))
    with pytest.raises(DatasetError, match=r"folder/b: expected no file, or the file of the archive, .* move it elsewhere"):
        unpack(tmp_path / "a.zip", tmp_path / "folder", (), Silent())
    assert {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()} == {"b": b"mine", ".b.part": b"mine"}
    unpack(tmp_path / "a.zip", tmp_path / "folder", (), Silent(), {"b"})
    assert (tmp_path / "mine").read_bytes() == b"mine"
    content = {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()}
    assert content == {"a": b"x", "b": b"x", ".b.part": b"mine"}


def test_a_wrong_size_in_an_archive_is_detected(tmp_path: Path) -> None:
    content = bytearray(zipped({"a": b"x" * 1000}))
    at = content.rindex(b"PK\x01\x02") + 24
    for size in (10, 900_000):
        content[at : at + 4] = size.to_bytes(4, "little")
        (tmp_path / "lie.zip").write_bytes(bytes(content))
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(DatasetError, match=r"lie\.zip: expected"):
            unpack(tmp_path / "lie.zip", tmp_path / "folder", (), Silent())
        assert list((tmp_path / "folder").iterdir()) == []


SOUND = zipped({f"a/{number}": bytes([number]) * 50 for number in range(5)})


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(SOUND)))
def test_no_damaged_archive_crashes_or_leaves_the_folder(flips: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(SOUND)
    for index, value in flips:
        content[index] = value
    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "folder").mkdir()
        (root / "a.zip").write_bytes(bytes(content[: max(cut, len(content) // 2) if cut % 3 == 0 else None]))
        try:
            brought = unpack(root / "a.zip", root / "folder", (), Silent())
        except DatasetError:
            brought = None
        assert {path.name for path in root.iterdir()} == {"folder", "a.zip"}
        files = files_below(root / "folder")
        assert not any(name.endswith(".part") for name in files)
        if brought is not None:
            assert {name: len(body) for name, body in files.items()} == brought
        for body in files.values():
            assert len(set(body)) <= 1, "a file is whole and as it was, or isn't there"


@given(st.text(max_size=30) | st.text("./\\a:\0", max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_name_stays_in_the_folder_or_is_refused(name: str) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "folder").mkdir()
        try:
            (root / "a.zip").write_bytes(zipped({name: b"x"}))
        except (ValueError, UnicodeError):
            return  # not a name that zipfile writes
        try:
            brought = unpack(root / "a.zip", root / "folder", (), Silent())
        except DatasetError:
            brought = {}
        assert set(files_below(root / "folder")) == set(brought)
        assert {path.name for path in root.iterdir()} == {"folder", "a.zip"}


def test_free_space_is_checked_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(IMAGES))
    usage: Callable[[Any], Any] = lambda _: type("Usage", (), {"free": 59_999})  # noqa: E731
    monkeypatch.setattr(unpacking.shutil, "disk_usage", usage)
    with pytest.raises(DatasetError, match=r"expected 60,000 bytes free for a\.zip, found 59,999; make room"):
        unpack(tmp_path / "a.zip", tmp_path, (), Silent())
    assert os.listdir(tmp_path) == ["a.zip"]
    for number in range(2):  # of an interrupted call: what is there needs no more room
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / f"{number}.jpg").write_bytes(IMAGES[f"train/{number}.jpg"])
    assert len(unpack(tmp_path / "a.zip", tmp_path, (), Silent())) == 20


def test_invalid_notes_are_ignored(site: Site, tmp_path: Path) -> None:
    for note in (b"", b"[]", b"{}", json.dumps({"files": []}).encode()):
        (tmp_path / ".archives").mkdir(exist_ok=True)
        (tmp_path / ".archives" / "train.zip.json").write_bytes(note)
        known = config(site)
        fill(tmp_path, replace(known, archives=known.archives[1:]), Silent())
        assert set(files_below(tmp_path)) == set(IMAGES)
