"""A download that was interrupted, killed or refused by the disk continues where it stopped, and never mixes two files."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_core.checksums import digest
from detr_core.download import resuming
from detr_core.download.http import DownloadError, Remote
from detr_core.download.transfer import download
from detr_core.reporter import Silent
from tests.download.downloads import CONTENT, LARGEST, PIECE, SHA256, fetch
from tests.unreliable_server import Site, serving


def test_an_interrupted_download_requests_only_the_missing_bytes(site: Site, tmp_path: Path) -> None:
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
    fetch(site, tmp_path / "a")
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


def test_a_killed_download_continues(site: Site, tmp_path: Path) -> None:
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
    fetch(site, tmp_path / "a")
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
    assert digest(fetch(site, tmp_path / "a")) == SHA256


def test_the_journal_is_removed_before_the_partial_file_is_emptied(site: Site, tmp_path: Path) -> None:
    interrupted(site, tmp_path / "a", None)
    assert (tmp_path / ".a.part.json").exists()
    with resuming.open_part(tmp_path / "a", Remote(f"{site.url}/a.zip", None, None), False, LARGEST) as part:
        assert not (tmp_path / ".a.part.json").exists(), "a kill from here on leaves nothing that speaks of bytes now gone"
        assert part.file_path.stat().st_size == 0


def test_a_full_disk_is_reported_and_the_download_continues_once_there_is_room(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def full(file: int, data: memoryview, at: int) -> int:
        if at + len(data) > len(CONTENT) // 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data, at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DownloadError, match="No space left on device"):
        fetch(site, tmp_path / "a")
    monkeypatch.setattr(os, "pwrite", write)
    site.sent = 0
    assert digest(fetch(site, tmp_path / "a")) == SHA256
    assert site.sent < len(CONTENT) * 3 // 4


def test_a_file_that_changed_meanwhile_is_not_mixed(site: Site, tmp_path: Path) -> None:
    interrupted(site, tmp_path / "a", None)
    site.files["/a.zip"], site.version = CONTENT[::-1], '"2"'
    download({tmp_path / "a": Remote(f"{site.url}/a.zip", None, None)}, 2, LARGEST, 0, Silent())
    assert (tmp_path / "a").read_bytes() == CONTENT[::-1]


def test_a_download_without_version_and_checksum_starts_from_the_beginning(site: Site, tmp_path: Path) -> None:
    site.version = None
    interrupted(site, tmp_path / "a", None)
    site.files["/a.zip"] = CONTENT[::-1]
    download({tmp_path / "a": Remote(f"{site.url}/a.zip", None, None)}, 2, LARGEST, 0, Silent())
    assert (tmp_path / "a").read_bytes() == CONTENT[::-1]


@given(st.binary(max_size=60) | st.sampled_from([b"[]", b'{"done": 3}', b'{"done": [1e400]}', b'{"done": [-1]}']))
@settings(max_examples=20, deadline=None)
def test_an_invalid_journal_is_ignored(journal: bytes) -> None:
    with serving(Site({"/a.zip": CONTENT[:1000]})) as site, TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.with_name(".a.part").write_bytes(b"something else")
        path.with_name(".a.part.json").write_bytes(journal)
        download({path: Remote(f"{site.url}/a.zip", None, None)}, 1, LARGEST, 0, Silent())
        assert path.read_bytes() == CONTENT[:1000]
