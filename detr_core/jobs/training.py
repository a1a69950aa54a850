"""Defines what the trainings of the detector and of the mask head share: the job, the lock on its state, and its results.

The results in the folder `out` are checkpoint.pt (the last checkpoint), best.pt (the best one), metrics.json (the last value of
every scalar) and history.jsonl (all values). SIGINT or SIGTERM during a training ends it between two steps, after its state is
saved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout

from detr_core.checksums import digest
from detr_core.config import as_dict, build, require
from detr_core.data.splits import Split, read_dataset
from detr_core.distributed import ProcessContext, compute_float32
from detr_core.evaluate.config import EvaluateConfig
from detr_core.evaluate.ground_truth import require_objects
from detr_core.jobs.agreement import require_same_files
from detr_core.model.common.placement import place
from detr_core.reporter import Reporter
from detr_core.train.compilation import Compiled, require_compiler, without_graphs
from detr_core.train.config import TrainConfig
from detr_core.train.folding import fold_norms
from detr_core.train.loop import TrainingSetup, train
from detr_core.train.recomputation import recompute_activations
from detr_core.train.state import Progress, TrainingFiles, fingerprint


@dataclass(frozen=True)
class TrainingJob:
    """Describes one training: the content of the file JOB.json.

    - stage: `detection` or `panoptic`;
    - config: the fields of DetectionConfig or PanopticConfig;
    - detector: the detector's configuration for the stage `detection`, else None;
    - init: a checkpoint of this project or from elsewhere. The stage `detection` starts from it, or from scratch if it is None.
      For the stage `panoptic` it is the detector;
    - data: the folder with dataset.json; work: the folder of the resumable state; out: the folder of the results;
    - workers: the number of dataloader workers; profile: the profile's name, which the checkpoints hold;
    - mask_head: the checkpoint whose mask head the stage `panoptic` starts from, or None;
    - loss: the fields of SoftmaxLossConfig, the loss of a detector that learns jointly with the mask head in the stage
      `panoptic`; None if the detector stays frozen, and for the stage `detection`;
    - evaluate: the fields of EvaluateConfig, by which validations merge segments into panoptic maps; None if they compute no
      panoptic quality. No weight depends on it, nor which checkpoint is the best.
    """

    stage: Literal["detection", "panoptic"]
    config: dict[str, Any]
    detector: dict[str, Any] | None
    init: str | None
    data: str
    work: str
    out: str
    workers: int
    profile: str
    mask_head: str | None = None
    loss: dict[str, Any] | None = None
    evaluate: dict[str, Any] | None = None


def merging(job: TrainingJob) -> EvaluateConfig | None:
    """Returns how the validations of a training merge segments into panoptic maps; None if the job does not say."""
    return None if job.evaluate is None else build(EvaluateConfig, job.evaluate, f"{job.profile}: evaluate")


Prepare = Callable[[TrainingJob, dict[str, Split], ProcessContext, Reporter], TrainingSetup]


def run(job: TrainingJob, prepare: Prepare, process: ProcessContext, reporter: Reporter) -> Progress:
    """Runs in this process the training that `prepare` sets up from the job and the splits of its data.

    Raises ConfigError, DatasetError or CheckpointError before the training begins, and NonFiniteError during the training.
    """
    with _only_writer(Path(job.work), process, reporter):
        return _train(job, prepare, process, reporter)


@contextmanager
def _only_writer(work: Path, process: ProcessContext, reporter: Reporter) -> Iterator[None]:
    """Holds the lock of the folder `work`. It first waits for a process of an earlier, killed command that still writes there."""
    lock = FileLock(work / "writer.lock")
    if process.first:
        work.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            reporter.message("waiting for a process of an earlier training of this profile, which is still writing its state")
            lock.acquire()
    process.wait()
    try:
        yield
    finally:
        if lock.is_locked:
            # A training that was refused before it began leaves no folder. Otherwise the lock file stays, because another
            # process may wait for this file, and a later process would lock a new file of the same name.
            if {path.name for path in work.iterdir()} <= {"writer.lock"}:
                Path(lock.lock_file).unlink(missing_ok=True)
                with suppress(OSError):
                    work.rmdir()
            lock.release()


def _train(job: TrainingJob, prepare: Prepare, process: ProcessContext, reporter: Reporter) -> Progress:
    splits = read_dataset(Path(job.data))
    files = TrainingFiles(Path(job.work) / "state.pt", Path(job.out) / "checkpoint.pt", Path(job.out) / "best.pt")
    for split in splits.values():
        require_objects(split)
    meta: dict[str, Any] = {"profile": job.profile, "stage": job.stage}
    ranges = splits["train"].value_ranges
    if ranges is not None:  # so that predictions scale images of more than 8 bits a value as the training did
        meta["value_ranges"] = {kind: list(limits) for kind, limits in ranges.items()}
    setup = prepare(job, splits, process, reporter)
    if setup.config.fold_norm:
        expected = "false for a detector without frozen batch norm"
        require(fold_norms(setup.module) > 0, f"{job.profile}: train_{job.stage}.fold_norm", expected, True)
    if setup.config.activation_checkpointing:
        recompute_activations(setup.module.model)
    place(setup.module, process.device)
    if setup.config.compile is not None:
        require_compiler(setup.config.compile, process.device, f"{job.profile}: train_{job.stage}.compile")
        compiled = Compiled(setup.module.model, setup.config.compile)
        setup = replace(setup, validate=without_graphs(setup.validate), note=compiled.note)
    if setup.config.precision == "tf32" and process.device.type == "cpu":
        reporter.message("precision tf32 is for GPUs; a CPU computes in float32")
    compute_float32("tf32" if setup.config.precision == "tf32" else "ieee", process.device)
    annotations = [digest(file) for file in (splits["train"].instances, splits["train"].panoptic) if file is not None]
    initial = [file and digest(Path(file)) for file in (job.init, job.mask_head)]
    require_same_files(splits, [job.init, job.mask_head], process)
    optional_parts = ([] if ranges is None else [meta["value_ranges"]]) + ([] if job.loss is None else [job.loss])
    digest_of_all = fingerprint(chosen(setup.config), job.detector, annotations, *initial, *optional_parts)
    progress = train(setup, files, digest_of_all, meta | setup.meta, process, job.workers, reporter)
    if process.first:
        _write_history(progress, Path(job.out))
    return progress


def chosen(config: TrainConfig) -> dict[str, Any]:
    """Returns the part of the configuration that must be the same when an interrupted training continues.

    Options that have their default are left out, because earlier versions do not know them, and so is an option that decides no
    result.
    """
    options = {option.name: option for option in fields(config) if option.metadata.get("optional")}
    left_out = {name for name, option in options.items() if not option.metadata.get("decides", True)}
    left_out |= {name for name, option in options.items() if getattr(config, name) == option.default}
    return {name: value for name, value in as_dict(config).items() if name not in left_out}


def batch_of_one_process(config: TrainConfig, process: ProcessContext) -> int:
    """Returns how many images a process validates at once: the training has shown that this many fit into its memory."""
    return max(1, config.batch_size // (process.size * config.accumulation))


def precision(name: str) -> torch.dtype:
    """Returns the type of numbers that the network computes in. That of `tf32` is float32, in which torch rounds some inputs."""
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _write_history(progress: Progress, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in progress.history)
    (out / "history.jsonl").write_text(lines, encoding="utf-8")
    last: dict[str, float] = {}
    for record in progress.history:
        last |= record
    last.pop("step", None)
    (out / "metrics.json").write_text(json.dumps(dict(sorted(last.items())), indent=2) + "\n", encoding="utf-8")
