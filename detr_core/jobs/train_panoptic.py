"""One process of the training of a mask head: `python -m detr_core.jobs.train_panoptic JOB.json`, or the same under torchrun.

`detr_core.jobs.training.Job` says what the file holds, and `detr_core.jobs.events` what the process prints.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

from detr_core.config import ConfigError, build
from detr_core.data.batching import evaluation_batches
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import Split
from detr_core.data.transforms import evaluation_transform, training_transform
from detr_core.distributed import ProcessContext
from detr_core.jobs import events, training
from detr_core.jobs.training import Job
from detr_core.model.checkpoint import as_detr, load_checkpoint, load_checkpoint_of
from detr_core.reporter import Reporter
from detr_core.train.loop import TrainingSetup, Validation
from detr_core.train.state import Progress
from detr_core.train_mask_head.config import PanopticConfig
from detr_core.train_mask_head.initial import mask_head_from, with_mask_head
from detr_core.train_mask_head.training_module import PanopticTrainingModule
from detr_core.wording import counted


def run(job: Job, process: ProcessContext, reporter: Reporter) -> Progress:
    """Trains the mask head in this process; errors as `detr_core.jobs.training.run`."""
    return training.run(job, prepare, process, reporter)


def prepare(job: Job, splits: dict[str, Split], process: ProcessContext, reporter: Reporter) -> TrainingSetup:
    """The detector of the job with a mask head, and its data. Raises ConfigError, DatasetError or CheckpointError."""
    assert job.init is not None, "a panoptic job names the detector's checkpoint"
    config = build(PanopticConfig, job.config, job.profile)
    dataset = CocoDataset(
        splits["train"], "panoptic", masks=True, transform=training_transform(config.augmentation), seed=config.seed
    )
    torch.manual_seed(config.seed)
    detector = load_checkpoint_of(Path(job.init), job.profile, torch.device("cpu"))
    frozen = as_detr(detector.model, "the mask head", Path(job.init))
    if detector.categories != dataset.categories:
        categories = counted(len(dataset.categories), "category", "categories")
        raise ConfigError(
            f"train_detection.targets: expected a detector trained on the panoptic file's {categories}, found a detector of "
            f"{len(detector.categories)} other categories in {job.init}; train it with `train_detection.targets: panoptic`"
        )
    whole = with_mask_head(frozen, config)
    if job.mask_head is not None:
        file = Path(job.mask_head)
        trained = load_checkpoint(file, torch.device("cpu"), frozen.config.backbone.dilation)
        reporter.message(mask_head_from(whole, as_detr(trained.model, "train_panoptic.init", file)))
    task = PanopticTrainingModule(whole, config.loss, training.precision(config.precision))
    val = CocoDataset(splits["val"], "panoptic", masks=True, transform=evaluation_transform(config.resize), seed=config.seed)
    validate = _mask_validation(task, val, training.batch_of_one_process(config, process), process, job.workers)
    return TrainingSetup(task, dataset, config, validate)


def _mask_validation(
    task: PanopticTrainingModule, val: CocoDataset, batch_size: int, process: ProcessContext, workers: int
) -> Callable[[], Validation]:
    # Validation computes the training loss of the masks on the val split; the evaluation stage computes the panoptic quality.
    @torch.inference_mode()
    def validate() -> Validation:
        batch_losses: list[tuple[int, int, dict[str, float]]] = []  # per batch: first image id, number of targets, summed losses
        for batch in evaluation_batches(val, batch_size, process, workers):
            counts = [len(target.labels) for target in batch.targets]
            normalizer = task.normalizer(counts)
            total, parts = task(batch.to(process.device), normalizer)
            sums = {name: float(value) * normalizer.boxes for name, value in {"loss": total, **parts}.items()}
            batch_losses.append((batch.targets[0].image_id, sum(counts), sums))
        # The sums are added in the order of the images, so that the result does not depend on the number of processes.
        everything = sorted((entry for share in process.gather(batch_losses) for entry in share), key=lambda entry: entry[0])
        boxes = max(sum(count for _, count, _ in everything), 1)
        means = {f"val/{name}": sum(sums[name] for _, _, sums in everything) / boxes for name in everything[0][2]}
        return Validation(means, -means["val/loss"])

    return validate


if __name__ == "__main__":
    sys.exit(events.main(Job, run))
