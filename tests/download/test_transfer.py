"""Downloads from a server that cuts connections, sends wrong bytes, ignores ranges and is slow."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_core.checksums import digest
from detr_core.download import http, resuming
from detr_core.download.http import DownloadError, Remote
from detr_core.download.transfer import download
from detr_core.reporter import Silent
from tests.download.downloads import CONTENT, LARGEST, PIECE, SHA256, fetch
from tests.recording_reporter import RecordingReporter
from tests.unreliable_server import Site, serving


def test_files_are_downloaded_in_pieces_and_only_once(site: Site, tmp_path: Path) -> None:
    reporter = RecordingReporter()
    files = {
        tmp_path / "a": Remote(f"{site.url}/a.zip", len(CONTENT), SHA256),
        tmp_path / "below" / "b": Remote(f"{site.url}/b.zip", None, None),
    }
    download(files, 4, LARGEST, 0, reporter)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert (tmp_path / "below" / "b").read_bytes() == CONTENT[::-1]
    assert reporter.last_progress == (2 * len(CONTENT) // 10**6, 2 * len(CONTENT) // 10**6)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "below"]
    asked = len(site.asked)
    assert asked == 2 + 2 * -(-len(CONTENT) // PIECE)
    download(files, 4, LARGEST, 0, reporter)
    assert len(site.asked) == asked
    (tmp_path / "a").write_bytes(CONTENT[:-1] + b"?")
    download(files, 4, LARGEST, 0, reporter)
    assert digest(tmp_path / "a") == SHA256


def test_several_connections_are_used_at_once(site: Site, tmp_path: Path) -> None:
    site.seconds = 0.01
    fetch(site, tmp_path / "a")
    assert site.at_once >= 3


@pytest.mark.parametrize(
    "behaviour",
    [
        {"cut_after": 100_000},
        {"cut_after": 1_000, "cuts": 40},
        {"ranges": False},
        {"ranges": False, "cut_after": 100_000, "cuts": 2},
        {"seconds": 0.005},
        {"broken": 3},
        {"version": None},
    ],
)
def test_the_file_is_whole_in_spite_of_a_faulty_server(site: Site, tmp_path: Path, behaviour: dict[str, Any]) -> None:
    for name, value in behaviour.items():
        setattr(site, name, value)
    assert fetch(site, tmp_path / "a").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 700_000), st.integers(1, 60_000), st.integers(1, 5), st.integers(0, 12))
def test_any_cut_of_any_size_gives_the_same_bytes(size: int, cut: int, connections: int, cuts: int) -> None:
    content = CONTENT[:size]
    with serving(Site({"/a.zip": content}, cut_after=cut, cuts=cuts)) as site, TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        download({path: Remote(f"{site.url}/a.zip", None, None)}, connections, LARGEST, 0, Silent())
        assert path.read_bytes() == content


def test_a_short_write_is_completed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, data[: max(1, len(data) // 2)], at))
    assert fetch(site, tmp_path / "a").read_bytes() == CONTENT


def test_a_file_with_a_wrong_checksum_is_removed(site: Site, tmp_path: Path) -> None:
    site.wrong = True
    with pytest.raises(DownloadError, match=f"a.zip: expected a file with sha256 {SHA256}, found one with .*; it was removed"):
        fetch(site, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    site.wrong = False
    assert digest(fetch(site, tmp_path / "a")) == SHA256


@pytest.mark.parametrize(
    ("changes", "largest", "message"),
    [
        ({"size": 7}, LARGEST, r"a\.zip: expected 7 bytes, found that the server announces 2,259,251"),
        ({}, 1000, "expected at most 1,000 bytes, found that the server announces 2,259,251"),
    ],
)
def test_a_file_of_another_size_is_refused_before_it_is_downloaded(
    site: Site, tmp_path: Path, changes: dict[str, Any], largest: int, message: str
) -> None:
    remote = Remote(**({"url": f"{site.url}/a.zip", "size": None, "sha256": None} | changes))
    with pytest.raises(DownloadError, match=message):
        download({tmp_path / "a": remote}, 2, largest, 0, Silent())
    assert list(tmp_path.iterdir()) == []
    assert site.sent <= 1


def test_one_bad_file_does_not_cost_the_others(site: Site, tmp_path: Path) -> None:
    files = {
        tmp_path / "a": Remote(f"{site.url}/a.zip", None, "0" * 64),
        tmp_path / "b": Remote(f"{site.url}/b.zip", None, None),
    }
    with pytest.raises(DownloadError, match="sha256 000"):
        download(files, 2, LARGEST, 0, Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_free_space_is_checked_before_a_download(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=rf"{tmp_path}: expected [\d,]+ bytes free on the disk, found [\d,]+; make room"):
        download({tmp_path / "a": Remote(f"{site.url}/a.zip", None, None)}, 2, LARGEST, 10**18, Silent())
    assert site.sent <= 1
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_the_same_file(site: Site, tmp_path: Path) -> None:
    with (
        resuming.open_part(tmp_path / "a", Remote(f"{site.url}/a.zip", None, None), True, LARGEST),
        pytest.raises(DownloadError, match="another process is downloading it"),
    ):
        fetch(site, tmp_path / "a")


def test_a_silent_server_ends_in_an_error(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SILENCE", 0.1)
    monkeypatch.setattr(resuming, "PAUSES", (0.0,))
    site.seconds = 2
    with pytest.raises(DownloadError, match=r"can't be downloaded \(.*timed out.*\); try again"):
        fetch(site, tmp_path / "a")
