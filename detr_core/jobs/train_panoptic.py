"""Runs one process of the training of a mask head: `python -m detr_core.jobs.train_panoptic JOB.json`, also under torchrun.

`detr_core.jobs.training.TrainingJob` describes the content of JOB.json, and `detr_core.jobs.events` the output of the process.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch

from detr_core.config import ConfigError, build, require
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import Split
from detr_core.data.transforms import evaluation_transform, training_transform
from detr_core.distributed import ProcessContext
from detr_core.evaluate.ground_truth import require_scorable
from detr_core.evaluate.inference import EvaluationData
from detr_core.jobs import events, training
from detr_core.jobs.training import TrainingJob
from detr_core.jobs.validation import validate_mask_losses, validate_masks
from detr_core.loss.config import SoftmaxLossConfig
from detr_core.model.checkpoint import Checkpoint, as_detr, load_checkpoint, load_checkpoint_of
from detr_core.model.detr.model import Detr
from detr_core.reporter import Reporter, Silent
from detr_core.train.loop import TrainingSetup
from detr_core.train.mask_targets import MASK_HEAD, require_masks
from detr_core.train.state import Progress
from detr_core.train_mask_head.config import PanopticConfig
from detr_core.train_mask_head.initial import mask_head_from, with_mask_head
from detr_core.train_mask_head.training_module import FrozenTrainingModule, JointTrainingModule
from detr_core.wording import counted


def run(job: TrainingJob, process: ProcessContext, reporter: Reporter) -> Progress:
    """Trains the mask head in this process. The errors are those of `detr_core.jobs.training.run`."""
    return training.run(job, prepare, process, reporter)


def prepare(job: TrainingJob, splits: dict[str, Split], process: ProcessContext, reporter: Reporter) -> TrainingSetup:
    """Returns the job's detector with a mask head, and its data. Raises ConfigError, DatasetError or CheckpointError."""
    assert job.init is not None, "a panoptic job names the detector's checkpoint"
    config = build(PanopticConfig, job.config, job.profile)
    require_masks(splits, config.targets, job.data, MASK_HEAD)
    if config.targets == "instances":
        require_scorable(splits["val"])
    dataset = CocoDataset(
        splits["train"], config.targets, masks=True, transform=training_transform(config.augmentation), seed=config.seed
    )
    torch.manual_seed(config.seed)
    detector = load_checkpoint_of(Path(job.init), job.profile, torch.device("cpu"))
    _require_categories(detector, dataset, config, job.init)
    model = with_mask_head(as_detr(detector.model, "the mask head", Path(job.init)), config)
    if job.mask_head is not None:
        file = Path(job.mask_head)
        trained = load_checkpoint(file, torch.device("cpu"), model.config.backbone.dilation)
        reporter.message(mask_head_from(model, as_detr(trained.model, "train_panoptic.init", file)))
    module = _training_module(model, config, job)
    instances = config.targets == "instances"  # the predicted masks are scored against the file, so validation reads no masks
    val = CocoDataset(
        splits["val"], config.targets, masks=not instances, transform=evaluation_transform(config.resize), seed=config.seed
    )
    data = EvaluationData(val, training.batch_of_one_process(config, process), process, job.workers, Silent())
    if instances:
        return TrainingSetup(
            module, dataset, config, partial(validate_masks, module.model, True, None, data), {"mask_targets": config.targets}
        )
    weights = {"focal": config.loss.focal, "dice": config.loss.dice}
    learns = isinstance(module, JointTrainingModule)
    validate = partial(validate_mask_losses, module, weights, module.model, learns, training.merging(job))
    return TrainingSetup(module, dataset, config, partial(validate, data))


def _require_categories(detector: Checkpoint, dataset: CocoDataset, config: PanopticConfig, file: str) -> None:
    """Raises ConfigError if the detector was trained on other categories than those of the mask head's targets."""
    if detector.categories != dataset.categories:
        categories = counted(len(dataset.categories), "category", "categories")
        raise ConfigError(
            f"train_detection.targets: expected a detector trained on the {config.targets} file's {categories}, found a detector "
            f"of {len(detector.categories)} other categories in {file}; train it with `train_detection.targets: {config.targets}`"
        )


def _training_module(model: Detr, config: PanopticConfig, job: TrainingJob) -> FrozenTrainingModule | JointTrainingModule:
    precision = training.precision(config.precision)
    joint = config.detector == "joint"
    require((job.loss is not None) == joint, "loss", "the detector's loss if detector is 'joint', and null otherwise", job.loss)
    if job.loss is None:
        return FrozenTrainingModule(model, config.loss, precision)
    return JointTrainingModule(model, build(SoftmaxLossConfig, job.loss, f"{job.profile}: loss"), config.loss, precision)


if __name__ == "__main__":
    sys.exit(events.main(TrainingJob, run))
