"""Checkpoints are written completely or not at all, rebuild their model, and never run code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from detr_core.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from detr_core.model.detr.model import Detr
from detr_core.structures import Category
from tests.hostile import Hostile
from tests.model.batches import images
from tests.model.small_detr import SMALL, detector

CATEGORIES = (Category(1, "cat", True), Category(5, "dog", True), Category(9, "sky", False))
CPU = torch.device("cpu")


@pytest.mark.parametrize("mask_head", [False, True])
def test_a_saved_detector_is_loaded_unchanged(tmp_path: Path, mask_head: bool) -> None:
    model = detector(mask_head=mask_head)
    save_checkpoint(tmp_path / "a.pt", model, CATEGORIES, {"profile": "demo", "step": 7})
    loaded = load_checkpoint(tmp_path / "a.pt", CPU)
    assert loaded.categories == CATEGORIES
    assert loaded.meta == {"profile": "demo", "step": 7}
    assert loaded.model.config == model.config
    assert not loaded.model.training
    with torch.inference_mode():
        assert torch.equal(loaded.model(*images()).logits, model(*images()).logits)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_the_softmax_of_the_attention_maps_goes_with_the_weights(tmp_path: Path) -> None:
    path, of_the_paper = tmp_path / "a.pt", Detr(SMALL, 3, True, "per_head").eval()
    save_checkpoint(path, of_the_paper, CATEGORIES, {})
    loaded = load_checkpoint(path, CPU).model
    assert loaded.attention_maps == loaded.bbox_attention.softmax == "per_head"
    query = torch.zeros(1, dtype=torch.int64)
    with torch.inference_mode():
        ours, theirs = (model.masks(model(*images()), query, query) for model in (of_the_paper, loaded))
    assert torch.equal(ours, theirs)
    content = torch.load(path, weights_only=True)
    torch.save(content | {"attention_maps": "other"}, path)
    with pytest.raises(CheckpointError, match=r"a\.pt: .*attention_maps: expected one of .*per_head.*, found 'other'"):
        load_checkpoint(path, CPU)
    del content["attention_maps"]  # a checkpoint of before there was a choice
    torch.save(content, path)
    assert load_checkpoint(path, CPU).model.attention_maps == "published"


def test_attention_maps_under_their_former_name_are_read_as_published(tmp_path: Path) -> None:
    path, model = tmp_path / "a.pt", Detr(SMALL, 3, True, "published").eval()
    save_checkpoint(path, model, CATEGORIES, {})
    torch.save(torch.load(path, weights_only=True) | {"attention_maps": "released"}, path)
    loaded = load_checkpoint(path, CPU).model
    assert loaded.attention_maps == loaded.bbox_attention.softmax == "published"
    query = torch.zeros(1, dtype=torch.int64)
    with torch.inference_mode():
        ours, theirs = (network.masks(network(*images()), query, query) for network in (model, loaded))
    assert torch.equal(ours, theirs)


def test_a_checkpoint_without_the_keys_of_later_versions_is_read(tmp_path: Path) -> None:
    path, model = tmp_path / "a.pt", detector()
    save_checkpoint(path, model, CATEGORIES, {})
    content = torch.load(path, weights_only=True)
    for key in ("queries", "factor"):
        del content["detector"]["positions"][key]
    del content["detector"]["kind"]
    torch.save(content, path)
    assert load_checkpoint(path, CPU).model.config == model.config


def test_a_mask_head_without_attention_maps_is_restored(tmp_path: Path) -> None:
    path, model = tmp_path / "a.pt", Detr(SMALL, 3, True, "none").eval()
    save_checkpoint(path, model, CATEGORIES, {})
    loaded = load_checkpoint(path, CPU).model
    assert loaded.attention_maps == "none"
    image, query = torch.tensor([0, 1, 1]), torch.tensor([4, 2, 4])
    with torch.inference_mode():
        ours, theirs = (model.masks(model(*images()), image, query) for model in (model, loaded))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours[1], ours[2]), "each query has a mask of its own"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: there is no such checkpoint"):
        load_checkpoint(tmp_path / "nowhere.pt", CPU)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04torn"])
def test_a_file_with_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "torn.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"torn\.pt: expected a checkpoint"):
        load_checkpoint(path, CPU)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.pt"
    save_checkpoint(path, detector(), CATEGORIES, {})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"short\.pt: expected a checkpoint, found a truncated one"):
        load_checkpoint(path, CPU)


def test_a_damaged_weight_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.pt"
    save_checkpoint(path, detector(), CATEGORIES, {})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged\.pt: expected a checkpoint, found a damaged one \(in .*/data/\d+\)"):
        load_checkpoint(path, CPU)


def test_a_checkpoint_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        save_checkpoint(tmp_path / "a.pt", detector(), CATEGORIES, {})
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_checkpoint(tmp_path / "a.pt", CPU).categories == CATEGORIES


@pytest.mark.parametrize("kept", [0, 5, 40, -1])
def test_a_truncated_safetensors_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"model.input_projection.weight": torch.zeros(200)}, path, {"format": "pt"})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: expected a complete safetensors file, found \d+ bytes of a trunc"
    ):
        load_checkpoint(path, CPU)


def test_a_safetensors_file_is_known_by_its_content(tmp_path: Path) -> None:
    save_file({"neck.weight": torch.zeros(2)}, tmp_path / "weights.bin")
    with pytest.raises(CheckpointError, match=r"found 1 key, first 'neck\.weight'"):
        load_checkpoint(tmp_path / "weights.bin", CPU)


def test_plain_values_of_a_safetensors_file_that_are_no_json_are_refused(tmp_path: Path) -> None:
    save_file({"neck.weight": torch.zeros(2)}, tmp_path / "a.safetensors", {"detr-workbench": "{"})
    with pytest.raises(CheckpointError, match=r"a\.safetensors: detr-workbench: expected JSON in the file's header"):
        load_checkpoint(tmp_path / "a.safetensors", CPU)


@pytest.mark.parametrize(
    "save", [lambda thing, path: torch.save(thing, path), lambda thing, path: path.write_bytes(pickle.dumps(thing))]
)
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, save) -> None:  # type: ignore[no-untyped-def]
    proof = tmp_path / "ran"
    save({"model": Hostile(os.mkdir, str(proof))}, tmp_path / "hostile.pt")
    with pytest.raises(CheckpointError, match="without running code"):
        load_checkpoint(tmp_path / "hostile.pt", CPU)
    assert not proof.exists()


def test_an_empty_file_and_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").touch()
    with pytest.raises(CheckpointError, match=r"empty\.pt: expected a checkpoint, found an empty file"):
        load_checkpoint(tmp_path / "empty.pt", CPU)
    model = detector()
    weight = next(iter(model.state_dict().values()))
    weight.view(-1)[:2] = torch.tensor([float("nan"), float("inf")])
    save_checkpoint(tmp_path / "a.pt", model, CATEGORIES, {})
    with pytest.raises(CheckpointError, match=rf"a\.pt: .*: expected finite weights, found 2 of {weight.numel():,} that are"):
        load_checkpoint(tmp_path / "a.pt", CPU)


def test_the_error_of_an_unknown_file_describes_its_content(tmp_path: Path) -> None:
    state = {f"{part}.{number}.weight": torch.zeros(1) for part in ("neck", "head") for number in range(4)}
    keys = "8 keys, first 'neck.0.weight', 'neck.1.weight', 'neck.2.weight'; by their beginnings: neck (4), head (4)"
    cases = {
        "loose": (state, f"found {keys}"),
        "inside": ({"model": state, "step": 3}, f"by their beginnings: model (1), step (1); 'model' holds {keys}"),
        "other": ({"state_dict": state}, f"first 'state_dict'; by their beginnings: state_dict (1); 'state_dict' holds {keys}"),
        "list": ([1, 2], "found a list"),
        "empty": ({}, "found a mapping without keys"),
    }
    for name, (content, description) in cases.items():
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(
            CheckpointError, match=rf"{name}\.pt: expected .*format 'detr-workbench-1'.* a published DETR"
        ) as error:
            load_checkpoint(tmp_path / f"{name}.pt", CPU)
        assert str(error.value).endswith(description)


def test_weights_that_do_not_fit_their_configuration_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, detector(), CATEGORIES, {})
    content = torch.load(path, weights_only=True)
    del content["model"]["query_embed.weight"]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"query_embed\.weight"):
        load_checkpoint(path, CPU)
