"""Downloads files over several connections, continues interrupted downloads, and keeps only files with the expected content."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread

from detr_core.checksums import digest
from detr_core.download.http import DownloadError, Remote
from detr_core.download.resuming import Part, Piece, RangesRefused, open_part
from detr_core.reporter import Reporter

_TICK = 0.1  # seconds between two checks of a running download
_SECONDS_BETWEEN_JOURNALS = 1.0


def is_address(where: str) -> bool:
    """Returns whether `where` is an address and not a path."""
    return "://" in where


def download(files: Mapping[Path, Remote], connections: int, largest: int, spare: int, reporter: Reporter) -> None:
    """Downloads each of `files` to its path, unless a verified file exists there. It continues downloads of earlier calls.

    connections: the number of simultaneous connections over all files. largest: the largest size allowed for a file, bytes.
    spare: bytes that must stay free on the disk. The reporter receives the progress in megabytes. Raises DownloadError if an
    address is not allowed or can't be reached, if the disk has no room, if a file does not have the expected size or checksum,
    or if another process is downloading the file. A file with wrong content is removed; an incomplete one is kept, and the next
    call continues it.
    """
    without_ranges: dict[Path, Remote] = {}  # files whose server does not support range requests although it announced them
    while True:
        try:
            return _download(files, without_ranges, connections, largest, spare, reporter)
        except RangesRefused as refusal:
            without_ranges[refusal.path] = files[refusal.path]


def _download(
    files: Mapping[Path, Remote],
    without_ranges: Mapping[Path, Remote],
    connections: int,
    largest: int,
    spare: int,
    reporter: Reporter,
) -> None:
    with ExitStack() as stack:
        parts: list[Part] = []
        for path, remote in files.items():
            if not _exists(path, remote, reporter):
                parts.append(stack.enter_context(open_part(path, remote, path not in without_ranges, largest)))
        if not parts:
            return
        bytes_needed = sum(piece.left for part in parts for piece in part.pieces) + spare
        for path in files:
            if (free := shutil.disk_usage(path.parent).free) < bytes_needed:
                raise DownloadError(f"{path.parent}: expected {bytes_needed:,} bytes free on the disk, found {free:,}; make room")
        stop, queue = Event(), SimpleQueue[tuple[Part, Piece]]()
        errors: list[BaseException] = []
        for part in parts:
            for piece in part.pieces:
                queue.put((part, piece))
        threads = [Thread(target=_work, args=(queue, stop, errors), daemon=True) for _ in range(connections)]
        try:
            for thread in threads:
                thread.start()
            _watch(parts, threads, errors, reporter)
        finally:
            stop.set()
            for thread in threads:
                thread.join(timeout=2 * _TICK)  # a thread that waits for its server ends with the process
        failed: list[DownloadError] = []
        for part in parts:
            try:
                part.finish()
            except DownloadError as error:  # the other files are complete and are kept
                failed.append(error)
        if failed:
            raise failed[0]


def _watch(parts: list[Part], threads: list[Thread], errors: list[BaseException], reporter: Reporter) -> None:
    """Reports progress, computes checksums and writes the journals until all files are complete or a thread fails."""
    total = sum(part.size or 0 for part in parts)
    done_before, start, journals_written = sum(part.done for part in parts), time.monotonic(), 0.0
    alive = True
    while alive and not errors:
        alive = any(thread.is_alive() for thread in threads)
        hashing_remains = max(part.hash_on() for part in parts)  # max() calls every part; any() would stop early
        done, now = sum(part.done for part in parts), time.monotonic()
        rate = (done - done_before) / 1e6 / max(now - start, 1e-9)
        reporter.progress(done // 10**6, max(total, done) // 10**6, 0, f"MB, {rate:.1f} MB/s")
        if now - journals_written > _SECONDS_BETWEEN_JOURNALS:
            for part in parts:
                part.write_journal()
            journals_written = time.monotonic()
        if alive and not hashing_remains:
            next(iter(thread for thread in threads if thread.is_alive()), threads[0]).join(timeout=_TICK)
    if errors:
        raise errors[0]


def _work(queue: SimpleQueue[tuple[Part, Piece]], stop: Event, errors: list[BaseException]) -> None:
    try:
        while not stop.is_set():
            part, piece = queue.get_nowait()
            part.fetch(piece, stop)
    except Empty:
        return
    except BaseException as error:  # the waiting thread raises it
        errors.append(error)


def _exists(path: Path, remote: Remote, reporter: Reporter) -> bool:
    if not path.is_file() or (remote.size is not None and path.stat().st_size != remote.size):
        return False
    if remote.sha256 is None:
        return True
    reporter.message(f"{path.name}: the file exists; computing the checksum of its {path.stat().st_size / 1e6:,.0f} MB")
    return digest(path) == remote.sha256
