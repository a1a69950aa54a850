"""Downloads from a server that cuts connections, sends wrong bytes, ignores ranges and is slow."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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
from detr_core.reporter import Memory, Silent
from tests.unreliable_server import Site, serving

PIECE = 2**18
CONTENT = bytes(range(251)) * 9001  # several pieces, none of them like another
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LARGEST = 10**9


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes pieces and pauses small enough for a test."""
    monkeypatch.setattr(resuming, "PIECE", PIECE)
    monkeypatch.setattr(resuming, "PAUSES", (0.0, 0.01, 0.01))


@pytest.fixture
def site() -> Iterator[Site]:
    """Yields a server with two files of the same size."""
    with serving(Site({"/a.zip": CONTENT, "/b.zip": CONTENT[::-1]})) as site:
        yield site


def get(site: Site, path: Path, **changes: Any) -> Path:
    known = {"size": len(CONTENT), "sha256": SHA256} | changes
    download({path: Remote(f"{site.url}/a.zip", **known)}, 3, LARGEST, 0, Silent())
    return path


def test_files_come_in_pieces_and_once(site: Site, tmp_path: Path) -> None:
    reporter = Memory()
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


def test_several_connections_at_once(site: Site, tmp_path: Path) -> None:
    site.seconds = 0.01
    get(site, tmp_path / "a")
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
def test_a_server_that_misbehaves_is_dealt_with(site: Site, tmp_path: Path, behaviour: dict[str, Any]) -> None:
    for name, value in behaviour.items():
        setattr(site, name, value)
    assert get(site, tmp_path / "a").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 700_000), st.integers(1, 60_000), st.integers(1, 5), st.integers(0, 12))
def test_any_cut_of_any_size_gives_the_same_bytes(size: int, cut: int, connections: int, cuts: int) -> None:
    content = CONTENT[:size]
    with serving(Site({"/a.zip": content}, cut_after=cut, cuts=cuts)) as site, TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        download({path: Remote(f"{site.url}/a.zip", None, None)}, connections, LARGEST, 0, Silent())
        assert path.read_bytes() == content


def test_what_an_interrupted_download_brought_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    site.cut_after, site.cuts = 2**17, -1
    site.files["/b.zip"] = CONTENT

    class Interrupting(Silent):
        def progress(self, done: int, total: int, images_per_second: float, note: str) -> None:
            if site.sent > len(CONTENT) // 2:
                raise KeyboardInterrupt

    site.seconds = 0.01
    with pytest.raises(KeyboardInterrupt):
        download({tmp_path / "a": Remote(f"{site.url}/a.zip", None, SHA256)}, 2, LARGEST, 0, Interrupting())
    assert not (tmp_path / "a").exists()
    bytes_on_disk = sum(json.loads((tmp_path / ".a.part.json").read_text())["done"])
    assert bytes_on_disk > len(CONTENT) // 4
    site.seconds, site.cut_after, site.sent = 0.0, None, 0
    get(site, tmp_path / "a")
    assert site.sent <= len(CONTENT) - bytes_on_disk + 1 + 2 * 2**16  # a block of each connection that was still under way
    assert digest(tmp_path / "a") == SHA256


KILLED = """
import sys
from pathlib import Path
from detr_core.download import resuming as partial, transfer as module
from detr_core.download.http import Remote
from detr_core.reporter import Silent
partial.PIECE, module._SECONDS_BETWEEN_JOURNALS = int(sys.argv[4]), 0.0
module.download({Path(sys.argv[1]): Remote(sys.argv[2], None, sys.argv[3])}, 2, 10**9, 0, Silent())
"""


def test_a_killed_download_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    site.seconds = 0.05
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a"), f"{site.url}/a.zip", SHA256, str(PIECE)]
    with subprocess.Popen(command, env=os.environ) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            journal = tmp_path / ".a.part.json"
            if journal.exists() and sum(json.loads(journal.read_text())["done"]) > len(CONTENT) // 4:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    site.seconds, site.sent = 0.0, 0
    get(site, tmp_path / "a")
    assert site.sent < len(CONTENT) * 4 // 5
    assert digest(tmp_path / "a") == SHA256


def interrupted(site: Site, path: Path, sha256: str | None = SHA256) -> None:
    """Leaves half of a download at `path`."""
    before, site.cut_after, site.cuts = site.cut_after, 1000, -1
    pauses = resuming.PAUSES
    resuming.PAUSES = ()
    try:
        with pytest.raises(DownloadError, match="ended early"):
            download({path: Remote(f"{site.url}/a.zip", None, sha256)}, 1, LARGEST, 0, Silent())
    finally:
        resuming.PAUSES, site.cut_after = pauses, before
    assert path.with_name(f".{path.name}.part").exists()


def test_a_server_that_ignores_ranges_now_restarts_it(site: Site, tmp_path: Path) -> None:
    interrupted(site, tmp_path / "a")
    site.ranges = False
    assert digest(get(site, tmp_path / "a")) == SHA256


def test_what_is_noted_is_forgotten_before_the_bytes_are(site: Site, tmp_path: Path) -> None:
    interrupted(site, tmp_path / "a", None)
    assert (tmp_path / ".a.part.json").exists()
    with resuming.open_part(tmp_path / "a", Remote(f"{site.url}/a.zip", None, None), False, LARGEST) as part:
        assert not (tmp_path / ".a.part.json").exists(), "a kill from here on leaves nothing that speaks of bytes now gone"
        assert part.file_path.stat().st_size == 0


def test_a_disk_that_takes_a_part_gets_the_rest(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, data[: max(1, len(data) // 2)], at))
    assert get(site, tmp_path / "a").read_bytes() == CONTENT


def test_a_full_disk_is_said_and_gone_on_from(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite

    def full(file: int, data: memoryview, at: int) -> int:
        if at + len(data) > len(CONTENT) // 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data, at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DownloadError, match="No space left on device"):
        get(site, tmp_path / "a")
    monkeypatch.setattr(os, "pwrite", write)
    site.sent = 0
    assert digest(get(site, tmp_path / "a")) == SHA256
    assert site.sent < len(CONTENT) * 3 // 4


def test_a_file_that_changed_meanwhile_is_not_mixed(site: Site, tmp_path: Path) -> None:
    interrupted(site, tmp_path / "a", None)
    site.files["/a.zip"], site.version = CONTENT[::-1], '"2"'
    download({tmp_path / "a": Remote(f"{site.url}/a.zip", None, None)}, 2, LARGEST, 0, Silent())
    assert (tmp_path / "a").read_bytes() == CONTENT[::-1]


def test_without_version_and_checksum_nothing_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    site.version = None
    interrupted(site, tmp_path / "a", None)
    site.files["/a.zip"] = CONTENT[::-1]
    download({tmp_path / "a": Remote(f"{site.url}/a.zip", None, None)}, 2, LARGEST, 0, Silent())
    assert (tmp_path / "a").read_bytes() == CONTENT[::-1]


@given(st.binary(max_size=60) | st.sampled_from([b"[]", b'{"done": 3}', b'{"done": [1e400]}', b'{"done": [-1]}']))
@settings(max_examples=20, deadline=None)
def test_a_journal_that_makes_no_sense_is_not_believed(journal: bytes) -> None:
    with serving(Site({"/a.zip": CONTENT[:1000]})) as site, TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.with_name(".a.part").write_bytes(b"something else")
        path.with_name(".a.part.json").write_bytes(journal)
        download({path: Remote(f"{site.url}/a.zip", None, None)}, 1, LARGEST, 0, Silent())
        assert path.read_bytes() == CONTENT[:1000]


def test_wrong_bytes_are_not_kept(site: Site, tmp_path: Path) -> None:
    site.wrong = True
    with pytest.raises(DownloadError, match=f"a.zip: expected a file with sha256 {SHA256}, found one with .*; it was removed"):
        get(site, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    site.wrong = False
    assert digest(get(site, tmp_path / "a")) == SHA256


@pytest.mark.parametrize(
    ("changes", "largest", "message"),
    [
        ({"size": 7}, LARGEST, r"a\.zip: expected 7 bytes, found that the server announces 2,259,251"),
        ({}, 1000, "expected at most 1,000 bytes, found that the server announces 2,259,251"),
    ],
)
def test_another_size_is_refused_before_it_comes(
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


def test_the_disk_is_asked_for_room_first(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=rf"{tmp_path}: expected [\d,]+ bytes free on the disk, found [\d,]+; make room"):
        download({tmp_path / "a": Remote(f"{site.url}/a.zip", None, None)}, 2, LARGEST, 10**18, Silent())
    assert site.sent <= 1
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_the_same_file(site: Site, tmp_path: Path) -> None:
    with (
        resuming.open_part(tmp_path / "a", Remote(f"{site.url}/a.zip", None, None), True, LARGEST),
        pytest.raises(DownloadError, match="another process is downloading it"),
    ):
        get(site, tmp_path / "a")


def test_a_silent_server_ends_in_an_error(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SILENCE", 0.1)
    monkeypatch.setattr(resuming, "PAUSES", (0.0,))
    site.seconds = 2
    with pytest.raises(DownloadError, match=r"can't be downloaded \(.*timed out.*\); try again"):
        get(site, tmp_path / "a")


@pytest.mark.parametrize(
    ("url", "sha256"), [("http://example.invalid/a", None), ("ftp://127.0.0.1/a", SHA256), ("file:///etc/passwd", SHA256)]
)
def test_addresses_that_are_not_safe(url: str, sha256: str | None, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="expected an https address, or http with a checksum"):
        download({tmp_path / "a": Remote(url, None, sha256)}, 1, LARGEST, 0, Silent())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://example.invalid/a", "http://[::1/a"])
def test_a_redirect_to_an_address_that_is_not_safe(site: Site, tmp_path: Path, where: str) -> None:
    site.moved["/a.zip"] = where
    with pytest.raises(DownloadError, match=r"expected an? (https |valid )?address|is not allowed"):
        get(site, tmp_path / "a", sha256=None)
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_that_goes_round_ends_in_an_error(site: Site, tmp_path: Path) -> None:
    site.moved["/a.zip"] = f"{site.url}/a.zip"
    with pytest.raises(DownloadError, match="infinite loop"):
        get(site, tmp_path / "a")
    del site.moved["/a.zip"]
    site.moved["/old.zip"] = f"{site.url}/a.zip"
    download({tmp_path / "b": Remote(f"{site.url}/old.zip", None, SHA256)}, 2, LARGEST, 0, Silent())
    assert digest(tmp_path / "b") == SHA256


@pytest.mark.parametrize("url", ["https://" + "a" * 70 + ".example/a", "https://[::1/a", "https://127.0.0.1:port/a"])
def test_addresses_that_nobody_can_have(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DownloadError):
        download({tmp_path / "a": Remote(url, None, SHA256)}, 1, LARGEST, 0, Silent())
    assert list(tmp_path.iterdir()) == []
