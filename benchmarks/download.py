"""Compares the project's downloads with curl: `python benchmarks/download.py [--megabytes 500]`.

Both download the same file alternately from the same server on loopback. A download without a checksum is compared with curl,
and a verified download with curl followed by sha256sum. `--limit` slows each connection of the server down.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from detr_core.download.http import Remote
from detr_core.download.transfer import download
from detr_core.reporter import Silent

ALLOWED = 1.1  # the largest ratio to curl's time


def serve(file: Path, limit: int, port: Connection) -> None:
    """Serves one file with little processor time, and sends its port to `port`.

    limit: bytes per second and connection, 0 for no limit.
    """
    size, block = file.stat().st_size, 2**24 if limit == 0 else 2**18

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            begin, end = (int(span[1]), min(int(span[2]) + 1, size)) if span else (0, size)
            self.send_response(206 if span else 200)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", str(end - begin))
            if span:
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
            self.end_headers()
            self.wfile.flush()
            with file.open("rb") as source:
                while begin < end:
                    begin += os.sendfile(self.connection.fileno(), source.fileno(), begin, min(block, end - begin))
                    if limit:
                        time.sleep(block / limit)
            self.close_connection = True

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        port.send(server.server_port)
        server.serve_forever()


def curl(out: Path, url: str, verified: bool) -> None:
    """Downloads the file with curl, and runs sha256sum if `verified` is true."""
    subprocess.run(["curl", "--silent", "--fail", "--noproxy", "*", "--output", str(out), url], check=True)
    if verified:
        subprocess.run(["sha256sum", str(out)], check=True, stdout=subprocess.DEVNULL)


def ours(out: Path, url: str, sha256: str | None, connections: int) -> None:
    """Downloads the file with this project's function."""
    download({out: Remote(url, None, sha256)}, connections, 2**50, 0, Silent())


def seconds(work: Callable[[Path], None], out: Path) -> float:
    """Returns the seconds that the download `work` takes."""
    out.unlink(missing_ok=True)
    began = time.monotonic()
    work(out)
    return time.monotonic() - began


def main() -> None:
    """Prints the table, and exits with 1 if a download takes more than ALLOWED times curl's time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500, help="size of the file (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=0, help="megabytes per second of each connection (default: no limit)")
    parser.add_argument("--connections", type=int, default=8, help="connections of this project (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="number of runs, of which the median is reported (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if shutil.which("curl") is None:
        sys.exit("error: expected the command curl, found none; install it")
    table = Table("", "curl, s", "this project, s", "ratio", "allowed", title=f"{arguments.megabytes} MB over loopback")
    worst = 0.0
    with TemporaryDirectory() as folder:
        file = Path(folder) / "file.zip"
        with file.open("wb") as sink:
            for _ in range(arguments.megabytes):
                sink.write(os.urandom(10**6))
        with file.open("rb") as source:
            sha256 = hashlib.file_digest(source, "sha256").hexdigest()
        receiver, sender = multiprocessing.Pipe()
        server = multiprocessing.Process(target=serve, args=(file, int(arguments.limit * 1e6), sender), daemon=True)
        server.start()
        url = f"http://127.0.0.1:{receiver.recv()}/file.zip"
        for name, checksum in (("not verified", None), ("verified", sha256)):
            theirs = partial(curl, url=url, verified=checksum is not None)
            own = partial(ours, url=url, sha256=checksum, connections=arguments.connections)
            durations = [
                (seconds(theirs, file.with_name("c")), seconds(own, file.with_name("o"))) for _ in range(arguments.repeats)
            ]
            medians = [median(column) for column in zip(*durations, strict=True)]
            worst = max(worst, medians[1] / medians[0])
            table.add_row(name, f"{medians[0]:.2f}", f"{medians[1]:.2f}", f"{medians[1] / medians[0]:.2f}", f"{ALLOWED:g}")
        server.terminate()
    Console().print(table)
    if worst > ALLOWED:
        sys.exit(f"a download took more than {ALLOWED:g} times curl's time")


if __name__ == "__main__":
    main()
