"""Only safe addresses are downloaded from, also after a redirect."""

from __future__ import annotations

from pathlib import Path

import pytest

from detr_core.checksums import digest
from detr_core.download.http import DownloadError, Remote
from detr_core.download.transfer import download
from detr_core.reporter import Silent
from tests.download.downloads import LARGEST, SHA256, fetch
from tests.unreliable_server import Site


@pytest.mark.parametrize(
    ("url", "sha256"), [("http://example.invalid/a", None), ("ftp://127.0.0.1/a", SHA256), ("file:///etc/passwd", SHA256)]
)
def test_unsafe_addresses_are_refused(url: str, sha256: str | None, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="expected an https address, or http with a checksum"):
        download({tmp_path / "a": Remote(url, None, sha256)}, 1, LARGEST, 0, Silent())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://example.invalid/a", "http://[::1/a"])
def test_a_redirect_to_an_unsafe_address_is_refused(site: Site, tmp_path: Path, where: str) -> None:
    site.moved["/a.zip"] = where
    with pytest.raises(DownloadError, match=r"expected an? (https |valid )?address|is not allowed"):
        fetch(site, tmp_path / "a", sha256=None)
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_that_goes_round_ends_in_an_error(site: Site, tmp_path: Path) -> None:
    site.moved["/a.zip"] = f"{site.url}/a.zip"
    with pytest.raises(DownloadError, match="infinite loop"):
        fetch(site, tmp_path / "a")
    del site.moved["/a.zip"]
    site.moved["/old.zip"] = f"{site.url}/a.zip"
    download({tmp_path / "b": Remote(f"{site.url}/old.zip", None, SHA256)}, 2, LARGEST, 0, Silent())
    assert digest(tmp_path / "b") == SHA256


@pytest.mark.parametrize("url", ["https://" + "a" * 70 + ".example/a", "https://[::1/a", "https://127.0.0.1:port/a"])
def test_malformed_addresses_are_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DownloadError):
        download({tmp_path / "a": Remote(url, None, SHA256)}, 1, LARGEST, 0, Silent())
    assert list(tmp_path.iterdir()) == []
