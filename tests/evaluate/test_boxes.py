"""The conversion of logits and boxes to detections, on examples computed by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_core.evaluate.boxes import postprocess_softmax


def logits_of(probabilities: list[list[float]]) -> Tensor:
    return torch.tensor(probabilities).log()[None]


# Two classes and no-object: query 0 sees class 1, query 1 sees nothing and would next say class 0, query 2 is undecided.
LOGITS = logits_of([[0.1, 0.7, 0.2], [0.3, 0.1, 0.6], [0.5, 0.0, 0.5]])
BOXES = torch.tensor([[[0.5, 0.5, 1.0, 0.5], [0.25, 0.75, 0.5, 0.5], [0.9, 0.5, 0.4, 0.2]]])


def test_override_scores_the_second_best_class_of_empty_slots() -> None:
    (detections,) = postprocess_softmax(LOGITS, BOXES, [(100, 200)], empty_slot_override=True)
    torch.testing.assert_close(detections.scores, torch.tensor([0.7, 0.3, 0.5]))
    assert detections.labels.tolist() == [1, 0, 0]
    assert detections.queries.tolist() == [0, 1, 2]
    # xyxy in pixels of a 100 x 200 (h x w) image, not clipped to it
    expected = torch.tensor([[0.0, 25, 200, 75], [0, 50, 100, 100], [140, 40, 220, 60]])
    torch.testing.assert_close(detections.boxes, expected)


def test_without_override_empty_slots_are_left_out() -> None:
    (detections,) = postprocess_softmax(LOGITS, BOXES, [(100, 200)], empty_slot_override=False)
    assert detections.queries.tolist() == [0, 2]
    assert detections.labels.tolist() == [1, 0]
    assert detections.boxes.shape == (2, 4)


def test_an_image_without_detections_has_empty_results() -> None:
    (detections,) = postprocess_softmax(logits_of([[0.1, 0.9]]), BOXES[:, :1], [(10, 10)], empty_slot_override=False)
    assert detections.scores.shape == (0,)
    assert detections.boxes.shape == (0, 4)
