"""One answer of a web server: from an address that is safe to ask, and what its headers say of the file."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from detr_core.errors import ExpectedError

SILENCE = 60.0  # seconds without a byte after which a connection counts as broken
BROKEN = (OSError, HTTPException)  # what asking and reading raise where a server or the way to it fails
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class DownloadError(ExpectedError, ValueError):
    """A file that can't be had, or isn't what was expected. The message names the address, and says what to do."""


@dataclass(frozen=True)
class Remote:
    """A file at an address. size: bytes. sha256: 64 hexadecimal digits. None: not known, so not verified.

    The address is https, or http to this machine, or http to another one where the checksum is known.
    """

    url: str
    size: int | None
    sha256: str | None


@contextmanager
def opened(remote: Remote, byte_range: str | None) -> Iterator[HTTPResponse]:
    """The server's answer, redirects followed. byte_range: of the Range header.

    Raises DownloadError for an address, also of a redirect, that is none or isn't safe, HTTPError for a refusal, and what
    BROKEN names.
    """
    _require_safe(remote.url, remote)
    handlers: list[urllib.request.BaseHandler] = [_SafeRedirects(remote)]
    if urlsplit(remote.url).hostname in _LOOPBACK:
        handlers.append(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(remote.url, headers={} if byte_range is None else {"Range": byte_range})
    try:
        answer = urllib.request.build_opener(*handlers).open(request, timeout=SILENCE)
    except DownloadError:
        raise
    except ValueError as error:  # of a redirect's address, or a host's name
        raise DownloadError(f"{remote.url}: expected an address, found one that nobody can have ({error})") from None
    with answer:
        yield answer


def total_size(answer: HTTPResponse) -> int | None:
    """Bytes of the whole file, as the server announces them."""
    value = answer.headers.get("Content-Range", "").rpartition("/")[2] if answer.status == 206 else None
    value = answer.headers.get("Content-Length") if value is None else value
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 20 else None


def starts_at(answer: HTTPResponse, begin: int) -> bool:
    """Whether it holds the file from byte `begin` on."""
    return bool(answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-"))


def version(answer: HTTPResponse) -> str | None:
    """What changes when the file at the address does."""
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified")


def is_final(error: HTTPError) -> bool:
    """Whether asking again is of no use."""
    return error.code < 500 and error.code not in (408, 429)


def unreachable(url: str, reason: Exception | str) -> str:
    """The message of a DownloadError after the last try."""
    return f"{url}: can't be downloaded ({reason}); try again, or download it otherwise and give its path"


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _require_safe(newurl, self._remote)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_safe(url: str, remote: Remote) -> None:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DownloadError(f"{url}: expected an address, found none ({error})") from None
    if "@" in parts.netloc:  # Python's client takes the password for a port, and its error shows it
        raise DownloadError(f"{url}: expected an address without a user's name and password, found one with them")
    if parts.scheme == "https" or (parts.scheme == "http" and (parts.hostname in _LOOPBACK or remote.sha256 is not None)):
        return
    raise DownloadError(f"{url}: expected an https address, or http with a checksum, found {parts.scheme!r}")
