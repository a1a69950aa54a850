"""Writes, replaces and removes folders of results. A folder appears complete or not at all, and it is replaced or removed only
if this project wrote every file in it.

A folder that the project wrote holds a mark, the file `MARK`, which lists the folder's files with their sha256. A folder without
a mark, a file that the mark does not list, and a file whose content has changed since do not belong to the project and are never
removed.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from detr_core.atomic import umask, write_text
from detr_core.checksums import digest
from detr_core.errors import ExpectedError
from detr_core.wording import counted

MARK = ".detr-results"
LITTER = frozenset({".DS_Store", "Thumbs.db"})  # files that desktops write into every folder that a user opens
_WRITER = ".detr-writer.lock"  # a lock file in a temporary folder, held by the process that writes the folder
_ADVICE = "nothing was changed; move it elsewhere, or delete it if you don't need it"
_INTERNAL_FILES = frozenset({MARK, _WRITER})


class ForeignFileError(ExpectedError, ValueError):
    """A folder can't be replaced or removed, because it holds a file that no command wrote. The message names the path."""


def mark(folder: Path) -> None:
    """Writes the mark of a folder, which lists every other file that is now in the folder as written by the project.

    A folder without files gets no mark, because it holds nothing that could be lost.
    """
    files = {name: digest(folder / name) for name in sorted(_names(folder)) if name not in _INTERNAL_FILES}
    if files:
        write_text(folder / MARK, json.dumps({"written by": "detr-workbench", "sha256": files}, indent=0) + "\n")


def require_replaceable(folder: Path) -> None:
    """Raises ForeignFileError unless `folder` does not exist, is empty, or holds only files that the project wrote."""
    _project_files(folder)


def changed_file(folder: Path) -> str | None:
    """Returns the name of the first file that the mark of `folder` lists and that is missing or has another content.

    Returns None if there is no such file, and also if the folder has no mark. Another process may replace the folder while it is
    read here; therefore a folder that has changed meanwhile is read again.
    """
    while True:
        state, listed = _state(folder), _files_in_mark(folder) or {}
        name = next((name for name, sha256 in listed.items() if not _has_digest(folder / name, sha256)), None)
        if name is None or _state(folder) == state:
            return name


def remove(folder: Path) -> None:
    """Removes a folder that the project wrote, if it exists. Raises ForeignFileError as `require_replaceable` does."""
    _remove(folder, _project_files(folder))


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `folder`, which replaces `folder` when the block ends without an error.

    A reader therefore never sees a half-written result. If the block raises, the temporary folder is removed and `folder`
    is left as it was. Each writer has a temporary folder of its own, so two writers at once never mix their files: the last one
    to finish wins. Temporary folders of writers that have died are removed first. The new folder gets a mark.

    Raises ForeignFileError before the block begins if `folder` holds a file that the project did not write, and after the block
    if such a file has appeared there in the meantime.
    """
    require_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    temporary, lock = _new_temporary(folder)
    try:
        yield temporary
        mark(temporary)
        temporary.chmod(0o777 & ~umask())  # mkdtemp creates a folder that only its owner can use
        _put_in_place(temporary, folder)
        (folder / _WRITER).unlink(missing_ok=True)
    finally:
        lock.release()
        shutil.rmtree(temporary, ignore_errors=True)


def _new_temporary(folder: Path) -> tuple[Path, BaseFileLock]:
    """Creates a temporary folder beside `folder` and returns it with the acquired lock that shows that its writer lives."""
    while True:
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(folder), suffix=".tmp", dir=folder.parent))
        lock = FileLock(temporary / _WRITER)
        try:
            lock.acquire()
        except FileNotFoundError:
            continue  # another writer saw the lock file before it was locked, and removed the folder as a leftover
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return temporary, lock


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Gives `temporary` the name `folder`, and removes the folder that had this name before.

    Raises ForeignFileError if the earlier folder holds a file that the project did not write.
    """
    while True:
        _require_folder(folder, folder)  # a link must not be moved
        earlier = Path(tempfile.mkdtemp(prefix=_prefix(folder), suffix=".old", dir=folder.parent))
        with suppress(FileNotFoundError):
            folder.rename(earlier)
        try:
            earlier_files = _project_files(earlier, folder)
            temporary.rename(folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another writer was faster; its result is replaced now
                _remove(earlier, earlier_files)
                continue
            _put_back(earlier, folder)
            raise
        except ForeignFileError:
            _put_back(earlier, folder)
            raise
        _remove(earlier, earlier_files)
        return


def _put_back(earlier: Path, folder: Path) -> None:
    with suppress(OSError):  # if another writer has created `folder` meanwhile, both remain
        earlier.rename(folder)


def _require_folder(folder: Path, where: Path) -> None:
    try:
        mode = folder.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "a file"
        raise ForeignFileError(f"{where}: expected a folder for results, found {kind} that no command made; {_ADVICE}")


def _project_files(folder: Path, where: Path | None = None) -> list[str]:
    """Returns the names of all files in `folder`, including its mark.

    Raises ForeignFileError if the project did not write one of them.

    Another process may replace or remove the folder while it is read here, so that the names and the contents come from two
    different folders. Therefore a folder that has changed meanwhile is read again before an error is raised.

    where: the folder's name in an error, if it differs from `folder`.
    """
    while True:
        state = _state(folder)
        if state is None:
            return []
        try:
            return _read_project_files(folder, where or folder)
        except ForeignFileError:
            if _state(folder) == state:
                raise


def _state(folder: Path) -> tuple[int, int] | None:
    """Returns values that change when the folder is replaced or an entry is added or removed; None if there is no folder."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns


def _read_project_files(folder: Path, where: Path) -> list[str]:
    _require_folder(folder, where)
    names = sorted(_names(folder))
    if not names:
        return []
    digests = _files_in_mark(folder)
    if digests is None:
        raise ForeignFileError(
            f"{where}: expected a new folder or results of an earlier run, found {counted(len(names), 'other file')}, such as "
            f"{names[0]}; {_ADVICE}"
        )
    for name in names:
        if name in _INTERNAL_FILES or Path(name).name in LITTER:
            continue
        if name not in digests:
            raise ForeignFileError(
                f"{where / name}: expected only results in this folder, because it is replaced, found a file that no command "
                f"wrote; {_ADVICE}"
            )
        if not _is_as_listed(folder / name, digests[name]):
            raise ForeignFileError(
                f"{where / name}: expected this result unchanged, because it is replaced, found a changed file; {_ADVICE}"
            )
    return names


def _has_digest(file: Path, sha256: str) -> bool:
    try:
        return digest(file) == sha256
    except OSError:  # there is no file, or one that this process may not read
        return False


def _is_as_listed(file: Path, sha256: str) -> bool:
    if file.is_symlink() and not file.exists():
        return True  # a link into a cache that no longer has the file: no content can be lost
    try:
        return digest(file) == sha256
    except FileNotFoundError:
        return True  # another process has just removed it
    except OSError:  # a folder, or a file that this process may not read
        return False


def _files_in_mark(folder: Path) -> dict[str, str] | None:
    """Returns the files that the mark of `folder` lists, with their digests; None if it has no mark."""
    try:
        content = json.loads((folder / MARK).read_bytes())
        return {str(name): str(value) for name, value in content["sha256"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _names(folder: Path) -> Iterator[str]:
    """Yields every file below `folder`, and every link to a folder, relative to `folder`."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*files, *links):
            yield (Path(place) / name).relative_to(folder).as_posix()


def _remove(folder: Path, files: list[str]) -> None:
    """Removes these files of `folder`, then `folder` and its subfolders if they are empty.

    The mark goes last: if this process is killed here, the files that remain are still known as the project's.
    """
    for name in sorted(files, key=MARK.__eq__):
        (folder / name).unlink(missing_ok=True)
    for place, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # another process may have written a file there
            os.rmdir(place)


def _remove_leftovers(folder: Path) -> None:
    """Removes the temporary folders of killed writers of `folder`. It removes only folders with the project's mark or lock."""
    for path in folder.parent.glob(f"{glob.escape(_prefix(folder))}*"):
        if path.suffix == ".tmp" and (path / _WRITER).is_file():
            with suppress(Timeout, OSError), FileLock(path / _WRITER, timeout=0):
                shutil.rmtree(path, ignore_errors=True)
        elif path.suffix == ".old":
            with suppress(ForeignFileError):
                remove(path)


def _prefix(folder: Path) -> str:
    return f".{folder.name}."
