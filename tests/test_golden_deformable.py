"""Golden cases of Deformable DETR and of its loss, in the folder and with the tolerance of tests/golden_cases.py."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detr_core.loss.config import FocalLossConfig
from detr_core.loss.criterion import Normalizer, set_loss
from detr_core.loss.matcher import Matches, match, match_together
from detr_core.loss.proposals import proposal_loss, proposal_predictions
from detr_core.model.checkpoint import CheckpointError, load_checkpoint
from detr_core.model.common.config import BackboneConfig
from detr_core.model.deformable.config import DeformableConfig
from detr_core.model.deformable.published import from_published, published_state
from detr_core.structures import Proposals, Target
from tests.golden_cases import cases, close, golden_images, golden_weight


def architecture(golden: Any) -> DeformableConfig:
    """Returns the configuration of a golden file's detector."""
    levels = int(golden["levels"])
    return DeformableConfig(
        BackboneConfig(str(golden["backbone"]), bool(golden["dilation"]), weights=None, norm="frozen", frozen_stages=2),  # type: ignore[arg-type]
        stages=(2, 3, 4) if levels > 1 else (4,),
        levels=levels,
        points=int(golden["points"]),
        width=256,
        heads=8,
        feed_forward=1024,
        encoder_layers=6,
        decoder_layers=6,
        queries=int(golden["queries"]),
        dropout=0.1,
        pre_norm=False,
        refine=bool(golden["refine"]),
        two_stage=bool(golden["two_stage"]),
        encoded_point="center",
    )


def weight(key: str, shape: list[int], golden: Any) -> torch.Tensor:
    """Returns the value of a weight by the golden rule and its two exceptions."""
    first = key
    if key.startswith(("transformer.decoder.bbox_embed.", "transformer.decoder.class_embed.")):
        first = key.removeprefix("transformer.decoder.")
    elif not golden["refine"]:
        first = re.sub(r"^(class_embed|bbox_embed)\.\d+\.", r"\1.0.", key)
    value = golden_weight(int(golden["seed"]), first, torch.empty(shape, device="meta"))
    whole = key in ("query_embed.weight", "transformer.level_embed")
    return value * float(np.sqrt(np.prod(shape[1:]))) if whole else value


def content(path: Path) -> dict[str, Any]:
    """Returns the content of a file as the authors' code writes it, for the golden file at `path`."""
    golden = np.load(path)
    shapes = json.loads(path.with_name(path.name.replace(".npz", ".keys.json")).read_text())
    arguments = {"dilation": bool(golden["dilation"]), "nheads": 8, "dropout": 0.1, "num_queries": int(golden["queries"])}
    return {"model": {key: weight(key, shape, golden) for key, shape in shapes.items()}, "args": arguments}


@cases("deformable_*.npz")
@torch.inference_mode()
def test_a_published_file_gives_golden_outputs(path: Path, tmp_path: Path) -> None:
    golden = np.load(path)
    torch.save(content(path), tmp_path / "published.pth")
    checkpoint = load_checkpoint(tmp_path / "published.pth", torch.device("cpu"))
    assert checkpoint.model.config == architecture(golden)
    assert len(checkpoint.categories) == int(golden["num_classes"])
    output = checkpoint.model(*golden_images(golden))
    close(output.logits[-1, :, : golden["pred_logits"].shape[1]], golden["pred_logits"])
    close(output.boxes[-1], golden["pred_boxes"])
    close(output.logits[:-1, :, : golden["aux_logits"].shape[2]], golden["aux_logits"])
    close(output.boxes[:-1], golden["aux_boxes"])
    if not golden["two_stage"]:
        assert output.proposals is None
        return
    close(output.proposals.logits[..., : golden["enc_logits"].shape[-1]], golden["enc_logits"])
    close(output.proposals.boxes, golden["enc_boxes"])
    np.testing.assert_array_equal((output.proposals.boxes != 1).any(-1), golden["enc_valid"])
    taken = output.proposals.logits[..., 0].topk(golden["proposals"].shape[1]).indices
    np.testing.assert_array_equal(taken, golden["proposals"])


@cases("deformable_*.keys.json")
def test_names_and_shapes_equal_the_published_ones(path: Path) -> None:
    golden, shapes = np.load(path.with_name(path.name.replace(".keys.json", ".npz"))), json.loads(path.read_text())
    state = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    arguments = {"num_queries": int(golden["queries"])}
    model, _ = from_published({"model": state, "args": arguments}, path.name, bool(golden["dilation"]))
    assert model.config == architecture(golden)
    assert {name: list(value.shape) for name, value in published_state(model).items()} == shapes


@cases("focal_criterion*.npz")
def test_matching_losses_and_gradients_equal_the_reference(path: Path) -> None:
    golden = np.load(path)
    config = FocalLossConfig(classification=2, l1=5, giou=2, alpha=0.25, gamma=2, auxiliary=True)
    logits, boxes = (torch.from_numpy(golden[name]).requires_grad_() for name in ("logits", "boxes"))
    starts = np.concatenate([[0], np.cumsum(golden["counts"])])
    targets = [
        Target(
            i,
            torch.from_numpy(golden["labels"][start:end]),
            torch.from_numpy(golden["target_boxes"][start:end]).reshape(-1, 4),
            None,
            (1, 1),
            (1, 1),
        )
        for i, (start, end) in enumerate(pairwise(starts))
    ]
    matches = match(logits, boxes, targets, config)
    layers = len(logits)
    for layer in range(layers):
        require_matches(matches, layer, golden, f"match_{layer}", starts)
    normalizer = Normalizer.of_focal(golden["counts"].tolist())
    losses = set_loss(logits, boxes, targets, matches, normalizer, config)
    for name, ours in (("ce", losses.classification), ("bbox", losses.l1), ("giou", losses.giou)):
        close(ours, [golden[f"L_loss_{name}_{layer}"] for layer in range(layers - 1)] + [golden[f"L_loss_{name}"]])
    total = losses.total
    if "enc_logits" in golden:
        proposals = Proposals(*(torch.from_numpy(golden[f"enc_{name}"]).requires_grad_() for name in ("logits", "boxes")))
        predictions = proposal_predictions(proposals, targets)
        (of_proposals,) = match_together([predictions], config)
        own = proposal_loss(predictions, of_proposals, normalizer, config)
        require_matches(of_proposals, 0, golden, "match_enc", starts)
        for name, ours in (("ce", own.classification), ("bbox", own.l1), ("giou", own.giou)):
            close(ours, [golden[f"L_loss_{name}_enc"]])
        total = total + own.total
    close(total.detach(), golden["total"])
    total.backward()
    close(logits.grad[-1], golden["grad_logits"])  # type: ignore[index]
    close(boxes.grad[-1], golden["grad_boxes"])  # type: ignore[index]
    if "enc_logits" in golden:
        close(proposals.logits.grad, golden["enc_grad_logits"])
        close(proposals.boxes.grad, golden["enc_grad_boxes"])


def require_matches(matches: Matches, layer: int, golden: Any, name: str, starts: np.ndarray) -> None:
    for image in range(len(starts) - 1):
        of_pair = (matches.layer == layer) & (matches.image == image)
        pairs = torch.stack([matches.query[of_pair], matches.target[of_pair] - int(starts[image])])
        np.testing.assert_array_equal(pairs, golden[f"{name}_{image}"])


@cases("deformable_*refine.npz")
def test_two_names_of_a_weight_have_one_value(path: Path) -> None:
    file = content(path)
    file["model"]["transformer.decoder.bbox_embed.2.layers.0.bias"] = torch.zeros(256)
    with pytest.raises(
        CheckpointError, match=r"a\.pth: transformer\.decoder\.bbox_embed\.2\.layers\.0\.bias: expected the values"
    ):
        from_published(file, "a.pth", None)
