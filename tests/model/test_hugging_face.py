"""Checkpoints of Hugging Face's transformers: outputs equal the library's, and what is written is what was read, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from detr_core.model.checkpoint import CheckpointError, export_checkpoint, load_checkpoint, save_checkpoint
from detr_core.model.deformable.config import DeformableConfig
from detr_core.structures import Padding
from tests.model.random_weights import randomised

transformers = pytest.importorskip("transformers", reason="the library whose outputs are compared is not installed")

CPU = torch.device("cpu")
OWN_RESNET = {
    "model_type": "resnet",
    "depths": [2, 2, 2, 2],
    "hidden_sizes": [64, 128, 256, 512],
    "embedding_size": 64,
    "layer_type": "basic",
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
RESNET50 = {"depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048], "layer_type": "bottleneck"}


def timm_resnet(name: str = "resnet18", **changes: Any) -> dict[str, Any]:
    content = {"model_type": "timm_backbone", "backbone": name, "features_only": True, "use_pretrained_backbone": False}
    return {**content, "num_channels": 3, "out_indices": [1, 2, 3, 4], **changes}


def their_detr(backbone: dict[str, Any], masks: bool = False, classes: int = 5, **changes: Any) -> Any:
    """Returns a small DETR of the library with random weights, also of its batch norms, and in eval mode."""
    values = {"d_model": 128, "encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    config = transformers.DetrConfig(backbone_config=backbone, num_queries=7, num_labels=classes, **values | changes)
    torch.manual_seed(0)
    model = (transformers.DetrForSegmentation if masks else transformers.DetrForObjectDetection)(config)
    return randomised(model)


def padded_images() -> tuple[Tensor, Tensor]:
    """Returns images of two sizes, the second padded at the right and bottom, and the padding."""
    images, padding = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(2)), torch.zeros(2, 96, 128) > 0
    padding[1, 64:] = padding[1, :, 96:] = True
    return images.masked_fill(padding[:, None], 0.0), padding


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder / "model.safetensors"


def same(written: Path, read: Path) -> bool:
    ours, theirs = load_file(written), load_file(read)
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, ours[name]) and value.dtype == ours[name].dtype for name, value in theirs.items()
    )


DETRS = {
    "timm": {"backbone": timm_resnet()},
    "timm dc5": {"backbone": timm_resnet("resnet50", output_stride=16), "dilation": True},
    "own resnet": {"backbone": OWN_RESNET},
    "own resnet 50": {"backbone": {**OWN_RESNET, **RESNET50}},
    "four heads": {"backbone": timm_resnet(), "encoder_attention_heads": 4, "decoder_attention_heads": 4},
    "learned positions": {"backbone": timm_resnet(), "position_embedding_type": "learned"},
    "coco's classes": {"backbone": timm_resnet(), "classes": 91},
}


@pytest.mark.parametrize("name", DETRS)
@torch.inference_mode()
def test_outputs_of_detr_equal_the_librarys_and_the_written_file_equals_the_read_one(name: str, tmp_path: Path) -> None:
    theirs = their_detr(**DETRS[name])
    file = saved(theirs, tmp_path / "theirs")
    checkpoint = load_checkpoint(file, CPU)
    images, padding = padded_images()
    expected = theirs(pixel_values=images, pixel_mask=(~padding).long())
    output = checkpoint.model(images, Padding.of(padding))
    close(output.logits[-1], expected.logits)
    close(output.boxes[-1], expected.pred_boxes)
    assert len(checkpoint.categories) == DETRS[name].get("classes", 5)

    export_checkpoint(checkpoint, tmp_path / "out.safetensors", "hugging-face")
    assert same(tmp_path / "out.safetensors", file)
    back = load_checkpoint(tmp_path / "out.safetensors", CPU)
    assert (back.model.config, back.categories, back.meta) == (checkpoint.model.config, checkpoint.categories, checkpoint.meta)
    save_checkpoint(tmp_path / "ours.pt", checkpoint.model, checkpoint.categories, checkpoint.meta)
    export_checkpoint(load_checkpoint(tmp_path / "ours.pt", CPU), tmp_path / "again.safetensors", "hugging-face")
    assert same(tmp_path / "again.safetensors", file)


@torch.inference_mode()
def test_masks_of_detr_equal_the_librarys_and_the_written_file_equals_the_read_one(tmp_path: Path) -> None:
    theirs = their_detr(timm_resnet(), masks=True, classes=250, d_model=256)
    file = saved(theirs, tmp_path / "theirs")
    checkpoint = load_checkpoint(file, CPU)
    images, padding = padded_images()
    expected = theirs(pixel_values=images, pixel_mask=(~padding).long())
    output = checkpoint.model(images, Padding.of(padding))
    image, query = torch.arange(2).repeat_interleave(7), torch.arange(7).repeat(2)
    close(output.logits[-1], expected.logits)
    close(checkpoint.model.masks(output, image, query).unflatten(0, (2, 7)), expected.pred_masks)
    assert sum(category.used for category in checkpoint.categories) == 133, "the classes are COCO's things and stuff"
    export_checkpoint(checkpoint, tmp_path / "out.safetensors", "hugging-face")
    assert same(tmp_path / "out.safetensors", file)


@torch.inference_mode()
def test_the_library_reads_a_written_file_with_changed_weights(tmp_path: Path) -> None:
    theirs = their_detr(timm_resnet())
    checkpoint = load_checkpoint(saved(theirs, tmp_path / "theirs"), CPU)
    for parameter in checkpoint.model.parameters():
        parameter.mul_(1.1)
    export_checkpoint(checkpoint, tmp_path / "theirs/model.safetensors", "hugging-face")
    again = transformers.DetrForObjectDetection.from_pretrained(tmp_path / "theirs").eval()
    images, padding = padded_images()
    close(
        checkpoint.model(images, Padding.of(padding)).logits[-1], again(pixel_values=images, pixel_mask=(~padding).long()).logits
    )


def their_deformable(**changes: Any) -> Any:
    """Returns a small Deformable DETR of the library with random weights, also of its heads, and in eval mode."""
    values: dict[str, Any] = {"d_model": 64, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 7, "num_labels": 5}
    values |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "backbone_config": timm_resnet(out_indices=[2, 3, 4])}
    torch.manual_seed(0)
    model = transformers.DeformableDetrForObjectDetection(transformers.DeformableDetrConfig(**values | changes))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "bbox_embed" in name or "sampling_offsets" in name:  # new ones are zero, or alike
                value.copy_(torch.randn(value.shape) * (0.1 if value.dim() > 1 else 0.5))
    return randomised(model)


DEFORMABLES: dict[str, dict[str, Any]] = {
    "plain": {},
    "refine": {"with_box_refine": True},
    "two stage": {"with_box_refine": True, "two_stage": True, "two_stage_num_proposals": 6},
    "single scale": {"num_feature_levels": 1, "backbone_config": timm_resnet(out_indices=[4])},
    "dc5": {
        "num_feature_levels": 1,
        "backbone_config": timm_resnet("resnet50", out_indices=[4], output_stride=16),
        "dilation": True,
    },
    "own resnet": {"backbone_config": {**OWN_RESNET, "out_features": ["stage2", "stage3", "stage4"]}},
    "four heads": {"encoder_attention_heads": 4, "decoder_attention_heads": 4},
    "coco's classes": {"num_labels": 91},
}


@pytest.mark.parametrize("name", DEFORMABLES)
@torch.inference_mode()
def test_outputs_of_deformable_detr_equal_the_librarys_and_the_written_file_equals_the_read_one(
    name: str, tmp_path: Path
) -> None:
    theirs = their_deformable(**DEFORMABLES[name])
    file = saved(theirs, tmp_path / "theirs")
    checkpoint = load_checkpoint(file, CPU)
    config = checkpoint.model.config
    assert isinstance(config, DeformableConfig)
    assert (config.refine, config.two_stage) == ("with_box_refine" in DEFORMABLES[name], "two_stage" in DEFORMABLES[name])
    images, padding = padded_images()
    expected = theirs(pixel_values=images, pixel_mask=(~padding).long())
    output = checkpoint.model(images, Padding.of(padding))
    close(output.logits[-1], expected.logits)
    close(output.boxes[-1], expected.pred_boxes)

    export_checkpoint(checkpoint, tmp_path / "out.safetensors", "hugging-face")
    assert same(tmp_path / "out.safetensors", file)
    back = load_checkpoint(tmp_path / "out.safetensors", CPU)
    assert (back.model.config, back.categories, back.meta) == (checkpoint.model.config, checkpoint.categories, checkpoint.meta)


@pytest.mark.parametrize("name", ["plain", "refine", "two stage"])
@torch.inference_mode()
def test_the_library_reads_a_deformable_detr_of_this_project(name: str, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(their_deformable(**DEFORMABLES[name]), tmp_path / "theirs"), CPU)
    del checkpoint.meta["source"]  # as after a training
    export_checkpoint(checkpoint, tmp_path / "theirs/model.safetensors", "hugging-face")
    again = transformers.DeformableDetrForObjectDetection.from_pretrained(tmp_path / "theirs").eval()
    images, padding = padded_images()
    output, theirs = checkpoint.model(images, Padding.of(padding)), again(pixel_values=images, pixel_mask=(~padding).long())
    close(output.logits[-1], theirs.logits)
    close(output.boxes[-1], theirs.pred_boxes)


@pytest.mark.parametrize("kind", ["detr", "deformable"])
def test_names_of_a_model_in_memory_are_refused_with_an_advice(kind: str, tmp_path: Path) -> None:
    names = ["model.backbone.model.conv1.weight", "class_labels_classifier.weight"]
    if kind == "deformable":
        names = ["model.backbone.model.conv1.weight", "model.level_embed", "class_embed.0.weight"]
    torch.save({name: torch.zeros(4, 4) for name in names}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"save the model with `save_pretrained`, and use model\.safetensors"):
        load_checkpoint(tmp_path / "pytorch_model.bin", CPU)
