"""Downloads one file: records the bytes that have arrived, and requests the bytes that are missing.

During the download of a file `x`, `.x.part` holds its bytes, and the journal `.x.part.json` lists which of them are complete.
The file gets the name `x` when it is complete and verified.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from threading import Event
from typing import Any
from urllib.error import HTTPError

from filelock import FileLock, Timeout

from detr_core.atomic import write_text
from detr_core.download.http import BROKEN, DownloadError, Remote, is_final, opened, starts_at, total_size, unreachable, version
from detr_core.redaction import without_credentials

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each further try of a connection that brought no bytes
PIECE = 64 * 2**20  # bytes of one range request
_BLOCK = 2**20
_HASHED_AT_ONCE = 2**28  # bytes hashed between two checks of the download


class RangesRefused(Exception):
    """A server did not answer a range request with the requested bytes of the same version of the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


@dataclass
class Piece:
    """Bytes `start` to `end` of a file, of which `done` bytes have arrived. end: None if the size of the file is unknown."""

    start: int
    end: int | None
    done: int = 0

    @property
    def left(self) -> int:
        return 0 if self.end is None else self.end - self.start - self.done


class Part:
    """A file that is being downloaded: its address, its pieces, and how much of them has arrived.

    Raises DownloadError if the server announces another size than expected or more than `largest` bytes, or if another process
    is downloading the same file. ranges: whether range requests may be used.
    """

    def __init__(self, path: Path, remote: Remote, ranges: bool, largest: int) -> None:
        self.path, self.remote, self.largest = path, remote, largest
        self.file_path = path.with_name(f".{path.name}.part")
        self.journal = path.with_name(f".{path.name}.part.json")
        self.version, size, supports_ranges = _first_answer(remote)
        self.ranges = ranges and supports_ranges
        if remote.size is not None and size is not None and size != remote.size:
            raise DownloadError(f"{remote.url}: expected {remote.size:,} bytes, found that the server announces {size:,}")
        self.size = remote.size if size is None else size
        if self.size is not None and self.size > largest:
            raise DownloadError(
                f"{remote.url}: expected at most {largest:,} bytes, found that the server announces {self.size:,}"
            )
        self._hasher, self._hashed = hashlib.sha256(), 0
        self._lock = FileLock(path.with_name(f".{path.name}.part.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise DownloadError(f"{remote.url}: another process is downloading it to {path}; wait for it") from None
        self.file = self.file_path.open("r+b" if self.file_path.exists() else "w+b")
        self.pieces = self._pieces()

    def close(self) -> None:
        """Closes the file, and releases the lock on the download."""
        self.file.close()
        Path(self._lock.lock_file).unlink(missing_ok=True)  # removed while locked, so that a waiting process locks a new file
        self._lock.release()

    @property
    def done(self) -> int:
        return sum(piece.done for piece in self.pieces)

    def _pieces(self) -> list[Piece]:
        if self.ranges and self.size is not None:
            pieces = [Piece(start, min(start + PIECE, self.size)) for start in range(0, self.size, PIECE)]
            done = self._stored_counts(pieces)
            if done is not None:
                for piece, count in zip(pieces, done, strict=True):
                    piece.done = count
                return pieces
        else:
            pieces = [Piece(0, self.size)]
        self.journal.unlink(missing_ok=True)  # before truncating, so that the journal never lists removed bytes
        self.file.truncate(0)
        return pieces

    def _about(self) -> dict[str, Any]:
        # The journal is a readable file, so it gets no credentials. Addresses that differ only in their signature are equal.
        url = without_credentials(self.remote.url)
        return {"url": url, "size": self.size, "sha256": self.remote.sha256, "version": self.version, "piece": PIECE}

    def _stored_counts(self, pieces: list[Piece]) -> list[int] | None:
        """Returns how many bytes of each piece an earlier call has stored; None if they may belong to another file."""
        if self.version is None and self.remote.sha256 is None:
            return None
        try:
            content = json.loads(self.journal.read_bytes())
            done = content.pop("done")
            fits = content == self._about() and len(done) == len(pieces)
            if fits and all(type(count) is int and 0 <= count <= p.left for p, count in zip(pieces, done, strict=True)):
                return list(done)
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            pass  # no valid journal: the download starts from the beginning
        return None

    def write_journal(self) -> None:
        """Writes the journal, which lists the bytes that are on the disk, so that a later call can continue the download."""
        if not self.ranges:
            return
        done = [piece.done for piece in self.pieces]  # read before the flush, so that only flushed bytes are counted
        os.fdatasync(self.file.fileno())
        write_text(self.journal, json.dumps(self._about() | {"done": done}))

    def fetch(self, piece: Piece, stop: Event) -> None:
        """Downloads the rest of `piece`, over a new connection whenever one breaks, until `stop` is set.

        Raises DownloadError if several connections in a row bring no bytes.
        """
        failed = 0
        while not stop.is_set() and (piece.left > 0 or piece.end is None):
            before = piece.done
            reason: Exception | str = "the connection ended early"
            try:
                self._receive(piece, stop)
                if piece.end is None:
                    piece.end = self.size = piece.start + piece.done
            except BROKEN as error:
                if isinstance(error, HTTPError) and is_final(error):
                    raise DownloadError(unreachable(self.remote.url, error)) from None
                reason = error
            if piece.left == 0 or stop.is_set():
                return
            # Without range requests the next try starts from the first byte, so progress does not reset the counter.
            failed = 1 if self.ranges and piece.done > before else failed + 1
            if failed > len(PAUSES):
                raise DownloadError(unreachable(self.remote.url, reason))
            stop.wait(PAUSES[failed - 1])

    def _receive(self, piece: Piece, stop: Event) -> None:
        if not self.ranges:
            piece.done = 0
        begin = piece.start + piece.done
        byte_range = f"bytes={begin}-{(piece.end or 0) - 1}" if self.ranges else None
        with opened(self.remote, byte_range) as answer:
            if self.ranges and not self._continues(answer, begin):
                raise RangesRefused(self.path)
            view = memoryview(bytearray(_BLOCK))
            while not stop.is_set():
                count = answer.readinto(view if piece.end is None else view[: min(_BLOCK, piece.left)])
                if count == 0 or stop.is_set():
                    return
                if piece.start + piece.done + count > self.largest:
                    raise DownloadError(f"{self.remote.url}: expected at most {self.largest:,} bytes, found more")
                offset = 0
                while offset < count:  # a disk that is almost full accepts a part of the bytes
                    offset += os.pwrite(self.file.fileno(), view[offset:count], piece.start + piece.done + offset)
                piece.done += count

    def _continues(self, answer: HTTPResponse, begin: int) -> bool:
        """Returns whether the answer holds the same version of the file from byte `begin` on."""
        same = total_size(answer) == self.size and version(answer) == self.version
        return answer.status == 206 and starts_at(answer, begin) and same

    def hash_on(self) -> bool:
        """Continues the checksum over the bytes that have arrived. Returns whether more bytes are ready to be hashed."""
        if not self.ranges or self.remote.sha256 is None:
            return False
        ready = 0  # bytes before the first gap
        for piece in self.pieces:
            ready += piece.done
            if piece.left:
                break
        return self._hash_up_to(min(ready, self._hashed + _HASHED_AT_ONCE)) < ready

    def _hash_up_to(self, end: int) -> int:
        while self._hashed < end:
            block = os.pread(self.file.fileno(), min(_BLOCK, end - self._hashed), self._hashed)
            if not block:
                break  # the disk holds less than was written, which makes the checksum wrong
            self._hasher.update(block)
            self._hashed += len(block)
        return self._hashed

    def finish(self) -> None:
        """Verifies the complete file and renames it to `path`. Removes it and raises DownloadError if it is wrong."""
        os.fsync(self.file.fileno())
        size = os.fstat(self.file.fileno()).st_size
        remote = self.remote
        if self.size is not None and size != self.size:
            self.discard()
            raise DownloadError(f"{remote.url}: expected {self.size:,} bytes, found {size:,}; the file was removed; try again")
        if remote.sha256 is not None:
            self._hash_up_to(size)
            if (checksum := self._hasher.hexdigest()) != remote.sha256:
                self.discard()
                raise DownloadError(
                    f"{remote.url}: expected a file with sha256 {remote.sha256}, found one with {checksum}; it was removed"
                )
        self.file_path.replace(self.path)
        self.journal.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes the partial file and its journal."""
        self.file_path.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)


def _first_answer(remote: Remote) -> tuple[str | None, int | None, bool]:
    """Returns the version and the size of the file as the server states them, and whether it supports range requests."""
    for pause in (*PAUSES, None):
        try:
            with opened(remote, "bytes=0-0") as answer:
                size = total_size(answer)
                return version(answer), size, answer.status == 206 and size is not None
        except BROKEN as error:
            if pause is None or (isinstance(error, HTTPError) and is_final(error)):
                raise DownloadError(unreachable(remote.url, error)) from None
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


@contextmanager
def open_part(path: Path, remote: Remote, ranges: bool, largest: int) -> Iterator[Part]:
    """Yields the Part of the download to `path`. If the block raises, bytes are kept only if a later call can continue them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Part(path, remote, ranges, largest)
    try:
        yield part
    except BaseException:
        if not part.file_path.exists():
            pass  # the file was wrong and has been removed
        elif part.ranges and part.done > 0:
            part.write_journal()
        else:
            part.discard()
        raise
    finally:
        part.close()
