"""Unpacks zip archives safely, even if they are damaged or malicious."""

from __future__ import annotations

import calendar
import datetime
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from detr_core.atomic import atomic_file
from detr_core.data.splits import DatasetError
from detr_core.reporter import Reporter

LARGEST_RATIO = 100  # largest ratio of the unpacked bytes to the archive's bytes; COCO's annotations have 4
SLACK = 2**20  # unpacked bytes that are allowed in addition, for tiny archives
JUNK = "__MACOSX"  # a folder that macOS adds to archives
_BLOCK = 2**20
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error, ValueError, OverflowError)


def unpack(
    archive: Path, folder: Path, reserved: Collection[str], reporter: Reporter, replaceable: Collection[str] = ()
) -> dict[str, int]:
    """Writes the files of `archive` below `folder`. Returns file name below `folder` -> size in bytes.

    An existing file with the same checksum is kept. A file gets the time that the archive states, so that repeated unpacking
    gives equal files. reserved: names at the top of `folder` that the archive may not use. replaceable: names of files in
    `folder` that may be replaced if they differ from the archive's files; any other file that differs belongs to the user.
    Raises DatasetError before anything is written if an entry has a name that leaves the folder, is a link or a device, occurs
    twice or is encrypted, if the unpacked files are larger than LARGEST_RATIO times the archive, if the disk has no room, or if a
    file of the user has the path of an entry. It also raises DatasetError for a damaged entry, which is not written.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            entries = {entry.filename: entry for entry in _checked(archive, file.infolist(), reserved)}
            total = sum(entry.file_size for entry in entries.values())
            bytes_needed = sum(entry.file_size for entry in entries.values() if not _has_size(folder / entry.filename, entry))
            if (free := shutil.disk_usage(folder).free) < bytes_needed:
                raise DatasetError(
                    f"{folder}: expected {bytes_needed:,} bytes free for {archive.name}, found {free:,}; make room"
                )
            existing = {name for name, entry in entries.items() if _exists(folder / name, entry, name in replaceable)}
            bytes_done, resolved = 0, {folder: folder.resolve()}
            for entry in entries.values():
                _write(file, entry, folder, resolved, entry.filename in existing)
                bytes_done += entry.file_size
                reporter.progress(bytes_done // 10**6, total // 10**6, 0, f"MB of {archive.name} unpacked")
    except DatasetError:
        raise
    except (*_DAMAGED, OSError) as error:
        raise DatasetError(f"{archive}: expected a zip archive, found one that can't be unpacked ({error})") from None
    return {name: entry.file_size for name, entry in entries.items()}


def _checked(archive: Path, entries: list[zipfile.ZipInfo], reserved: Collection[str]) -> list[zipfile.ZipInfo]:
    """Returns the entries that are files. Raises DatasetError if an entry must not be written."""
    size = archive.stat().st_size
    if sum(entry.file_size for entry in entries) > max(LARGEST_RATIO * size, SLACK):
        raise DatasetError(f"{archive}: expected at most {LARGEST_RATIO} times its {size:,} bytes unpacked, found more")
    for entry in entries:
        if reason := _reason_against(entry, reserved):
            raise DatasetError(f"{archive}: {entry.orig_filename!r}: expected a plain file or folder, found {reason}")
    files = [entry for entry in entries if not entry.is_dir() and PurePosixPath(entry.filename).parts[0] != JUNK]
    names = {entry.filename for entry in files}
    if len(names) < len(files):
        raise DatasetError(f"{archive}: expected every name once, found a name twice")
    for name in names:
        if any(str(parent) in names for parent in PurePosixPath(name).parents):
            raise DatasetError(f"{archive}: {name!r}: expected a folder, because other entries lie in it, found a file")
    return files


def _reason_against(entry: zipfile.ZipInfo, reserved: Collection[str]) -> str | None:
    name = entry.orig_filename.removesuffix("/")
    parts = name.split("/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or ":" in parts[0]:
        return "a name that may leave the folder"
    if not name.isprintable() or max(len(os.fsencode(part)) for part in parts) > 250:
        return "a name that no file should have"
    if parts[0] in reserved:
        return "a reserved name"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or a device"
    if entry.flag_bits & 1:
        return "encryption"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compression of kind {entry.compress_type}"
    return None


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, resolved: dict[Path, Path], is_there: bool) -> None:
    target = folder / entry.filename
    if target.parent not in resolved:
        target.parent.mkdir(parents=True, exist_ok=True)
        resolved[target.parent] = target.parent.resolve()
        if not resolved[target.parent].is_relative_to(resolved[folder]):
            raise DatasetError(f"{target.parent}: expected a folder below {folder}, found a link to {resolved[target.parent]}")
    if is_there:
        return
    with atomic_file(target, flush=False) as part:
        with archive.open(entry) as source, part.open("wb") as sink:
            shutil.copyfileobj(source, sink, _BLOCK)
        if part.stat().st_size != entry.file_size:
            raise zipfile.BadZipFile(f"{entry.filename}: {part.stat().st_size:,} bytes instead of {entry.file_size:,}")
        seconds = _seconds(entry)
        os.utime(part, (seconds, seconds))


def _exists(target: Path, entry: zipfile.ZipInfo, replaceable: bool) -> bool:
    """Returns whether the entry's file exists. Raises DatasetError for a different file that is not from an archive."""
    if _has_size(target, entry) and _crc(target) == entry.CRC:
        return True
    if os.path.lexists(target) and not replaceable:
        raise DatasetError(
            f"{target}: expected no file, or the file of the archive, found another file that is not from the archive; "
            "nothing was changed; move it elsewhere, or delete it if you don't need it"
        )
    return False


def _has_size(file: Path, entry: zipfile.ZipInfo) -> bool:
    # A file that an earlier, interrupted call has written completely has the size of the entry.
    return file.is_file() and not file.is_symlink() and file.stat().st_size == entry.file_size


def _crc(file: Path) -> int:
    crc = 0
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc


def _seconds(entry: zipfile.ZipInfo) -> int:
    try:
        return calendar.timegm(datetime.datetime(*entry.date_time).timetuple())
    except ValueError:  # invalid times such as month 0, which some programs write
        return calendar.timegm((1980, 1, 1, 0, 0, 0))
