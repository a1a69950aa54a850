"""The server of the download tests, and pieces and pauses that are small enough for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from detr_core.download import resuming
from tests.download.downloads import CONTENT, PIECE
from tests.unreliable_server import Site, serving


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes pieces and pauses small enough for a test."""
    monkeypatch.setattr(resuming, "PIECE", PIECE)
    monkeypatch.setattr(resuming, "PAUSES", (0.0, 0.01, 0.01))


@pytest.fixture
def site() -> Iterator[Site]:
    """Yields a server with two files of the same size."""
    with serving(Site({"/a.zip": CONTENT, "/b.zip": CONTENT[::-1]})) as site:
        yield site
