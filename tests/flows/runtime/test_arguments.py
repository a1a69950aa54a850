"""Help, wrong arguments and invalid profiles are handled before slow imports."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint

import pytest

from flows.profile.paths import ROOT
from flows.runtime import detr_command
from flows.runtime.arguments import ALIASES, COMMANDS, parser

WITH_PROFILE = [
    command for command in (*COMMANDS, *ALIASES) if any(action.dest == "profile" for action in parser(command)._actions)
]
SPY = """
import atexit, sys, runpy
heavy = {"prefect", "mlflow", "torch", "numpy", "rich", "matplotlib"}
atexit.register(lambda: print("imported", sorted(heavy & set(sys.modules))))
"""
# Each runs a command, and says at its end what it has imported: as `python -m` does, and as the installed `detr` does.
MODULE = f"{SPY}module = sys.argv[1]; del sys.argv[0]; runpy.run_module(module, run_name='__main__', alter_sys=True)"
DETR = f"{SPY}from flows.runtime.detr_command import main; main()"


def exit_code_and_output(*arguments: str, program: str = MODULE) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("command", [*COMMANDS, "again"])
def test_help_imports_nothing_that_takes_seconds(command: str) -> None:
    code, text = exit_code_and_output(f"flows.{command}", "--help")
    assert code == 0, text
    assert text.startswith(f"usage: python -m flows.{command}")
    assert "imported []" in text


@pytest.mark.parametrize("command", WITH_PROFILE)
def test_a_wrong_profile_is_reported_at_once(command: str) -> None:
    before = sum(os.times()[2:4])
    code, text = exit_code_and_output(f"flows.{command}", "--profile", "smokee")
    assert code == 1
    assert "error: profile 'smokee': there is no params/smokee.yaml; did you mean 'smoke'?" in text
    assert "imported []" in text
    assert sum(os.times()[2:4]) - before < 5  # seconds of processor time; a quarter of one is usual


@pytest.mark.parametrize("command", ["flows.studies", "flows.ablations"])
def test_a_wrong_study_is_reported_at_once(command: str) -> None:
    code, text = exit_code_and_output(command, "decodernms", "--profile", "smoke")
    assert code == 1
    assert "error: study 'decodernms': profile 'smoke' has no such study; did you mean 'decoder-nms'?" in text
    assert "imported []" in text


def test_detr_is_installed_with_the_project() -> None:
    (declared,) = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"].items()
    assert EntryPoint(*declared, group="console_scripts").load() is detr_command.main
    assert declared[0] == "detr"


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_detr_lists_its_commands(arguments: tuple[str, ...]) -> None:
    code, text = exit_code_and_output(*arguments, program=DETR)
    assert code == (0 if arguments else 2)
    commands = [
        line.split()[0] for line in text.partition("Commands:\n")[2].splitlines() if line.startswith("  ") and line[2] != " "
    ]
    assert commands == [command.replace("_", "-") for command in [*COMMANDS, *ALIASES]]
    assert "imported []" in text


@pytest.mark.parametrize("command", [*COMMANDS, *ALIASES])
def test_detr_has_the_options_of_the_modules(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    typed = command.replace("_", "-")
    code, text = exit_code_and_output(typed, "--help", program=DETR)
    assert code == 0, text
    assert text.startswith(f"usage: detr {typed} [-h]")
    # The options follow the usage, whose lines are broken elsewhere for another program's name.
    expected = parser(command).format_help().partition("\n\n")[2]
    assert text.partition("\n\n")[2] == f"{expected}imported []\n"


def test_detr_reports_a_wrong_profile_at_once() -> None:
    code, text = exit_code_and_output("train-panoptic", "--profile", "smokee", program=DETR)
    assert code == 1
    assert text.startswith("imported []\nerror: profile 'smokee': there is no params/smokee.yaml; did you mean 'smoke'?")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evalute",), "No such command 'evalute'. Did you mean 'evaluate'?"),
        (("again",), "detr again: error: the following arguments are required: run_id"),
        (("check", "--profile=smoke", "more"), "detr check: error: unrecognized arguments: more"),
        (("adopt", "--name", "cells", "--", "-folder", "--help"), "detr adopt: error: unrecognized arguments: --help"),
        (("export", "--checkpoint"), "detr export: error: argument --checkpoint: expected one argument"),
    ],
)
def test_detr_reports_wrong_arguments_at_once(arguments: tuple[str, ...], message: str) -> None:
    code, text = exit_code_and_output(*arguments, program=DETR)
    assert code == 2
    assert text.endswith(f"{message}\n")
    assert "imported []" in text


def test_detr_passes_the_arguments_on() -> None:
    code, text = exit_code_and_output("studies", "decodernms", "--profile", "smoke", program=DETR)
    assert code == 1
    assert "error: study 'decodernms': profile 'smoke' has no such study; did you mean 'decoder-nms'?" in text


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--threshold", "nan", "expected a number from 0 to 1, found nan"),
        ("--threshold", "-0.1", "expected a number from 0 to 1, found -0.1"),
        ("--threshold", "5", "expected a number from 0 to 1, found 5"),
        ("--short", "0", "expected 1 to 16,384 pixels, found 0"),
        ("--longest", "65535", "expected 1 to 16,384 pixels, found 65535"),
    ],
)
def test_an_invalid_number_is_refused(option: str, value: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser("predict").parse_args(["--checkpoint", "x", "--images", "y", "--out", "z", f"{option}={value}"])
    assert f"argument {option}: {expected}" in capsys.readouterr().err
