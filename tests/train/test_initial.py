"""Initial values of learned positions, and the weights of a trained mask head."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from detr_core.config import ConfigError
from detr_core.model.checkpoint import Checkpoint
from detr_core.model.common.detector import Detector
from detr_core.model.deformable.model import DeformableDetr
from detr_core.model.detr.config import AttentionMaps
from detr_core.model.detr.model import Detr
from detr_core.model.spec import build_detector, detector_config
from detr_core.model.transformer.config import PositionsConfig
from detr_core.structures import Category
from detr_core.train.initial import draw_positions, start_from
from detr_core.train_mask_head.initial import mask_head_from
from tests.kinds import DEFORMABLE_TWO_STAGE, RECIPES
from tests.tiny_detector import detector

CATEGORIES = [Category(1, "circle", True)]


def test_learned_positions_get_the_spread_that_was_asked_for_and_nothing_else_changes() -> None:
    config = replace(
        detector(CATEGORIES, False).config,
        positions=PositionsConfig("learned", "attention", cells=64, queries="attention", factor=1),
    )
    torch.manual_seed(0)
    model = Detr(config, 1, mask_head=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draw_positions(model, 2.0)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"backbone.1.row_embed.weight", "backbone.1.col_embed.weight"}
    for name in changed:
        value = model.state_dict()[name]
        assert value.std().item() == pytest.approx(2.0, rel=0.1)
        assert value.mean().item() == pytest.approx(0.0, abs=0.2)


def test_a_detector_without_learned_positions_stays_as_it_is() -> None:
    model = detector(CATEGORIES, False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draw_positions(model, 2.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


CLASSES = tuple(Category(number, name, True) for number, name in ((3, "circle"), (5, "square"), (9, "star")))


def deformable(classes: int, seed: int = 1, **changes: Any) -> DeformableDetr:
    torch.manual_seed(seed)
    model = build_detector(detector_config(DEFORMABLE_TWO_STAGE["detector"] | changes, "a.yaml"), classes)
    assert isinstance(model, DeformableDetr)
    return model


def test_deformable_detr_keeps_the_class_heads_of_the_same_classes_in_another_order() -> None:
    model, trained = deformable(3), deformable(3, seed=2)
    state = trained.state_dict()
    text = start_from(model, (CLASSES[2], CLASSES[0], CLASSES[1]), Checkpoint(trained, CLASSES, {}))
    assert text == "all weights come from the checkpoint; the class head keeps its 3 classes"
    for name, value in model.state_dict().items():
        of_decoder = name.startswith(("class_embed.0.", "class_embed.1."))
        assert torch.equal(value, state[name][[2, 0, 1]] if of_decoder else state[name]), name


@pytest.mark.parametrize("classes", [2, 7])
def test_deformable_detr_of_other_classes_keeps_what_says_that_there_is_an_object(classes: int) -> None:
    model, trained = deformable(classes, queries=30), deformable(3, seed=2)
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, trained.state_dict()
    others = tuple(Category(number, "", True) for number in range(100, 100 + classes))
    text = start_from(model, others, Checkpoint(trained, CLASSES, {}))
    assert (
        text == f"the class head is new, for {classes} classes; all other weights come from the checkpoint, which had 3 classes"
    )
    for name, value in model.state_dict().items():
        if name.startswith("class_embed.2."):  # the encoder's, whose first row it is
            kept = min(classes, 3)
            assert torch.equal(value, torch.cat([state[name][:kept], before[name][kept:]])), name
        else:
            assert torch.equal(value, before[name] if name.startswith("class_embed.") else state[name]), name


def region_detector(kind: str, categories: tuple[Category, ...], seed: int) -> Detector:
    torch.manual_seed(seed)
    isthing = [category.isthing for category in categories]
    return build_detector(detector_config(RECIPES[kind]["detector"], "a.yaml"), len(categories), isthing=isthing)


SORTS = (*CLASSES, Category(20, "sky", False), Category(21, "grass", False), Category(22, "water", False))


@pytest.mark.parametrize("kind", ["faster_rcnn", "mask_rcnn", "panoptic_fpn", "upsnet"])
def test_a_detector_of_regions_keeps_the_rows_of_the_same_classes_in_another_order(kind: str) -> None:
    segments = kind in ("panoptic_fpn", "upsnet")
    theirs = SORTS if segments else CLASSES
    order = [2, 5, 0, 3, 1, 4] if segments else [2, 0, 1]
    ours = tuple(theirs[row] for row in order)
    model, trained = region_detector(kind, ours, 1), region_detector(kind, theirs, 2)
    state = trained.state_dict()
    text = start_from(model, ours, Checkpoint(trained, theirs, {}))
    assert text == f"all weights come from the checkpoint; the class head keeps its {len(ours)} classes"
    labels = [0, 3, 1, 2]  # background, then star, circle, square
    deltas = [4 * label + value for label in labels for value in range(4)]
    rows = {"cls_score": labels, "bbox_pred": deltas, "mask_fcn_logits": labels, "semantic.predictor": [0, 3, 1, 2]}
    rows["semantic.classifier"] = [2, 0, 1, 5, 3, 4]  # the stuff, then the things
    heads = 0
    for name, value in model.state_dict().items():
        own = next((rows[head] for head in rows if head in name and not name.startswith("rpn.")), None)
        heads += own is not None
        assert torch.equal(value, state[name] if own is None else state[name][own]), name
    assert heads == {"faster_rcnn": 4, "mask_rcnn": 6, "panoptic_fpn": 8, "upsnet": 8}[kind]


def test_a_detector_of_regions_has_new_heads_for_other_classes() -> None:
    model, trained = region_detector("mask_rcnn", CLASSES[:2], 1), region_detector("mask_rcnn", CLASSES, 2)
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, trained.state_dict()
    start_from(model, CLASSES[:2], Checkpoint(trained, CLASSES, {}))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith(model.class_heads) else state[name]), name


def test_a_start_from_another_version_of_torchvisions_detector_is_refused() -> None:
    model, recipe = region_detector("faster_rcnn", CLASSES, 1), RECIPES["faster_rcnn"]["detector"]
    checkpoint = build_detector(detector_config(recipe | {"version": 2}, "a.yaml"), len(CLASSES))
    expected = "detector.version: expected 2, the value of the checkpoint that `init` names, found 1"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}; give the section `detector`"):
        start_from(model, CLASSES, Checkpoint(checkpoint, CLASSES, {}))


def test_a_start_from_another_architecture_or_kind_is_refused() -> None:
    checkpoint = Checkpoint(deformable(3, two_stage=False, width=96), CLASSES, {})
    of_checkpoint = "the value of the checkpoint that `init` names"
    expected = f"detector.two_stage: expected False, {of_checkpoint}, found True; detector.width: expected 96"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        start_from(deformable(3), CLASSES, checkpoint)
    expected = "detector.kind: expected 'deformable', the value of the checkpoint that `init` names, found 'detr'"
    with pytest.raises(ConfigError, match=f"^{expected}; give the section `detector`"):
        start_from(detector(CLASSES, False), CLASSES, checkpoint)


def with_mask_head(classes: int, seed: int = 1, heads: int = 4, maps: AttentionMaps = "published") -> Detr:
    torch.manual_seed(seed)
    return Detr(replace(detector(CATEGORIES, False).config, heads=heads), classes, mask_head=True, attention_maps=maps)


def test_a_mask_head_is_taken_from_a_detector_of_other_classes() -> None:
    model, other = with_mask_head(3), with_mask_head(250, seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert mask_head_from(model, other) == "all 32 weights of the mask head come from the checkpoint"
    for name, value in model.state_dict().items():
        of_head = name.startswith(("bbox_attention.", "mask_head."))
        assert torch.equal(value, other.state_dict()[name] if of_head else before[name]), name


def test_a_checkpoint_without_a_mask_head_is_refused_with_every_weight_that_is_missing() -> None:
    model = with_mask_head(3)
    with pytest.raises(ConfigError) as error:
        mask_head_from(model, detector(CATEGORIES, mask_head=False))
    missing = [name for name in model.state_dict() if name.startswith(("bbox_attention.", "mask_head."))]
    expected = "train_panoptic.init: expected a checkpoint with a mask head, found no weight of "
    assert str(error.value) == expected + ", ".join(missing)


def test_every_misshapen_weight_of_a_mask_head_is_named_and_none_is_taken() -> None:
    model, other = with_mask_head(3), with_mask_head(3, seed=2, heads=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError) as error:
        mask_head_from(model, other)
    assert str(error.value) == (
        "train_panoptic.init: the mask head does not fit this detector: "
        "mask_head.lay1.weight: expected shape [36, 36, 3, 3] for this detector, found [34, 34, 3, 3]; "
        "mask_head.lay1.bias: expected shape [36] for this detector, found [34]; "
        "mask_head.gn1.weight: expected shape [36] for this detector, found [34]; "
        "mask_head.gn1.bias: expected shape [36] for this detector, found [34]; "
        "mask_head.lay2.weight: expected shape [16, 36, 3, 3] for this detector, found [16, 34, 3, 3]"
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_attention_maps_of_another_kind_are_refused() -> None:
    expected = (
        "train_panoptic.attention_maps: expected 'per_head', the value of the checkpoint that `init` names, found 'published'"
    )
    with pytest.raises(ConfigError, match=re.escape(expected)):
        mask_head_from(with_mask_head(3), with_mask_head(3, maps="per_head"))
