"""Downloaded weights are kept only if they have the expected checksum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from detr_core.download import weights
from detr_core.download.http import DownloadError
from detr_core.download.weights import fetch
from tests.download.downloads import CONTENT, SHA256
from tests.unreliable_server import Site, serving

pytestmark = pytest.mark.usefixtures("without_pauses")


@pytest.fixture
def site() -> Iterator[Site]:
    """Yields a server with the same weights under several names; the address of one leads to another protocol."""
    files = dict.fromkeys(("/detr-r50.pth?download=1", "/a.pth", "/short.pth"), CONTENT)
    with serving(Site(files, moved={"/away.pth": "ftp://example.invalid/weights.pth"})) as site:
        yield site


def test_a_file_is_fetched_once(site: Site, tmp_path: Path) -> None:
    url = f"{site.url}/detr-r50.pth?download=1"
    file = fetch(url, SHA256, tmp_path / "cache")
    assert file == tmp_path / "cache" / f"{SHA256[:16]}-detr-r50.pth"
    assert file.read_bytes() == CONTENT
    asked = len(site.asked)
    assert fetch(url, SHA256, tmp_path / "cache") == file
    assert len(site.asked) == asked
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
def test_a_download_that_fails_leaves_no_file(site: Site, tmp_path: Path, path: str, sha256: str, message: str) -> None:
    if path == "short.pth":
        site.ranges, site.cut_after = False, len(CONTENT) - 5
    with pytest.raises(DownloadError, match=message):
        fetch(f"{site.url}/{path}", sha256, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_too_large_is_given_up(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "LARGEST", 10_000)
    with pytest.raises(DownloadError, match="expected at most 10,000 bytes, found that the server announces 2,259,251"):
        fetch(f"{site.url}/a.pth", SHA256, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a.pth", "file:///etc/passwd"])
def test_unsafe_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="expected an https address"):
        fetch(url, SHA256, tmp_path)


def test_an_unreachable_server_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"http://127.0.0.1:9/a.pth: the file can't be downloaded .* download it by other means"
    ):
        fetch("http://127.0.0.1:9/a.pth", SHA256, tmp_path)
