"""Downloads the archives of a dataset, verifies them and unpacks them into one folder."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from detr_core.atomic import write_text
from detr_core.data.splits import DatasetError, below_root
from detr_core.download.http import DownloadError, Remote
from detr_core.download.transfer import download
from detr_core.reporter import Reporter
from detr_core.sources.config import ArchiveConfig, DownloadConfig
from detr_core.sources.unpacking import unpack

NOTES = ".archives"  # subfolder of the archives and of the notes that list their files
LARGEST = 2**40  # the largest size that is accepted for an archive of unknown size, bytes


def fill(root: Path, config: DownloadConfig, reporter: Reporter) -> None:
    """Downloads the archives and unpacks them into `root`, except archives whose files are all in `root` with their sizes.

    Raises DatasetError if `root` holds other files, a download fails, the disk has no room, or an archive can't be unpacked
    safely.
    """
    notes = root / NOTES
    try:
        if root.exists() and not notes.is_dir() and any(root.iterdir()):
            raise DatasetError(
                f"{root}: expected a new folder for the download, found a folder with other files; name another folder as "
                "`folder.root`, or set `source: folder` and `download: null` to read the files in it"
            )
        notes.mkdir(parents=True, exist_ok=True)
        missing = [archive for archive in config.archives if not _is_unpacked(root, archive)]
        _fetch(missing, notes, config.connections, reporter)
        for archive in missing:
            _unpack(archive, root, reporter)
        if not config.keep_archives:
            for archive in config.archives:
                (notes / archive.name).unlink(missing_ok=True)
    except DownloadError as error:
        raise DatasetError(str(error)) from None
    except OSError as error:
        raise DatasetError(f"{root}: the archives can't be unpacked into this folder: {error}") from None


def _fetch(archives: list[ArchiveConfig], notes: Path, connections: int, reporter: Reporter) -> None:
    for archive in archives:
        if archive.sha256 is None:
            reporter.message(f"{archive.url}: the profile gives no checksum, so the archive is not verified")
    files = {notes / archive.name: Remote(archive.url, archive.size, archive.sha256) for archive in archives}
    # The unpacked files take at least as much space as the archives. The exact size is checked when an archive is opened.
    download(files, connections, LARGEST, sum(archive.size or 0 for archive in archives), reporter)


def _unpack(archive: ArchiveConfig, root: Path, reporter: Reporter) -> None:
    unpacked_files = _unpacked_files(root)
    files = unpack(root / NOTES / archive.name, root, frozenset({NOTES}), reporter, unpacked_files)
    for name in archive.inside:
        inner = below_root(root, name, f"archives.inside of {archive.url}")
        if name not in files:
            raise DatasetError(f"{archive.url}: expected that it contains the archive {name}, found no such file")
        del files[name]
        below = inner.parent.relative_to(root)
        inside = frozenset(os.path.relpath(path, below) for path in unpacked_files if PurePosixPath(path).is_relative_to(below))
        inner_files = unpack(inner, inner.parent, frozenset({NOTES}), reporter, inside)
        files |= {(below / path).as_posix(): size for path, size in inner_files.items()}
        inner.unlink()
    os.sync()  # after a power cut the note must not exist without the files
    note = _note(root, archive)
    write_text(note, json.dumps(_about(archive) | {"files": files}))


def _unpacked_files(root: Path) -> frozenset[str]:
    """Returns the files that earlier calls have unpacked below `root` from any archive."""
    files: set[str] = set()
    for note in (root / NOTES).glob("*.json"):
        try:
            files.update(json.loads(note.read_bytes())["files"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # the journal of a download, or a damaged note
    return frozenset(files)


def _is_unpacked(root: Path, archive: ArchiveConfig) -> bool:
    try:
        content = json.loads(_note(root, archive).read_bytes())
        files = content.pop("files")
        return bool(content == _about(archive)) and all((root / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _note(root: Path, archive: ArchiveConfig) -> Path:
    return root / NOTES / f"{archive.name}.json"


def _about(archive: ArchiveConfig) -> dict[str, Any]:
    return {"url": archive.url, "size": archive.size, "sha256": archive.sha256, "inside": list(archive.inside)}
