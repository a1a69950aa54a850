"""Weights from an address, kept in a folder: nobody uses them before their checksum is verified."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from detr_core.download import digest, download, is_address
from detr_core.model.files import CheckpointError
from detr_core.reporter import Silent
from detr_core.web import DownloadError, Remote

__all__ = ["LARGEST", "digest", "fetch", "is_address"]

LARGEST = 4 * 2**30  # bytes; the released weights have 0.25 of 2**30, with the optimiser's state three times that
_CONNECTIONS = 4


def fetch(url: str, sha256: str, folder: Path) -> Path:
    """The file at `url`, downloaded into `folder` unless it is there already.

    url: see Remote. sha256: of the whole file, 64 hexadecimal digits; a file in `folder` is checked again each time.
    Raises CheckpointError where the address is of another kind, can't be reached, or has a file that is too large or of another
    checksum; what is found wrong is not kept.
    """
    name = re.sub(r"[^\w.-]", "_", Path(urlsplit(url).path).name)
    path = folder / f"{sha256[:16]}-{name}"
    try:
        download({path: Remote(url, None, sha256)}, _CONNECTIONS, LARGEST, 0, Silent())
    except DownloadError as error:
        raise CheckpointError(str(error)) from None
    return path
