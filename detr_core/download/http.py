"""Requests a file from a web server if its address is safe, and reads the headers of the answer."""

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
BROKEN = (OSError, HTTPException)  # errors of requests and reads when a server or its connection fails
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class DownloadError(ExpectedError, ValueError):
    """A file can't be downloaded, or isn't the expected one. The message names the address and says what to do."""


@dataclass(frozen=True)
class Remote:
    """A file at an address.

    url: an address with https, with http to this machine, or with http to another machine if the checksum is known.
    size: bytes. sha256: 64 hexadecimal digits. A size or checksum of None is unknown and is not verified.
    """

    url: str
    size: int | None
    sha256: str | None


@contextmanager
def opened(remote: Remote, byte_range: str | None) -> Iterator[HTTPResponse]:
    """Yields the server's answer after redirects. byte_range: the value of the Range header, None for the whole file.

    Raises DownloadError for an address, or a redirect to one, that is invalid or unsafe, HTTPError if the server refuses, and
    the errors in BROKEN if the connection fails.
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
    except ValueError as error:  # raised for an invalid redirect or host name
        raise DownloadError(f"{remote.url}: expected a valid address, found an invalid one ({error})") from None
    with answer:
        yield answer


def total_size(answer: HTTPResponse) -> int | None:
    """Returns the size of the whole file in bytes, as the server states it; None if it does not."""
    value = answer.headers.get("Content-Range", "").rpartition("/")[2] if answer.status == 206 else None
    value = answer.headers.get("Content-Length") if value is None else value
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 20 else None


def starts_at(answer: HTTPResponse, begin: int) -> bool:
    """Returns whether the answer holds the file from byte `begin` on."""
    return bool(answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-"))


def version(answer: HTTPResponse) -> str | None:
    """Returns a text that changes when the file at the address changes; None if the server sends none."""
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified")


def is_final(error: HTTPError) -> bool:
    """Returns whether the same request would fail again."""
    return error.code < 500 and error.code not in (408, 429)


def unreachable(url: str, reason: Exception | str) -> str:
    """Returns the message of a DownloadError after the last try."""
    return f"{url}: the file can't be downloaded ({reason}); try again, or download it by other means and give its path"


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
        raise DownloadError(f"{url}: expected a valid address, found an invalid one ({error})") from None
    if "@" in parts.netloc:  # Python's client would take the password for a port and show it in its error
        raise DownloadError(f"{url}: expected an address without a user's name and password, found one with them")
    if parts.scheme == "https" or (parts.scheme == "http" and (parts.hostname in _LOOPBACK or remote.sha256 is not None)):
        return
    raise DownloadError(f"{url}: expected an https address, or http with a checksum, found {parts.scheme!r}")
