"""Helpers that run `adopt`, the data stage and the check on a dataset folder, in this process and in a temporary project."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from detr_core.errors import ExpectedError
from detr_core.reporter import Silent
from flows import check, data
from flows.new_profile import adoption
from flows.profile.paths import Paths
from flows.profile.settings import load
from tests.conftest import read_parameters, write_parameters


@dataclass
class Outcome:
    """What `adopt`, the data stage and the check say of a dataset folder.

    notes: the messages of `adopt`. images: the number of images of each split, as the data stage counts them. metrics: of the
    check. findings: the number of findings of each kind. error: the message of the error that stopped a command, else ''.
    """

    paths: Paths
    notes: list[str] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    findings: dict[str, int] = field(default_factory=dict)
    error: str = ""


def write_recipe(params: Path) -> None:
    """Writes params/plain.yaml: the smoke profile without its studies that train, which take most of the time to parse."""
    content = read_parameters(params / "smoke.yaml")
    content["studies"]["training"] = {}
    write_parameters(params / "plain.yaml", content)


def adopt_and_check(folder: Path, name: str, params: Path, mode: str = "strict", **options: Any) -> Outcome:
    """Runs `adopt`, the data stage and the check on a folder, with the recipe of `write_recipe`, and returns the outcome.

    An error that no user can cause is raised.
    """
    outcome = Outcome(Paths(name))
    try:
        adopted = adoption.adopt(folder, name, "plain", **({"val_share": 0.25} | options))
        outcome.notes = adopted.notes
        file = params / f"{name}.yaml"
        content = yaml.safe_load(file.read_text())
        content["check"] |= {"mode": mode, "pictures": 0}
        file.write_text(yaml.safe_dump(content))
        settings = load(name)
        outcome.images = {key: int(number) for key, number in data.run(settings, outcome.paths, Silent()).items()}
        outcome.metrics = check.run(settings, outcome.paths, Silent())
    except ExpectedError as error:
        outcome.error = " ".join(str(error).split())
    if (outcome.paths.check / "findings.json").is_file():
        findings = json.loads((outcome.paths.check / "findings.json").read_text())
        outcome.findings = dict(Counter(finding["kind"] for finding in findings))
    return outcome


def sums(outcome: Outcome, entries: str) -> dict[str, float]:
    """Returns how many entries of both splits' instances were supplied, used and left out. entries: 'images' or 'objects'."""
    return {
        part: sum(outcome.metrics[f"account/{split}/instances/{entries}/{part}"] for split in ("train", "val"))
        for part in ("supplied", "used", "left_out")
    }
