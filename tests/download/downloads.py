"""A file that the download tests fetch from `tests/unreliable_server.py`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from detr_core.download.http import Remote
from detr_core.download.transfer import download
from detr_core.reporter import Silent
from tests.unreliable_server import Site

PIECE = 2**18
CONTENT = bytes(range(251)) * 9001  # several pieces, none of them like another
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LARGEST = 10**9


def fetch(site: Site, path: Path, **changes: Any) -> Path:
    known = {"size": len(CONTENT), "sha256": SHA256} | changes
    download({path: Remote(f"{site.url}/a.zip", **known)}, 3, LARGEST, 0, Silent())
    return path
