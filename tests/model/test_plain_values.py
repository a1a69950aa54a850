"""What a file says beside its weights: names of classes are kept, and what can't be right is refused."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from detr_core.coco import coco_categories
from detr_core.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from detr_core.structures import Category
from tests.model.test_hugging_face import saved, their_deformable, their_detr, timm_resnet
from tests.tiny_detector import detector

CPU = torch.device("cpu")
NAMES = {str(index): f"bird {index}" for index in range(12)}


def without(index: str) -> dict[str, str]:
    return {other: name for other, name in NAMES.items() if other != index}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(their_detr(timm_resnet(), classes=12), tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def deformable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(their_deformable(), tmp_path_factory.mktemp("theirs"))


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


@pytest.mark.parametrize("kind", ["detr", "deformable"])
def test_own_classes_keep_their_names_also_if_there_are_as_many_as_cocos(kind: str, tmp_path: Path) -> None:
    theirs = their_detr(timm_resnet(), classes=91) if kind == "detr" else their_deformable(num_labels=91)
    file = saved(theirs, tmp_path)
    own = {str(index): "person" if index == 1 else f"bird {index}" for index in range(91)}
    coco = {str(index): category.name for index, category in coco_categories().items() if index < 91}
    published = {str(index): "N/A" for index in range(91)} | coco
    unnamed = {str(index): f"LABEL_{index}" for index in range(91)}
    config = json.loads(file.with_name("config.json").read_text())
    for labels, expected, used in (
        (own, "bird 2", 91),
        (published, "bicycle", 80),
        (unnamed | {"1": "person"}, "bicycle", 80),
        (unnamed, "bicycle", 80),
    ):
        file.with_name("config.json").write_text(json.dumps(config | {"id2label": labels}))
        categories = load_checkpoint(file, CPU).categories
        assert (categories[2].name, sum(category.used for category in categories)) == (expected, used)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "id2label: expected the keys 0 to 11, the classes of the class head, found 2 keys"),
        (
            {"id2label": without("11") | {"00": "b"}},
            "id2label: expected the keys 0 to 11, the classes of the class head, found 12",
        ),
        ({"id2label": without("11") | {"-1": "a"}}, "which differ in ['-1', '11']"),
        ({"id2label": without("11") | {"x": "a"}}, "which differ in ['11', 'x']"),
        ({"id2label": without("11") | {"12": "a"}}, "which differ in ['11', '12']"),
        ({"id2label": None}, "id2label: expected a mapping, found None"),
        ({"id2label": 3}, "id2label: expected a mapping, found 3"),
        ({"id2label": NAMES | {"3": ["a"]}}, "id2label.3: expected text, found ['a']"),
        ({"encoder_attention_heads": [4]}, "encoder_attention_heads: expected a whole number, found [4]"),
        ({"encoder_attention_heads": "4"}, "encoder_attention_heads: expected a whole number, found '4'"),
        ({"decoder_attention_heads": None}, "decoder_attention_heads: expected a whole number, found None"),
        ({"decoder_attention_heads": 0}, "decoder_attention_heads: expected 1 or more, found 0"),
        ({"dilation": "false"}, "dilation: expected true or false, found 'false'"),
        ({"dropout": 10**400}, "dropout: expected a finite number"),
        ({"activation_function": "gelu"}, "activation_function: expected 'relu', which fits the weights"),
        ({"backbone_config": {"hidden_act": "gelu"}}, "backbone_config.hidden_act: expected 'relu', which fits the weights"),
        ({"d_model": 64}, "d_model: expected 128, which fits the weights in model.safetensors, found 64"),
        ({"encoder_layers": 6}, "encoder_layers: expected 2, which fits the weights in model.safetensors, found 6"),
        ({"decoder_ffn_dim": 64}, "decoder_ffn_dim: expected 48, which fits the weights in model.safetensors, found 64"),
        ({"num_queries": 50}, "num_queries: expected 7, which fits the weights in model.safetensors, found 50"),
        ({"position_embedding_type": "learned"}, "position_embedding_type: expected 'sine', which fits the weights"),
    ],
)
def test_invalid_values_in_config_json_are_refused(changes: dict[str, Any], expected: str, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: .*" + re.escape(expected)) as error:
        load_checkpoint(beside(weights, tmp_path, **changes), CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("num_feature_levels", 7, "4"),
        ("encoder_n_points", 8, "4"),
        ("two_stage", True, "False"),
        ("num_queries", 50, "7"),
        ("position_embedding_type", "learned", "'sine'"),
    ],
)
def test_a_config_that_contradicts_a_deformable_detr_is_refused(
    field: str, value: Any, expected: str, deformable: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: {field}: expected {expected}, .* found {value!r}"):
        load_checkpoint(beside(deformable, tmp_path, **{field: value}), CPU)


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", '{"d_model": ', "\ufeff{"])
def test_json_that_cannot_be_read_is_refused(text: str, weights: Path, tmp_path: Path) -> None:
    file = beside(weights, tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json: expected JSON.* found .*; copy the file again"):
        load_checkpoint(file, CPU)
    save_file(load_file(weights), tmp_path / "own.safetensors", {"detr-workbench": text})
    with pytest.raises(CheckpointError, match=r"own\.safetensors: detr-workbench: expected JSON.* found .*; copy the file again"):
        load_checkpoint(tmp_path / "own.safetensors", CPU)


@pytest.mark.parametrize("arguments", [None, [], "text", 3, argparse.Namespace(epochs=3)])
def test_arguments_of_other_training_scripts_are_ignored(arguments: Any, weights: Path, tmp_path: Path) -> None:
    file = beside(weights, tmp_path, encoder_attention_heads=4, decoder_attention_heads=4)
    torch.save({"model": load_file(weights), "args": arguments}, file.with_suffix(".pth"))
    checkpoint = load_checkpoint(file.with_suffix(".pth"), CPU)
    assert (checkpoint.model.config.heads, len(checkpoint.categories)) == (4, 12), "these are in config.json"  # type: ignore[attr-defined]


def test_arguments_of_a_wrong_type_are_refused(weights: Path, tmp_path: Path) -> None:
    for name, value in (("nheads", "4"), ("dilation", "no"), ("dropout", [1])):
        for arguments in ({name: value}, argparse.Namespace(**{name: value})):
            torch.save({"model": load_file(weights), "args": arguments}, tmp_path / "a.pth")
            with pytest.raises(
                CheckpointError, match=rf"a\.pth: args\.{name}: expected .*, found .*; correct or remove this value"
            ):
                load_checkpoint(tmp_path / "a.pth", CPU)


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
        ({"categories": [ONE, ONE]}, "categories: expected every id once, found [1]"),
        ({"categories": [ONE, ONE | {"id": -2}]}, "categories[1]: id: expected a whole number from 0, found -2"),
        ({"categories": [ONE, ONE | {"id": "x"}]}, "categories[1]: id: expected a whole number, found 'x'"),
        ({"categories": [ONE, ONE | {"id": 2.0}]}, "categories[1]: id: expected a whole number, found 2.0"),
        ({"categories": [ONE, ONE | {"id": 2, "name": None}]}, "categories[1]: name: expected text, found None"),
        ({"categories": [ONE, 3]}, "categories[1]: expected a mapping"),
        ({"categories": 3}, "categories: expected a list, found 3"),
        ({"categories": []}, "the class head: expected 1 class or more, found 0"),
        ({"meta": None}, "meta: expected a mapping, found a value of type NoneType"),
        ({"meta": {"value_ranges": {"16-bit": [9, 1]}}}, "meta.value_ranges.16-bit: expected a lowest value below the highest"),
        (
            {"meta": {"value_ranges": {"16-bit": [math.nan, 1]}}},
            "meta.value_ranges.16-bit[0]: expected a finite number, found nan",
        ),
        ({"meta": {"value_ranges": {"16-bit": 3}}}, "meta.value_ranges.16-bit: expected a list, found 3"),
        ({"meta": {"value_ranges": 3}}, "meta.value_ranges: expected a mapping, found 3"),
        ({"meta": {"mask_targets": 3}}, "meta.mask_targets: expected one of"),
        ({"meta": {"profile": 3}}, "meta.profile: expected text, found 3"),
        ({"mask_head": "no"}, "mask_head: expected true or false, found 'no'"),
        ({"detector": "abc"}, "detector: expected a mapping"),
        ({"detector": {"kind": "detr", "positions": "abc"}}, "detector.backbone: missing"),
        ({"model": [1]}, "model: expected a mapping of names to weights, found a value of type list"),
    ],
)
def test_plain_values_of_this_projects_checkpoints_are_checked(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        load_checkpoint(of_this_project(tmp_path / "checkpoint.pt", **changes), CPU)


WRONG: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "bool": (lambda weight: weight > 0, "torch.bool"),
    "int": (Tensor.int, "torch.int32"),
    "complex": (lambda weight: weight.to(torch.complex64), "torch.complex64"),
    "meta": (lambda weight: weight.to("meta"), "one on the meta device, which holds no values"),
    "sparse": (Tensor.to_sparse, "one of another layout (torch.sparse_coo)"),
    "text": (lambda _: "abc", "str"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("layout", ["project", "hugging face"])
def test_weights_that_are_no_numbers_are_refused(wrong: str, layout: str, weights: Path, tmp_path: Path) -> None:
    file, (change, problem) = tmp_path / "checkpoint.pt", WRONG[wrong]
    content = torch.load(of_this_project(file), weights_only=True) if layout == "project" else {"model": load_file(weights)}
    name = next(name for name, value in content["model"].items() if value.dim() == 2)
    content["model"][name] = change(content["model"][name])
    torch.save(content, file)
    expected = re.escape(f"{name}: expected a dense tensor of floating point numbers, found {problem}")
    with pytest.raises(CheckpointError, match=rf"checkpoint\.pt: {expected}"):
        load_checkpoint(file, CPU)


def test_a_name_of_a_weight_that_is_no_text_is_refused(weights: Path, tmp_path: Path) -> None:
    file = of_this_project(tmp_path / "a.pt")
    for content in (torch.load(file, weights_only=True), {"model": load_file(weights)}):
        content["model"][3] = torch.zeros(1)
        torch.save(content, file)
        with pytest.raises(CheckpointError, match=r"a\.pt: 3: expected the name of a weight as text, found a value of type int"):
            load_checkpoint(file, CPU)


def test_variances_below_0_are_refused(weights: Path, tmp_path: Path) -> None:
    state = load_file(weights)
    state[next(name for name in state if name.endswith("running_var"))][:2] = -1
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"running_var: expected variances, found 2 of \d+ that are below 0"):
        load_checkpoint(tmp_path / "a.pt", CPU)


def test_a_mapping_that_holds_itself_is_described(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["again"] = content
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"found 1 key, first 'again'.*; 'again' holds 1 key"):
        load_checkpoint(tmp_path / "a.pt", CPU)


def test_a_folder_is_refused_with_the_name_of_the_file_in_it(weights: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected a file, found a folder; name the file in it, such as model.safetensors"):
        load_checkpoint(weights.parent, CPU)
