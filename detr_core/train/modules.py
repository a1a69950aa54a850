"""Defines the modules that map a batch to its loss, for the training of detectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from detr_core.loss.config import FocalLossConfig, SetLossConfig
from detr_core.loss.criterion import Normalizer, set_loss
from detr_core.loss.matcher import Matches, Predictions, match_together
from detr_core.loss.proposals import proposal_loss, proposal_predictions
from detr_core.model.common.config import QueryConfig
from detr_core.model.common.detector import Detector
from detr_core.model.common.normalisation import normalise
from detr_core.model.spec import AnyLossConfig, kind_of
from detr_core.structures import Batch, SigmoidOutput, SoftmaxOutput
from detr_core.train.average import WeightAverage


class TrainingModule(nn.Module):
    """A model with its loss: called with a batch and a normalizer, it returns the loss, with its gradient, and its parts.

    average: the moving average of the model's weights; None if there is none.
    """

    model: Detector

    def __init__(self) -> None:
        super().__init__()
        self.average: WeightAverage | None = None

    def normalizer(self, counts: list[int]) -> Normalizer:
        """Returns the divisors of the losses for images with `counts` targets."""
        raise NotImplementedError


class DetectionTrainingModule(TrainingModule):
    """Trains a detector with queries by the set loss, on every decoder layer if auxiliary losses are on.

    The proposals of a two-stage detector are always trained, because nothing else teaches the encoder which boxes to propose.
    """

    def __init__(self, model: Detector, loss: SetLossConfig, precision: torch.dtype) -> None:
        super().__init__()
        self.model, self.loss, self.precision = model, loss, precision

    def normalizer(self, counts: list[int]) -> Normalizer:
        """Returns the divisors of the losses for images with `counts` targets."""
        if isinstance(self.loss, FocalLossConfig):
            return Normalizer.of_focal(counts)
        return Normalizer.of(counts, cast(QueryConfig, self.model.config).queries, self.loss.no_object)

    def forward(self, batch: Batch, normalizer: Normalizer) -> tuple[Tensor, dict[str, Tensor]]:
        _, _, total, parts = self.detect(batch, normalizer)
        return total, parts

    def detect(
        self, batch: Batch, normalizer: Normalizer
    ) -> tuple[SoftmaxOutput | SigmoidOutput, Matches, Tensor, dict[str, Tensor]]:
        """Returns the detector's output, its matching with the targets, the loss with its gradient, and the parts of the loss."""
        images = normalise(batch.images, batch.padding)
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            output = self.model(images, batch.padding)
        # Matching and losses are computed in float32 for any precision of the network.
        first = 0 if self.loss.auxiliary else -1
        logits, boxes = output.logits[first:].float(), output.boxes[first:].float()
        predictions = [Predictions(logits, boxes, batch.targets)]
        if isinstance(output, SigmoidOutput) and output.proposals is not None:
            predictions.append(proposal_predictions(output.proposals, batch.targets))
        matches, *of_proposals = match_together(predictions, self.loss)
        losses = set_loss(logits, boxes, batch.targets, matches, normalizer, self.loss)
        parts = {"classification": losses.classification[-1], "l1": losses.l1[-1], "giou": losses.giou[-1]}
        total = losses.total
        if not self.loss.auxiliary:  # earlier layers get weight 0, because DDP needs gradients of all weights
            total = total + 0 * (output.logits[:-1].float().sum() + output.boxes[:-1].sum())
        if of_proposals:
            losses = proposal_loss(predictions[1], of_proposals[0], normalizer, self.loss)
            parts |= {"objectness": losses.classification[0], "proposals": losses.l1[0], "proposals_giou": losses.giou[0]}
            total = total + losses.total
        return output, matches, total, parts


class OwnLossTrainingModule(TrainingModule):
    """Trains a detector by the losses of its kind. losses: see `detr_core.model.spec.DetectorKind`."""

    def __init__(
        self,
        model: Detector,
        losses: Callable[[Any, float, Any], tuple[Tensor, dict[str, Tensor]]],
        loss: AnyLossConfig,
        precision: torch.dtype,
    ) -> None:
        super().__init__()
        self.model, self.losses, self.loss, self.precision = model, losses, loss, precision

    def normalizer(self, counts: list[int]) -> Normalizer:
        """Returns the divisors of the losses for `len(counts)` images, which have the same weight: both are their number."""
        return Normalizer(len(counts), len(counts))

    def forward(self, batch: Batch, normalizer: Normalizer) -> tuple[Tensor, dict[str, Tensor]]:
        images = normalise(batch.images, batch.padding)
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            samples = self.model.samples(images, batch.padding, batch.targets)
        return self.losses(samples, normalizer.boxes, self.loss)


def detector_training_module(model: Detector, loss: AnyLossConfig, precision: torch.dtype) -> TrainingModule:
    """Returns the module that trains this kind of detector. `require_fit` has checked that `loss` belongs to this kind."""
    losses = kind_of(model.config.kind).losses
    if losses is not None:
        return OwnLossTrainingModule(model, losses, loss, precision)
    assert isinstance(loss, SetLossConfig)
    return DetectionTrainingModule(model, loss, precision)
