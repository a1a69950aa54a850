"""A web server on loopback that fails in configurable ways, for the tests of downloads."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """The files of a server, and the ways in which it is unreliable.

    files: the content by path, such as '/a.zip'. ranges: whether the server supports range requests. cut_after: the number of
    bytes after which it ends a connection, and cuts: how often it still does so (-1: always). wrong: whether it changes bytes of
    an answer. seconds: the delay before each block of 64 KiB. broken: how many requests it answers with status 503 first.
    version: the ETag of its files. asked: the path and the Range header of each request. moved: the new address by path.
    answering: the number of requests that are being answered, and at_once: the largest such number.
    """

    files: dict[str, bytes]
    ranges: bool = True
    cut_after: int | None = None
    cuts: int = -1
    wrong: bool = False
    seconds: float = 0.0
    broken: int = 0
    version: str | None = '"1"'
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    answering: int = 0
    at_once: int = 0
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Runs the site while the block runs; its address is `site.url`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with site.lock:
                site.answering += 1
                site.at_once = max(site.at_once, site.answering)
            try:
                _answer(self, site)
            finally:
                with site.lock:
                    site.answering -= 1

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None: ...  # a client that went away

    with Server(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


def _answer(request: BaseHTTPRequestHandler, site: Site) -> None:
    asked = request.headers.get("Range")
    with site.lock:
        site.asked.append((request.path, asked))
        if site.broken > 0:
            site.broken -= 1
            request.send_error(503)
            return
    if request.path in site.moved:
        request.send_response(302)
        request.send_header("Location", site.moved[request.path])
        request.end_headers()
        return
    content = site.files.get(request.path)
    if content is None:
        request.send_error(404)
        return
    span = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "")
    if span is not None and site.ranges:
        begin, end = int(span[1]), min(int(span[2]) + 1, len(content))
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
    else:
        begin, end = 0, len(content)
        request.send_response(200)
    if site.version is not None:
        request.send_header("ETag", site.version)
    request.send_header("Content-Length", str(end - begin))
    request.end_headers()
    body = content[begin:end]
    if site.wrong:
        body = body[:-1] + bytes([body[-1] ^ 1])
    with site.lock:
        if site.cut_after is not None and len(body) > site.cut_after and site.cuts != 0:
            site.cuts -= 1
            body = body[: site.cut_after]
    for start in range(0, len(body), 2**16):
        if site.seconds:
            time.sleep(site.seconds)
        request.wfile.write(body[start : start + 2**16])
        with site.lock:
            site.sent += len(body[start : start + 2**16])
    request.close_connection = True
