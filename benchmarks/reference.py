"""Compares the speed with the authors' code: `python benchmarks/reference.py PATH_OF_A_CHECKOUT [--repeats 5]`.

It runs the criterion, the mask stage, a training step and inference of the published R50 with the same weights, images and
targets. Before the measurement it checks that the results are equal; then both projects alternate. The benchmark needs a checkout
of facebookresearch/detr, which is not part of this project.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
import torchvision
from rich.console import Console
from rich.table import Table

from detr_core.loss.config import SoftmaxLossConfig
from detr_core.loss.criterion import Normalizer, set_loss
from detr_core.loss.matcher import match
from detr_core.model.common.config import BackboneConfig
from detr_core.model.detr.config import DetrConfig
from detr_core.model.detr.model import Detr
from detr_core.model.transformer.config import PositionsConfig
from detr_core.structures import Padding, Target
from detr_core.train.config import OptimizerConfig
from detr_core.train.optimizer import build_optimizer
from detr_core.train_mask_head.config import MaskLossConfig
from detr_core.train_mask_head.loss import mask_loss, matched_masks

LOSS = SoftmaxLossConfig(classification=1, l1=5, giou=2, no_object=0.1, auxiliary=True)
OPTIMIZER = OptimizerConfig(lr=1e-4, backbone_lr=1e-5, weight_decay=1e-4, clip_norm=0.1)
MASKS = MaskLossConfig(focal=1, dice=1, alpha=0.25, gamma=2)
CLASSES, QUERIES, LAYERS = 91, 100, 6
SIZE = (256, 320)
REQUIRED = {"criterion": 3.0, "mask stage": 3.0, "training step": 1.0, "inference": 1.0}
Work = Callable[[], torch.Tensor]


def main() -> None:
    """Prints the table. Fails if the results of the two projects differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="folder of the checkout")
    parser.add_argument(
        "--repeats", type=int, default=5, help="number of runs, of which the median is reported (default: %(default)s)"
    )
    arguments = parser.parse_args()
    build = reference(arguments.checkout)
    table = Table("", "reference, s", "this project, s", "speed-up", "required")
    for name, (theirs, ours) in cases(build).items():
        # Gradients through fifty layers accumulate rounding errors of float32.
        tolerance = 5e-3 if name == "training step" else 1e-4
        torch.testing.assert_close(ours(), theirs(), rtol=tolerance, atol=tolerance)
        seconds = in_turn(theirs, ours, arguments.repeats)
        ratio = seconds[0] / seconds[1]
        table.add_row(name, *(f"{value:.3f}" for value in seconds), f"{ratio:.2f}", f"{REQUIRED[name]:g}")
    Console().print(table)


def reference(checkout: Path) -> Callable[[bool], tuple[Any, Any, Any]]:
    """Returns the authors' `build`, which returns model, criterion and post-processors, with or without the mask head."""
    if not (checkout / "models" / "detr.py").is_file():
        sys.exit(f"error: {checkout}: expected a checkout of facebookresearch/detr, found no models/detr.py there")
    sys.path.insert(0, str(checkout))
    version, torchvision.__version__ = (
        torchvision.__version__,
        "0.9.0",
    )  # the authors' code compares versions as text, so '0.29' would be older than 0.7
    weights_of = torchvision.models.resnet50
    torchvision.models.resnet50 = lambda pretrained=False, **more: weights_of(**more)  # nothing is downloaded
    from models.detr import build  # type: ignore[import-not-found]

    torchvision.__version__ = version
    common = {
        "lr_backbone": 1e-5, "backbone": "resnet50", "dilation": False, "position_embedding": "sine", "hidden_dim": 256,
        "dropout": 0.0, "nheads": 8, "dim_feedforward": 2048, "enc_layers": LAYERS, "dec_layers": LAYERS, "pre_norm": False,
        "num_queries": QUERIES, "aux_loss": True, "frozen_weights": None, "set_cost_class": 1, "set_cost_bbox": 5,
        "set_cost_giou": 2, "bbox_loss_coef": 5, "giou_loss_coef": 2, "mask_loss_coef": 1, "dice_loss_coef": 1, "eos_coef": 0.1,
        "device": "cpu", "dataset_file": "coco",
    }  # fmt: skip
    return lambda masks: build(SimpleNamespace(**common, masks=masks))


def detector(mask_head: bool) -> Detr:
    """Returns the published R50 without dropout, so that both projects compute the same."""
    backbone = BackboneConfig("resnet50", dilation=False, weights=None, norm="frozen", frozen_stages=2)
    positions = PositionsConfig("sine", "attention", cells=50, queries="attention", factor=1)
    config = DetrConfig(backbone, positions, 256, 8, 2048, LAYERS, LAYERS, QUERIES, 0.0, pre_norm=False, shared_heads=True)
    return Detr(config, CLASSES, mask_head)


def targets(images: int) -> list[Target]:
    """Returns targets with seven objects per image, COCO's average, with rectangular masks."""
    generator = torch.Generator().manual_seed(0)
    result = []
    for i in range(images):
        low, size = torch.rand(7, 2, generator=generator) * 0.5, torch.rand(7, 2, generator=generator) * 0.4 + 0.05
        boxes = torch.cat([low + size / 2, size], dim=1)
        masks = torch.zeros(7, *SIZE, dtype=torch.bool)
        for mask, (x, y), (w, h) in zip(masks, low.tolist(), size.tolist(), strict=True):
            mask[int(y * SIZE[0]) : int((y + h) * SIZE[0]) + 1, int(x * SIZE[1]) : int((x + w) * SIZE[1]) + 1] = True
        result.append(Target(i, torch.randint(0, CLASSES, (7,), generator=generator), boxes, masks, SIZE, SIZE))
    return result


def cases(build: Callable[[bool], tuple[Any, Any, Any]]) -> dict[str, tuple[Work, Work]]:
    """Returns name -> (the reference's function, this project's function). Both functions must return the same tensor."""
    torch.manual_seed(0)
    their_model, their_criterion, _ = build(True)
    our_model = detector(mask_head=True)
    own = ("bbox_attention.", "mask_head.")
    our_model.load_state_dict(
        {key: their_model.state_dict()[key if key.startswith(own) else f"detr.{key}"] for key in our_model.state_dict()}
    )
    plain, plain_criterion, _ = build(False)
    plain.load_state_dict(their_model.detr.state_dict())
    image_counts = {"criterion": 8, "training step": 2, "mask stage": 2, "inference": 2}
    pairs: dict[str, tuple[Work, Work]] = {}
    torch.manual_seed(0)

    # Criterion: forward and backward pass of the loss only.
    criterion_targets, images = targets(image_counts["criterion"]), image_counts["criterion"]
    logits = torch.randn(LAYERS, images, QUERIES, CLASSES + 1, requires_grad=True)
    boxes = torch.rand(LAYERS, images, QUERIES, 4) * 0.5 + 0.2
    boxes.requires_grad_()
    their_criterion_targets = [{"labels": t.labels, "boxes": t.boxes, "masks": t.masks} for t in criterion_targets]

    def their_loss(criterion: Any, outputs: dict[str, Any], objects: list[dict[str, Any]]) -> torch.Tensor:
        losses = criterion(outputs, objects)
        total: torch.Tensor = sum(
            value * criterion.weight_dict[name] for name, value in losses.items() if name in criterion.weight_dict
        )  # type: ignore[assignment]
        return total

    def as_theirs(logits: torch.Tensor, boxes: torch.Tensor) -> dict[str, Any]:
        layers = [{"pred_logits": c, "pred_boxes": b} for c, b in zip(logits, boxes, strict=True)]
        return {**layers[-1], "aux_outputs": layers[:-1]}

    def our_loss(logits: torch.Tensor, boxes: torch.Tensor, objects: list[Target]) -> torch.Tensor:
        normalizer = Normalizer.of([len(t.labels) for t in objects], QUERIES, LOSS.no_object)
        return set_loss(logits, boxes, objects, match(logits, boxes, objects, LOSS), normalizer, LOSS).total

    def with_gradient(total: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        gradients = torch.autograd.grad(total, inputs)
        return torch.cat([total.detach()[None], *(gradient.flatten()[:1000] for gradient in gradients)])

    pairs["criterion"] = (
        lambda: with_gradient(their_loss(plain_criterion, as_theirs(logits, boxes), their_criterion_targets), logits, boxes),
        lambda: with_gradient(our_loss(logits, boxes, criterion_targets), logits, boxes),
    )

    # Mask stage: forward and backward pass of the mask head and its losses, on a frozen detector.
    two_targets = targets(2)
    their_two_targets = [{"labels": t.labels, "boxes": t.boxes, "masks": t.masks} for t in two_targets]
    pixels, padding = torch.randn(2, 3, *SIZE), torch.zeros(2, *SIZE, dtype=torch.bool)
    nested = _nested(pixels, padding)
    for model in (their_model.detr, our_model):
        model.requires_grad_(False)
    for head in (our_model.bbox_attention, our_model.mask_head):
        head.requires_grad_(True)
    their_model.eval()
    our_model.eval()
    their_criterion.losses = ["masks"]

    def their_masks() -> torch.Tensor:
        outputs = their_model(nested)
        del outputs["aux_outputs"]
        losses = their_criterion(outputs, their_two_targets)
        total = losses["loss_mask"] + losses["loss_dice"]
        return with_gradient(total, their_model.mask_head.lay1.weight, their_model.bbox_attention.q_linear.weight)

    def our_masks() -> torch.Tensor:
        with torch.no_grad():
            output = our_model(pixels, Padding.of(padding))
        matches = match(output.logits[-1:], output.boxes[-1:], two_targets, LOSS)
        logits = our_model.masks(output, matches.image, matches.query)
        focal, dice = mask_loss(logits, matched_masks(two_targets, matches, SIZE), 14, MASKS)
        return with_gradient(focal + dice, our_model.mask_head.lay1.weight, our_model.bbox_attention.q_linear.weight)

    pairs["mask stage"] = (their_masks, our_masks)

    # Training step, with the optimizer step of either project, and inference with a detector that no step has changed.
    ours = detector(mask_head=False)
    ours.load_state_dict(plain.state_dict())
    plain.train()
    ours.train()
    names = [name for name, p in plain.named_parameters() if p.requires_grad]
    backbone, rest = (
        [p for name, p in plain.named_parameters() if p.requires_grad and ("backbone" in name) == of_backbone]
        for of_backbone in (True, False)
    )
    groups = [{"params": rest}, {"params": backbone, "lr": OPTIMIZER.backbone_lr}]
    their_optimizer = torch.optim.AdamW(groups, lr=OPTIMIZER.lr, weight_decay=OPTIMIZER.weight_decay)
    our_optimizer = build_optimizer(ours, OPTIMIZER)

    def after_step(
        total: torch.Tensor, model: torch.nn.Module, optimizer: torch.optim.Optimizer, foreach: bool | None
    ) -> torch.Tensor:
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        weights = dict(model.named_parameters())
        # Gradients differ by many orders of magnitude, and the smallest ones are rounding errors.
        gradients = [weights[name].grad.flatten() for name in names]  # type: ignore[union-attr]
        compared = [
            part for gradient in gradients for part in (gradient.norm()[None], gradient[:1000] / gradient.norm().clamp(min=1e-6))
        ]
        torch.nn.utils.clip_grad_norm_([weights[name] for name in names], OPTIMIZER.clip_norm, foreach=foreach)
        optimizer.step()
        return torch.cat([total.detach()[None], *compared])

    def their_step() -> torch.Tensor:
        return after_step(their_loss(plain_criterion, plain(nested), their_two_targets), plain, their_optimizer, None)

    def our_step() -> torch.Tensor:
        output = ours(pixels, Padding.of(padding))
        return after_step(our_loss(output.logits, output.boxes, two_targets), ours, our_optimizer, True)

    pairs["training step"] = (their_step, our_step)

    @torch.inference_mode()
    def their_inference() -> torch.Tensor:
        logits: torch.Tensor = their_model.detr(nested)["pred_logits"]
        return logits

    @torch.inference_mode()
    def our_inference() -> torch.Tensor:
        return our_model(pixels, Padding.of(padding)).logits[-1]

    pairs["inference"] = (their_inference, our_inference)
    return pairs


def in_turn(first: Work, second: Work, repeats: int) -> tuple[float, float]:
    """Returns the median seconds of both functions, after one warm-up run. The calls alternate: other work slows both alike."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        for work, measured in zip((first, second), seconds, strict=True):
            began = time.perf_counter()
            work()
            measured.append(time.perf_counter() - began)
    return median(seconds[0][1:]), median(seconds[1][1:])


def _nested(pixels: torch.Tensor, padding: torch.Tensor) -> Any:
    from util.misc import NestedTensor  # type: ignore[import-not-found]

    return NestedTensor(pixels, padding)


if __name__ == "__main__":
    main()
