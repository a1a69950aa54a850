"""Downloaded weights are kept only if they have the expected checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from detr_core.download import resuming, weights
from detr_core.download.http import DownloadError
from detr_core.download.weights import fetch

CONTENT = bytes(range(256)) * 9000  # several blocks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("Location", "ftp://example.invalid/weights.pth")
            self.end_headers()
        elif self.path.startswith("/missing"):
            self.send_error(404)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: -5 if self.path.startswith("/short") else None])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the pauses between the tries of a download."""
    monkeypatch.setattr(resuming, "PAUSES", (0.0, 0.0))


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """Yields a server whose attribute `asked` collects the requests."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def address(server: ThreadingHTTPServer, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{path}"


def test_a_file_is_fetched_once(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    url = address(server, "detr-r50.pth?download=1")
    file = fetch(url, SHA256, tmp_path / "cache")
    assert file == tmp_path / "cache" / f"{SHA256[:16]}-detr-r50.pth"
    assert file.read_bytes() == CONTENT
    asked = len(server.asked)  # type: ignore[attr-defined]
    assert fetch(url, SHA256, tmp_path / "cache") == file
    assert len(server.asked) == asked  # type: ignore[attr-defined]
    file.write_bytes(b"spoilt")
    assert fetch(url, SHA256, tmp_path / "cache").read_bytes() == CONTENT
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("path", "sha256", "message"),
    [
        ("a.pth", "0" * 64, f"expected a file with sha256 0000.*found one with {SHA256}; it was removed"),
        ("short.pth", SHA256, r"can't be downloaded \(the connection ended early\)"),
        ("missing.pth", SHA256, r"can't be downloaded \(HTTP Error 404"),
        ("away.pth", SHA256, "ftp://example.invalid/weights.pth: expected an https address.* found 'ftp'"),
    ],
)
def test_what_is_not_asked_for_is_not_kept(
    server: ThreadingHTTPServer, tmp_path: Path, path: str, sha256: str, message: str
) -> None:
    with pytest.raises(DownloadError, match=message):
        fetch(address(server, path), sha256, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_too_large_is_given_up(server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "LARGEST", 10_000)
    with pytest.raises(DownloadError, match="expected at most 10,000 bytes, found that the server announces 2,304,000"):
        fetch(address(server, "a.pth"), SHA256, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a.pth", "file:///etc/passwd"])
def test_addresses_that_are_not_safe(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="expected an https address"):
        fetch(url, SHA256, tmp_path)


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"http://127.0.0.1:9/a.pth: the file can't be downloaded .* download it by other means"
    ):
        fetch("http://127.0.0.1:9/a.pth", SHA256, tmp_path)
