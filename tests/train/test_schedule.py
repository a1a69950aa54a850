"""The learning rate of every step: drops, warm-up, cosine, and what a resumed training continues with."""

from __future__ import annotations

import io
import math
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from detr_core.config import ConfigError, build
from detr_core.train.config import DetectionConfig, ScheduleConfig
from detr_core.train.optimizer import build_schedule
from tests.conftest import tiny_parameters

EPOCH = 5  # optimizer steps in an epoch


def scheduled(config: ScheduleConfig, total: int, lr: float = 1.0) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """The schedule of two groups of parameters, the second with a tenth of the rate."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (lr, lr / 10)]
    optimizer = torch.optim.SGD(groups)
    return optimizer, build_schedule(optimizer, config, EPOCH, total)


def rates(optimizer: torch.optim.Optimizer, schedule: LRScheduler, steps: int) -> list[float]:
    """The rates of the next `steps` steps, of which the second group always has a tenth."""
    first_rates = []
    for _ in range(steps):
        first, second = (parameters["lr"] for parameters in optimizer.param_groups)
        assert second == pytest.approx(first / 10, rel=1e-13)
        first_rates.append(first)
        optimizer.step()
        schedule.step()
    return first_rates


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ScheduleConfig("step", 0, (2,)), [1.0] * 10 + [0.1] * 10),
        (ScheduleConfig("step", 0, (1, 3)), [1.0] * 5 + [0.1] * 10 + [0.01] * 5),
        (ScheduleConfig("step", 4, (1, 3)), [0.25, 0.5, 0.75, 1.0, 1.0] + [0.1] * 10 + [0.01] * 5),
        # The warm-up ends at a drop, after a drop, and one step before a drop.
        (ScheduleConfig("step", 5, (1,)), [0.2, 0.4, 0.6, 0.8, 1.0] + [0.1] * 15),
        (ScheduleConfig("step", 8, (1,)), [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0] + [0.1] * 12),
        (ScheduleConfig("step", 12, (1, 2)), [step / 12 for step in range(1, 13)] + [0.01] * 8),
        (ScheduleConfig("step", 1, (3,)), [1.0] * 15 + [0.1] * 5),
        (ScheduleConfig("step", 40, (3,)), [step / 40 for step in range(1, 21)]),
        (ScheduleConfig("cosine", 0, ()), [0.5 * (1 + math.cos(math.pi * step / 20)) for step in range(20)]),
        (
            ScheduleConfig("cosine", 4, ()),
            [0.25, 0.5, 0.75, 1.0, *(0.5 * (1 + math.cos(math.pi * step / 16)) for step in range(16))],
        ),
        (ScheduleConfig("cosine", 20, ()), [step / 20 for step in range(1, 21)]),
    ],
)
def test_the_rate_of_every_step_is_the_expected_one(config: ScheduleConfig, expected: list[float]) -> None:
    actual = rates(*scheduled(config, total=20), steps=20)
    assert actual == pytest.approx(expected, rel=1e-14, abs=1e-18)


@pytest.mark.parametrize(
    ("config", "lr", "epochs"),
    [
        (ScheduleConfig("cosine", 8, ()), 7e-4, 6),
        (ScheduleConfig("cosine", 200, ()), 7e-4, 1500),
        (ScheduleConfig("cosine", 50, ()), 1.5e-3, 125),
        (ScheduleConfig("step", 0, (200,)), 1e-4, 300),
        (ScheduleConfig("step", 0, (400,)), 1e-4, 500),
        (ScheduleConfig("step", 0, (15,)), 1e-4, 25),
        (ScheduleConfig("step", 0, (40,)), 2e-4, 50),
        (ScheduleConfig("step", 1000, (280,)), 0.02, 370),
    ],
)
def test_the_rates_equal_the_formula_in_float32(config: ScheduleConfig, lr: float, epochs: int) -> None:
    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.kind == "step":
            return 0.1 if step >= config.drop_epochs[0] * EPOCH else 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - config.warmup_steps) / (epochs * EPOCH - config.warmup_steps)))

    steps = epochs * EPOCH
    actual, expected = rates(*scheduled(config, steps, lr), steps), [lr * factor(step) for step in range(steps)]
    assert np.float32(actual).tolist() == np.float32(expected).tolist()
    assert actual == pytest.approx(expected, rel=1e-13)


def test_the_drops_of_detectron2s_3x_schedule_count_from_the_first_step() -> None:
    optimizer, schedule = scheduled(ScheduleConfig("step", 1000, (42_000, 50_000)), 270_000, lr=0.02)
    actual = rates(optimizer, schedule, 1001)
    assert [actual[step] for step in (0, 499, 999, 1000)] == pytest.approx([2e-5, 0.01, 0.02, 0.02], rel=1e-13)
    assert isinstance(schedule, torch.optim.lr_scheduler.SequentialLR)
    _, drops = schedule._schedulers
    assert sorted(drops.milestones.elements()) == [209_000, 249_000], "counted from the end of the warm-up"


@pytest.mark.parametrize("config", [ScheduleConfig("step", 5, (1, 3)), ScheduleConfig("cosine", 3, ())])
@pytest.mark.parametrize("step", [1, 4, 5, 6, 14, 15, 16])
def test_a_schedule_that_is_saved_continues_with_the_same_rates(config: ScheduleConfig, step: int) -> None:
    whole = rates(*scheduled(config, 20), 20)
    optimizer, schedule = scheduled(config, 20)
    before = rates(optimizer, schedule, step)
    saved = io.BytesIO()
    torch.save([optimizer.state_dict(), schedule.state_dict()], saved)
    saved.seek(0)
    optimizer, schedule = scheduled(config, 20)
    of_optimizer, of_schedule = torch.load(saved, weights_only=True)
    optimizer.load_state_dict(of_optimizer)
    schedule.load_state_dict(of_schedule)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert before + rates(optimizer, schedule, 20 - step) == whole


@pytest.mark.parametrize(
    ("kind", "drops", "error"),
    [
        ("step", 5, "expected a list, found 5"),
        ("step", [], "expected one epoch or more with kind 'step', an empty list with kind 'cosine', found []"),
        ("cosine", [5], "expected one epoch or more with kind 'step', an empty list with kind 'cosine', found [5]"),
        ("step", [7, 5], "expected different epochs in ascending order, found [7, 5]"),
        ("step", [5, 5], "expected different epochs in ascending order, found [5, 5]"),
        ("step", [5, 9], "expected epochs between 1 and 8, found [5, 9]"),
        ("step", [0, 5], "expected epochs between 1 and 8, found [0, 5]"),
    ],
)
def test_invalid_drops_are_refused(kind: str, drops: object, error: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"a.yaml: schedule.drop_epochs: {error}")):
        training({"kind": kind, "warmup_steps": 0, "drop_epochs": drops})


def test_drop_epoch_is_refused_and_the_error_suggests_drop_epochs() -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml: schedule\.drop_epoch: unknown key; did you mean 'drop_epochs'\?"):
        training({"kind": "step", "warmup_steps": 0, "drop_epoch": 5})


def training(schedule: dict[str, Any]) -> DetectionConfig:
    content = tiny_parameters()["train_detection"] | {"epochs": 9, "schedule": schedule}
    return build(DetectionConfig, content, "a.yaml")
