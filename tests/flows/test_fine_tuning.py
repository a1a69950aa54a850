"""Trainings that start from a checkpoint of any origin."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detr_core.checksums import digest
from detr_core.config import ConfigError, as_dict
from detr_core.data.config import AugmentationConfig, ResizeConfig, SplitConfig
from detr_core.data.splits import write_dataset
from detr_core.distributed import ProcessContext
from detr_core.jobs.training import TrainingJob
from detr_core.model.checkpoint import CheckpointError, export_checkpoint, load_checkpoint, save_checkpoint
from detr_core.model.detr.config import DetrConfig
from detr_core.model.detr.model import Detr
from detr_core.reporter import Silent
from detr_core.structures import Category
from detr_core.train.config import InitConfig
from flows import predict, train_detection, train_panoptic
from flows.profile import checkpoints
from flows.profile.paths import Paths
from tests.conftest import Trained, copy_data, tiny_settings
from tests.jobs.training_process import carry_out
from tests.published_checkpoints import TINY
from tests.real_data import REAL, needs_real_data
from tests.recording_reporter import RecordingReporter

CPU = torch.device("cpu")


def fine_tuning(data: Path, folder: Path, checkpoint: Path, detector: DetrConfig = TINY) -> TrainingJob:
    settings = tiny_settings()
    resize = ResizeConfig((64,), 107)
    config = replace(
        settings.train_detection,
        init=InitConfig(str(checkpoint), digest(checkpoint)),
        targets="instances",
        epochs=1,
        steps=1,
        batch_size=2,
        resize=resize,
        augmentation=AugmentationConfig(0.5, None, resize),
    )
    config = replace(config, schedule=replace(config.schedule, warmup_steps=0))
    work, out = str(folder / "work"), str(folder / "out")
    return TrainingJob("detection", as_dict(config), as_dict(detector), str(checkpoint), str(data), work, out, 0, "tiny")


@pytest.fixture
def blood_cells(tmp_path: Path) -> Path:
    """Returns a dataset of the training images of BCCD and five of its val images."""
    content = json.loads((REAL / "bccd" / "instances_val.json").read_text())
    content["images"] = content["images"][:5]
    image_ids = {image["id"] for image in content["images"]}
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in image_ids]
    root = tmp_path / "bccd"
    root.mkdir()
    (root / "images").symlink_to(REAL / "bccd" / "images")
    (root / "val.json").write_text(json.dumps(content))
    shutil.copy(REAL / "bccd" / "instances_train.json", root / "train.json")
    write_dataset(root, root, SplitConfig("images", "train.json", None, None), SplitConfig("images", "val.json", None, None))
    return root


@needs_real_data
def test_fine_tuning_to_own_classes_replaces_only_the_class_head(
    published_panoptic: Path, blood_cells: Path, tmp_path: Path
) -> None:
    reporter = RecordingReporter()
    job = fine_tuning(blood_cells, tmp_path / "tuned", published_panoptic)
    progress = carry_out(job, ProcessContext(rank=0, size=1, device=CPU), reporter)
    [message] = reporter.messages
    assert message == "the class head is new, for 3 classes; all other weights come from the checkpoint, which had 133"
    assert progress.step == 1
    tuned, source = load_checkpoint(tmp_path / "tuned" / "out" / "checkpoint.pt", CPU), load_checkpoint(published_panoptic, CPU)
    assert [category.name for category in tuned.categories] == ["RBC", "WBC", "Platelets"]
    assert tuned.model.class_embed.weight.shape == (4, TINY.width)
    theirs = source.model.state_dict()
    for name, value in tuned.model.state_dict().items():
        if not name.startswith("class_embed."):  # one step of AdamW moves a weight by about the learning rate
            torch.testing.assert_close(value, theirs[name], rtol=0, atol=2e-3)
    # The whole way round: exported, loaded again, predicted with.
    export_checkpoint(tuned, tmp_path / "exported.pth")
    exported = load_checkpoint(tmp_path / "exported.pth", CPU)
    assert exported.categories == tuned.categories
    files = predict.images_at(str(REAL / "bccd" / "images"))[:2]
    content = predict.run(exported, files, 0.0, predict.evaluation(exported, 64, 107), tmp_path / "predicted", Silent())
    assert {category["name"] for category in content["categories"]} == {"RBC", "WBC", "Platelets"}


@needs_real_data
def test_fine_tuning_a_panoptic_checkpoint_keeps_its_mask_head(published_panoptic: Path, tmp_path: Path) -> None:
    split = SplitConfig("images", "instances.json", "panoptic.json", "panoptic")
    write_dataset(tmp_path, REAL / "coco_panoptic", split, split)
    job = fine_tuning(tmp_path, tmp_path / "tuned", published_panoptic)
    detection = replace(job, config=job.config | {"targets": "panoptic"})
    carry_out(detection, ProcessContext(rank=0, size=1, device=CPU), Silent())
    common = set(detection.config) & set(as_dict(tiny_settings().train_panoptic)) - {"loss", "optimizer", "seed"}
    masks = as_dict(tiny_settings().train_panoptic) | {name: detection.config[name] for name in common} | {"attention_gain": 1}
    tuned, reporter = str(tmp_path / "tuned" / "out" / "checkpoint.pt"), RecordingReporter()
    work, out = str(tmp_path / "work"), str(tmp_path / "out")
    config = masks | {"optimizer": masks["optimizer"] | {"lr": 1e-6}}
    of_masks = TrainingJob("panoptic", config, None, tuned, str(tmp_path), work, out, 0, "tiny", str(published_panoptic))
    carry_out(of_masks, ProcessContext(rank=0, size=1, device=CPU), reporter)
    assert reporter.messages == ["all 32 weights of the mask head come from the checkpoint"]
    source = load_checkpoint(published_panoptic, CPU).model.state_dict()
    detector = load_checkpoint(Path(tuned), CPU).model.state_dict()
    for name, value in load_checkpoint(tmp_path / "out" / "checkpoint.pt", CPU).model.state_dict().items():
        if name in detector:
            assert torch.equal(value, detector[name]), name
        else:  # one step of AdamW moves a weight by the learning rate
            torch.testing.assert_close(value, source[name], rtol=0, atol=2e-6)


@needs_real_data
def test_the_class_head_stays_with_the_same_classes(published_file: Path, tmp_path: Path) -> None:
    split = SplitConfig("images", "instances.json", None, None)
    write_dataset(tmp_path, REAL / "coco_instances", split, split)
    reporter, source = RecordingReporter(), load_checkpoint(published_file, CPU)
    job = fine_tuning(tmp_path, tmp_path / "tuned", published_file)
    carry_out(job, ProcessContext(rank=0, size=1, device=CPU), reporter)
    assert reporter.messages == ["all weights come from the checkpoint; the class head keeps its 80 classes"]
    tuned = load_checkpoint(tmp_path / "tuned" / "out" / "checkpoint.pt", CPU)
    rows = [category.id for category in tuned.categories] + [91]
    assert len(rows) == 81
    torch.testing.assert_close(tuned.model.class_embed.weight, source.model.class_embed.weight[rows], rtol=0, atol=2e-3)


@needs_real_data
def test_another_detector_is_refused(published_file: Path, blood_cells: Path, tmp_path: Path) -> None:
    other = replace(TINY, width=64, queries=20, dropout=0.0)
    with pytest.raises(ConfigError) as error:
        carry_out(fine_tuning(blood_cells, tmp_path, published_file, other), ProcessContext(rank=0, size=1, device=CPU), Silent())
    assert str(error.value) == (
        "detector.queries: expected 7, the value of the checkpoint of init, found 20; "
        "detector.width: expected 32, the value of the checkpoint of init, found 64; "
        "give the section `detector` the checkpoint's architecture, as `flows.adopt` does"
    )


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "a file, or a folder of Hugging Face's with model.safetensors or pytorch_model.bin, found a folder without them"),
        ("x" * 300, "a file, found none"),
        ("a.pth/b", "a file, found none"),
    ],
)
def test_a_path_that_is_no_file_is_refused(path: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").touch()
    with pytest.raises(CheckpointError, match=f"expected {problem}"):
        checkpoints.local_file(str(tmp_path / path), None)


def test_a_folder_of_hugging_faces_stands_for_its_weights(tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "model.safetensors"):
        (tmp_path / name).touch()
        assert checkpoints.local_file(str(tmp_path), None) == tmp_path / name


def test_an_initial_checkpoint_with_another_checksum_or_an_invalid_address_is_refused(published_file: Path) -> None:
    assert checkpoints.local_file(str(published_file), digest(published_file)) == published_file
    with pytest.raises(CheckpointError, match="expected a file with sha256"):
        checkpoints.local_file(str(published_file), "0" * 64)
    with pytest.raises(CheckpointError, match="expected an https address"):
        checkpoints.local_file("ftp://127.0.0.1/a.pth", "0" * 64)
    with pytest.raises(ConfigError, match="sha256: expected the checksum of the file at the address, found None"):
        InitConfig("https://example.invalid/a.pth", None)
    with pytest.raises(ConfigError, match="sha256: expected 64 lower-case hexadecimal digits, or null, found 'abc'"):
        InitConfig("a.pth", "abc")


@pytest.mark.usefixtures("trains_here")
def test_the_training_stage_starts_from_a_checkpoint(trained: Trained) -> None:
    where, init = Paths("tiny-tuned"), trained.paths.detection / "best.pt"
    copy_data(trained.paths, where)
    config = replace(trained.settings.train_detection, init=InitConfig(str(init), digest(init)), steps=1)
    reporter = RecordingReporter()
    train_detection.run(replace(trained.settings, train_detection=config), where, reporter)
    classes = len(load_checkpoint(init, CPU).categories)
    assert f"all weights come from the checkpoint; the class head keeps its {classes} classes" in reporter.messages
    assert load_checkpoint(where.detection / "checkpoint.pt", CPU).meta["profile"] == "tiny-tuned"


@pytest.mark.usefixtures("trains_here")
def test_the_mask_stage_starts_from_a_checkpoint_of_other_classes(trained: Trained, tmp_path: Path) -> None:
    where = Paths("tiny-masks")
    copy_data(trained.paths, where)
    content = torch.load(trained.paths.detection / "checkpoint.pt", weights_only=True)
    where.detection.mkdir(parents=True)
    torch.save(content | {"meta": content["meta"] | {"profile": where.profile}}, where.detection / "checkpoint.pt")
    torch.manual_seed(5)
    other, classes = Detr(trained.settings.detector, 2, mask_head=True), (Category(1, "cell", True), Category(2, "glass", False))
    save_checkpoint(tmp_path / "other.pt", other, classes, {})

    init, settings = InitConfig(str(tmp_path / "other.pt"), digest(tmp_path / "other.pt")), trained.settings.train_panoptic
    slow = replace(settings.optimizer, lr=1e-6)
    with pytest.raises(ConfigError, match="attention_gain: expected 1 if init provides the weights, found 64"):
        replace(settings, init=init)
    config, reporter = replace(settings, init=init, attention_gain=1, steps=1, optimizer=slow), RecordingReporter()
    train_panoptic.run(replace(trained.settings, train_panoptic=config), where, reporter)
    assert "all 32 weights of the mask head come from the checkpoint" in reporter.messages
    state = load_checkpoint(where.panoptic / "checkpoint.pt", CPU).model.state_dict()
    for name, value in state.items():
        if name in content["model"]:
            assert torch.equal(value, content["model"][name]), name
        else:
            torch.testing.assert_close(value, other.state_dict()[name], rtol=0, atol=2e-6)

    shutil.rmtree(where.panoptic)
    bare = replace(config, init=InitConfig(str(trained.paths.detection / "checkpoint.pt"), None))
    for stage in (train_detection, train_panoptic):  # the detector's stage too, before it trains for nothing
        with pytest.raises(ConfigError, match=r"a checkpoint with a mask head, found no weight of bbox_attention\.q_linear"):
            stage.run(replace(trained.settings, train_panoptic=bare), where, Silent())
    missing = replace(config, init=InitConfig("no/such.pt", None))
    with pytest.raises(CheckpointError, match=r"no/such\.pt: expected a file, found none"):
        train_panoptic.run(replace(trained.settings, train_panoptic=missing), where, Silent())
    assert not where.panoptic.exists()
