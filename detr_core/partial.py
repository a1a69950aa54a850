"""A file under way: which of its bytes are there, and the way to those that are not.

While a file `x` comes, `.x.part` holds its bytes and `.x.part.json` says which of them are there. It gets its name when it is
whole and verified.
"""

from __future__ import annotations

import fcntl
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

from detr_core.atomic import write_text
from detr_core.redaction import without_credentials
from detr_core.web import BROKEN, DownloadError, Remote, is_final, opened, starts_at, total_size, unreachable, version

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each further try of a connection that brought nothing
PIECE = 64 * 2**20  # bytes asked for at once
_BLOCK = 2**20
_HASHED_AT_ONCE = 2**28  # bytes between two looks at the download


class RangesRefused(Exception):
    """The server sends something else than the part of the same file that it was asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


@dataclass
class Piece:
    """Bytes `start` to `end` of a file, `done` of which are there. end: None where the server doesn't say how many there are."""

    start: int
    end: int | None
    done: int = 0

    @property
    def left(self) -> int:
        return 0 if self.end is None else self.end - self.start - self.done


class Part:
    """A file under way: what it is made from, and how much of it is there."""

    def __init__(self, path: Path, remote: Remote, ranges: bool, largest: int) -> None:
        self.path, self.remote, self.largest = path, remote, largest
        self.file_path = path.with_name(f".{path.name}.part")
        self.journal = path.with_name(f".{path.name}.part.json")
        self.version, size, does_ranges = _first_answer(remote)
        self.ranges = ranges and does_ranges
        if remote.size is not None and size is not None and size != remote.size:
            raise DownloadError(f"{remote.url}: expected {remote.size:,} bytes, found {size:,} announced")
        self.size = remote.size if size is None else size
        if self.size is not None and self.size > largest:
            raise DownloadError(f"{remote.url}: expected at most {largest:,} bytes, found {self.size:,} announced")
        self._hasher, self._hashed = hashlib.sha256(), 0
        self.file = self.file_path.open("r+b" if self.file_path.exists() else "w+b")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.close()
            raise DownloadError(f"{remote.url}: another process is downloading it to {path}; wait for it") from None
        self.pieces = self._pieces()

    @property
    def done(self) -> int:
        return sum(piece.done for piece in self.pieces)

    def _pieces(self) -> list[Piece]:
        if self.ranges and self.size is not None:
            pieces = [Piece(start, min(start + PIECE, self.size)) for start in range(0, self.size, PIECE)]
            done = self._noted(pieces)
            if done is not None:
                for piece, count in zip(pieces, done, strict=True):
                    piece.done = count
                return pieces
        else:
            pieces = [Piece(0, self.size)]
        self.journal.unlink(missing_ok=True)  # first: it must not speak of bytes that are no longer there
        self.file.truncate(0)
        return pieces

    def _about(self) -> dict[str, Any]:
        url = without_credentials(self.remote.url)  # it is written to a file; and signed anew it is the same address
        return {"url": url, "size": self.size, "sha256": self.remote.sha256, "version": self.version, "piece": PIECE}

    def _noted(self, pieces: list[Piece]) -> list[int] | None:
        """The bytes of each piece that an earlier call left here; None where they may be another file's."""
        if self.version is None and self.remote.sha256 is None:
            return None
        try:
            content = json.loads(self.journal.read_bytes())
            done = content.pop("done")
            fits = content == self._about() and len(done) == len(pieces)
            if fits and all(type(count) is int and 0 <= count <= p.left for p, count in zip(pieces, done, strict=True)):
                return list(done)
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            pass  # none, or none that can be believed: from the beginning
        return None

    def note(self) -> None:
        """Writes down what is on the disk, for a later call to go on from."""
        if not self.ranges:
            return
        done = [piece.done for piece in self.pieces]  # before the bytes are brought to the disk: what comes after doesn't count
        os.fdatasync(self.file.fileno())
        write_text(self.journal, json.dumps(self._about() | {"done": done}))

    def fetch(self, piece: Piece, stop: Event) -> None:
        """The rest of `piece`, with a new connection wherever one breaks. Raises DownloadError where none brings anything."""
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
            # Without ranges the next try begins anew: progress doesn't count then.
            failed = 1 if self.ranges and piece.done > before else failed + 1
            if failed > len(PAUSES):
                raise DownloadError(unreachable(self.remote.url, reason))
            stop.wait(PAUSES[failed - 1])

    def _receive(self, piece: Piece, stop: Event) -> None:
        if not self.ranges:
            piece.done = 0
        begin = piece.start + piece.done
        asked = f"bytes={begin}-{(piece.end or 0) - 1}" if self.ranges else None
        with opened(self.remote, asked) as answer:
            if self.ranges and not self._continues(answer, begin):
                raise RangesRefused(self.path)
            view = memoryview(bytearray(_BLOCK))
            while not stop.is_set():
                count = answer.readinto(view if piece.end is None else view[: min(_BLOCK, piece.left)])
                if count == 0 or stop.is_set():
                    return
                if piece.start + piece.done + count > self.largest:
                    raise DownloadError(f"{self.remote.url}: expected at most {self.largest:,} bytes, found more")
                written = 0
                while written < count:  # a disk that fills up takes a part, and refuses the next
                    written += os.pwrite(self.file.fileno(), view[written:count], piece.start + piece.done + written)
                piece.done += count

    def _continues(self, answer: HTTPResponse, begin: int) -> bool:
        """Whether the answer is what was asked for: the same file, from byte `begin` on."""
        same = total_size(answer) == self.size and version(answer) == self.version
        return answer.status == 206 and starts_at(answer, begin) and same

    def hash_on(self) -> bool:
        """Takes the checksum further over what has come; whether there is more to do at once."""
        if not self.ranges or self.remote.sha256 is None:
            return False
        ready = 0  # up to the first gap
        for piece in self.pieces:
            ready += piece.done
            if piece.left:
                break
        return self._hash_up_to(min(ready, self._hashed + _HASHED_AT_ONCE)) < ready

    def _hash_up_to(self, end: int) -> int:
        while self._hashed < end:
            block = os.pread(self.file.fileno(), min(_BLOCK, end - self._hashed), self._hashed)
            if not block:
                break  # less on the disk than was written: the checksum will tell
            self._hasher.update(block)
            self._hashed += len(block)
        return self._hashed

    def finish(self) -> None:
        """Verifies the whole file and gives it its name, or removes it."""
        os.fsync(self.file.fileno())
        size = os.fstat(self.file.fileno()).st_size
        remote = self.remote
        if self.size is not None and size != self.size:
            self.discard()
            raise DownloadError(f"{remote.url}: expected {self.size:,} bytes, found {size:,}; it was not kept, try again")
        if remote.sha256 is not None:
            self._hash_up_to(size)
            if (found := self._hasher.hexdigest()) != remote.sha256:
                self.discard()
                raise DownloadError(
                    f"{remote.url}: expected a file with sha256 {remote.sha256}, found one with {found}; it was not kept"
                )
        self.file_path.replace(self.path)
        self.journal.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes what is there."""
        self.file_path.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)


def _first_answer(remote: Remote) -> tuple[str | None, int | None, bool]:
    """What the server says of the file: its version, its size, and whether parts of it can be asked for."""
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
def begun(path: Path, remote: Remote, ranges: bool, largest: int) -> Iterator[Part]:
    """A file under way. When it can't be finished what has come stays, where it can be gone on with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Part(path, remote, ranges, largest)
    try:
        yield part
    except BaseException:
        if not part.file_path.exists():
            pass  # found wrong and removed
        elif part.ranges and part.done > 0:
            part.note()
        else:
            part.discard()
        raise
    finally:
        part.file.close()
