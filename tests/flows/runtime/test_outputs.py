"""A command with the option --out replaces nothing, also nothing that appears while it works.

A path that can't be written is refused before the work begins.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

from detr_core.atomic import atomic_new_file
from detr_core.config import ConfigError
from flows.profile import paths
from flows.runtime import outputs
from flows.runtime.locks import building


def test_a_file_that_appears_during_the_work_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    with pytest.raises(FileExistsError), atomic_new_file(file) as temporary:
        _write(temporary, file)
    assert file.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["weights.pth"], "the temporary file is removed"


@pytest.mark.parametrize("has_links", [True, False])
def test_a_new_file_gets_its_name_when_it_is_complete(has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", _refuse)
    file = tmp_path / "folder" / "weights.pth"
    with atomic_new_file(file) as temporary:
        assert temporary.name == "weights.pth", "a writer chooses the format by the name"
        temporary.write_bytes(b"ours")
        assert not file.exists()
    assert file.read_bytes() == b"ours"
    assert os.listdir(file.parent) == ["weights.pth"]
    with pytest.raises(FileExistsError), atomic_new_file(file) as temporary:
        temporary.write_bytes(b"other")
    assert file.read_bytes() == b"ours"


def _write(temporary: Path, file: Path) -> None:
    temporary.write_bytes(b"ours")
    file.write_bytes(b"theirs")


def _refuse(*_: object) -> None:
    raise PermissionError("this file system has no links")


def test_of_two_commands_with_one_folder_the_second_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path / "state")
    folder = outputs.empty_folder(tmp_path / "out")
    begun, waiting = threading.Event(), threading.Event()
    errors: list[Exception] = []

    def second() -> None:
        begun.wait()
        try:
            with outputs.only_writer(folder, lambda _: waiting.set()):
                raise AssertionError("the folder has the results of the first command")
        except ConfigError as error:
            errors.append(error)

    thread = threading.Thread(target=second)
    thread.start()
    with outputs.only_writer(folder, print), building(folder, print) as temporary:
        begun.set()
        assert waiting.wait(10)
        (temporary / "result.txt").write_text("of the first")
    thread.join(10)
    assert "expected a new or an empty folder" in str(errors[0])
    assert (folder / "result.txt").read_text() == "of the first"


@pytest.mark.parametrize("usable", [outputs.new_file, outputs.empty_folder])
def test_what_cannot_be_written_is_refused_before_work_begins(usable: object, tmp_path: Path) -> None:
    assert callable(usable)
    (tmp_path / "file").write_text("mine")
    expected = f"expected a folder that can be written at {tmp_path / 'file'}, found a file"
    for place in (tmp_path / "file" / "x", tmp_path / "file" / "deeper" / "x"):
        with pytest.raises(ConfigError, match=re.escape(expected)):
            usable(place)
    with pytest.raises(ConfigError, match="expected names of at most 200 bytes, found one of 300"):
        usable(tmp_path / ("x" * 300))
    with pytest.raises(ConfigError, match="expected names of at most 200 bytes, found one of 202"):
        usable(tmp_path / ("ö" * 101))
    with pytest.raises(ConfigError, match="found one of 300"):
        usable(tmp_path / ("x" * 300) / "x")
