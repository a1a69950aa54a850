"""The stages with data without objects, images of more than 8 bits per value, and unusual class names."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from detr_core.check.statistics import Statistics
from detr_core.config import as_dict, build
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import DatasetError, read_dataset
from detr_core.distributed import ProcessContext
from detr_core.jobs.training import TrainingJob
from detr_core.model.checkpoint import load_checkpoint
from detr_core.reporter import Silent
from flows import check, data, predict
from flows.new_profile.summary import summary_table
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from tests.conftest import tiny_parameters
from tests.jobs.training_process import carry_out

ALONE = ProcessContext(rank=0, size=1, device=torch.device("cpu"))


def profile(root: Path, mode: str) -> Profile:
    content = tiny_parameters()
    parts = {
        split: {"images": "images", "instances": f"instances_{split}.json", "panoptic": None, "panoptic_masks": None}
        for split in ("train", "val")
    }
    content["data"] |= {
        "source": "folder",
        "scenes": None,
        "folder": {"root": str(root), "format": "coco", "val_share": None, **parts},
    }
    content["check"]["mode"] = mode
    content["train_detection"] |= {"targets": "instances", "steps": 1}
    content["train_panoptic"] = None
    content["studies"]["training"].pop("panoptic", None)
    return build(Profile, content, "x.yaml")


def checked(root: Path, name: str, mode: str = "strict") -> tuple[Profile, Paths, dict[str, float]]:
    settings, where = profile(root, mode), Paths(name)
    data.run(settings, where, Silent())
    return settings, where, check.run(settings, where, Silent())


def trained(settings: Profile, dataset: Path, folder: Path) -> Path:
    config, detector = as_dict(settings.train_detection), as_dict(settings.detector)
    job = TrainingJob("detection", config, detector, None, str(dataset), str(folder / "work"), str(folder / "out"), 0, "tiny")
    carry_out(job, ALONE, Silent())
    return folder / "out" / "checkpoint.pt"


def emptied(field: Path, target: Path, split: str) -> Path:
    """Returns a copy of the plain dataset without the annotations of one split."""
    shutil.copytree(field / "00-plain" / "set", target)
    file = target / f"instances_{split}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    return target


@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_a_set_of_crowds_stops_the_check(field: Path, project: Path, mode: str) -> None:
    message = r"train\.instances: there is nothing to learn from: 24 images, 48 crowds, no other object"
    with pytest.raises(DatasetError, match=message):
        checked(field / "10-all-crowds" / "set", "crowds", mode)
    where = Paths("crowds")
    metrics = json.loads((where.check / "metrics.json").read_text())
    assert [metrics[f"{split}/{name}"] for split in ("train", "val") for name in ("objects", "crowds")] == [0, 48, 0, 17]
    assert metrics["findings/nothing_to_learn"] == 2
    assert not where.dataset.exists()
    assert "without any object to learn from" in (where.check / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_split_without_objects_stops_the_check_and_the_training(
    field: Path, project: Path, tmp_path: Path, split: str
) -> None:
    root = emptied(field, tmp_path / "set", split)
    with pytest.raises(DatasetError, match=rf"{split}\.instances: there is nothing to learn from"):
        checked(root, f"empty-{split}", "lenient")
    with pytest.raises(DatasetError, match=rf"{split} split, .*instances_{split}\.json: nothing to learn from: .*\(0 crowds"):
        trained(profile(root, "lenient"), Paths(f"empty-{split}").data, tmp_path)
    assert not (tmp_path / "out").exists()


def test_what_lenient_leaves_of_a_split_has_to_hold_an_object(field: Path, project: Path, tmp_path: Path) -> None:
    root = shutil.copytree(field / "00-plain" / "set", tmp_path / "set")
    for number in range(25, 32):
        (root / "images" / f"img{number:03d}.jpg").unlink()
    file = root / "instances_val.json"
    content = json.loads(file.read_text())
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 32]
    file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"val\.instances: there is nothing to learn from: 1 image, 0 crowds, no other object"):
        checked(root, "left", "lenient")


def test_twelve_bits_are_scaled_by_the_range_of_the_set_wherever_they_are_read(
    field: Path, project: Path, tmp_path: Path
) -> None:
    root = field / "13-twelve-bits" / "set"
    settings, where, metrics = checked(root, "twelve")
    assert metrics["findings/image_deep"] == 32
    assert metrics["findings/image_constant"] == 0
    split = read_dataset(where.dataset)["val"]
    assert split.value_ranges is not None
    low, high = split.value_ranges["16-bit"]
    assert 0 <= low < high <= 4095
    image = CocoDataset(split, "instances", False, None, 0)[0].image
    assert image.min() < 40
    assert image.max() > 200
    checkpoint = load_checkpoint(trained(settings, where.dataset, tmp_path), ALONE.device)
    assert checkpoint.value_ranges == split.value_ranges
    (tmp_path / "predictions").mkdir()
    images = [root / "images" / "img025.tif"]
    dark = load_checkpoint(tmp_path / "out" / "checkpoint.pt", ALONE.device)
    dark.meta["value_ranges"] = {"16-bit": [0, 65535]}
    scores = [
        [entry["score"] for entry in predict.run(used, images, 0, settings.evaluate, tmp_path / name, Silent())["annotations"]]
        for name, used in (("predictions", checkpoint), ("dark", dark))
    ]
    assert scores[0]
    assert scores[0] != scores[1], "prediction scales by the checkpoint's range"


def test_eight_bit_checkpoints_and_datasets_say_nothing_of_ranges(field: Path, project: Path, tmp_path: Path) -> None:
    root = shutil.copytree(field / "17-unused-name" / "set", tmp_path / "set")
    settings, where, _ = checked(root, "unused")
    assert read_dataset(where.dataset)["train"].value_ranges is None
    checkpoint = load_checkpoint(trained(settings, where.dataset, tmp_path), ALONE.device)
    assert "value_ranges" not in checkpoint.meta
    (tmp_path / "predictions").mkdir()
    predictions = predict.run(
        checkpoint, [root / "images" / "img025.jpg"], 0, settings.evaluate, tmp_path / "predictions", Silent()
    )
    assert [entry["name"] for entry in predictions["categories"]] == ["unused space", "used space"]
    with torch.no_grad():
        checkpoint.model.class_embed.bias[:] = torch.tensor([9.0, 0, 0])  # type: ignore[union-attr, index]
    (tmp_path / "again").mkdir()
    predictions = predict.run(checkpoint, [root / "images" / "img025.jpg"], 0, settings.evaluate, tmp_path / "again", Silent())
    assert {entry["category_id"] for entry in predictions["annotations"]} == {1}


def test_two_categories_of_one_name_are_reported(field: Path, project: Path) -> None:
    _, _, metrics = checked(field / "12-one-name-twice" / "set", "twice")
    assert metrics["findings/category_repeated"] == 2


def test_adopt_states_crowds_deep_pixels_and_names_that_look_like_markup() -> None:
    content: dict[str, Any] = tiny_parameters()
    content["evaluate"]["resize"] = {"short": [1], "longest": 1}
    statistics = {"train": Statistics({"[/b]": 0}, crowds=48), "val": Statistics({"[/b]": 0})}
    console = Console(file=io.StringIO(), width=140)
    console.print(summary_table("x", content, statistics, "16-bit"))
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "0 objects, 48 crowds (ignored by trainings); there is nothing to learn from" in output
    assert "[/b]" in output
    assert "16-bit values" in output
