"""A user's commands with checkpoints of any origin: prediction, evaluation, fine-tuning and export."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from detr_core.checksums import digest
from detr_core.config import ConfigError, as_dict
from detr_core.data.config import AugmentationConfig, ResizeConfig, SplitConfig
from detr_core.data.splits import DatasetError, write_dataset
from detr_core.distributed import ProcessContext
from detr_core.jobs.training import Job
from detr_core.model.checkpoint import CheckpointError, export_checkpoint, load_checkpoint, save_checkpoint
from detr_core.model.deformable.config import DeformableConfig
from detr_core.model.detr.config import DetrConfig
from detr_core.model.detr.model import Detr
from detr_core.reporter import Memory, Silent
from detr_core.sources.scenes import generate_scenes
from detr_core.structures import Category
from detr_core.train.config import InitConfig
from flows import check, evaluate, export, predict, train_detection, train_panoptic
from flows.profile import artifacts, checkpoints
from flows.profile.paths import Paths
from tests.conftest import Trained, copy_data, tiny_settings
from tests.flows.test_real_data import REAL, needs_real_data
from tests.jobs.training_process import carry_out
from tests.kinds import DEFORMABLE
from tests.model import test_deformable_published as deformable
from tests.model.test_published import TINY, arguments, published
from tests.tiny_detector import SCENES

CPU = torch.device("cpu")
ALONE = ProcessContext(rank=0, size=1, device=CPU)
SMALL = ["--short", "64", "--longest", "107"]


@pytest.fixture(scope="module")
def published_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the file of a small detector in the published format, whose scores are near 0 or 1."""
    return write(tmp_path_factory.mktemp("published") / "detector.pth", mask_head=False)


@pytest.fixture(scope="module")
def published_panoptic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the file of a small detector with a mask head in the published format."""
    return write(tmp_path_factory.mktemp("published") / "panoptic.pth", mask_head=True)


def weights(mask_head: bool) -> dict[str, torch.Tensor]:
    state = published(classes=250 if mask_head else 91, mask_head=mask_head)
    return {name: 12 * value if "class_embed" in name else value for name, value in state.items()}


def write(file: Path, mask_head: bool) -> Path:
    torch.save({"model": weights(mask_head), "args": arguments()}, file)
    return file


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a colour picture, a grey one, a rotated one, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "colour.png")
    Image.fromarray(noise[..., 0]).save(folder / "grey.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise).save(folder / "turned.jpg", exif=turned)
    (folder / "notes.txt").write_text("no image")
    return folder


def command(module: Any, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words)])
    module.main()


def well_formed(content: dict[str, Any], mask_head: bool) -> None:
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    known = {category["id"] for category in content["categories"]}
    assert not any("unused" in category["name"] for category in content["categories"])
    assert content["annotations"]
    assert [entry["id"] for entry in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    for entry in content["annotations"]:
        assert entry["category_id"] in known
        assert entry["score"] >= 0.5
        assert len(entry["bbox"]) == 4
        assert ("segmentation" in entry) == mask_head
        if mask_head:
            assert rle.decode(entry["segmentation"]).shape == sizes[entry["image_id"]]


@pytest.mark.parametrize("mask_head", [False, True])
def test_predictions_of_a_folder(
    request: pytest.FixtureRequest,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mask_head: bool,
) -> None:
    checkpoint = request.getfixturevalue("published_panoptic" if mask_head else "published_file")
    out = tmp_path / "out"
    command(predict, monkeypatch, "--checkpoint", checkpoint, "--images", images, "--out", out, "--threshold", 0.5, *SMALL)
    content = json.loads((out / "predictions.json").read_text())
    message = f"{len(content['annotations'])} detections in 3 images with a score of at least 0.5 (--threshold); "
    assert f"{message}the folder {out} has the results" in capsys.readouterr().out
    assert [image["file_name"] for image in content["images"]] == ["colour.png", "grey.jpg", "turned.jpg"]
    assert [(image["height"], image["width"]) for image in content["images"]] == [(60, 90), (60, 90), (90, 60)]
    assert len(content["categories"]) == (133 if mask_head else 80)
    well_formed(content, mask_head)
    assert sorted(path.name for path in (out / "pictures").iterdir()) == ["0001_colour.jpg", "0002_grey.jpg", "0003_turned.jpg"]
    assert ("panoptic" in content) == mask_head
    for entry in content.get("panoptic", []):
        height, width = next((i["height"], i["width"]) for i in content["images"] if i["id"] == entry["image_id"])
        assert Image.open(out / "panoptic" / entry["file_name"]).size == (width, height)


@pytest.mark.parametrize("config", [deformable.TINY, deformable.TWO_STAGE], ids=["plain", "two-stage"])
def test_a_published_deformable_detr_predicts_and_is_fine_tuned(
    config: DeformableConfig, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = deformable.published(config)
    state |= {
        name: torch.zeros_like(state[name]) for name in state if re.search(r"class_embed\.\d+\.bias", name)
    }  # scores near 0.5
    file, out = tmp_path / "deformable.pth", tmp_path / "out"
    torch.save({"model": state, "args": arguments(num_queries=config.queries)}, file)
    command(predict, monkeypatch, "--checkpoint", file, "--images", images, "--out", out, "--threshold", 0.5, *SMALL)
    content = json.loads((out / "predictions.json").read_text())
    assert len(content["categories"]) == 80
    well_formed(content, mask_head=False)

    generate_scenes(replace(SCENES, train=4), 0, tmp_path / "data", 1, Silent())
    plain = fine_tuning(tmp_path / "data", tmp_path / "tuned", file)
    recipe = {name: DEFORMABLE[name] for name in ("loss", "optimizer")}
    reporter = Memory()
    carry_out(replace(plain, config=plain.config | recipe, detector=as_dict(config)), ALONE, reporter)
    assert any("all other weights come from the checkpoint, which had 80" in message for message in reporter.messages)
    assert load_checkpoint(tmp_path / "tuned" / "out" / "checkpoint.pt", CPU).model.config == config


def test_the_threshold_only_filters(published_panoptic: Path, images: Path, tmp_path: Path) -> None:
    trained = load_checkpoint(published_panoptic, CPU)
    config = predict.evaluation(trained, 64, 107)
    files = predict.found_images(str(images / "*.jpg"))
    everything = predict.run(trained, files, 0.0, config, tmp_path / "all", Silent())["annotations"]
    threshold = sorted(entry["score"] for entry in everything)[len(everything) // 2]
    sure = predict.run(trained, files, threshold, config, tmp_path / "sure", Silent())["annotations"]
    expected = [entry for entry in everything if entry["score"] >= threshold]
    assert threshold > 0.5
    assert 0 < len(sure) < len(everything)
    assert [entry | {"id": 0} for entry in sure] == [entry | {"id": 0} for entry in expected]


def test_our_own_checkpoint_gives_what_its_evaluation_gave(trained: Trained, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(trained.paths.panoptic / "checkpoint.pt", CPU)
    files = predict.found_images(str(artifacts.dataset(trained.paths)["val"].images))
    content = predict.run(checkpoint, files, 0.05, trained.settings.evaluate, tmp_path / "out", Silent())
    assert len(content["images"]) == 6
    evaluated = json.loads((trained.paths.evaluation / "bbox.json").read_text())
    assert len(content["annotations"]) == sum(entry["score"] >= 0.05 for entry in evaluated)


def test_the_size_is_the_profiles(published_file: Path) -> None:
    checkpoint = load_checkpoint(published_file, CPU)
    assert predict.evaluation(checkpoint, None, None).resize == ResizeConfig((800,), 1333)
    assert predict.evaluation(replace(checkpoint, meta={"profile": "demo"}), None, None).resize is None
    assert predict.evaluation(replace(checkpoint, meta={"profile": "gone"}), 64, 107).resize == ResizeConfig((64,), 107)
    with pytest.raises(ConfigError, match=r"--short, --longest: expected both or neither, found \[64, None\]"):
        predict.evaluation(checkpoint, 64, None)


def test_what_can_not_be_predicted(
    published_file: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DatasetError, match=r"--images .*nowhere: expected an image, a folder of images or a glob"):
        predict.found_images(str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match=r"error: --out .*: expected a new or an empty folder, found a file or a folder"):
        command(predict, monkeypatch, "--checkpoint", published_file, "--images", images, "--out", images)
    with pytest.raises(SystemExit, match=r"error: .*notes.txt: expected an image"):
        command(predict, monkeypatch, "--checkpoint", published_file, "--images", images / "notes.txt", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit, match=r"error: .*nothing.pth: expected a file, found none"):
        command(predict, monkeypatch, "--checkpoint", tmp_path / "nothing.pth", "--images", images, "--out", tmp_path / "out")
    rest = ("--images", images, "--out", tmp_path / "out")
    with pytest.raises(SystemExit, match=r"error: .*expected a file with sha256 0{64}, found one with"):
        command(predict, monkeypatch, "--checkpoint", published_file, "--sha256", "0" * 64, *rest)
    with pytest.raises(SystemExit, match=r"https://example.invalid/a.pth: expected the sha256"):
        command(predict, monkeypatch, "--checkpoint", "https://example.invalid/a.pth", *rest)


def test_an_export_is_the_published_file_again(published_panoptic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(export, monkeypatch, "--checkpoint", published_panoptic, "--out", tmp_path / "again.pth")
    ours, theirs = torch.load(tmp_path / "again.pth", weights_only=True)["model"], weights(mask_head=True)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@needs_real_data
@pytest.mark.parametrize("mask_head", [False, True])
def test_published_weights_on_coco_itself(
    request: pytest.FixtureRequest, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask_head: bool
) -> None:
    checkpoint = request.getfixturevalue("published_panoptic" if mask_head else "published_file")
    where, settings = Paths("coco-real"), tiny_settings()
    shutil.rmtree(where.data, ignore_errors=True)
    where.data.mkdir(parents=True)
    split = SplitConfig("images", "instances.json", "panoptic.json", "panoptic")
    write_dataset(where.data, REAL / "coco_panoptic", split, split)
    artifacts.claim(where.data, where.profile)
    check.run(settings, where, Silent())
    settings = replace(settings, evaluate=replace(settings.evaluate, resize=ResizeConfig((64,), 107)))
    monkeypatch.setattr(evaluate, "load", lambda _: settings)
    words = ("--profile", where.profile, "--checkpoint", checkpoint, "--out", tmp_path / "out")
    command(evaluate, monkeypatch, *words)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 <= metrics["val/AP"] <= 1
    assert ("val/PQ" in metrics) == ("val/mask/AP" in metrics) == mask_head
    results = json.loads((tmp_path / "out" / "bbox.json").read_text())
    coco = {category["id"] for category in json.loads((REAL / "coco_panoptic" / "instances.json").read_text())["categories"]}
    assert {entry["category_id"] for entry in results} <= coco
    assert not where.evaluation.exists(), "the profile's own evaluation is another"


@needs_real_data
def test_predictions_of_real_images(published_file: Path, tmp_path: Path) -> None:
    files = predict.found_images(str(REAL / "coco_panoptic" / "images"))
    grey = [file for file in files if Image.open(file).mode == "L"]
    assert grey, "some of COCO is greyscale"
    trained = load_checkpoint(published_file, CPU)
    content = predict.run(trained, files[:3] + grey[:1], 0.5, predict.evaluation(trained, 64, 107), tmp_path / "out", Silent())
    well_formed(content, mask_head=False)
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 4


def fine_tuning(data: Path, folder: Path, checkpoint: Path, detector: DetrConfig = TINY) -> Job:
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
    return Job("detection", as_dict(config), as_dict(detector), str(checkpoint), str(data), work, out, 0, "tiny")


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
def test_fine_tuning_to_ones_own_classes(published_panoptic: Path, blood_cells: Path, tmp_path: Path) -> None:
    reporter = Memory()
    job = fine_tuning(blood_cells, tmp_path / "tuned", published_panoptic)
    progress = carry_out(job, ALONE, reporter)
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
    files = predict.found_images(str(REAL / "bccd" / "images"))[:2]
    content = predict.run(exported, files, 0.0, predict.evaluation(exported, 64, 107), tmp_path / "predicted", Silent())
    assert {category["name"] for category in content["categories"]} == {"RBC", "WBC", "Platelets"}


@needs_real_data
def test_fine_tuning_a_panoptic_checkpoint_keeps_its_mask_head(published_panoptic: Path, tmp_path: Path) -> None:
    split = SplitConfig("images", "instances.json", "panoptic.json", "panoptic")
    write_dataset(tmp_path, REAL / "coco_panoptic", split, split)
    job = fine_tuning(tmp_path, tmp_path / "tuned", published_panoptic)
    detection = replace(job, config=job.config | {"targets": "panoptic"})
    carry_out(detection, ALONE, Silent())
    common = set(detection.config) & set(as_dict(tiny_settings().train_panoptic)) - {"loss", "optimizer", "seed"}
    masks = as_dict(tiny_settings().train_panoptic) | {name: detection.config[name] for name in common} | {"attention_gain": 1}
    tuned, reporter = str(tmp_path / "tuned" / "out" / "checkpoint.pt"), Memory()
    work, out = str(tmp_path / "work"), str(tmp_path / "out")
    config = masks | {"optimizer": masks["optimizer"] | {"lr": 1e-6}}
    of_masks = Job("panoptic", config, None, tuned, str(tmp_path), work, out, 0, "tiny", str(published_panoptic))
    carry_out(of_masks, ALONE, reporter)
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
    reporter, source = Memory(), load_checkpoint(published_file, CPU)
    job = fine_tuning(tmp_path, tmp_path / "tuned", published_file)
    carry_out(job, ALONE, reporter)
    assert reporter.messages == ["all weights come from the checkpoint; the class head keeps its 80 classes"]
    tuned = load_checkpoint(tmp_path / "tuned" / "out" / "checkpoint.pt", CPU)
    rows = [category.id for category in tuned.categories] + [91]
    assert len(rows) == 81
    torch.testing.assert_close(tuned.model.class_embed.weight, source.model.class_embed.weight[rows], rtol=0, atol=2e-3)


@needs_real_data
def test_another_detector_is_refused(published_file: Path, blood_cells: Path, tmp_path: Path) -> None:
    other = replace(TINY, width=64, queries=20, dropout=0.0)
    with pytest.raises(ConfigError) as error:
        carry_out(fine_tuning(blood_cells, tmp_path, published_file, other), ALONE, Silent())
    assert str(error.value) == (
        "detector.queries: expected 7, the value of the checkpoint of init, found 20; "
        "detector.width: expected 32, the value of the checkpoint of init, found 64"
    )


def test_an_initial_checkpoint_is_checked(published_file: Path) -> None:
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
    reporter = Memory()
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
    config, reporter = replace(settings, init=init, attention_gain=1, steps=1, optimizer=slow), Memory()
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
