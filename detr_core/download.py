"""Files from addresses: over several connections, gone on with after an interruption, kept only where they are as expected."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread

from detr_core.partial import Part, Piece, RangesRefused, begun
from detr_core.reporter import Reporter
from detr_core.web import DownloadError, Remote

_TICK = 0.1  # seconds between two looks at the download
_SECONDS_BETWEEN_JOURNALS = 1.0


def is_address(where: str) -> bool:
    """Whether a file is named by an address and not by a path."""
    return "://" in where


def digest(path: Path) -> str:
    """The sha256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(files: Mapping[Path, Remote], connections: int, largest: int, spare: int, reporter: Reporter) -> None:
    """Each of `files` to its path, unless it is there already and verified; what an earlier call began is gone on with.

    connections: how many at once, over all files. largest: bytes that no file may exceed. spare: bytes that must stay free on
    the disk. Tells the reporter of megabytes. Raises DownloadError where an address is of another kind or can't be reached,
    the disk has no room, a file has another size or checksum than expected, or another process is at it; a file that can't be
    what is expected is not kept, one that stopped halfway waits for the next call.
    """
    whole: dict[Path, Remote] = {}  # those of a server that doesn't do ranges after all
    while True:
        try:
            return _download(files, whole, connections, largest, spare, reporter)
        except RangesRefused as refusal:
            whole[refusal.path] = files[refusal.path]


def _download(
    files: Mapping[Path, Remote], whole: Mapping[Path, Remote], connections: int, largest: int, spare: int, reporter: Reporter
) -> None:
    with ExitStack() as stack:
        parts: list[Part] = []
        for path, remote in files.items():
            if not _is_there(path, remote, reporter):
                parts.append(stack.enter_context(begun(path, remote, path not in whole, largest)))
        if not parts:
            return
        wanted = sum(piece.left for part in parts for piece in part.pieces) + spare
        for path in files:
            if (free := shutil.disk_usage(path.parent).free) < wanted:
                raise DownloadError(f"{path.parent}: expected {wanted:,} bytes free on the disk, found {free:,}; make room")
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
                thread.join(timeout=2 * _TICK)  # one that waits for its server dies with the process
        failed: list[DownloadError] = []
        for part in parts:
            try:
                part.finish()
            except DownloadError as error:  # the others are good and stay
                failed.append(error)
        if failed:
            raise failed[0]


def _watch(parts: list[Part], threads: list[Thread], errors: list[BaseException], reporter: Reporter) -> None:
    """Until all is there: tells of progress, computes checksums as bytes come in, and notes what is there."""
    total = sum(part.size or 0 for part in parts)
    first, began, noted = sum(part.done for part in parts), time.monotonic(), 0.0
    alive = True
    while alive and not errors:
        alive = any(thread.is_alive() for thread in threads)
        behind = max(part.hash_on() for part in parts)  # of each, which any() wouldn't ask
        done, now = sum(part.done for part in parts), time.monotonic()
        rate = (done - first) / 1e6 / max(now - began, 1e-9)
        reporter.progress(done // 10**6, max(total, done) // 10**6, 0, f"MB, {rate:.1f} MB/s")
        if now - noted > _SECONDS_BETWEEN_JOURNALS:
            for part in parts:
                part.note()
            noted = time.monotonic()
        if alive and not behind:
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
    except BaseException as error:  # told where it can be: in the thread that waits
        errors.append(error)


def _is_there(path: Path, remote: Remote, reporter: Reporter) -> bool:
    if not path.is_file() or (remote.size is not None and path.stat().st_size != remote.size):
        return False
    if remote.sha256 is None:
        return True
    reporter.message(f"{path.name}: there already; computing the checksum of its {path.stat().st_size / 1e6:,.0f} MB")
    return digest(path) == remote.sha256
