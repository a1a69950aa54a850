"""The events of several processes arrive as whole lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.conftest import ROOT


def test_lines_of_two_processes_are_not_mixed() -> None:
    code = "from detr_core.jobs.events import _print_event\nfor i in range(2000): _print_event(kind='message', text=str(i))"
    reading, writing = os.pipe()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}  # as torchrun's processes are started
    talkers = [subprocess.Popen([sys.executable, "-c", code], stdout=writing, cwd=ROOT, env=environment) for _ in range(2)]
    os.close(writing)
    with os.fdopen(reading) as stream:
        messages = sorted(int(json.loads(line.removeprefix("@"))["text"]) for line in stream)
    assert [talker.wait() for talker in talkers] == [0, 0]
    assert messages == sorted([*range(2000)] * 2)
