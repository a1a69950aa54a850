"""Measures how long commands take that do no work: `python benchmarks/startup.py [--repeats 5]`.

Each command runs with `--help`, as `python -m flows.COMMAND` and as `detr COMMAND`, and those with a profile also with the name
of a profile that does not exist. The table has the median and the largest time of the repeats. The time on the clock depends on
what else the machine does; the processor time hardly does, and the limits hold for it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from flows.profile.paths import ROOT, profile_names
from flows.runtime.arguments import ALIASES, COMMANDS, parser

HELP_SECONDS, PROFILE_SECONDS = 0.5, 1.5  # the processor time that is allowed
DETR = "from flows.runtime.detr_command import main; main()"  # what the installed command `detr` does
MISSING = "no-such-profile"


@dataclass(frozen=True)
class Case:
    """A command line, the exit code that it has to end with, a text that its output has to have, and its allowed seconds."""

    name: str
    command: list[str]
    code: int
    text: str
    allowed: float


def cases() -> list[Case]:
    """Returns all command lines that are measured."""
    detr = [sys.executable, "-c", DETR]
    found = [Case("detr --help", [*detr, "--help"], 0, "Commands:", HELP_SECONDS)]
    for command in (*COMMANDS, *ALIASES):
        options = {action.dest for action in parser(command)._actions}
        wrong = []
        if "profile" in options:
            wrong = ["--profile", MISSING]
        elif "like" in options:
            wrong = [".", "--name", "new", "--like", MISSING]
        typed = command.replace("_", "-")
        for name, start in ((f"flows.{command}", [sys.executable, "-m", f"flows.{command}"]), (f"detr {typed}", [*detr, typed])):
            found.append(Case(f"{name} --help", [*start, "--help"], 0, "usage: ", HELP_SECONDS))
            if wrong:
                text = f"there is no params/{MISSING}.yaml"
                found.append(Case(f"{name}, wrong profile", [*start, *wrong], 1, text, PROFILE_SECONDS))
    return found


def measured(case: Case, repeats: int) -> tuple[list[float], list[float]]:
    """Returns the seconds on the clock and the processor seconds of each run; exits if a run does not end as it should."""
    wall, processor = [], []
    for _ in range(repeats):
        before, began = os.times(), time.monotonic()
        done = subprocess.run(case.command, cwd=ROOT, capture_output=True, text=True, check=False)
        after = os.times()
        wall.append(time.monotonic() - began)
        processor.append(after.children_user + after.children_system - before.children_user - before.children_system)
        output = done.stdout + done.stderr
        if done.returncode != case.code or case.text not in output:
            expected = f"expected exit code {case.code} and {case.text!r}, found exit code {done.returncode}"
            sys.exit(f"{case.name}: {expected}:\n{output}")
    return wall, processor


def main() -> None:
    """Prints the table, and exits with 1 if the median processor time of a command is above what is allowed."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=5, help="number of runs of each command (default: %(default)s)")
    repeats = arguments.parse_args().repeats
    if repeats < 1:
        arguments.error(f"--repeats: expected 1 or more, found {repeats}")
    assert MISSING not in profile_names()
    table = Table("command", "processor", "largest", "clock", "largest", "allowed", title="Seconds, medians and largest values")
    slow = []
    for case in cases():
        wall, processor = measured(case, repeats)
        median = statistics.median(processor)
        figures = (median, max(processor), statistics.median(wall), max(wall))
        table.add_row(case.name, *(f"{figure:.2f}" for figure in figures), f"{case.allowed:g}")
        if median > case.allowed:
            slow.append(case.name)
    Console().print(table)
    if slow:
        sys.exit(f"these commands take longer than allowed: {', '.join(slow)}")


if __name__ == "__main__":
    main()
