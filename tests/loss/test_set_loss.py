"""Edge cases of the set loss: the matching, the divisors of the losses, and values that are not finite."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from detr_core.config import ConfigError
from detr_core.loss.config import FocalLossConfig, SoftmaxLossConfig
from detr_core.loss.criterion import Normalizer, set_loss
from detr_core.loss.matcher import Matches, NonFiniteError, match
from detr_core.structures import Target

CONFIG = SoftmaxLossConfig(classification=1, l1=5, giou=2, no_object=0.1, auxiliary=True)
FOCAL = FocalLossConfig(classification=2, l1=5, giou=2, alpha=0.25, gamma=2, auxiliary=True)


def target(labels: list[int], boxes: list[list[float]]) -> Target:
    return Target(0, torch.tensor(labels, dtype=torch.int64), torch.tensor(boxes).reshape(-1, 4), None, (10, 10), (10, 10))


def random_case(seed: int, layers: int, counts: list[int], queries: int = 6) -> tuple[torch.Tensor, torch.Tensor, list[Target]]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, len(counts), queries, 4, generator=generator)
    boxes = torch.rand(layers, len(counts), queries, 4, generator=generator)
    targets = [
        target(torch.randint(0, 3, (n,), generator=generator).tolist(), torch.rand(n, 4, generator=generator).tolist())
        for n in counts
    ]
    return logits, boxes, targets


def test_the_obvious_query_is_matched() -> None:
    logits = torch.tensor([[[[5.0, 0, 0], [0, 5.0, 0], [0, 0, 5.0]]]])  # class 0, class 1, no-object
    boxes = torch.tensor([[[[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.2, 0.2], [0.5, 0.5, 1, 1]]]])
    matches = match(logits, boxes, [target([1, 0], [[0.8, 0.8, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]])], CONFIG)
    assert list(zip(matches.query.tolist(), matches.target.tolist(), strict=True)) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("seed", range(5))
def test_the_matching_is_the_cheapest_of_all(seed: int) -> None:
    logits, boxes, targets = random_case(seed, layers=1, counts=[3], queries=4)

    def cost(assignment: tuple[int, ...]) -> float:
        from detr_core.loss.boxes import generalized_iou

        total = 0.0
        for t, q in enumerate(assignment):
            box, target_box = boxes[0, 0, q], targets[0].boxes[t]
            total -= logits[0, 0, q].softmax(-1)[targets[0].labels[t]].item()
            total += 5 * (box - target_box).abs().sum().item() - 2 * generalized_iou(box, target_box).item()
        return total

    matches = match(logits, boxes, targets, CONFIG)
    query_of = dict(zip(matches.target.tolist(), matches.query.tolist(), strict=True))
    cheapest = min(itertools.permutations(range(4), 3), key=cost)
    assert cost(tuple(query_of[t] for t in range(3))) == pytest.approx(cost(cheapest), abs=1e-5)


@pytest.mark.parametrize("counts", [[0], [0, 0], [9, 2], [6, 0, 1]])
def test_every_image_matches_as_many_as_it_can(counts: list[int]) -> None:
    logits, boxes, targets = random_case(0, layers=3, counts=counts)
    matches = match(logits, boxes, targets, CONFIG)
    for layer in range(3):
        for image, count in enumerate(counts):
            pairs = (matches.layer == layer) & (matches.image == image)
            assert pairs.sum() == min(count, 6)
            assert matches.query[pairs].unique().numel() == pairs.sum()
            assert matches.target[pairs].unique().numel() == pairs.sum()
    losses = set_loss(logits, boxes, targets, matches, Normalizer.of(counts, 6, 0.1), CONFIG)
    assert losses.total.isfinite()


def test_layers_and_images_do_not_mix() -> None:
    logits, boxes, targets = random_case(1, layers=3, counts=[2, 4])
    whole = set_loss(logits, boxes, targets, match(logits, boxes, targets, CONFIG), Normalizer(1, 1), CONFIG)
    parts = torch.zeros(())
    for layer in range(3):
        for image in range(2):
            at = (slice(layer, layer + 1), slice(image, image + 1))
            target = [targets[image]]
            matches = match(logits[at], boxes[at], target, CONFIG)
            parts = parts + set_loss(logits[at], boxes[at], target, matches, Normalizer(1, 1), CONFIG).total
    torch.testing.assert_close(whole.total, parts)


@pytest.mark.parametrize("off", ["classification", "l1", "giou"])
@pytest.mark.parametrize("kind", ["softmax", "focal"])
def test_a_term_that_is_off_costs_nothing_and_moves_nothing(kind: str, off: str) -> None:
    config: SoftmaxLossConfig | FocalLossConfig = CONFIG if kind == "softmax" else FOCAL
    logits, boxes, targets = random_case(2, layers=2, counts=[3, 1])
    normalizer = Normalizer.of([3, 1], 6, 0.1) if kind == "softmax" else Normalizer.of_focal([3, 1])
    without = replace(config, **{off: 0.0})
    matches = match(logits, boxes, targets, without)
    losses = set_loss(logits.requires_grad_(), boxes.requires_grad_(), targets, matches, normalizer, without)
    terms = {"classification": losses.classification, "l1": losses.l1, "giou": losses.giou}
    torch.testing.assert_close(losses.total, sum(getattr(config, name) * terms[name] for name in terms if name != off).sum())
    assert (terms[off] > 0).all(), "it is still told"
    of_logits, of_boxes = torch.autograd.grad(losses.total, (logits, boxes))
    assert bool(of_logits.any()) == (off != "classification")
    assert of_boxes.any()
    # Nor does it choose the matching: a term that could not be ignored changes it.
    matched = [match(logits, boxes, targets, replace(config, **{off: weight})).query.tolist() for weight in (0.0, 1e-6, 1e6)]
    assert matched[0] == matched[1] != matched[2]


@pytest.mark.parametrize("kind", ["softmax", "focal"])
def test_the_class_loss_alone_matches_by_class_and_moves_no_box(kind: str) -> None:
    config: SoftmaxLossConfig | FocalLossConfig = CONFIG if kind == "softmax" else FOCAL
    logits, boxes, targets = random_case(2, layers=2, counts=[3, 1])
    alone = replace(config, l1=0.0, giou=0.0)
    matches = match(logits, boxes, targets, alone)
    assert torch.equal(matches.query, match(logits, 1 - boxes, targets, alone).query), "wherever the boxes are"
    losses = set_loss(logits, boxes.requires_grad_(), targets, matches, Normalizer(4, 4), alone)
    torch.testing.assert_close(losses.total, (alone.classification * losses.classification).sum())
    assert not torch.autograd.grad(losses.total + 0 * boxes.sum(), boxes)[0].any()


def test_what_learns_nothing_is_refused() -> None:
    nothing = {"classification": 0, "l1": 0, "giou": 0}
    for config, terms, field in (
        (CONFIG, nothing, "classification"),
        (FOCAL, nothing, "classification"),
        (CONFIG, {"no_object": 0}, "no_object"),
    ):
        with pytest.raises(ConfigError, match=rf"^{field}: expected .*above 0"):
            replace(config, **terms)  # type: ignore[type-var]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_even_without_targets(bad: float) -> None:
    logits, boxes, targets = random_case(3, layers=2, counts=[0, 0])
    boxes[1, 0, 0, 0] = bad
    with pytest.raises(NonFiniteError, match="not finite"):
        match(logits, boxes, targets, CONFIG)


def test_half_precision_predictions_are_matched_in_float32() -> None:
    logits, boxes, targets = random_case(4, layers=2, counts=[3, 1])
    half = match(logits.bfloat16(), boxes.bfloat16(), targets, CONFIG)
    same = match(logits.bfloat16().float(), boxes.bfloat16().float(), targets, CONFIG)
    assert torch.equal(half.query, same.query)
    assert torch.equal(half.target, same.target)


def test_the_focal_loss_equals_its_definition() -> None:
    logits, boxes, targets = random_case(3, layers=2, counts=[2, 0, 3])
    matches = match(logits, boxes, targets, FOCAL)
    losses = set_loss(logits, boxes, targets, matches, Normalizer.of_focal([2, 0, 3]), FOCAL)
    labels = torch.cat([target.labels for target in targets])
    matched = {
        (layer, image, query, int(labels[t]))
        for layer, image, query, t in zip(matches.layer, matches.image, matches.query, matches.target, strict=True)
        for layer, image, query in [(int(layer), int(image), int(query))]
    }
    for layer in range(2):
        total = 0.0
        for image, query, label in itertools.product(range(3), range(6), range(4)):
            p = logits[layer, image, query, label].sigmoid().item()
            if (layer, image, query, label) in matched:
                total -= 0.25 * (1 - p) ** 2 * math.log(p)
            else:
                total -= 0.75 * p**2 * math.log(1 - p)
        assert losses.classification[layer].item() == pytest.approx(total / 5, rel=1e-4)
    weighted = 2 * losses.classification + 5 * losses.l1 + 2 * losses.giou
    assert losses.total.item() == pytest.approx(weighted.sum().item(), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_with_the_focal_loss_the_matching_is_the_cheapest_of_all(seed: int) -> None:
    """Asserts that every other assignment has a larger class loss, because the matching minimises the loss itself."""
    logits, boxes, targets = random_case(seed, layers=1, counts=[3], queries=4)
    config = replace(FOCAL, l1=0.0, giou=1e-9)
    matches = match(logits, boxes, targets, config)

    def class_loss(queries: tuple[int, ...]) -> float:
        zeros = torch.zeros(3, dtype=torch.int64)
        assigned = Matches(zeros, zeros, torch.tensor(queries), torch.arange(3))
        return set_loss(logits, boxes, targets, assigned, Normalizer.of_focal([3]), config).classification.item()

    query_of = dict(zip(matches.target.tolist(), matches.query.tolist(), strict=True))
    least = min(class_loss(queries) for queries in itertools.permutations(range(4), 3))
    assert class_loss((query_of[0], query_of[1], query_of[2])) == pytest.approx(least, abs=1e-6)
