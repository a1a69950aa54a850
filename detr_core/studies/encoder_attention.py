"""Measures whether the last encoder layer's self-attention separates instances (Figure 3 of the paper)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from detr_core.config import require
from detr_core.data.coco_dataset import CocoDataset
from detr_core.evaluate.inference import forward_pass
from detr_core.model.common.transformer import Attention
from detr_core.sampling import evenly_spaced
from detr_core.structures import Target
from detr_core.studies.attention_capture import capture_attention
from detr_core.studies.attention_mass import Mass, box_masks, mask_regions, position_of, write_regions
from detr_core.studies.pictures import as_rows, save_picture
from detr_core.studies.study import StudyInputs

REGIONS = ("own", "same_class", "others")


@dataclass(frozen=True)
class Point:
    """The centre of a thing.

    x, y: the point, normalised to 0..1. category: the name of the thing's category. map [h, w]: the point's attention, sum 1.
    """

    x: float
    y: float
    category: str
    map: Tensor


@dataclass(frozen=True)
class EncoderAttention:
    """The result of the study.

    metrics: the metrics that `encoder_attention` describes. pictures: index of an image in the dataset -> its points with maps.
    """

    metrics: dict[str, float]
    pictures: dict[int, list[Point]]


@torch.inference_mode()
def encoder_attention(inputs: StudyInputs, dataset: CocoDataset, pictures: int, points: int, batch_size: int) -> EncoderAttention:
    """Measures the self-attention from the centre of every thing of the dataset, averaged over the heads.

    dataset: a dataset with masks; without masks, the box of an object is used as its mask. pictures: the number of images, evenly
    spaced, whose maps are returned. points: the number of maps per image. batch_size: see EvaluateConfig. The metrics are means
    over things: 'own/mass' is the share of attention inside the thing's own mask; 'own/area' is the mask's share of the image,
    which is the share of a uniform distribution; 'own/times' is their ratio. 'same_class/...' are the same for the other things
    of its class in the image, for things that have such others, and 'others/...' for things of other classes. Instances are
    separated if 'own/times' is far above 'same_class/times'. Raises CheckpointError for a detector of another kind than DETR, and
    ConfigError for one without encoder layers.
    """
    model = inputs.detr("encoder-attention")
    layers = model.transformer.encoder.layers
    require(len(layers) > 0, "detector.encoder_layers", "1 or more for encoder-attention", 0)
    attention = cast(Attention, layers[-1].self_attn)
    isthing = torch.tensor([category.isthing for category in dataset.categories])
    index_of = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
    stored = set(evenly_spaced(len(dataset), pictures))
    masses = {name: Mass() for name in REGIONS}
    objects = dict.fromkeys(masses, 0)
    maps_of: dict[int, list[Point]] = {}
    with capture_attention(attention) as capture:
        for targets, _, output in forward_pass(model, inputs.evaluation_data(dataset, batch_size)):
            size = (output.memory.shape[-2], output.memory.shape[-1])
            for i, target in enumerate(targets):
                thing = isthing[target.labels]
                index = index_of[target.image_id]
                if index in stored:
                    maps_of[index] = []
                if not thing.any():
                    continue
                centres = target.boxes[thing, :2]
                maps = capture.weights(i, position_of(centres, size).to(inputs.device)).mean(0).cpu().view(-1, *size)
                for name, regions in _regions(target, thing, size).items():
                    present = regions.flatten(1).any(1)
                    masses[name].add(maps[present], regions[present])
                    objects[name] += int(present.sum())
                if index in stored:
                    maps_of[index] = _points(target, thing, maps, dataset, points)
    metrics = {key: value for name, mass in masses.items() for key, value in mass.metrics(name, objects[name]).items()}
    return EncoderAttention(metrics | {"things": float(objects["own"])}, dict(sorted(maps_of.items())))


def write_encoder_attention(result: EncoderAttention, dataset: CocoDataset, folder: Path) -> None:
    """Writes `metrics.json`, `regions.csv` (one row per region) and `maps.json` with its pictures into `folder`.

    maps.json: a list of {image_id, file, points: [{x, y, category, map}]}. map: rows of numbers that sum to 1.
    """
    (folder / "metrics.json").write_text(json.dumps(result.metrics, indent=1), encoding="utf-8")
    write_regions(result.metrics, REGIONS, folder / "regions.csv")
    content = [
        {
            "image_id": dataset.image_ids[index],
            "file": save_picture(dataset, index, folder),
            "points": [
                {"x": point.x, "y": point.y, "category": point.category, "map": as_rows(point.map)} for point in points
            ],
        }
        for index, points in result.pictures.items()
    ]  # fmt: skip
    (folder / "maps.json").write_text(json.dumps(content), encoding="utf-8")


def _regions(target: Target, thing: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    # Returns for each thing the regions of its own mask, of the other things of its class, and of other classes, [K, h, w].
    masks = box_masks(target) if target.masks is None else target.masks
    own_regions = mask_regions(masks[thing], size)
    labels = target.labels[thing]
    same = (labels[:, None] == labels).float()
    different = 1 - same
    flat = own_regions.flatten(1)
    same.fill_diagonal_(0)
    return {
        "own": own_regions,
        "same_class": (same @ flat).view_as(own_regions),
        "others": (different @ flat).view_as(own_regions),
    }


def _points(target: Target, thing: Tensor, maps: Tensor, dataset: CocoDataset, count: int) -> list[Point]:
    boxes, labels = target.boxes[thing], target.labels[thing]
    largest = boxes[:, 2:].prod(-1).argsort(descending=True, stable=True)[:count].tolist()
    return [
        Point(float(boxes[i, 0]), float(boxes[i, 1]), dataset.categories[int(labels[i])].name, maps[i].clone()) for i in largest
    ]
