"""The display of a stage's progress."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from flows.runtime.progress import Bar, Lines, Tee, reporter
from tests.recording_reporter import RecordingReporter


def test_lines_are_few_and_the_first_and_last_are_among_them() -> None:
    printed_lines: list[str] = []
    lines = Lines("detector", printed_lines.append)
    for step in range(1, 101):
        lines.progress(step, 100, 150.4, f"loss {step}")
    assert printed_lines == ["detector: 1/100, 150 images/s, loss 1", "detector: 100/100, 150 images/s, loss 100"]


def test_another_pass_has_a_line_of_its_own() -> None:
    printed_lines: list[str] = []
    lines = Lines("data", printed_lines.append)
    for done, total in [(1, 2), (2, 2), (1, 2), (2, 2)]:
        lines.progress(done, total, 0, "")
    assert printed_lines == ["data: 1/2", "data: 2/2", "data: 1/2", "data: 2/2"]


def test_validation_is_printed_and_training_metrics_are_not() -> None:
    printed_lines: list[str] = []
    lines = Lines("detector", printed_lines.append)
    lines.metrics({"train/loss": 3.0}, 10)
    lines.metrics({"val/AP": 0.4321, "val/AP50": 0.8}, 20)
    assert printed_lines == ["detector: step 20: val/AP 0.432, val/AP50 0.800"]


def test_a_bar_shows_rate_and_note() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress(
        TextColumn("{task.completed}/{task.total} {task.fields[rate]} {task.fields[note]}"), console=console
    ) as display:
        bar = Bar("detector", display, lambda text: None)
        bar.progress(7, 9, 151.2, "loss 2.31")
        bar.progress(8, 9, 151.2, "loss 2.30")
    assert "8/9 151 images/s loss 2.30" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_tee_passes_every_event_to_all_reporters() -> None:
    first, second = RecordingReporter(), RecordingReporter()
    tee = Tee(first, second)
    tee.progress(1, 2, 3.0, "")
    tee.metrics({"val/AP": 0.5}, 4)
    tee.message("done")
    assert first == second == RecordingReporter(history=[(4, {"val/AP": 0.5})], messages=["done"], last_progress=(1, 2))


def test_outside_of_a_terminal_and_a_flow_run_lines_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with reporter("data") as lines:
        lines.message("written")
    assert capsys.readouterr().out == "data: written\n"
