"""A training gives the same result with or without interruption, in one or two processes, and with or without micro-batches."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from detr_core.config import ConfigError, as_dict
from detr_core.distributed import ProcessContext
from detr_core.jobs.training import Job
from detr_core.loss.matcher import NonFiniteError
from detr_core.model.checkpoint import CheckpointError, load_checkpoint
from detr_core.model.detr.model import Detr
from detr_core.reporter import Memory, Silent
from detr_core.sources.scenes import generate_scenes
from detr_core.storage import StorageError
from detr_core.train.config import OptimizerConfig, ScheduleConfig
from detr_core.train.interruption import Interrupted
from detr_core.train_mask_head.initial import with_mask_head
from flows.runtime import launch
from tests.conftest import ROOT, Trained, tiny_settings
from tests.jobs.worker import carry_out, float64
from tests.kinds import KINDS

CPU = torch.device("cpu")
ANEW = "starting from the first step, because the interrupted training had other parameters or other data"
ALONE = ProcessContext(rank=0, size=1, device=CPU)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, some of whose training images have lost all their objects."""
    folder = tmp_path_factory.mktemp("scenes")
    scenes = tiny_settings().data.scenes
    assert scenes is not None
    generate_scenes(replace(scenes, train=24, val=2), 0, folder, 1, Silent())
    for kind in ("instances", "panoptic"):
        file = folder / "annotations" / f"{kind}_train.json"
        content = json.loads(file.read_text())
        emptied = {image["id"] for image in content["images"][::5]}
        if kind == "instances":
            content["annotations"] = [each for each in content["annotations"] if each["image_id"] not in emptied]
        else:
            for each in content["annotations"]:
                each["segments_info"] = [] if each["image_id"] in emptied else each["segments_info"]
        file.write_text(json.dumps(content))
    return folder


def job(dataset: Path, folder: Path, dropout: float = 0.0, **changes: Any) -> Job:
    settings = tiny_settings()
    assert settings.train_detection.augmentation.flip > 0
    detector = replace(settings.detector, dropout=dropout)
    usual: dict[str, Any] = {"targets": "instances", "epochs": 2, "batch_size": 8, "checkpoint_every": 2}
    config = replace(settings.train_detection, **usual | changes)
    work, out = str(folder / "work"), str(folder / "out")
    return Job("detection", as_dict(config), as_dict(detector), None, str(dataset), work, out, 0, "tiny")


def job_of(kind: str, dataset: Path, folder: Path, **changes: Any) -> Job:
    """The same training of another kind of detector."""
    plain, recipe = job(dataset, folder, **changes), KINDS[kind]
    config = plain.config | {"loss": recipe["loss"], "optimizer": recipe["optimizer"]}
    return replace(plain, config=config, detector=recipe["detector"])


def mask_job(dataset: Path, folder: Path, trained: Path, **changes: Any) -> Job:
    """The training of the mask head on the detector that another job has trained in the folder `trained`."""
    config = as_dict(replace(tiny_settings().train_panoptic, **{"epochs": 2, "batch_size": 8, "checkpoint_every": 2} | changes))
    work, out = str(folder / "work"), str(folder / "out")
    return Job("panoptic", config, None, str(trained / "out" / "checkpoint.pt"), str(dataset), work, out, 0, "tiny")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "out" / "checkpoint.pt", CPU).model.state_dict()


def history(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "out" / "history.jsonl").read_text().splitlines()]


def assert_identical(one: Path, other: Path) -> None:
    """The same weights and the same history, bit for bit."""
    ours, theirs = weights(one), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert history(one) == history(other)
    for name in ("checkpoint.pt", "best.pt", "metrics.json"):
        assert (one / "out" / name).read_bytes() == (other / "out" / name).read_bytes(), name


class SignalledAt(Silent):
    """A signal arrives when a step is recorded."""

    def __init__(self, step: int, number: int, told: Memory) -> None:
        self.step, self.number, self.message = step, number, told.message  # type: ignore[method-assign]

    def metrics(self, values: Any, step: int) -> None:
        if step == self.step:
            os.kill(os.getpid(), self.number)


class InterruptedAt(Silent):
    def __init__(self, step: int) -> None:
        self.step = step

    def metrics(self, values: Any, step: int) -> None:
        if step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_seed_fixes_a_run_bit_for_bit_whatever_interrupts_it(dataset: Path, tmp_path: Path, precision: str) -> None:
    # All that has a state: dropout, augmentation, micro-batches, the optimiser.
    everything: dict[str, Any] = {"dropout": 0.3, "accumulation": 2, "precision": precision}
    carry_out(job(dataset, tmp_path / "whole", **everything), ALONE, Silent())
    interrupted, told = job(dataset, tmp_path / "interrupted", **everything), Memory()
    for step in (1, 3, 6):  # before the first checkpoint, within an epoch, at the last step
        with pytest.raises(KeyboardInterrupt):
            carry_out(interrupted, ALONE, InterruptedAt(step))
    carry_out(interrupted, ALONE, told)
    assert told.messages == ["resuming after step 4"]
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "interrupted")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert history(tmp_path / "whole") == history(tmp_path / "interrupted")
    assert [{"step": step, **values} for step, values in told.history] == [
        {name: value for name, value in record.items() if name != "epoch"} for record in history(tmp_path / "whole")
    ], "told whole, so that a record of the last part has the first too"


def test_a_signal_at_any_step_loses_no_step(dataset: Path, tmp_path: Path) -> None:
    everything: dict[str, Any] = {"dropout": 0.3, "checkpoint_every": 100}
    carry_out(job(dataset, tmp_path / "whole", **everything), ALONE, Silent())
    interrupted, state, told = (
        job(dataset, tmp_path / "interrupted", **everything),
        tmp_path / "interrupted/work/state.pt",
        Memory(),
    )
    for step, number in ((1, signal.SIGINT), (2, signal.SIGTERM), (4, signal.SIGTERM), (5, signal.SIGINT)):
        with pytest.raises(
            Interrupted, match=rf"^interrupted after step {step} of 6; run the same command again"
        ) as interruption:
            carry_out(interrupted, ALONE, SignalledAt(step, number, told))
        assert interruption.value.signal == number
        assert torch.load(state, weights_only=True)["progress"]["step"] == step
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "as it was before"
    carry_out(interrupted, ALONE, told)
    assert told.messages == [f"resuming after step {step}" for step in (1, 2, 4, 5)]
    assert_identical(tmp_path / "whole", tmp_path / "interrupted")


def test_a_signal_during_the_validation_ends_it_at_once_and_loses_no_step(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the validation goes on")

    carry_out(job(dataset, tmp_path / "whole", checkpoint_every=100), ALONE, Silent())
    interrupted, told = job(dataset, tmp_path / "interrupted", checkpoint_every=100), Memory()
    leftover = tmp_path / "interrupted/work/.state.pt.k1ll3d_0.tmp"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"part of a state, whose writer was killed")
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("detr_core.jobs.train_detection.average_precision_of", signalled)
            with pytest.raises(Interrupted, match=r"^interrupted during the validation after step 3 of 6"):
                carry_out(interrupted, ALONE, told)
    carry_out(interrupted, ALONE, told)
    assert told.messages == ["resuming after step 3"] * 2
    assert not leftover.exists()
    assert_identical(tmp_path / "whole", tmp_path / "interrupted")


def test_two_processes_go_on_bit_for_bit_too_whoever_starts_them(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "STATE", tmp_path / "state")
    everything: dict[str, Any] = {"dropout": 0.3, "accumulation": 2}
    run_by_torchrun(job(dataset, tmp_path / "whole", **everything), tmp_path / "job.json")
    interrupted, told = asdict(job(dataset, tmp_path / "interrupted", **everything)), Memory()
    monkeypatch.setenv("SIGNAL_AT", f"{int(signal.SIGTERM)}:1")  # of 6 steps in 2 epochs; one of two processes gets it
    with pytest.raises(launch.WorkerError, match=r"^interrupted after step 1 of 6; run the same command again to continue$"):
        launch.run(interrupted, 2, Silent(), worker="tests.jobs.worker")
    monkeypatch.setenv("SIGNAL_AT", f"{int(signal.SIGKILL)}:5")  # the state is of step 4, within the second epoch
    with pytest.raises(launch.WorkerError, match=r"detection failed: process 1 of 2 \(rank 0\) was killed by signal 9"):
        launch.run(interrupted, 2, told, worker="tests.jobs.worker")
    monkeypatch.delenv("SIGNAL_AT")
    launch.run(interrupted, 2, told)
    assert told.messages == ["resuming after step 1", "resuming after step 4"]
    assert_identical(tmp_path / "whole", tmp_path / "interrupted")


def run_by_torchrun(job: Job, file: Path) -> None:
    """Two processes as torchrun starts them, on this machine."""
    file.write_text(json.dumps(asdict(job)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ["--rdzv-backend=static", "--master-addr=127.0.0.1", f"--master-port={port}", "--local-addr=127.0.0.1"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        *where,
        "-m",
        f"detr_core.jobs.train_{job.stage}",
        str(file),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_detector_goes_on_bit_for_bit(kind: str, dataset: Path, tmp_path: Path) -> None:
    carry_out(job_of(kind, dataset, tmp_path / "whole"), ALONE, Silent())
    interrupted, told = job_of(kind, dataset, tmp_path / "interrupted"), Memory()
    with pytest.raises(KeyboardInterrupt):
        carry_out(interrupted, ALONE, InterruptedAt(3))
    carry_out(interrupted, ALONE, told)
    assert told.messages == ["resuming after step 2"]
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "interrupted")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert history(tmp_path / "whole") == history(tmp_path / "interrupted")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_detector_trains_alike_in_two_processes_and_in_four_micro_batches(
    kind: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In float64. In float32 four micro-batches of a deformable detector part from one batch by 2e-3: one input of a ReLU is 2e-7
    # here and -1e-6 there, the gradient jumps by half a percent, and AdamW makes whole steps of the backbone's small gradients.
    monkeypatch.setattr(launch, "STATE", tmp_path / "state")
    monkeypatch.setenv("FLOAT64", "1")
    launch.run(asdict(job_of(kind, dataset, tmp_path / "two")), 2, Silent(), worker="tests.jobs.worker")
    with float64():
        carry_out(job_of(kind, dataset, tmp_path / "one"), ALONE, Silent())
        carry_out(job_of(kind, dataset, tmp_path / "four", accumulation=4), ALONE, Silent())
        for other in ("two", "four"):
            assert_same_training(tmp_path / "one", tmp_path / other, relative=1e-9, weight=1e-9)


def test_a_loss_of_another_kind_of_detector_is_refused(dataset: Path, tmp_path: Path) -> None:
    plain = job(dataset, tmp_path)
    with pytest.raises(
        ConfigError, match=r"train_detection\.loss\.kind: expected 'focal' with detector\.kind 'deformable', found 'softmax'"
    ):
        carry_out(replace(plain, detector=KINDS["deformable"]["detector"]), ALONE, Silent())


@pytest.mark.parametrize(("off", "head"), [(("classification",), "class_embed."), (("l1", "giou"), "bbox_embed.")])
def test_a_head_whose_loss_is_off_stays_as_it_is(dataset: Path, tmp_path: Path, off: tuple[str, ...], head: str) -> None:
    loss = replace(tiny_settings().train_detection.loss, **dict.fromkeys(off, 0.0))
    optimizer = replace(tiny_settings().train_detection.optimizer, weight_decay=0)
    for steps in (1, 3):
        carry_out(job(dataset, tmp_path / str(steps), loss=loss, optimizer=optimizer, steps=steps), ALONE, Silent())
    early, late = weights(tmp_path / "1"), weights(tmp_path / "3")
    heads = {name for name in early if name.startswith(("class_embed.", "bbox_embed."))}
    assert {name for name in heads if torch.equal(early[name], late[name])} == {name for name in heads if name.startswith(head)}


def test_bfloat16_trains_what_float32_trains(dataset: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        carry_out(job(dataset, tmp_path / precision, precision=precision), ALONE, Silent())
    losses = [
        [record["train/loss"] for record in history(tmp_path / p) if "train/loss" in record] for p in ("float32", "bfloat16")
    ]
    assert losses[0] != losses[1], "the network did run in another precision"
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert {value.dtype for value in weights(tmp_path / "bfloat16").values()} == {torch.float32}


def test_changed_parameters_start_anew_and_say_so(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        carry_out(job(dataset, tmp_path), ALONE, InterruptedAt(3))
    told = Memory()
    optimizer = OptimizerConfig(lr=1e-5, backbone_lr=1e-5, weight_decay=0, clip_norm=1)
    carry_out(job(dataset, tmp_path, optimizer=optimizer), ALONE, told)
    assert told.messages == [ANEW]


def test_changed_annotations_start_anew_and_say_so(dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(dataset, copy)
    with pytest.raises(KeyboardInterrupt):
        carry_out(job(copy, tmp_path), ALONE, InterruptedAt(3))
    file = copy / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"][0] += 1  # as many images, objects and classes as before
    file.write_text(json.dumps(content))
    told = Memory()
    carry_out(job(copy, tmp_path), ALONE, told)
    assert told.messages == [ANEW]


def test_micro_batches_change_nothing(dataset: Path, tmp_path: Path) -> None:
    carry_out(job(dataset, tmp_path / "one"), ALONE, Silent())
    carry_out(job(dataset, tmp_path / "four", accumulation=4), ALONE, Silent())
    assert_same_training(tmp_path / "one", tmp_path / "four")


def test_two_processes_train_as_one(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "STATE", tmp_path / "state")
    carry_out(job(dataset, tmp_path / "one"), ALONE, Silent())
    listening = Listening()
    launch.run(asdict(job(dataset, tmp_path / "two")), 2, listening)
    assert_same_training(tmp_path / "one", tmp_path / "two")
    assert listening.processes >= 2
    assert listening.addresses == {"127.0.0.1"}


class Listening(Silent):
    """Collects the addresses on which this process's children, and theirs, listen while they train."""

    def __init__(self) -> None:
        self.addresses: set[str] = set()
        self.processes = 0

    def metrics(self, values: Any, step: int) -> None:
        children = psutil.Process().children(recursive=True)
        self.processes = max(self.processes, len(children))
        for child in children:
            with suppress(psutil.NoSuchProcess):
                sockets = child.net_connections(kind="inet")
                self.addresses |= {found.laddr.ip for found in sockets if found.status == psutil.CONN_LISTEN}


def test_two_processes_train_a_mask_head_as_one(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "STATE", tmp_path / "state")
    carry_out(job(dataset, tmp_path / "detector", targets="panoptic", steps=1), ALONE, Silent())
    carry_out(mask_job(dataset, tmp_path / "one", tmp_path / "detector"), ALONE, Silent())
    launch.run(asdict(mask_job(dataset, tmp_path / "two", tmp_path / "detector")), 2, Silent())
    assert_same_training(tmp_path / "one", tmp_path / "two")
    detector, two = weights(tmp_path / "detector"), weights(tmp_path / "two")
    assert all(torch.equal(detector[name], two[name]) for name in detector), "the frozen detector stays as it was"


def assert_same_training(one: Path, other: Path, relative: float = 1e-5, weight: float = 2e-4) -> None:
    for a, b in zip(history(one), history(other), strict=True):
        losses = {name: value for name, value in a.items() if name.startswith(("train/", "val/"))}
        assert losses == pytest.approx({name: b[name] for name in losses}, rel=relative, abs=1e-7)
    ours, theirs = weights(one), weights(other)  # AdamW makes much of little: of a small gradient's last bits too
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=weight / 2, atol=weight)


def test_a_training_without_room_for_its_files_is_refused_before_the_first_step(
    dataset: Path, disk: Path, tmp_path: Path
) -> None:
    (disk / "full").write_bytes(b"\0" * 900_000)
    with pytest.raises(StorageError, match=rf"^{disk}/work: expected .* bytes\) free for the state and the checkpoints"):
        carry_out(job(dataset, disk), ALONE, Silent())
    assert [path.name for path in disk.iterdir()] == ["full"]


def test_a_disk_that_is_full_during_a_training_is_told_of(
    dataset: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detr_core.train.loop.require_room", lambda *_: None)  # something else fills the disk meanwhile
    with pytest.raises(StorageError, match=rf"^{disk / 'work' / 'state.pt'}: it cannot be written, because no space is left"):
        carry_out(job(dataset, disk), ALONE, Silent())
    assert not [path for path in (disk / "work").rglob("*") if path.is_file()]


def test_a_loss_that_is_not_finite_names_where(dataset: Path, tmp_path: Path) -> None:
    loss = replace(tiny_settings().train_detection.loss, giou=3.4e38)
    where = r"not finite \(loss inf, .*\), image ids \[\d+(, \d+){7}\], at step 1 \(epoch 0\); no checkpoint was written yet"
    with pytest.raises(NonFiniteError, match=where):
        carry_out(job(dataset, tmp_path, loss=loss), ALONE, Silent())
    assert not (tmp_path / "out").exists()


def test_what_was_good_before_a_loss_that_is_not_finite_is_named_and_kept(dataset: Path, tmp_path: Path) -> None:
    runaway = OptimizerConfig(lr=1e37, backbone_lr=1e37, weight_decay=0, clip_norm=1)
    changes: dict[str, Any] = {"optimizer": runaway, "schedule": ScheduleConfig("step", 0, 1), "checkpoint_every": 1}
    with pytest.raises(NonFiniteError) as error:
        carry_out(job(dataset, tmp_path, **changes), ALONE, Silent())
    state = tmp_path / "work" / "state.pt"
    assert re.search(rf", image ids \[.*\], at step 2 \(epoch 0\); {re.escape(str(state))} is from step 1$", str(error.value))
    assert torch.load(state, weights_only=True)["progress"]["step"] == 1


def test_of_several_processes_the_one_whose_loss_it_was_names_its_images(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "STATE", tmp_path / "state")
    copy = tmp_path / "data"
    shutil.copytree(dataset, copy)
    file = copy / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    objects = {annotation["image_id"] for annotation in content["annotations"]}
    full, empty = min(objects), next(image["id"] for image in content["images"] if image["id"] not in objects)
    content["images"] = [image for image in content["images"] if image["id"] in (full, empty)]
    content["annotations"] = [annotation for annotation in content["annotations"] if annotation["image_id"] == full]
    file.write_text(json.dumps(content))
    loss = replace(tiny_settings().train_detection.loss, giou=3.4e38)
    with pytest.raises(launch.WorkerError, match=rf"not finite \(loss inf, .*\), image ids \[{full}\], at step 1 "):
        launch.run(asdict(job(copy, tmp_path, loss=loss)), 2, Silent())


def test_a_detector_of_other_categories_gets_no_mask_head(dataset: Path, tmp_path: Path) -> None:
    carry_out(job(dataset, tmp_path), ALONE, Silent())  # of the instances: things alone
    masks = mask_job(dataset, tmp_path / "masks", tmp_path)
    with pytest.raises(ConfigError, match=r"targets: expected a detector trained on the panoptic file's \d+ categories"):
        carry_out(masks, ALONE, Silent())


def test_another_profiles_detector_gets_no_mask_head(dataset: Path, tmp_path: Path) -> None:
    carry_out(job(dataset, tmp_path), ALONE, Silent())
    other = replace(mask_job(dataset, tmp_path / "masks", tmp_path), profile="other")
    with pytest.raises(CheckpointError, match="expected a checkpoint of profile 'other', found one of 'tiny'"):
        carry_out(other, ALONE, Silent())
    assert not [path for path in (tmp_path / "masks").rglob("*") if path.is_file()]


@pytest.mark.parametrize("maps", ["released", "per_head", "none"])
def test_a_profile_chooses_the_attention_maps_of_its_mask_head(maps: Any) -> None:
    config = replace(tiny_settings().train_panoptic, attention_maps=maps, attention_gain=1.0)
    assert with_mask_head(Detr(tiny_settings().detector, 3, mask_head=False), config).attention_maps == maps


def test_without_attention_maps_there_is_nothing_to_gain() -> None:
    with pytest.raises(ConfigError, match="attention_gain: expected 1 if attention_maps is none, found 64"):
        replace(tiny_settings().train_panoptic, attention_maps="none")


def test_the_mask_head_leaves_its_detector_as_it_was(trained: Trained) -> None:
    detector = load_checkpoint(trained.paths.detection / "checkpoint.pt", CPU).model.state_dict()
    panoptic = load_checkpoint(trained.paths.panoptic / "checkpoint.pt", CPU).model.state_dict()
    own = {name for name in panoptic if name.startswith(("bbox_attention.", "mask_head."))}
    assert panoptic.keys() - own == detector.keys()
    assert all(torch.equal(detector[name], panoptic[name]) for name in detector)


def test_what_two_processes_say_at_once_stays_whole_lines() -> None:
    code = "from detr_core.jobs.events import _say\nfor i in range(2000): _say(kind='message', text=str(i))"
    reading, writing = os.pipe()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}  # as torchrun's processes are started
    talkers = [subprocess.Popen([sys.executable, "-c", code], stdout=writing, cwd=ROOT, env=environment) for _ in range(2)]
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = sorted(int(json.loads(line.removeprefix("@"))["text"]) for line in stream)
    assert [talker.wait() for talker in talkers] == [0, 0]
    assert said == sorted([*range(2000)] * 2)
