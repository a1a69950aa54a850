"""Training steps on a simulated GPU: the values of the CPU, no tensor on the wrong device, and few waits of the host."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert, masks_to_boxes

from detr_core.config import build
from detr_core.data.batching import collate
from detr_core.data.coco_dataset import CocoDataset, Sample
from detr_core.distributed import ProcessContext
from detr_core.evaluate.config import EvaluateConfig, MergingConfig
from detr_core.evaluate.inference import EvaluationData
from detr_core.evaluate.predictions import predict
from detr_core.loss.matcher import NonFiniteError
from detr_core.model.checkpoint import Checkpoint
from detr_core.model.common.normalisation import normalise
from detr_core.model.spec import build_detector, detector_config
from detr_core.reporter import Silent
from detr_core.structures import Batch, Padding
from detr_core.train import modules
from detr_core.train.average import WeightAverage
from detr_core.train.config import DetectionConfig, SgdConfig
from detr_core.train.interruption import StopRequest
from detr_core.train.modules import TrainingModule, detector_training_module
from detr_core.train.optimizer import build_optimizer
from detr_core.train.step import take_step
from detr_core.train_mask_head.config import MaskLossConfig
from detr_core.train_mask_head.training_module import FrozenTrainingModule, JointTrainingModule
from tests.conftest import tiny_parameters
from tests.kinds import RECIPES
from tests.simulated_gpu import CPU, CUDA, SimulatedGpu
from tests.tiny_detector import dataset_of, detector, isthing_of, scenes

# How often the host may wait for the GPU in a step of each kind. A change that adds a wait must not be made unnoticed.
WAITS = {
    "detr": 1,
    "frozen mask head": 1,
    "joint mask head": 1,
    "deformable": 1,
    "deformable_two_stage": 1,
    "faster_rcnn": 6,
    "faster_rcnn_dc5": 5,
    "mask_rcnn": 8,
    "panoptic_fpn": 9,
    "upsnet": 10,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> CocoDataset:
    return dataset_of(scenes(tmp_path_factory.mktemp("scenes")), masks=True)


def padded_batch(dataset: CocoDataset) -> Batch:
    """Returns a batch of three images with masks, the second of which has fewer rows."""
    samples = [dataset[index] for index in range(3)]
    samples[1] = upper_rows(samples[1], 48)
    return collate(samples)


def upper_rows(sample: Sample, rows: int) -> Sample:
    """Returns the upper part of an image, with those objects that are visible there."""
    target = sample.target
    assert target.masks is not None
    masks = target.masks[:, :rows]
    visible = masks.flatten(1).any(1)
    size = (rows, target.size[1])
    boxes = box_convert(masks_to_boxes(masks[visible]), "xyxy", "cxcywh") / torch.tensor([size[1], size[0]] * 2)
    parts = {"labels": target.labels[visible], "boxes": boxes, "masks": masks[visible], "size": size, "original_size": size}
    return replace(sample, image=sample.image[:, :rows], target=replace(target, **parts))


def module_of(name: str, dataset: CocoDataset) -> tuple[TrainingModule, DetectionConfig]:
    """Returns a training module and the configuration of its training. name: a key of WAITS."""
    content = tiny_parameters()["train_detection"]
    if name in ("detr", "frozen mask head", "joint mask head"):
        config = build(DetectionConfig, content, "tiny")
        model: Any = detector(dataset.categories, mask_head=name != "detr")
        masks = MaskLossConfig(1, 1, 0.25, 2)
        if name == "frozen mask head":
            return FrozenTrainingModule(model, masks, torch.float32), config
        if name == "joint mask head":
            return JointTrainingModule(model, config.loss, masks, torch.float32), config  # type: ignore[arg-type]
        return detector_training_module(model, config.loss, torch.float32), config
    recipe: dict[str, Any] = RECIPES[name]
    config = build(DetectionConfig, content | {"loss": recipe["loss"], "optimizer": recipe["optimizer"]}, "tiny")
    torch.manual_seed(0)
    architecture = detector_config(recipe["detector"], "tiny")
    model = build_detector(architecture, len(dataset.categories), isthing=isthing_of(dataset))
    return detector_training_module(model, config.loss, torch.float32), config


def two_steps(name: str, dataset: CocoDataset, device: torch.device, gpu: SimulatedGpu | None = None) -> list[dict[str, float]]:
    """Returns the losses of two steps, which are read as in a training: those of the first during the second.

    The waits that `gpu` has counted are those of the second step.
    """
    module, config = module_of(name, dataset)
    module.to(device)
    module.train()
    optimizer = build_optimizer(module, config.optimizer)
    process = ProcessContext(0, 1, device)
    steps = []
    for _ in range(2):
        torch.manual_seed(5)
        batch = padded_batch(dataset)
        if gpu is not None:
            gpu.forget_counts()
        steps.append(take_step(module, module, [batch], optimizer, 0.1, process, StopRequest()))
    first = steps[0].read()
    waits = Counter() if gpu is None else Counter(gpu.waits)
    last = steps[1].read()
    if gpu is not None:
        gpu.waits = waits
    return [first, last]


@pytest.mark.parametrize("name", WAITS)
def test_a_step_has_the_values_of_the_cpu_and_few_waits(name: str, dataset: CocoDataset) -> None:
    with SimulatedGpu() as gpu:
        simulated = two_steps(name, dataset, CUDA, gpu)
    waits = gpu.waits
    for ours, theirs in zip(simulated, two_steps(name, dataset, CPU), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-7)
    print(name, waits.total(), sorted((f"{line} {reason}", number) for (reason, line), number in waits.items()))
    assert waits.total() <= WAITS[name], waits


@pytest.mark.parametrize(
    "name", ["detr", "frozen mask head", "deformable", "panoptic_fpn", pytest.param("upsnet", marks=pytest.mark.long)]
)
def test_an_evaluation_has_the_results_of_the_cpu(name: str, dataset: CocoDataset, tmp_path: Path) -> None:
    config = EvaluateConfig(6, None, True, MergingConfig(threshold=0.05, smallest=4, mode="published"))
    for device in (CPU, CUDA):
        (tmp_path / device.type).mkdir()
        model = module_of(name, dataset)[0].model.eval()
        with SimulatedGpu():
            model.to(device)
            data = EvaluationData(dataset, 6, ProcessContext(0, 1, device), 0, Silent())
            predict(Checkpoint(model, dataset.categories, {}), data, config, tmp_path / device.type)
    ours, theirs = (json.loads((tmp_path / device / "bbox.json").read_text()) for device in ("cuda", "cpu"))
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert [one["score"], *one["bbox"]] == pytest.approx([other["score"], *other["bbox"]], rel=1e-3, abs=1e-3)
    for file in (tmp_path / "cpu" / "panoptic").glob("*.png"):
        maps = [np.asarray(Image.open(tmp_path / device / "panoptic" / file.name)) for device in ("cuda", "cpu")]
        assert np.mean(maps[0] == maps[1]) > 0.999, file.name


def test_images_keep_the_memory_layout_from_the_batch_to_the_backbone(dataset: CocoDataset) -> None:
    batch = padded_batch(dataset)
    with SimulatedGpu():
        moved = batch.to(CUDA)
        images = normalise(moved.images, moved.padding)
    assert moved.images.is_contiguous(memory_format=torch.channels_last)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, normalise(batch.images, batch.padding))


def test_an_average_of_the_weights_needs_no_wait(dataset: CocoDataset) -> None:
    with SimulatedGpu() as gpu:
        module = module_of("detr", dataset)[0].to(CUDA)
        average = WeightAverage(module.model, 0.9)
        gpu.forget_counts()
        average.update(1, torch.zeros((), device=CUDA))
        with average.in_use():
            pass
        assert all(gpu.holds(value) for value in average.buffers())
        assert gpu.waits.total() == 0


def mean_left_on_the_host(images: Tensor, padding: Padding) -> Tensor:
    return images.float() - torch.full((3, 1, 1), 127.0)


def test_a_tensor_left_on_the_host_is_caught(dataset: CocoDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "normalise", mean_left_on_the_host)
    with SimulatedGpu() as gpu, pytest.raises(RuntimeError, match="on the same device"):
        two_steps("detr", dataset, CUDA, gpu)


@pytest.mark.parametrize("read", [Tensor.item, Tensor.tolist, bool, float, Tensor.cpu, Tensor.nonzero])
def test_an_added_wait_is_caught(read: Callable[[Tensor], Any], dataset: CocoDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def normalised(images: Tensor, padding: Padding) -> Tensor:
        read(padding.mask.any())
        return normalise(images, padding)

    monkeypatch.setattr(modules, "normalise", normalised)
    with SimulatedGpu() as gpu:
        two_steps("detr", dataset, CUDA, gpu)
    assert gpu.waits.total() == WAITS["detr"] + 1


def test_numpy_and_generators_of_the_host_are_refused() -> None:
    with SimulatedGpu():
        values = torch.ones(3, device=CUDA)
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            values.numpy()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, device=CUDA, generator=torch.Generator())


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_step_that_is_not_finite_changes_no_weight(kind: str, dataset: CocoDataset) -> None:
    module, config = module_of("detr", dataset)
    optimizer_config = SgdConfig(lr=0.1, backbone_lr=0.1, momentum=0.9, weight_decay=0.1, clip_norm=None)
    optimizer = build_optimizer(module, config.optimizer if kind == "adamw" else optimizer_config)
    process = ProcessContext(0, 1, CPU)
    take_step(module, module, [padded_batch(dataset)], optimizer, 0.1, process, StopRequest()).read()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = copy.deepcopy(optimizer.state_dict()["state"])
    step = take_step(_WithInfiniteLoss(module), module, [padded_batch(dataset)], optimizer, 0.1, process, StopRequest())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    after = optimizer.state_dict()["state"]
    assert all(torch.equal(after[index][key], value) for index in state for key, value in state[index].items())
    with pytest.raises(NonFiniteError, match=r"the loss or its gradient is not finite \(loss inf, .*image ids"):
        step.read()


class _WithInfiniteLoss(torch.nn.Module):
    """Returns an infinite loss with its gradient."""

    def __init__(self, module: TrainingModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Batch, normalizer: Any) -> tuple[Tensor, dict[str, Tensor]]:
        total, parts = self.module(batch, normalizer)
        return total * torch.inf, parts
