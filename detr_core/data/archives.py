"""A dataset from its archives: downloaded, verified and unpacked into one folder, which nothing leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from detr_core.atomic import write_text
from detr_core.data.config import ArchiveConfig, DownloadConfig
from detr_core.data.dataset import DatasetError, below_root
from detr_core.data.unpacking import unpack
from detr_core.download import download
from detr_core.reporter import Reporter
from detr_core.web import DownloadError, Remote

NOTES = ".archives"  # in the dataset's folder: archives, and what each of them brought
LARGEST = 2**40  # bytes of an archive whose size isn't known


def fill(root: Path, config: DownloadConfig, reporter: Reporter) -> None:
    """Makes the folder `root` hold what the archives bring; what it holds of them already is not downloaded again.

    An archive counts as there while every file that it brought is there with its size. Raises DatasetError for a folder that
    holds something else, a download that fails, a disk without room, or an archive that can't be unpacked safely.
    """
    notes = root / NOTES
    try:
        if root.exists() and not notes.is_dir() and any(root.iterdir()):
            raise DatasetError(
                f"{root}: expected a new folder for the download, found other things in it; name another one as `folder.root`, "
                "or set `source: folder` and `download: null` to read what it holds"
            )
        notes.mkdir(parents=True, exist_ok=True)
        wanted = [archive for archive in config.archives if not _is_unpacked(root, archive)]
        _fetch(wanted, notes, config.connections, reporter)
        for archive in wanted:
            _unpack(archive, root, reporter)
        if not config.keep_archives:
            for archive in config.archives:
                (notes / archive.name).unlink(missing_ok=True)
    except DownloadError as error:
        raise DatasetError(str(error)) from None
    except OSError as error:
        raise DatasetError(f"{root}: can't be filled: {error}") from None


def _fetch(archives: list[ArchiveConfig], notes: Path, connections: int, reporter: Reporter) -> None:
    for archive in archives:
        if archive.sha256 is None:
            reporter.message(f"{archive.url}: no checksum is known; what it brings is not verified")
    files = {notes / archive.name: Remote(archive.url, archive.size, archive.sha256) for archive in archives}
    # What is unpacked takes at least as much again; how much exactly only the archive tells, and is checked then.
    download(files, connections, LARGEST, sum(archive.size or 0 for archive in archives), reporter)


def _unpack(archive: ArchiveConfig, root: Path, reporter: Reporter) -> None:
    ours = _noted_files(root)
    brought = unpack(root / NOTES / archive.name, root, frozenset({NOTES}), reporter, ours)
    for name in archive.inside:
        inner = below_root(root, name, f"archives.inside of {archive.url}")
        if name not in brought:
            raise DatasetError(f"{archive.url}: expected an archive {name} in it, found none")
        del brought[name]
        below = inner.parent.relative_to(root)
        inside = frozenset(os.path.relpath(each, below) for each in ours if PurePosixPath(each).is_relative_to(below))
        found = unpack(inner, inner.parent, frozenset({NOTES}), reporter, inside)
        brought |= {(below / each).as_posix(): size for each, size in found.items()}
        inner.unlink()
    os.sync()  # the note must not outlive a power cut that the files don't
    note = _note(root, archive)
    write_text(note, json.dumps(_about(archive) | {"files": brought}))


def _noted_files(root: Path) -> frozenset[str]:
    """The files that earlier calls have unpacked below `root`, whatever archive they came from."""
    found: set[str] = set()
    for note in (root / NOTES).glob("*.json"):
        try:
            found.update(json.loads(note.read_bytes())["files"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # half of a download, or a note that can't be believed
    return frozenset(found)


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
