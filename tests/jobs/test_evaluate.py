"""An evaluation in two real processes writes the same files as in one process, byte for byte, with each image once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detr_core.directories import MARK
from flows import evaluate
from flows.runtime import launch
from flows.runtime.launch import RankProcessError
from tests.conftest import Trained
from tests.recording_reporter import RecordingReporter


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def evaluated(trained: Trained, processes: int, batch_size: int, out: Path) -> tuple[dict[str, float], RecordingReporter]:
    settings = replace(
        trained.settings,
        evaluate=replace(trained.settings.evaluate, batch_size=batch_size),
        resources=replace(trained.settings.resources, processes=processes),
    )
    reporter, checkpoint = RecordingReporter(), trained.paths.panoptic / "checkpoint.pt"
    return evaluate.evaluated(checkpoint, None, "tiny", settings, trained.paths, out, reporter), reporter


# Six images: batches of four and two; and one batch, with which a process stays without any image.
@pytest.mark.parametrize("batch_size", [4, 6])
def test_two_processes_write_the_same_files_as_one(trained: Trained, tmp_path: Path, batch_size: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # of this process; two have a core each
    one, _ = evaluated(trained, 1, batch_size, tmp_path / "one")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    two, reporter = evaluated(trained, 2, batch_size, tmp_path / "two")
    assert one == two
    assert reporter.last_progress == (6, 6)
    files = contents(tmp_path / "one")
    assert {"bbox.json", "segm.json", "panoptic.json", "metrics.json", "per_class.json", "errors.json"} < set(files)
    assert len(set(files) - {MARK}) == 6 + 6, "a PNG for each image"
    assert contents(tmp_path / "two") == files


def test_an_error_in_a_process_is_the_stages_and_leaves_nothing(trained: Trained, tmp_path: Path) -> None:
    settings = replace(trained.settings, resources=replace(trained.settings.resources, processes=2))
    checkpoint = trained.paths.panoptic / "checkpoint.pt"
    with pytest.raises(RankProcessError, match="expected a checkpoint of profile 'other', found one of 'tiny'"):
        evaluate.evaluated(checkpoint, None, "other", settings, trained.paths, tmp_path / "out", RecordingReporter())
    assert list(tmp_path.iterdir()) == []
    assert (launch.STATE / "log" / "tiny-evaluation.log").is_file()
