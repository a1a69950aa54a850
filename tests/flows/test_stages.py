"""Each stage's `run` on a tiny profile: the files that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detr_core.config import build
from detr_core.reporter import Silent
from flows import check, data, evaluate
from flows.profile import stage_results
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from tests.conftest import Trained, tiny_parameters, tiny_settings
from tests.flows.results import content_of, file_names

FOLDER = {"format": "coco", "val_share": None}


def test_data_is_a_dataset_in_coco_layout(trained: Trained) -> None:
    assert trained.metrics["data"] == {"train/images": 24.0, "val/images": 6.0}
    splits = stage_results.dataset(trained.paths)
    assert {split.name for split in splits.values()} == {"train", "val"}
    assert len(list(splits["train"].images.iterdir())) == 24


@pytest.mark.parametrize("stage", ["detection", "panoptic"])
def test_training_leaves_checkpoints_and_their_history(trained: Trained, stage: str) -> None:
    folder: Path = getattr(trained.paths, stage)
    assert file_names(folder) == {"checkpoint.pt", "best.pt", "metrics.json", "history.jsonl"}
    metrics = trained.metrics[f"train_{stage}"]
    assert content_of(folder / "metrics.json") == metrics
    assert metrics["train/loss"] > 0
    reporter = trained.reporters[f"train_{stage}"]
    assert reporter.last_progress == (3, 3), "24 images in batches of 8"
    assert "train/loss" in reporter.history[0][1]
    loaded = stage_results.checkpoint(folder / "checkpoint.pt", "tiny", torch.device("cpu"))
    assert loaded.meta["stage"] == stage
    assert loaded.model.has_mask_head == (stage == "panoptic")
    assert not trained.paths.unfinished(f"train_{stage}").exists(), "nothing is left to resume"


def test_evaluation_measures_boxes_masks_and_panoptic_quality(trained: Trained) -> None:
    metrics = trained.metrics["evaluate"]
    assert content_of(trained.paths.evaluation / "metrics.json") == metrics
    assert {"val/AP", "val/AP50", "val/mask/AP", "val/PQ", "val/PQ_things", "val/PQ_stuff"} <= metrics.keys()
    assert all(-1 <= value <= 1 for value in metrics.values())
    assert trained.reporters["evaluate"].last_progress == (6, 6)


def test_the_report_is_one_page(trained: Trained) -> None:
    page = (trained.paths.report / "index.html").read_text(encoding="utf-8")
    assert "tiny" in page
    assert "reports/tiny/index.html" in trained.reporters["report"].messages[-1]
    claims = (trained.paths.report / "claims.html").read_text(encoding="utf-8")
    assert 'href="claims.html#study-scoring"' in page
    studies = tiny_settings().studies
    for study in studies.evaluating:
        assert f'id="study-{study}"' in claims
        assert f"python -m flows.studies {study} --profile tiny" in claims
        for claim in studies.claims(study):
            assert claim.text in claims
            assert claim.published in claims


def test_a_dataset_folder_is_evaluated_in_place(trained: Trained, tiny_copy: Paths) -> None:
    content = tiny_parameters()
    splits = {
        name: {
            "images": name,
            "instances": f"annotations/instances_{name}.json",
            "panoptic": f"annotations/panoptic_{name}.json",
            "panoptic_masks": f"annotations/panoptic_{name}",
        }
        for name in ("train", "val")
    }
    content["data"] |= {"source": "folder", "scenes": None, "folder": {"root": str(trained.paths.data), **FOLDER, **splits}}
    settings = build(Profile, content, "tiny-copy.yaml")
    assert data.run(settings, tiny_copy, Silent()) == trained.metrics["data"]
    assert file_names(tiny_copy.data) == {"dataset.json", "profile.json", "manifest.json"}, "no image is copied"
    check.run(settings, tiny_copy, Silent())
    assert file_names(tiny_copy.dataset) == {"dataset.json", "profile.json", "index"}
    assert evaluate.run(settings, tiny_copy, Silent()) == trained.metrics["evaluate"]
