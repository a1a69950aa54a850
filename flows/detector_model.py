"""The detector as MLflow loads it: `mlflow.pyfunc.load_model("runs:/<run id>/model").predict(image)`.

MLflow keeps this file and detr_core beside the checkpoint and imports both from there, so it imports nothing else of the project.
Loading runs no code out of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from detr_core.config import build
from detr_core.data.images import read_image, upright_size
from detr_core.data.transforms import resized
from detr_core.data.values import Ranges
from detr_core.evaluate.boxes import Detections, found
from detr_core.evaluate.config import EvaluateConfig
from detr_core.evaluate.inference import query_masks
from detr_core.evaluate.panoptic import kept_queries, merge
from detr_core.model.checkpoint import Checkpoint, load_checkpoint
from detr_core.model.detr import Detr
from detr_core.model.image import normalise
from detr_core.structures import Output


class DetectorModel:
    """A checkpoint that predicts on one image at a time, read as `evaluate` reads it."""

    def __init__(self, checkpoint: Checkpoint, config: EvaluateConfig, device: torch.device) -> None:
        self.checkpoint = checkpoint
        self.config = config
        self.device = device

    @torch.inference_mode()
    def predict(self, image: str | Path | np.ndarray) -> dict[str, Any]:
        """What the detector finds in an image: a path, or a uint8 RGB array [h, w, 3].

        Returns arrays with a row for each detection, the surest first: 'scores' [N] 0..1, 'labels' [N] category ids, 'names' (a
        list), 'boxes' [N, 4] xyxy in pixels of the image. With a mask head also 'panoptic' [h, w], the segment id of each pixel
        (0: none), and 'segments', a list of {id, category_id, name, isthing, area}.
        Raises ValueError for anything else than such an image, DatasetError for a file that can't be read.
        """
        pixels = _pixels(image, self.checkpoint.value_ranges)
        original_size = (int(pixels.shape[1]), int(pixels.shape[2]))
        size = resized(original_size, self.config.resize)
        images = F.resize(pixels, list(size), antialias=True)[None].to(self.device)
        padding = torch.zeros(1, *size, dtype=torch.bool, device=self.device)
        model = self.checkpoint.model
        output = model(normalise(images, padding), padding)
        (all_found,) = found(output, [original_size], self.config.empty_slot_override)
        prediction = self._described(all_found)
        if isinstance(model, Detr) and model.has_mask_head:
            prediction |= self._panoptic(model, output, size, original_size)
        return prediction

    def _described(self, image: Detections) -> dict[str, Any]:
        order = image.scores.argsort(descending=True)
        categories = [self.checkpoint.categories[label] for label in image.labels[order].tolist()]
        return {
            "scores": image.scores[order].numpy(),
            "labels": np.array([category.id for category in categories], dtype=np.int64),
            "names": [category.name for category in categories],
            "boxes": image.boxes[order].numpy(),
        }

    def _panoptic(self, model: Detr, output: Output, size: tuple[int, int], original_size: tuple[int, int]) -> dict[str, Any]:
        categories = self.checkpoint.categories
        logits = output.logits[-1].cpu()
        kept = kept_queries(logits, self.config.panoptic.threshold)
        masks, _ = query_masks(model, output, kept)
        isthing = [category.isthing for category in categories]
        labels = logits[kept].argmax(-1)
        id_map, segments = merge(labels, masks, size, size, original_size, isthing, self.config.panoptic)
        described = [
            {
                "id": segment["id"] + 1,
                "category_id": categories[segment["category_id"]].id,
                "name": categories[segment["category_id"]].name,
                "isthing": segment["isthing"],
                "area": segment["area"],
            }
            for segment in segments
        ]
        return {"panoptic": id_map + 1 if segments else id_map, "segments": described}


def _load_pyfunc(path: str, model_config: Mapping[str, Any]) -> DetectorModel:
    """By this name MLflow asks for the model. path: the checkpoint; model_config: the `evaluate` section of its profile."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = build(EvaluateConfig, model_config, "model_config: evaluate")
    return DetectorModel(load_checkpoint(Path(path), device), config, device)


def _pixels(image: object, ranges: Ranges | None) -> Tensor:
    if isinstance(image, (str, Path)):
        path = Path(image)
        if not path.is_file():
            raise ValueError(f"{path}: expected an image, found no such file")
        return read_image(path, upright_size(path), ranges)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
    raise ValueError(f"image: expected a path, or a uint8 RGB array [h, w, 3]; found {found}")
