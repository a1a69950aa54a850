"""The exponential moving average of the weights."""

from __future__ import annotations

import torch
from torch import nn

from detr_core.train.average import WeightAverage


def test_the_average_follows_its_formula_and_leaves_skipped_steps_out() -> None:
    model = nn.Linear(2, 3)
    model.bias.requires_grad_(False)
    average = WeightAverage(model, 0.5)
    expected = model.weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            model.weight.add_(step)
        skipped = step % 7 == 0
        average.update(step, torch.tensor(float(skipped)))
        decay = min(0.5, (1 + step) / (10 + step))
        if not skipped:
            expected = decay * expected + (1 - decay) * model.weight.detach()
    (value,) = average.buffers()
    torch.testing.assert_close(value, expected)
    assert list(average.parameters()) == [], "the optimizer and DDP must not see it"


def test_the_weights_are_the_average_during_a_block_only() -> None:
    model = nn.Linear(2, 3)
    average = WeightAverage(model, 0.9)
    first, trained = model.weight.detach().clone(), torch.ones(3, 2)
    with torch.no_grad():
        model.weight.copy_(trained)
    with average.in_use():
        assert torch.equal(model.weight, first)
    assert torch.equal(model.weight, trained)
