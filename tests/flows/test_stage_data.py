"""The data stage on a dataset that it does not generate: downloaded from an unreliable server, or read in place."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detr_core.config import ConfigError, build
from detr_core.data.annotation_cache import Mapped
from detr_core.data.annotation_reader import read_annotations
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import DatasetError, read_dataset
from detr_core.directories import MARK
from detr_core.reporter import Silent
from detr_core.sources.manifest import read_manifest
from flows import check, data
from flows.profile import paths
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from tests.conftest import Trained, tiny_parameters
from tests.flows.results import file_names
from tests.recording_reporter import RecordingReporter
from tests.unreliable_server import Site, serving

SPLIT = {"images": "images", "instances": "instances.json", "panoptic": None, "panoptic_masks": None}


def archive() -> bytes:
    picture, content = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (40, 30)).save(picture, "PNG")
    images = [{"id": number, "file_name": f"{number}.png", "height": 30, "width": 40} for number in range(4)]
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}
    annotations = [{"id": 1, **box, "iscrowd": 0}, {"id": 2, **box, "iscrowd": 1}]
    described = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("instances.json", json.dumps(described))
        for image in images:
            file.writestr(f"images/{image['file_name']}", picture.getvalue())
    return content.getvalue()


def profile(root: Path, download: dict[str, Any] | None) -> Profile:
    content = tiny_parameters()
    source = "folder" if download is None else "download"
    folder = {"root": str(root), "format": "coco", "train": SPLIT, "val": SPLIT, "val_share": None}
    content["data"] |= {"source": source, "scenes": None, "folder": folder, "download": download}
    return build(Profile, content, "tiny.yaml")


@pytest.mark.usefixtures("without_pauses")
def test_a_dataset_is_downloaded_once_and_can_be_read(project: Path, tmp_path: Path) -> None:
    content, reporter, where = archive(), RecordingReporter(), Paths("tiny-download")
    with serving(Site({"/tiny.zip": content}, cut_after=300, broken=1)) as site:
        one = {
            "url": f"{site.url}/tiny.zip",
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "inside": [],
        }
        settings = profile(tmp_path / "tiny", {"connections": 2, "keep_archives": False, "archives": [one]})
        assert data.run(settings, where, reporter) == {"train/images": 4, "val/images": 4}
        asked = len(site.asked)
        data.run(settings, where, reporter)
        assert len(site.asked) == asked
    assert len(CocoDataset(read_dataset(where.data)["train"], "instances", False, None, 0)) == 4
    known = read_manifest(where.data)
    assert known is not None
    assert known["root"] == str(tmp_path / "tiny")
    assert known["train"]["images"]["files"] == 4
    assert {path.name for path in where.data.iterdir()} == {"dataset.json", "manifest.json", "profile.json", MARK}
    metrics = check.run(settings, where, reporter)
    assert {name: value for name, value in metrics.items() if name.startswith("untrained/") and value} == {
        f"untrained/{split}/instances/crowds": 1 for split in ("train", "val")
    }
    assert isinstance(read_annotations(read_dataset(where.dataset)["train"], "instances", False), Mapped)


def test_a_folder_that_dvc_does_not_watch_is_refused(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    where = Paths("tiny-watched")
    for folder in (where.profile, "tiny"):
        (tmp_path / folder).mkdir()
    where.source.symlink_to("data/other")
    with pytest.raises(ConfigError, match=r"watched/source: expected a link to .*, found 'data/other'"):
        data.run(profile(tmp_path / "tiny", None), where, Silent())
    assert not where.data.exists()
    where.source.unlink()
    where.source.symlink_to(tmp_path / "tiny")
    with pytest.raises(DatasetError, match="found no such file"):  # of the dataset, which is read now
        data.run(profile(tmp_path / "tiny", None), where, Silent())


def test_a_folder_that_is_no_dataset_leaves_nothing(trained: Trained) -> None:
    where = Paths("tiny-nowhere")
    with pytest.raises(DatasetError, match=r"data\.folder\.root of .*: expected a folder, found none at .*no/such"):
        data.run(profile(Path("no/such"), None), where, Silent())
    data_folders = where.data.parent
    assert file_names(data_folders) == {path.name for path in data_folders.iterdir() if not path.name.startswith(".")}
    assert not where.data.exists()
