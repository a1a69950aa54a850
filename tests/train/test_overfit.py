"""Each kind of detector overfits a few scenes, which the evaluation confirms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detr_core.config import build
from detr_core.data.batching import collate
from detr_core.evaluate.config import EvaluateConfig, MergingConfig
from detr_core.evaluate.predictions import average_precision_of, evaluate, predict
from detr_core.model.checkpoint import Checkpoint
from detr_core.model.panoptic_fpn.config import PanopticFpnMergingConfig
from detr_core.model.spec import build_detector, detector_config
from detr_core.model.upsnet.config import UpsnetMergingConfig
from detr_core.train.config import DetectionConfig
from detr_core.train.modules import detector_training_module
from detr_core.train.optimizer import build_optimizer
from tests.conftest import tiny_parameters
from tests.kinds import RECIPES, short_for
from tests.tiny_detector import dataset_of, evaluation_data, isthing_of, scenes

# The metrics that the masks of the kinds with masks reach at least.
LEAST = {
    "mask_rcnn": {"val/mask/AP50": 0.6},
    "panoptic_fpn": {"val/mask/AP50": 0.6, "val/PQ": 0.4, "val/PQ_stuff": 0.4},
    "upsnet": {"val/mask/AP50": 0.6, "val/PQ": 0.4, "val/PQ_stuff": 0.4},
}


@pytest.mark.parametrize("kind", short_for("deformable_two_stage", "faster_rcnn"))
def test_a_handful_of_scenes_is_learned_by_heart(kind: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    dataset = dataset_of(scenes(tmp_path), masks=True)
    recipe: dict[str, Any] = RECIPES[kind]
    content = tiny_parameters()["train_detection"] | {"loss": recipe["loss"], "optimizer": recipe["optimizer"]}
    config = build(DetectionConfig, content, "tiny")
    torch.manual_seed(0)
    model = build_detector(detector_config(recipe["detector"], "tiny"), len(dataset.categories), isthing=isthing_of(dataset))
    module = detector_training_module(model, config.loss, torch.float32)
    optimizer = build_optimizer(module, config.optimizer)
    batch = collate([dataset[index] for index in range(len(dataset))])
    normalizer = module.normalizer([len(target.labels) for target in batch.targets])
    losses = []
    for step in range(recipe["steps"]):
        for index, target in enumerate(batch.targets):
            target.sampling_seed = step * len(batch.targets) + index
        loss, _ = module(batch, normalizer)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 0.1)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 3
    metrics = average_precision_of(model, dataset.categories, evaluation_data(dataset, 6))
    assert metrics["AP50"] > 0.8, metrics
    if kind in LEAST:
        trained = Checkpoint(model, dataset.categories, {})
        config_of_maps = PanopticFpnMergingConfig(score=0.5, overlap=0.5, stuff_area=40)
        of_upsnet = UpsnetMergingConfig(score=0.5, overlap=0.3, stuff_area=40)
        evaluation = EvaluateConfig(6, None, True, MergingConfig(0.85, 4, "published"), config_of_maps, of_upsnet)
        predict(trained, evaluation_data(dataset, 6), evaluation, tmp_path / "evaluation")
        values = evaluate(tmp_path / "evaluation", dataset.split)
        assert {name: values[name] > least for name, least in LEAST[kind].items()} == dict.fromkeys(LEAST[kind], True), values
