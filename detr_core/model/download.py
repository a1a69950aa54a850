"""Weights from an address, kept in a folder: nobody uses them before their checksum is verified."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from detr_core.model.files import CheckpointError

LARGEST = 4 * 2**30  # bytes; the released weights have 0.25 of 2**30, with the optimiser's state three times that
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SECONDS = 60  # without a byte
_BLOCK = 2**20


def is_address(where: str) -> bool:
    """Whether a checkpoint is named by an address and not by a path."""
    return "://" in where


def fetch(url: str, sha256: str, folder: Path) -> Path:
    """The file at `url`, downloaded into `folder` unless it is there already.

    url: https, or http to this machine. sha256: of the whole file, 64 hexadecimal digits; a file in `folder` is checked again
    each time. Raises CheckpointError where the address is of another kind, can't be reached, or has a file that is too large or
    of another checksum; `folder` then holds nothing new.
    """
    _require_safe(url)
    name = re.sub(r"[^\w.-]", "_", Path(urlsplit(url).path).name)
    path = folder / f"{sha256[:16]}-{name}"
    if path.is_file() and digest(path) == sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=folder, prefix=f".{name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            found = _download(url, file)
        if found != sha256:
            raise CheckpointError(f"{url}: expected a file with sha256 {sha256}, found one with {found}; it was not kept")
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)
    return path


def digest(path: Path) -> str:
    """The sha256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, file: IO[bytes]) -> str:
    handlers: list[urllib.request.BaseHandler] = [_SafeRedirects()]
    if urlsplit(url).hostname in _LOOPBACK:
        handlers.append(urllib.request.ProxyHandler({}))
    hasher, size = hashlib.sha256(), 0
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=_SECONDS) as answer:
            announced = answer.headers.get("Content-Length")
            while block := answer.read(_BLOCK):
                size += len(block)
                if size > LARGEST:
                    raise CheckpointError(f"{url}: expected at most {LARGEST:,} bytes, found more")
                hasher.update(block)
                file.write(block)
    except (OSError, HTTPException) as error:
        raise CheckpointError(f"{url}: can't be downloaded ({error}); download it otherwise and give its path") from None
    if announced is not None and announced.isdigit() and int(announced) != size:
        raise CheckpointError(f"{url}: expected {int(announced):,} bytes, as announced, found {size:,}; try again")
    file.flush()
    os.fsync(file.fileno())
    return hasher.hexdigest()


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _require_safe(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_safe(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise CheckpointError(f"{url}: expected an https address, found {parts.scheme!r}")
