"""Folders of results are complete, are replaced only if the project wrote every file in them, never mix two writers' files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_core import directories
from detr_core.atomic import umask
from detr_core.directories import MARK, ForeignFileError, atomic_directory

ROOT = Path(__file__).resolve().parent.parent


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the content of every file below the folder, through links, without marks."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MARK)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write(folder: Path, content: bytes = b"first") -> Path:
    """Writes a result of this project."""
    with atomic_directory(folder) as temporary:
        (temporary / "below").mkdir()
        (temporary / "below" / "a").write_bytes(content)
        (temporary / "b").write_bytes(content)
    return folder


def test_a_result_replaces_the_earlier_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "result")
    assert oct((tmp_path / "result").stat().st_mode & 0o777) == oct(0o777 & ~umask())
    write(tmp_path / "result", b"second")
    assert contents(tmp_path) == {"result/below/a": b"second", "result/b": b"second"}
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "result") as temporary:  # noqa: PT012
        (temporary / "half").write_bytes(b"")
        raise RuntimeError
    assert contents(tmp_path) == {"result/below/a": b"second", "result/b": b"second"}
    directories.remove(tmp_path / "result")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_or_missing_file_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    with atomic_directory(folder) as out:
        (out / "a").write_bytes(b"a")
        (out / "b").write_bytes(b"b")
    assert directories.changed_file(folder) is None
    (folder / "more").write_bytes(b"of a user")  # nothing that the project wrote has changed
    assert directories.changed_file(folder) is None
    (folder / "b").write_bytes(b"c")
    assert directories.changed_file(folder) == "b"
    (folder / "a").unlink()
    assert directories.changed_file(folder) == "a"
    (folder / MARK).unlink()
    assert directories.changed_file(folder) is None, "without a mark it is not known what the project wrote"
    assert directories.changed_file(tmp_path / "nothing") is None


def _beside(folder: Path) -> None:
    (folder / "photos").mkdir()
    (folder / "photos" / "1.jpg").write_bytes(b"mine")


def _instead(folder: Path) -> None:
    (folder / "b").write_bytes(b"mine")


def _linked(folder: Path) -> None:
    (folder.parent / "mine").mkdir()
    (folder.parent / "mine" / "1.jpg").write_bytes(b"mine")
    (folder / "photos").symlink_to(folder.parent / "mine")


def _without_mark(folder: Path) -> None:
    (folder / MARK).unlink()


def _link_itself(folder: Path) -> None:
    folder.rename(folder.parent / "mine")
    folder.symlink_to(folder.parent / "mine")


def _file_itself(folder: Path) -> None:
    directories.remove(folder)
    folder.write_bytes(b"mine")


@pytest.mark.parametrize("spoil", [_beside, _instead, _linked, _without_mark, _link_itself, _file_itself])
@pytest.mark.parametrize("meanwhile", [False, True])
def test_files_that_the_project_did_not_write_stay_and_are_named(
    tmp_path: Path, spoil: Callable[[Path], None], meanwhile: bool
) -> None:
    folder = write(tmp_path / "result")
    before: dict[str, bytes] = {}
    with pytest.raises(ForeignFileError, match=r"result.*: expected .* found .* move it elsewhere"):  # noqa: PT012
        if not meanwhile:
            spoil(folder)
            before = contents(tmp_path)
        with atomic_directory(folder) as temporary:
            (temporary / "b").write_bytes(b"second")
            spoil(folder)
            before = {name: body for name, body in contents(tmp_path).items() if not name.startswith(temporary.name)}
    assert contents(tmp_path) == before
    with pytest.raises(ForeignFileError):
        directories.remove(folder)
    assert contents(tmp_path) == before


def test_litter_of_desktops_and_a_lost_cache_keep_nobody_from_working(tmp_path: Path) -> None:
    folder = write(tmp_path / "result")
    (folder / ".DS_Store").write_bytes(b"window")
    (folder / "b").unlink()
    (folder / "b").symlink_to(tmp_path / "cache-that-is-gone")
    write(folder, b"second")
    assert contents(folder) == {"below/a": b"second", "b": b"second"}


def test_a_folder_that_another_process_replaces_during_the_check_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "result")
    files_in_mark = directories._files_in_mark

    def replaced_after_its_mark_was_read(checked: Path) -> dict[str, str] | None:
        content = files_in_mark(checked)
        monkeypatch.setattr(directories, "_files_in_mark", files_in_mark)
        write(folder, b"second")
        return content

    monkeypatch.setattr(directories, "_files_in_mark", replaced_after_its_mark_was_read)
    directories.require_replaceable(folder)
    assert contents(folder) == {"below/a": b"second", "b": b"second"}


def test_a_folder_whose_removal_was_interrupted_still_belongs_to_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "result")
    unlink, removed = Path.unlink, []

    def interrupted(path: Path, missing_ok: bool = False) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", interrupted)
        with pytest.raises(KeyboardInterrupt):
            directories.remove(folder)
    assert len(contents(folder)) == 1
    directories.remove(folder)
    assert not folder.exists()


WRITER = """
import sys, time
from pathlib import Path
from detr_core.directories import atomic_directory
folder, name, files, pause, times = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
for round_number in range(times):
    with atomic_directory(folder) as temporary:
        for number in range(files):
            (temporary / str(number)).write_text(f"{name} {round_number}")
            print("wrote", flush=True)
            time.sleep(pause)
"""


def writer(folder: Path, name: str, files: int, pause: float, times: int = 1) -> subprocess.Popen[str]:
    arguments = [str(folder), name, str(files), str(pause), str(times)]
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_writers_at_once_in_processes_of_their_own_never_mix(tmp_path: Path) -> None:
    folder = tmp_path / "result"
    writers = [writer(folder, str(number), 12, 0, times=80) for number in range(4)]
    for process in writers:
        process.communicate(timeout=120)
    assert [process.returncode for process in writers] == [0, 0, 0, 0]
    files = contents(folder)
    assert len(files) == 12
    assert len(set(files.values())) == 1, "all files are of one writer"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_files_of_a_killed_writer_are_removed_and_files_of_a_living_one_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "result"
    killed, alive = writer(folder, "killed", 100, 60), writer(folder, "alive", 2, 1)
    for process in (killed, alive):
        assert process.stdout is not None
        assert process.stdout.readline() == "wrote\n"
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    (tmp_path / ".result.mine.tmp").mkdir()
    (tmp_path / ".result.mine.tmp" / "letter").write_text("mine")
    (tmp_path / ".result.mine.old").mkdir()
    (tmp_path / ".result.mine.old" / "letter").write_text("mine")
    write(folder)
    assert alive.wait(timeout=60) == 0
    assert contents(folder) == {"0": b"alive 0", "1": b"alive 0"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".result.mine.old", ".result.mine.tmp", "result"]


def test_the_time_that_a_check_takes_is_small(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "result") as temporary:
        for number in range(2000):
            (temporary / f"{number}.jpg").write_bytes(bytes(4000))
    began = time.process_time()
    directories.require_replaceable(tmp_path / "result")
    assert time.process_time() - began < 5
