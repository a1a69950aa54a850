"""The published format: files of any origin are read without running code; the architecture is inferred; files are written."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detr_core.model.checkpoint import Checkpoint, CheckpointError, export_checkpoint, load_checkpoint
from detr_core.model.detr.config import DetrConfig
from detr_core.model.detr.model import Detr
from detr_core.model.detr.published import from_published, published_state, to_published
from detr_core.model.transformer.config import PositionsConfig
from detr_core.structures import Category
from tests.golden_cases import cases, close, golden_images
from tests.hostile import Hostile
from tests.model.small_detr import detector
from tests.published_checkpoints import TINY, published_state_dict, reference_arguments, tiny_config

CPU = torch.device("cpu")


@cases("detr_*.npz")
@torch.inference_mode()
def test_a_published_file_gives_golden_outputs(path: Path, tmp_path: Path) -> None:
    golden = np.load(path)
    backbone = str(golden["backbone"])
    config = replace(tiny_config(backbone, bool(golden["dilation"])), width=256, feed_forward=2048, queries=100)
    config = replace(config, encoder_layers=6, decoder_layers=6)
    state = published_state_dict(config, int(golden["num_classes"]), bool(golden["panoptic"]), int(golden["seed"]))
    file = tmp_path / "published.pth"
    content = {
        "model": state,
        "optimizer": {"state": {}},
        "epoch": 299,
        "args": reference_arguments(dilation=bool(golden["dilation"])),
    }
    torch.save(content, file, _use_new_zipfile_serialization=False)  # as the torch of that time
    loaded = load_checkpoint(file, CPU)
    assert loaded.model.config == config
    assert not loaded.model.training
    output = loaded.model(*golden_images(golden))
    close(output.logits[-1], golden["pred_logits"])
    close(output.boxes[-1], golden["pred_boxes"])
    if golden["panoptic"]:
        image, query = torch.arange(len(golden["sizes"])).repeat_interleave(100), torch.arange(100).repeat(len(golden["sizes"]))
        close(loaded.model.masks(output, image, query).unflatten(0, (-1, 100)), golden["pred_masks"])


@pytest.mark.parametrize("mask_head", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        tiny_config("resnet34", encoder_layers=0),
        tiny_config("resnet50", dilation=True, width=64, heads=4),
        tiny_config("resnet101", pre_norm=True, decoder_layers=3),
        tiny_config(
            positions=PositionsConfig("learned", "attention", cells=20, queries="attention", factor=1), dropout=0.0, queries=300
        ),
    ],
    ids=lambda config: config.backbone.name,
)
def test_the_architecture_is_inferred(config: DetrConfig, mask_head: bool) -> None:
    content = {"model": published_state_dict(config, 12, mask_head)}
    content["args"] = {"dilation": config.backbone.dilation, "nheads": config.heads, "dropout": config.dropout}  # type: ignore[assignment]
    model, _ = from_published(content, "a.pth", None)
    assert model.config == config
    assert (model.num_classes, model.has_mask_head, model.attention_maps) == (12, mask_head, "published")
    assert all(torch.equal(value, content["model"][name]) for name, value in published_state(model).items())
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {
        name for name, p in Detr(config, 12, mask_head).named_parameters() if not p.requires_grad
    }


def test_the_number_of_attention_heads_is_inferred_from_the_mask_head() -> None:
    config = tiny_config(width=64, heads=4)
    model, _ = from_published(published_state_dict(config, 250, mask_head=True), "state_dict_alone.pth", None)
    assert model.config == config


def test_dilation_comes_from_the_file_or_must_be_given(tmp_path: Path) -> None:
    config = tiny_config("resnet50")
    alone = {"model": published_state_dict(config)}
    assert not from_published(alone, "detr-r50.pth", None)[0].config.backbone.dilation
    assert from_published(alone, "detr-r50.pth", True)[0].config.backbone.dilation
    with pytest.raises(CheckpointError, match=r"detr-r50-dc5-f0fb7ef5.pth: its name contains DC5.*--dilation"):
        from_published(alone, "published/detr-r50-dc5-f0fb7ef5.pth", None)
    assert from_published(alone, "detr-r50-dc5-f0fb7ef5.pth", True)[0].config.backbone.dilation
    with_dilation = alone | {"args": {"dilation": True}}
    assert from_published(with_dilation, "a.pth", None)[0].config.backbone.dilation
    with pytest.raises(CheckpointError, match=r"a.pth: args.dilation: expected False, as requested, found True"):
        from_published(with_dilation, "a.pth", False)


@pytest.mark.parametrize(("classes", "things", "stuff"), [(91, 80, 0), (250, 80, 53)])
def test_a_class_index_is_a_coco_id(classes: int, things: int, stuff: int) -> None:
    _, categories = from_published(published_state_dict(classes=classes), "a.pth", None)
    assert [category.id for category in categories] == list(range(classes))
    assert (categories[1].name, categories[90].name, categories[12].name) == ("person", "toothbrush", "unused 12")
    used = [category for category in categories if category.used]
    assert (sum(category.isthing for category in used), sum(not category.isthing for category in used)) == (things, stuff)


def test_classes_of_other_data_have_no_names() -> None:
    _, categories = from_published(published_state_dict(classes=4), "a.pth", None)
    assert categories == tuple(Category(index, "", True) for index in range(4))


def test_every_wrong_weight_is_named() -> None:
    state = published_state_dict(mask_head=True)
    del state["detr.query_embed.weight"], state["mask_head.out_lay.bias"], state["detr.backbone.0.body.layer4.1.bn2.running_var"]
    state["detr.transformer.decoder.norm.weight"] = torch.ones(31)
    state["detr.class_embed.weight"] = torch.ones(50, 32)
    state["mask_head.lay1.weight"] = torch.ones(40, 41, 3, 3)
    state["detr.backbone.0.body.fc.weight"] = torch.ones(2)
    state["query_embed.weight"] = torch.ones(7, 32)
    with pytest.raises(CheckpointError) as error:
        from_published({"model": state}, "a.pth", None)
    text = str(error.value)
    # Without the object queries their number isn't known, but everything else is still checked.
    assert text.startswith("a.pth: the weights are not those of a published DETR: missing ")
    for name in ("mask_head.out_lay.bias", "detr.query_embed.weight", "detr.backbone.0.body.layer4.1.bn2.running_var"):
        assert name in text.split("unknown")[0]
    assert "unknown detr.backbone.0.body.fc.weight, query_embed.weight;" in text
    assert "detr.transformer.decoder.norm.weight: expected shape [32], found [31]" in text
    assert "detr.class_embed.weight: expected shape [92, 32], found [50, 32]" in text
    assert "mask_head.lay1.weight: expected shape [40, 40, 3, 3], found [40, 41, 3, 3]" in text
    assert text.count("expected shape") == 3


@pytest.mark.parametrize("name", ["input_proj.weight", "class_embed.bias", "query_embed.weight", "transformer.decoder.norm.bias"])
@pytest.mark.parametrize("how", ["missing", "misshapen", "text"])
def test_one_wrong_weight_is_named_alone(name: str, how: str) -> None:
    state: dict[str, Any] = published_state_dict()
    if how == "missing":
        del state[name]
    else:
        state[name] = torch.zeros(5) if how == "misshapen" else "hello"
    with pytest.raises(CheckpointError) as error:
        from_published(state, "a.pth", None)
    assert name in str(error.value)
    assert ", " not in str(error.value).split(name)[0], "no other weight is blamed"


def test_a_table_of_positions_without_axes_is_refused() -> None:
    tables = dict.fromkeys(("backbone.1.row_embed.weight", "backbone.1.col_embed.weight"), torch.tensor(1.0))
    with pytest.raises(CheckpointError, match=r"backbone\.1\.row_embed\.weight: expected shape \[50, 16\], found \[\]"):
        from_published(published_state_dict() | tables, "a.pth", None)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_class_head_without_classes_is_refused(rows: int) -> None:
    state = {name: value[:rows] if "class_embed" in name else value for name, value in published_state_dict().items()}
    with pytest.raises(CheckpointError, match="the class head: expected 1 class or more, found 0"):
        from_published(state, "a.pth", None)


def test_an_unknown_backbone_is_refused() -> None:
    state = published_state_dict()
    extra = {name.replace("layer3.1", "layer3.2"): value for name, value in state.items() if ".layer3.1." in name}
    with pytest.raises(CheckpointError, match=r"unknown backbone.0.body.layer3.2.conv1.weight"):
        from_published(state | extra, "a.pth", None)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["top", "model", "args", "deep in args", "optimizer", "namespace class"])
@pytest.mark.parametrize("function", ["os.system", "eval", "exec", "pathlib.Path.touch"])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, function: str, place: str, zipped: bool) -> None:
    proof = tmp_path / "ran"
    thing = {
        "os.system": Hostile(os.system, f"touch {proof}"),
        "eval": Hostile(eval, f"open({str(proof)!r}, 'w')"),
        "exec": Hostile(exec, f"open({str(proof)!r}, 'w')"),
        "pathlib.Path.touch": Hostile(pathlib.Path.touch, proof),
    }[function]
    content: Any = {"model": published_state_dict(), "args": reference_arguments()}
    if place == "top":
        content = [content, thing]
    elif place == "model":
        content["model"]["query_embed.weight"] = thing
    elif place == "args":
        content["args"] = thing
    elif place == "deep in args":
        content["args"] = reference_arguments(more=argparse.Namespace(here=[(thing,)]))
    elif place == "optimizer":
        content["optimizer"] = {"state": {0: thing}}
    else:  # the namespace's own state asks to be called back
        vars(content["args"]).update(__setstate__=thing, __class__=thing, __dict__=thing)
    file = tmp_path / "hostile.pth"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"hostile.pth: expected a checkpoint that can be read without running code"):
        load_checkpoint(file, CPU)
    assert not proof.exists()


def test_loading_never_creates_a_namespace_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"model": published_state_dict(), "args": reference_arguments(dilation=False)}, tmp_path / "a.pth")
    touched = []
    for kind in (argparse.Namespace, pathlib.PosixPath):
        monkeypatch.setattr(kind, "__setstate__", lambda *_: touched.append("made"), raising=False)
    load_checkpoint(tmp_path / "a.pth", CPU)
    assert touched == []


@pytest.mark.parametrize("content", [b"", b"\x80\x02.", b"PK\x03\x04torn", pickle.dumps(3), pickle.dumps({"model": {}})])
def test_files_of_other_kinds_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other.pth: (not a checkpoint|expected a checkpoint)"):
        load_checkpoint(tmp_path / "other.pth", CPU)


@pytest.mark.parametrize("mask_head", [False, True])
def test_the_round_trip_is_exact(tmp_path: Path, mask_head: bool) -> None:
    config = tiny_config("resnet50", dilation=True, width=64, heads=4)
    state = published_state_dict(config, 250 if mask_head else 91, mask_head)
    torch.save({"model": state, "args": reference_arguments(dilation=True, nheads=4)}, tmp_path / "in.pth")
    loaded = load_checkpoint(tmp_path / "in.pth", CPU)
    export_checkpoint(loaded, tmp_path / "out.pth")
    exported = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    assert list(exported) == list(state)
    assert all(torch.equal(exported[name], value) for name, value in state.items())
    reloaded = load_checkpoint(tmp_path / "out.pth", CPU)
    assert reloaded.categories == loaded.categories
    assert reloaded.model.config == config


def test_our_own_classes_survive_an_export() -> None:
    model, categories = Detr(TINY, 2, mask_head=True), (Category(3, "cell", True), Category(70, "ground", False))
    back, restored = from_published(to_published(model, categories, "a.pth"), "a.pth", None)
    assert restored == categories
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())


def test_an_export_says_that_the_masks_are_those_of_instances(tmp_path: Path) -> None:
    model, categories = Detr(TINY, 1, mask_head=True), (Category(3, "cell", True),)
    for meta, panoptic in (({}, True), ({"mask_targets": "instances"}, False)):
        export_checkpoint(Checkpoint(model, categories, {"profile": "cells", **meta}), tmp_path / "out.pth")
        reloaded = load_checkpoint(tmp_path / "out.pth", CPU)
        assert reloaded.meta == meta
        assert reloaded.predicts_panoptic_maps == panoptic


def test_a_detector_that_the_published_format_cannot_store_is_refused() -> None:
    categories = (Category(1, "cell", True),)
    with pytest.raises(CheckpointError, match=r"a\.pth: positions.where 'decoder' would be lost; the published format supports"):
        to_published(
            Detr(replace(TINY, positions=PositionsConfig("sine", "decoder", 50, queries="attention", factor=1)), 1, False),
            categories,
            "a.pth",
        )
    with pytest.raises(CheckpointError, match="heads shared by all layers"):
        to_published(Detr(replace(TINY, shared_heads=False), 1, False), categories, "a.pth")
    with pytest.raises(CheckpointError, match="a torchvision ResNet with frozen batch norm"):
        to_published(detector(), categories, "a.pth")
    with pytest.raises(CheckpointError, match="attention_maps 'per_head' would be lost"):
        to_published(Detr(TINY, 1, True, "per_head"), categories, "a.pth")


@cases("detr_*.keys.json")
def test_golden_key_lists_are_loaded(path: Path) -> None:
    shapes = json.loads(path.read_text())
    state = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    model, _ = from_published({"model": state}, path.name, False)
    assert {name: list(value.shape) for name, value in published_state(model).items()} == shapes
