"""Killed processes of a training: equal results afterwards, no process left, and no run with the status running."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults import kills
from tests.faults.kills import PROFILE, ROLES, Trials, marked_environment, plan, results_in


def test_each_role_is_killed_as_often_as_the_others() -> None:
    planned = plan(20, 0, ["stage", "dvc"])
    assert sorted(role for role, _ in planned) == ["dvc"] * 10 + ["stage"] * 10
    assert planned == plan(20, 0, ["stage", "dvc"])
    assert all(0 <= moment < 1 for _, moment in planned)


def test_a_killed_dvc_leaves_nothing_behind_and_the_next_one_ends_with_the_same_bytes(smoke: Path, clone: Path) -> None:
    trials = Trials(clone, marked_environment(), results_in(smoke))
    try:
        trials.carry_out("dvc", "checkout", f"params/{PROFILE}/dvc.yaml")
        assert trials.kill("dvc", 0.2) == []
    finally:
        trials.end_all()


@pytest.mark.long
@pytest.mark.timeout(36000)
def test_no_kill_does_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kills", "--kills", str(3 * len(ROLES))])
    assert kills.main() == 0
