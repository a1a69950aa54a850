"""The settings of an evaluating study, which MLflow compares, are read from the files that the study writes."""

from __future__ import annotations

import json
from pathlib import Path

from detr_core.studies.evaluating import EVALUATING
from detr_core.studies.study import Setting


def test_a_setting_for_each_layer_and_threshold(tmp_path: Path) -> None:
    cells = [{"decoder_depth": 2, "nms": None, "metrics": {"AP": 0.5}}, {"decoder_depth": 2, "nms": 0.7, "metrics": {"AP": 0.25}}]
    (tmp_path / "cells.json").write_text(json.dumps(cells))
    assert EVALUATING["decoder-nms"].settings(tmp_path) == [
        Setting("depth 2, NMS off", {"decoder_depth": 2, "nms": "off"}, {2: {"val/AP": 0.5}}, "nms_off"),
        Setting("depth 2, NMS 0.7", {"decoder_depth": 2, "nms": "0.7"}, {2: {"val/AP": 0.25}}, "nms_0.7"),
    ]


def test_a_setting_for_each_score_threshold(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps([{"empty_slot_override": True, "threshold": 0.3, "metrics": {"AP": 0.5}}]))
    params = {"empty_slot_override": "on", "score": 0.3}
    expected = Setting("empty slots on, score 0.3", params, {30: {"val/AP": 0.5}}, "override_on")
    assert EVALUATING["scoring"].settings(tmp_path) == [expected]


def test_a_setting_for_each_class(tmp_path: Path) -> None:
    count = {"name": "cat", "visible": [1, 2], "missed": {"mean": [0.0, 0.25]}}
    (tmp_path / "counts.json").write_text(json.dumps([count]))
    expected = Setting("cat", {"category": "cat"}, {1: {"missed": 0.0}, 2: {"missed": 0.25}})
    assert EVALUATING["instance-count"].settings(tmp_path) == [expected]


def test_a_study_of_one_setting_has_none_to_compare(tmp_path: Path) -> None:
    assert EVALUATING["encoder-attention"].settings(tmp_path) == []
