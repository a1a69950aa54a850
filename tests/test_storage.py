"""Errors of a full disk name the folder and the needed and free bytes. A small disk is mounted if the system allows it."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from detr_core.atomic import atomic_file, write_text
from detr_core.model.common.files import tensor_bytes, write_atomically
from detr_core.storage import StorageError, as_storage_error, readable, require_space
from flows.runtime.one_line_errors import one_line_errors

SIZE = 2**20  # of the disk


def test_a_checkpoint_that_has_no_room_is_an_expected_error_and_leaves_the_earlier_one(disk: Path) -> None:
    path = disk / "state.pt"
    write_atomically(path, {"weights": torch.zeros(50_000)})
    before = path.read_bytes()
    for values in (10_000_000, 90_000):  # the first of three tensors has no room, or the last
        with pytest.raises(StorageError) as error:
            write_atomically(path, {"weights": [torch.zeros(values) for _ in range(3)]})
        needed = f"it needs .*{4 * values * 3:,} bytes"
        assert error.match(f"^{path}: it cannot be written, because no space is left on the file system; {needed}")
        assert error.match(rf"bytes\) are free in {disk}; make room there, and run the command again$")
        assert path.read_bytes() == before
        assert [file.name for file in disk.iterdir()] == ["state.pt"]


def test_a_text_that_has_no_room_is_an_expected_error(disk: Path) -> None:
    with pytest.raises(StorageError, match=rf"^{disk}/a/table.csv: it cannot be written, because no space is left"):
        write_text(disk / "a" / "table.csv", "1234567\n" * SIZE)


def test_a_command_says_in_one_line_where_there_was_no_room(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "weights").write_bytes(b"w" * 2 * SIZE)
    with pytest.raises(SystemExit) as ending, one_line_errors():
        shutil.copytree(tmp_path / "big", disk / "copy")
    assert str(ending.value).startswith(f"error: {disk}/copy/weights: it cannot be written, because no space is left")
    unnamed = r"^error: a result: it cannot be written, because no space is left on the file system; "
    unnamed += rf"0 bytes are free in {disk}, .* are free in {tmp_path}[;,]"  # the full one first
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=unnamed), one_line_errors():
        (disk / "plain").write_bytes(b"w" * 2 * SIZE)  # for which the system names no file


def test_a_file_over_the_limit_of_the_user_is_an_expected_error(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match="the file would be larger than the limit on the size of files"):
            write_text(tmp_path / "table.csv", "1" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_free_space_is_checked_before_the_work(disk: Path) -> None:
    require_space(disk / "not" / "yet", SIZE // 2, "the results")
    expected = rf"^{disk}/not/yet: expected 1.05 MB \(1,048,577 bytes\) free for the results, found .* bytes\); make room there$"
    with pytest.raises(StorageError, match=expected):
        require_space(disk / "not" / "yet", SIZE + 1, "the results")


def test_a_read_only_disk_is_noticed_before_the_work(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(StorageError, match=f"^{disk}/runs: expected a folder that can be written, for the results"):
        require_space(disk / "runs", 1, "the results")
    with pytest.raises(StorageError, match=f"^{disk}/.*: it cannot be read or written, because the file system is read-only"):
        write_text(disk / "table.csv", "1")


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    assert as_storage_error(FileNotFoundError(2, "No such file or directory", "a.png")) is None
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a") as file:
        os.stat(file.with_name("missing"))


def test_sizes_are_readable() -> None:
    assert [readable(size) for size in (7, 1500, 2_411_724_800)] == [
        "7 bytes",
        "1.50 kB (1,500 bytes)",
        "2.41 GB (2,411,724,800 bytes)",
    ]
    assert tensor_bytes({"a": torch.zeros(3), "b": [torch.zeros(2, dtype=torch.uint8), (1, "x")]}) == 14
