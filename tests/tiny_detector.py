"""A tiny detector and a tiny dataset that tests of evaluation and studies share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import Split, read_dataset
from detr_core.data.transforms import evaluation_transform
from detr_core.distributed import single_process
from detr_core.evaluate.inference import EvaluationData
from detr_core.model.common.config import BackboneConfig
from detr_core.model.common.detector import Detector
from detr_core.model.detr.config import DetrConfig
from detr_core.model.detr.model import Detr
from detr_core.model.transformer.config import PositionsConfig
from detr_core.reporter import Reporter, Silent
from detr_core.sources.config import ScenesConfig
from detr_core.sources.scenes import generate_scenes
from detr_core.structures import Category
from detr_core.studies.study import StudyInputs

CPU = torch.device("cpu")
SEED = 20  # of the detector's weights: with these it says each of things, stuff and nothing


SCENES = ScenesConfig(
    train=1,
    val=6,
    size=64,
    objects=(1, 4),
    object_size=(14, 30),
    beside=0.25,
    beside_size=(0.45, 1.0),
    visible=0.55,
    color_noise=22,
    random_color=0.05,
    texture=(4, 22),
    rotation=0.45,
    log_aspect=0.25,
)


def scenes(folder: Path) -> Split:
    """Returns the val split of six generated scenes."""
    generate_scenes(SCENES, 0, folder, 1, Silent())
    return read_dataset(folder)["val"]


def dataset_of(split: Split, masks: bool = False) -> CocoDataset:
    return CocoDataset(split, "panoptic", masks=masks, transform=evaluation_transform(None), seed=0)


def isthing_of(dataset: CocoDataset) -> list[bool]:
    return [category.isthing for category in dataset.categories]


def evaluation_data(dataset: CocoDataset, batch_size: int = 4, reporter: Reporter | None = None) -> EvaluationData:
    """Returns the images as one process reads them that has no dataloader workers."""
    return EvaluationData(dataset, batch_size, single_process(CPU), 0, Silent() if reporter is None else reporter)


def detector(categories: Sequence[Category], mask_head: bool, queries: int = 12) -> Detr:
    """Returns an untrained detector whose scores are spread from near 0 to near 1, so that every branch is taken."""
    config = DetrConfig(
        backbone=BackboneConfig(name="small", dilation=False, weights=None, norm="group", frozen_stages=0),
        positions=PositionsConfig(kind="sine", where="attention", cells=8, queries="attention", factor=1),
        width=32,
        heads=4,
        feed_forward=32,
        encoder_layers=1,
        decoder_layers=3,
        queries=queries,
        dropout=0.0,
        pre_norm=False,
        shared_heads=True,
    )
    torch.manual_seed(SEED)
    model = Detr(config, len(categories), mask_head)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("transformer.decoder") and parameter.dim() > 1:
                parameter.mul_(2)  # sets the queries apart
            if name.startswith("class_embed"):
                parameter.mul_(8)
            if name.startswith(("mask_head.out_lay", "bbox_embed.layers.2")):
                parameter.mul_(4)
    return model


def study_inputs(model: Detector, split: Split, reporter: Reporter) -> StudyInputs:
    """What an evaluating study gets: a detector of the split's categories. The split is val and train in one."""
    categories = dataset_of(split).categories
    return StudyInputs(model, categories, Path("checkpoint.pt"), {"train": split, "val": split}, CPU, 0, reporter)
