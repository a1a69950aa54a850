"""What a file says beside its weights: names of classes are kept, and what can't be right is refused."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from detr_core.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from detr_core.structures import Category
from tests.model.test_hugging_face import saved, their_detr, timm_resnet
from tests.tiny_detector import detector

CPU = torch.device("cpu")
NAMES = {str(index): f"bird {index}" for index in range(12)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(their_detr(timm_resnet(), classes=12), tmp_path_factory.mktemp("theirs"))


def beside(weights: Path, folder: Path, **changes: Any) -> Path:
    """Returns the same weights in another folder, with a config.json that has these changes."""
    content = json.loads(weights.with_name("config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(content))
    (folder / weights.name).symlink_to(weights)
    return folder / weights.name


@pytest.mark.parametrize("order", [sorted, lambda names: sorted(names, key=int, reverse=True)])
def test_names_belong_to_their_indices_whatever_their_order_in_the_file(order: Any, weights: Path, tmp_path: Path) -> None:
    labels = {index: NAMES[index] for index in order(NAMES)}
    categories = load_checkpoint(beside(weights, tmp_path, id2label=labels), CPU).categories
    assert categories == tuple(Category(index, f"bird {index}", True) for index in range(12))


def test_own_classes_keep_their_names_also_if_there_are_as_many_as_cocos(tmp_path: Path) -> None:
    theirs = their_detr(timm_resnet(), classes=91)
    theirs.config.id2label = {index: f"bird {index}" for index in range(91)}
    assert load_checkpoint(saved(theirs, tmp_path / "own"), CPU).categories[1] == Category(1, "bird 1", True)
    theirs.config.id2label = {index: "person" if index == 1 else f"thing {index}" for index in range(91)}
    assert load_checkpoint(saved(theirs, tmp_path / "coco"), CPU).categories[2] == Category(2, "bicycle", True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "id2label: expected the name of each class under its index"),
        ({"id2label": {"0": "a", "00": "b"}}, "id2label: expected the name of each class under its index"),
        ({"id2label": {"-1": "a"}}, "id2label: expected the name of each class under its index"),
        ({"id2label": {"x": "a"}}, "id2label: expected the name of each class under its index"),
        (
            {"id2label": None},
            "id2label: expected the name of each class under its index, which are all numbers from 0",
        ),
        ({"id2label": NAMES | {"3": ["a"]}}, "id2label: expected names that are texts, found ['a']"),
        ({"id2label": {"0": "a"}}, "categories: expected 12, the number of classes of the class head, found 1"),
        ({"encoder_attention_heads": [4]}, "encoder_attention_heads: expected a whole number above 0, found [4]"),
        ({"encoder_attention_heads": "4"}, "encoder_attention_heads: expected a whole number above 0, found '4'"),
        ({"dilation": "false"}, "dilation: expected true or false, found 'false'"),
        ({"activation_function": "gelu"}, "activation_function: expected 'relu', found 'gelu'"),
        ({"backbone_config": {"hidden_act": "gelu"}}, "backbone_config.hidden_act: expected 'relu', found 'gelu'"),
        ({"d_model": 64}, "d_model: expected 128, as the weights in model.safetensors show, found 64"),
        ({"encoder_layers": 6}, "encoder_layers: expected 2, as the weights in model.safetensors show, found 6"),
        ({"num_queries": 50}, "num_queries: expected 7, as the weights in model.safetensors show, found 50"),
        ({"position_embedding_type": "learned"}, "position_embedding_type: expected 'sine', as the weights"),
    ],
)
def test_what_cannot_be_right_is_refused(changes: dict[str, Any], expected: str, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        load_checkpoint(beside(weights, tmp_path, **changes), CPU)


def test_deeply_nested_json_is_refused(weights: Path, tmp_path: Path) -> None:
    file = beside(weights, tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"config.json: expected JSON, found"):
        load_checkpoint(file, CPU)


@pytest.mark.parametrize("arguments", [None, [], "text", 3, argparse.Namespace(epochs=3)])
def test_arguments_of_a_training_script_beside_the_weights_do_no_harm(arguments: Any, weights: Path, tmp_path: Path) -> None:
    torch.save({"model": load_file(weights), "args": arguments}, tmp_path / "weights.pth")
    assert len(load_checkpoint(tmp_path / "weights.pth", CPU).categories) == 12


def of_this_project(file: Path, **changes: Any) -> Path:
    """Writes a checkpoint of this project whose content has these changes."""
    categories = (Category(1, "cat", True), Category(2, "dog", True))
    save_checkpoint(file, detector(categories, mask_head=False), categories, {})
    content = torch.load(file, weights_only=True)
    torch.save(content | changes, file)
    return file


ONE = {"id": 1, "name": "cat", "isthing": True, "used": True}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"categories": [ONE, ONE]}, "categories: expected different ids, found '1 twice'"),
        ({"categories": [ONE, ONE | {"id": -2}]}, "categories: expected ids that are whole numbers from 0, found -2"),
        ({"categories": [ONE, ONE | {"id": "x"}]}, "categories: expected ids that are whole numbers from 0, found 'x'"),
        ({"categories": [ONE, ONE | {"id": 2, "name": None}]}, "categories: expected names that are texts, found None"),
        ({"categories": []}, "categories: expected one or more, found 0"),
        ({"meta": None}, "meta: expected a mapping, found None"),
        ({"meta": {"value_ranges": {"16-bit": [9, 1]}}}, "value_ranges.16-bit: expected a low and a high number"),
        ({"meta": {"value_ranges": 3}}, "doesn't fit this version"),
        ({"detector": "abc"}, "doesn't fit this version"),
    ],
)
def test_plain_values_of_this_projects_checkpoints_are_checked(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        load_checkpoint(of_this_project(tmp_path / "checkpoint.pt", **changes), CPU)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.complex64])
def test_weights_of_another_type_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    file = of_this_project(tmp_path / "checkpoint.pt")
    content = torch.load(file, weights_only=True)
    content["model"]["input_proj.bias"] = content["model"]["input_proj.bias"].to(dtype)
    torch.save(content, file)
    with pytest.raises(CheckpointError, match=r"input_proj.bias: expected a dense tensor of floating point numbers, found torch"):
        load_checkpoint(file, CPU)


def test_a_folder_is_refused_with_the_name_of_the_file_in_it(weights: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected a file, found a folder; name the file in it, such as model.safetensors"):
        load_checkpoint(weights.parent, CPU)
