"""Runs one process of the training of a detector: `python -m detr_core.jobs.train_detection JOB.json`, also under torchrun.

`detr_core.jobs.training.TrainingJob` describes the content of JOB.json, and `detr_core.jobs.events` the output of the process.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch

from detr_core.config import build
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import Split
from detr_core.data.transforms import evaluation_transform, training_transform
from detr_core.distributed import ProcessContext
from detr_core.evaluate.ground_truth import has_masks, instances, require_scorable
from detr_core.evaluate.inference import EvaluationData
from detr_core.jobs import events, training
from detr_core.jobs.training import TrainingJob
from detr_core.jobs.validation import validate_boxes, validate_masks
from detr_core.model.checkpoint import load_checkpoint
from detr_core.model.common.backbone import Backbone, load_imagenet_weights
from detr_core.model.spec import build_detector, detector_config, kind_of
from detr_core.reporter import Reporter, Silent
from detr_core.train.config import DetectionConfig, require_fit
from detr_core.train.initial import draw_positions, start_from
from detr_core.train.loop import TrainingSetup
from detr_core.train.masks import learns_masks, require_targets
from detr_core.train.modules import detector_training_module
from detr_core.train.state import Progress


def run(job: TrainingJob, process: ProcessContext, reporter: Reporter) -> Progress:
    """Trains the detector in this process. The errors are those of `detr_core.jobs.training.run`."""
    return training.run(job, prepare, process, reporter)


def prepare(job: TrainingJob, splits: dict[str, Split], process: ProcessContext, reporter: Reporter) -> TrainingSetup:
    """Returns the job's detector with its initial weights, and its data. Raises ConfigError, DatasetError or CheckpointError."""
    require_scorable(splits["val"])
    config = build(DetectionConfig, job.config, job.profile)
    architecture = detector_config(job.detector, job.profile)
    require_fit(architecture, config)
    require_targets(splits, architecture.kind, config.targets, job.data)
    masks = learns_masks(architecture.kind)
    dataset = CocoDataset(
        splits["train"], config.targets, masks=masks, transform=training_transform(config.augmentation), seed=config.seed
    )
    torch.manual_seed(config.seed)
    isthing = [category.isthing for category in dataset.categories]
    model = build_detector(architecture, len(dataset.categories), isthing=isthing)
    if job.init is None:
        if config.positions_std is not None:
            draw_positions(model, config.positions_std)
        backbone = model.backbone[0]
        assert isinstance(backbone, Backbone)
        load_imagenet_weights(backbone, architecture.backbone)
    else:
        trained = load_checkpoint(Path(job.init), torch.device("cpu"), architecture.backbone.dilation)
        reporter.message(start_from(model, dataset.categories, trained))
    module = detector_training_module(model, config.loss, training.precision(config.precision))
    val = CocoDataset(splits["val"], config.targets, masks=False, transform=evaluation_transform(config.resize), seed=config.seed)
    data = EvaluationData(val, training.batch_of_one_process(config, process), process, job.workers, Silent())
    validate = partial(validate_boxes, module.model)
    if masks:
        merging = training.merging(job) if "panoptic" in kind_of(architecture.kind).capabilities else None
        validate = partial(validate_masks, module.model, has_masks(instances(splits["val"])), merging)
    return TrainingSetup(module, dataset, config, partial(validate, data))


if __name__ == "__main__":
    sys.exit(events.main(TrainingJob, run))
