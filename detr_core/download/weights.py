"""Downloads weights into a folder, and verifies their checksum before they are used."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from detr_core.download.http import Remote
from detr_core.download.transfer import download
from detr_core.reporter import Silent

LARGEST = (
    4 * 2**30
)  # largest file in bytes; the published weights have 0.25 * 2**30, or three times that with the optimizer's state
_CONNECTIONS = 4


def fetch(url: str, sha256: str, folder: Path) -> Path:
    """Returns the path of the file at `url`, which is downloaded into `folder` unless it exists there.

    url: an address as in Remote. sha256: the checksum of the file, 64 hexadecimal digits, which is verified in every call.
    Raises DownloadError if the address is not allowed or can't be reached, or if the file is too large or has another checksum.
    A wrong file is removed.
    """
    name = re.sub(r"[^\w.-]", "_", Path(urlsplit(url).path).name)
    path = folder / f"{sha256[:16]}-{name}"
    download({path: Remote(url, None, sha256)}, _CONNECTIONS, LARGEST, 0, Silent())
    return path
