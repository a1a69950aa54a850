"""A training study of the tiny profile with two variants, each trained for one step."""

from __future__ import annotations

from typing import Any

from detr_core.config import build
from flows.profile.settings import Profile
from flows.studies.training import Study
from tests.conftest import tiny_parameters
from tests.recording_reporter import RecordingReporter

STEP = {"train_detection.epochs": 1, "train_detection.steps": 1}
DEPTH = {"paper": "Table 2", "base": "1", "seeds": [0], "median_of": 1, "set": STEP, "vary": {"detector.encoder_layers": [0, 1]}}


def settings(**study: Any) -> Profile:
    content = tiny_parameters()
    content["studies"] = {"evaluating": {}, "training": {"depth": DEPTH | study}}
    return build(Profile, content, "tiny.yaml")


def make_all(study: Study) -> dict[str, list[str]]:
    """Makes every variant, and returns the messages that each reported, by label."""
    messages = {}
    for label in study.variants:
        reporter = RecordingReporter()
        study.make(label, reporter, f"run of {study.name} {label}")
        messages[label] = reporter.messages
    return messages
