"""This module lets MLflow load and serve a detector: `mlflow.pyfunc.load_model("runs:/<run id>/model").predict(image)`.

MLflow stores this file and detr_core beside the checkpoint and imports both from there. Therefore this file imports nothing else
of the project. Loading a checkpoint runs no code that it contains. A server reads no file outside of one folder: see
`readable_folder`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from detr_core.config import build
from detr_core.data.transforms import resized
from detr_core.evaluate.boxes import Detections, postprocess
from detr_core.evaluate.config import EvaluateConfig
from detr_core.evaluate.fit import require_evaluation_fits
from detr_core.evaluate.inference import Classes
from detr_core.evaluate.multi_scale import detected
from detr_core.evaluate.results import run_lengths_of
from detr_core.evaluate.segmentation import Extent, Segmentation, segmentation
from detr_core.model.checkpoint import Checkpoint, load_checkpoint
from detr_core.model.common.normalisation import normalise
from detr_core.serving.image_inputs import images_of
from detr_core.structures import Padding

FOLDER = "DETR_IMAGE_FOLDER"  # the environment variable that names the folder below which a server may read images


class DetectorModel:
    """A detector that predicts on images one at a time. config: the section `evaluate` of the checkpoint's profile.

    The constructor raises ConfigError if the kind of detector does not fit `config`.
    """

    def __init__(self, checkpoint: Checkpoint, config: EvaluateConfig, device: torch.device) -> None:
        require_evaluation_fits(checkpoint.model.config.kind, config)
        self.checkpoint = checkpoint
        self.config = config
        self.device = device

    def predict(self, images: Any, params: Mapping[str, Any] | None = None) -> dict[str, Any] | list[dict[str, Any]]:
        """Returns the detector's prediction for a single image, or a list of predictions for several images.

        images: a path, base64 text or RGB pixels [h, w, 3], or several of them, in the forms that `images_of` names.
        params: `threshold` is the lowest score of a detection; its default is 0.
        A prediction has arrays with one row for each detection, the highest score first: 'scores' [N] 0..1, 'labels' [N] category
        ids, 'names' (a list), 'boxes' [N, 4] xyxy in pixels of the image. If the detector predicts panoptic maps, it
        also has 'panoptic' [h, w], the segment id of each pixel (0: none), and 'segments', a list of {id, category_id, name,
        isthing, area}. If it predicts masks of instances only, it has 'masks' instead, a list of N masks as run lengths {size:
        [h, w], counts}.
        Raises ValueError for an input that is not an image, and DatasetError for a file that can't be read. A server answers such
        a request with status 400.
        """
        folder = readable_folder()
        try:
            pixels, single = images_of(images, folder, self.checkpoint.value_ranges)
        except ValueError as error:
            if folder is None:
                raise
            raise MlflowException(str(error), error_code=BAD_REQUEST) from None  # MLflow puts its message into the answer
        threshold = float((params or {}).get("threshold", 0.0))
        predictions = [self._predicted(image, threshold) for image in pixels]
        return predictions[0] if single else predictions

    @torch.inference_mode()
    def _predicted(self, pixels: Tensor, threshold: float) -> dict[str, Any]:
        original_size = (int(pixels.shape[1]), int(pixels.shape[2]))
        size = resized(original_size, self.config.resize)
        images = F.resize(pixels, list(size), antialias=True)[None].to(self.device)
        padding = Padding.none(1, size, self.device)
        model = self.checkpoint.model
        output = detected(model, normalise(images, padding), padding, self.config.multi_scale)
        (detections,) = postprocess(output, [original_size], self.config.empty_slot_override)
        order = detections.scores.argsort(descending=True)
        detections = detections.chosen(order[detections.scores[order] >= threshold])
        prediction = self._described(detections)
        maps = self.checkpoint.predicts_panoptic_maps
        if self.checkpoint.predicts_masks:
            extents, config = [Extent(size, size, original_size)], self.config if maps else None
            masks = segmentation(model, output, [] if maps else [detections], extents, self._classes(), config)
            prediction |= self._panoptic(masks) if maps else {"masks": run_lengths_of(masks.instances(0, detections))}
        return prediction

    def _described(self, detections: Detections) -> dict[str, Any]:
        categories = [self.checkpoint.categories[label] for label in detections.labels.tolist()]
        return {
            "scores": detections.scores.numpy(),
            "labels": np.array([category.id for category in categories], dtype=np.int64),
            "names": [category.name for category in categories],
            "boxes": detections.boxes.numpy(),
        }

    def _classes(self) -> Classes:
        """Returns the checkpoint's classes as categories of a dataset that has all of them."""
        categories = self.checkpoint.categories
        ids = np.array([category.id for category in categories])
        thing = [category.isthing for category in categories]
        return Classes(ids, torch.tensor([True] * len(categories) + [False]), torch.tensor([*thing, False]))

    def _panoptic(self, masks: Segmentation) -> dict[str, Any]:
        categories = self.checkpoint.categories
        id_map, segments = masks.panoptic(0)
        entries = [
            {
                "id": segment["id"] + 1,
                "category_id": categories[segment["category_id"]].id,
                "name": categories[segment["category_id"]].name,
                "isthing": segment["isthing"],
                "area": segment["area"],
            }
            for segment in segments
        ]
        return {"panoptic": id_map + 1 if segments else np.zeros_like(id_map), "segments": entries}


def _load_pyfunc(path: str, model_config: Mapping[str, Any]) -> DetectorModel:
    """Loads the model; MLflow calls a function of this name. path: the checkpoint. model_config: the profile's `evaluate`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = build(EvaluateConfig, model_config, "model_config: evaluate")
    return DetectorModel(load_checkpoint(Path(path), device), config, device)


def readable_folder() -> Path | None:
    """Returns the folder below which a server may read images; None outside of a server, where every path may be read.

    A request may come from another machine, which must not read arbitrary files of this machine. DETR_IMAGE_FOLDER names the
    folder; the default is the folder in which the server was started.
    """
    served = os.environ.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "").lower() == "true" or "mlserver" in sys.modules
    return Path(os.environ.get(FOLDER) or Path.cwd()).absolute() if served else None
