"""The stage `check` in the modes strict and lenient, and the data that later stages read after it."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from detr_core.config import build
from detr_core.data.splits import DatasetError, read_dataset
from detr_core.directories import MARK
from detr_core.reporter import Silent
from flows import check, data
from flows.profile import stage_results
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from tests.check.datasets import write_whole
from tests.conftest import Trained, tiny_parameters


def profile(root: Path, mode: str) -> Profile:
    content = tiny_parameters()
    splits = {
        split: {
            "images": split,
            "instances": f"instances_{split}.json",
            "panoptic": f"panoptic_{split}.json",
            "panoptic_masks": f"panoptic_{split}",
        }
        for split in ("train", "val")
    }
    folder = {"root": str(root), "format": "coco", "val_share": None, **splits}
    content["data"] |= {"source": "folder", "scenes": None, "folder": folder}
    content["check"]["mode"] = mode
    return build(Profile, content, "x.yaml")


def test_generated_scenes_have_no_findings(trained: Trained) -> None:
    metrics = trained.metrics["check"]
    assert {name: value for name, value in metrics.items() if name.startswith("findings/") and value} == {}
    assert (metrics["train/images"], metrics["val/images"]) == (24, 6)
    assert {path.name for path in trained.paths.dataset.iterdir()} == {"dataset.json", "profile.json", "index", MARK}
    assert read_dataset(trained.paths.dataset) == read_dataset(trained.paths.data)


def test_strict_stops_with_the_findings_and_lenient_leaves_out(project: Path, tmp_path: Path) -> None:
    root, where = write_whole(tmp_path / "data"), Paths("broken")
    (root / "train" / "3.jpg").write_bytes(b"")
    settings = profile(root, "lenient")
    data.run(settings, where, Silent())
    metrics = check.run(settings, where, Silent())
    assert metrics == json.loads((where.check / "metrics.json").read_text())
    assert (metrics["findings/image_empty"], metrics["left_out/train/images"]) == (1, 1)
    assert [path.name for path in sorted((where.dataset / "annotations").iterdir())] == [
        f"{source}_{split}.json" for source in ("instances", "panoptic") for split in ("train", "val")
    ]
    page = (where.check / "index.html").read_text(encoding="utf-8")
    assert "an image file of 0 bytes" in page
    assert "Broken data is left out." in page
    assert "http://" not in page.replace("http://www.w3.org", "")

    with pytest.raises(DatasetError) as raised:
        check.run(profile(root, "strict"), where, Silent())
    message = "expected a dataset without broken entries, found 1 finding: an image file of 0 bytes"
    assert f"{message}; the first is in train, 3.jpg: 0 bytes" in str(raised.value)
    assert str(raised.value).startswith(f"{root}: expected"), "the dataset that the user knows"
    assert "See runs/broken/check/index.html; correct them, or set `check.mode: lenient` in" in str(raised.value)
    assert "The broken data must be corrected." in (where.check / "index.html").read_text(encoding="utf-8")
    with pytest.raises(DatasetError, match=r"there is no checked dataset of profile 'broken' yet; .*`python -m flows.check"):
        stage_results.dataset(where)


def test_lenient_is_not_advised_if_it_would_leave_nothing_to_learn_from(project: Path, tmp_path: Path) -> None:
    root, where = write_whole(tmp_path / "data"), Paths("same")
    for number in (1, 2, 3, 4):
        shutil.copy(root / "val" / f"{100 + number}.jpg", root / "train" / f"{number}.jpg")
    data.run(profile(root, "strict"), where, Silent())
    with pytest.raises(DatasetError) as raised:
        check.run(profile(root, "strict"), where, Silent())
    assert str(raised.value).endswith(
        "found 4 findings: a training image that is in val too; the first is in train, 1.jpg: the same as 101.jpg of val. See "
        "runs/same/check/index.html; correct them, because without them nothing is left to learn from in train; to validate on "
        "a share of the training images, set `val: null` and `val_share: 0.2` in `data.folder`"
    )
    page = (where.check / "index.html").read_text(encoding="utf-8")
    assert "must be corrected, because nothing would be left to learn from" in page
    assert "lenient" not in page
    with pytest.raises(DatasetError, match=rf"^{root}: train\.instances: there is nothing to learn from: 0 images, 0 crowds"):
        check.run(profile(root, "lenient"), where, Silent())


def test_the_page_shows_nothing_from_outside_of_the_folder(project: Path, tmp_path: Path) -> None:
    root, where = write_whole(tmp_path / "data"), Paths("linked")
    file, secret, pages = root / "train" / "3.jpg", tmp_path / "secret.jpg", []
    size = Image.open(file).size
    file.unlink()
    file.symlink_to(secret)
    settings = profile(root, "lenient")
    for color in ("red", "blue"):
        Image.new("RGB", size, color).save(secret)
        data.run(settings, where, Silent())
        assert check.run(settings, where, Silent())["findings/image_link"] == 1
        pages.append((where.check / "index.html").read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    assert f"a link to {secret}" in pages[0]


def test_the_terminal_shows_each_kind_once_with_its_first_example(project: Path, tmp_path: Path) -> None:
    root, where = write_whole(tmp_path / "data"), Paths("shown")
    for number in (102, 103):
        (root / "val" / f"{number}.jpg").unlink()
    settings = profile(root, "lenient")
    data.run(settings, where, Silent())
    check.run(settings, where, Silent())
    console = Console(file=io.StringIO(), width=140)
    findings = check.read_findings(where.check / "findings.json")
    console.print(check.findings_table(findings))
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert output.count("an image whose file is missing") == 1
    assert "102.jpg no such file" in output
    assert "no findings" not in output


def test_masks_are_not_trained_where_the_profile_has_none(trained: Trained, project: Path) -> None:
    from flows import train_panoptic

    content = tiny_parameters()
    content["train_panoptic"] = None
    for study in ("panoptic", "mask-head"):
        del content["studies"]["training"][study]
    settings, where = build(Profile, content, "x.yaml"), Paths("boxes")
    for stage in (data, check):
        stage.run(settings, where, Silent())
    assert train_panoptic.run(settings, where, Silent()) == {}
    assert {path.name for path in where.panoptic.iterdir()} == {"left-out.txt", MARK}
    assert (where.panoptic / "left-out.txt").read_text().startswith("no mask head is trained, because")
    assert settings.flat("train_panoptic") == {"train_panoptic": None}
