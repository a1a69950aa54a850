"""Measures the last decoder layer's attention for every detected object (Figure 6) and the boxes of every query (Figure 7)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from detr_core.data.coco_dataset import CocoDataset
from detr_core.evaluate.boxes import postprocess_softmax
from detr_core.evaluate.inference import classes_in, forward_pass
from detr_core.evaluate.results import things_only
from detr_core.model.common.transformer import Attention
from detr_core.sampling import evenly_spaced
from detr_core.studies.attention_capture import capture_attention
from detr_core.studies.attention_mass import Mass, box_regions, write_regions
from detr_core.studies.pictures import as_rows, save_picture
from detr_core.studies.study import StudyInputs

REGIONS = ("extremities", "interior", "outside")


@dataclass(frozen=True)
class DetectedObject:
    """A detected object.

    box: cxcywh, normalised to 0..1. category: its name. query: the index of its query. map [h, w]: the query's attention, sum 1.
    """

    box: tuple[float, ...]
    category: str
    score: float
    query: int
    map: Tensor


@dataclass(frozen=True)
class DecoderAttention:
    """The result of the study.

    metrics: the metrics that `decoder_attention` describes. pictures: index of an image in the dataset -> its detected objects in
    descending order of the score. boxes [images, Q, 4]: float32, cxcywh in 0..1, of every query in every image, including queries
    without an object.
    """

    metrics: dict[str, float]
    pictures: dict[int, list[DetectedObject]]
    boxes: np.ndarray


@torch.inference_mode()
def decoder_attention(
    inputs: StudyInputs, dataset: CocoDataset, pictures: int, score: float, border: float, batch_size: int
) -> DecoderAttention:
    """Measures the last decoder layer's attention, averaged over the heads, for every detected thing.

    pictures: the number of images, evenly spaced, whose maps are returned. score: the lowest score of a detection. batch_size:
    see EvaluateConfig. Raises CheckpointError for a detector of another kind than DETR.
    The metrics are means over detections: 'extremities/mass' is the share of attention within `border` of the box's border;
    'extremities/area' is that band's share of the image, which is the share of a uniform distribution; 'extremities/times' is
    their ratio. 'interior/...' and 'outside/...' are the same for the regions inside and outside of the band. Attention is on
    extremities if 'extremities/times' is above 'interior/times'. 'queries/center' and 'queries/size' are the share of the
    variance of box centres and sizes, over images and queries, that is variance between the queries: 1 if each query always
    predicts the same box, 0 if all queries have the same mean.
    """
    model = inputs.detr("decoder-attention")
    classes = classes_in(inputs.categories, dataset)
    attention = cast(Attention, model.transformer.decoder.layers[-1].multihead_attn)
    name_of = {category.id: category.name for category in dataset.categories}
    index_of = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
    stored = set(evenly_spaced(len(dataset), pictures))
    masses = {name: Mass() for name in REGIONS}
    count = 0
    boxes = np.zeros((len(dataset), model.config.queries, 4), dtype=np.float32)
    objects_in: dict[int, list[DetectedObject]] = {}
    with capture_attention(attention) as capture:
        for targets, _, output in forward_pass(model, inputs.evaluation_data(dataset, batch_size)):
            size = (output.memory.shape[-2], output.memory.shape[-1])
            last = output.boxes[-1].cpu()
            detections = postprocess_softmax(
                output.logits[-1].cpu(), last, [t.original_size for t in targets], empty_slot_override=False
            )
            for i, (target, image) in enumerate(zip(targets, detections, strict=True)):
                index = index_of[target.image_id]
                boxes[index] = last[i].numpy()
                things = things_only(image, classes)
                confident = things.chosen(things.scores >= score)
                maps = capture.weights(i, confident.queries.to(inputs.device)).mean(0).cpu().view(-1, *size)
                for name, regions in _regions(last[i, confident.queries], border, size).items():
                    masses[name].add(maps, regions)
                count += len(confident.scores)
                if index in stored:
                    order = confident.scores.argsort(descending=True, stable=True).tolist()
                    objects_in[index] = [
                        DetectedObject(
                            tuple(last[i, confident.queries[j]].tolist()),
                            name_of[inputs.categories[int(confident.labels[j])].id],
                            float(confident.scores[j]),
                            int(confident.queries[j]),
                            maps[j].clone(),
                        )
                        for j in order
                    ]
    metrics = {key: value for name, mass in masses.items() for key, value in mass.metrics(name, count).items()}
    metrics |= {"detections": float(count), "queries/center": _between(boxes[..., :2]), "queries/size": _between(boxes[..., 2:])}
    return DecoderAttention(metrics, dict(sorted(objects_in.items())), boxes)


def write_decoder_attention(result: DecoderAttention, dataset: CocoDataset, folder: Path) -> None:
    """Writes `metrics.json`, `regions.csv` (one row per region), `boxes.npy` and `maps.json` with its pictures into `folder`.

    maps.json: a list of {image_id, file, objects: [{box, category, score, query, map}]}. box: cxcywh in 0..1. map: rows of
    numbers that sum to 1.
    """
    (folder / "metrics.json").write_text(json.dumps(result.metrics, indent=1), encoding="utf-8")
    write_regions(result.metrics, REGIONS, folder / "regions.csv")
    np.save(folder / "boxes.npy", result.boxes)
    content = [
        {
            "image_id": dataset.image_ids[index],
            "file": save_picture(dataset, index, folder),
            "objects": [
                {
                    "box": detected.box,
                    "category": detected.category,
                    "score": detected.score,
                    "query": detected.query,
                    "map": as_rows(detected.map),
                }
                for detected in objects
            ],
        }
        for index, objects in result.pictures.items()
    ]
    (folder / "maps.json").write_text(json.dumps(content), encoding="utf-8")


def _regions(boxes: Tensor, border: float, size: tuple[int, int]) -> dict[str, Tensor]:
    """Returns the band along each box's border, its interior and the rest of the image, [K, h, w]. boxes [K, 4]: cxcywh."""
    inner, outer = (
        box_regions(torch.cat([boxes[:, :2], boxes[:, 2:] * scale], dim=1), size) for scale in (1 - 2 * border, 1 + 2 * border)
    )
    return {"extremities": outer - inner, "interior": inner, "outside": 1 - outer}


def _between(values: np.ndarray) -> float:
    # Returns the variance of the queries' means divided by the total variance, summed over both coordinates, of [images, Q, 2].
    total = values.var(axis=(0, 1)).sum()
    return float(values.mean(axis=0).var(axis=0).sum() / total) if total > 0 else 0.0
