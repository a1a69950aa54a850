"""Each stage's `run` on a tiny profile: the files that it writes, and its errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image

from detr_core import directories
from detr_core.config import ConfigError, as_dict, build
from detr_core.data.splits import DatasetError
from detr_core.directories import MARK, ForeignFileError
from detr_core.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from detr_core.model.spec import build_detector, detector_config
from detr_core.reporter import Memory, Reporter, Silent
from detr_core.studies.evaluating import EVALUATING
from detr_core.studies.study import StudyConfig, StudyInputs
from flows import check, data, evaluate, report, train_detection, train_panoptic
from flows.profile import artifacts
from flows.profile.artifacts import StageError
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from flows.runtime import launch
from flows.studies import evaluating, flow
from flows.tracking import recorder
from flows.tracking.detector_model import DetectorModel
from tests.conftest import Trained, copy_data, tiny_parameters, tiny_settings
from tests.kinds import DEFORMABLE, RECIPES

FOLDER = {"format": "coco", "val_share": None}
Run = Callable[[Profile, Paths, Reporter], dict[str, float]]


def read(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


def names(folder: Path) -> set[str]:
    """Returns the names of the files in a result, without its mark."""
    return {path.name for path in folder.iterdir()} - {MARK}


@pytest.fixture
def copy(trained: Trained) -> Paths:
    """Returns the paths of a copy of the tiny profile's data and trained models, without evaluations, which tests may damage."""
    where = Paths("tiny-copy")
    shutil.rmtree(where.runs, ignore_errors=True)
    shutil.copytree(trained.paths.runs, where.runs)
    copy_data(trained.paths, where)
    shutil.rmtree(where.evaluation)
    shutil.rmtree(where.runs / "studies")
    for folder in (where.detection, where.panoptic):
        content = torch.load(folder / "checkpoint.pt", weights_only=True)
        content["meta"]["profile"] = where.profile
        torch.save(content, folder / "checkpoint.pt")
    return where


def test_a_mask_head_is_for_detr(trained: Trained) -> None:
    content = tiny_parameters()
    content["detector"] = DEFORMABLE["detector"]
    content["train_detection"] |= {"loss": DEFORMABLE["loss"], "optimizer": DEFORMABLE["optimizer"]}
    content["studies"] = {"evaluating": {}, "training": {}}
    with pytest.raises(ConfigError, match=r"detector\.kind: expected 'detr', which can have a mask head, found 'deformable'"):
        train_panoptic.run(build(Profile, content, "tiny.yaml"), trained.paths, Silent())


@pytest.mark.usefixtures("trains_here")
def test_panoptic_fpn_goes_through_all_stages(trained: Trained) -> None:
    where, settings = Paths("tiny-fpn"), settings_of("panoptic_fpn")
    settings = replace(settings, train_detection=replace(settings.train_detection, steps=2))
    copy_data(trained.paths, where)
    metrics = train_detection.run(settings, where, Silent())
    assert {"train/masks", "train/semantic", "val/AP", "val/mask/AP"} <= metrics.keys()
    for stage in (train_panoptic, evaluate, report):
        stage.run(settings, where, Silent())
    assert {"val/AP", "val/mask/AP", "val/PQ", "val/PQ_stuff"} <= read(where.evaluation / "metrics.json").keys()
    assert 'id="panoptic"' in (where.report / "index.html").read_text(encoding="utf-8")
    model = DetectorModel(
        load_checkpoint(artifacts.whole_model(where), torch.device("cpu")), settings.evaluate, torch.device("cpu")
    )
    (image, *_) = sorted(artifacts.dataset(where)["val"].images.iterdir())
    prediction = model.predict(str(image))
    assert isinstance(prediction, dict)
    assert prediction["panoptic"].shape == (64, 64)
    assert set(prediction["panoptic"].ravel().tolist()) <= {0, *(segment["id"] for segment in prediction["segments"])}


@pytest.mark.usefixtures("trains_here")
def test_another_kind_of_detector_goes_through_all_stages(trained: Trained) -> None:
    content, where = tiny_parameters(), Paths("tiny-deformable")
    content["detector"], content["train_panoptic"] = DEFORMABLE["detector"], None
    content["train_detection"] |= {"loss": DEFORMABLE["loss"], "optimizer": DEFORMABLE["optimizer"], "steps": 1}
    evaluating_names = ("decoder-nms", "instance-count", "encoder-attention", "decoder-attention", "scoring")
    sections = {name: content["studies"]["evaluating"][name] for name in evaluating_names}
    content["studies"] = {"evaluating": sections, "training": {}}
    settings = build(Profile, content, "tiny.yaml")
    copy_data(trained.paths, where)
    for stage in (train_detection, train_panoptic, evaluate, evaluating, report):
        stage.run(settings, where, Silent())
    assert names(where.evaluating_studies) == {"decoder-nms", evaluating.INDEX}
    assert read(where.evaluating_studies / evaluating.INDEX) == ["decoder-nms"]
    memory = Memory()
    evaluating.remove_outdated(settings, where, memory.message)
    assert memory.messages == [
        f"study {name}: it is left out, because it does not support detectors of kind 'deformable'"
        for name in settings.studies.evaluating
        if name != "decoder-nms"
    ]
    assert (where.panoptic / "left-out.txt").is_file()
    page = (where.report / "index.html").read_text(encoding="utf-8")
    assert 'id="study-decoder-nms"' in page
    assert "flows.studies" not in page, "what can't be done has no command"


@pytest.mark.parametrize("study", ["instance-count", "encoder-attention", "decoder-attention", "scoring"])
@pytest.mark.parametrize("kind", RECIPES)
def test_a_study_of_what_detr_alone_has_says_so(kind: str, study: str, copy: Paths) -> None:
    settings, file = tiny_settings(), artifacts.detector(copy)
    categories = load_checkpoint(file, torch.device("cpu")).categories
    isthing = [category.isthing for category in categories]
    model = build_detector(detector_config(RECIPES[kind]["detector"], "tiny"), len(categories), isthing=isthing)
    save_checkpoint(file, model, categories, {"profile": copy.profile})
    expected = f"the study {study} supports detectors of kind 'detr' only, found kind '{model.config.kind}'"
    with pytest.raises(CheckpointError, match=expected):
        evaluating.run_study(study, settings, copy, copy.evaluating_studies / study, Silent())
    assert not (copy.evaluating_studies / study).exists()


def test_data_is_a_dataset_in_coco_layout(trained: Trained) -> None:
    assert trained.metrics["data"] == {"train/images": 24.0, "val/images": 6.0}
    splits = artifacts.dataset(trained.paths)
    assert {split.name for split in splits.values()} == {"train", "val"}
    assert len(list(splits["train"].images.iterdir())) == 24


@pytest.mark.parametrize("stage", ["detection", "panoptic"])
def test_training_leaves_checkpoints_and_their_history(trained: Trained, stage: str) -> None:
    folder: Path = getattr(trained.paths, stage)
    assert names(folder) == {"checkpoint.pt", "best.pt", "metrics.json", "history.jsonl"}
    metrics = trained.metrics[f"train_{stage}"]
    assert read(folder / "metrics.json") == metrics
    assert metrics["train/loss"] > 0
    reporter = trained.reporters[f"train_{stage}"]
    assert reporter.last_progress == (3, 3), "24 images in batches of 8"
    assert "train/loss" in reporter.history[0][1]
    loaded = artifacts.checkpoint(folder / "checkpoint.pt", "tiny", torch.device("cpu"))
    assert loaded.meta["stage"] == stage
    assert loaded.model.has_mask_head == (stage == "panoptic")
    assert not trained.paths.unfinished(f"train_{stage}").exists(), "nothing is left to resume"


def test_evaluation_measures_boxes_masks_and_panoptic_quality(trained: Trained) -> None:
    metrics = trained.metrics["evaluate"]
    assert read(trained.paths.evaluation / "metrics.json") == metrics
    assert {"val/AP", "val/AP50", "val/mask/AP", "val/PQ", "val/PQ_things", "val/PQ_stuff"} <= metrics.keys()
    assert all(-1 <= value <= 1 for value in metrics.values())
    assert trained.reporters["evaluate"].last_progress == (6, 6)


def test_the_study_has_a_cell_for_each_depth_and_nms(trained: Trained) -> None:
    cells = read(trained.paths.evaluating_studies / "decoder-nms" / "cells.json")
    assert isinstance(cells, list)
    assert {(cell["decoder_depth"], cell["nms"]) for cell in cells} == {(d, nms) for d in (1, 2) for nms in (None, 0.7, 0.5)}
    assert "decoder-nms/depth_2/nms_off/AP" in trained.metrics["studies"]


def test_runs_are_found_in_mlflow_by_what_their_study_varies(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    settings = EVALUATING["decoder-nms"].settings(trained.paths.evaluating_studies / "decoder-nms")
    try:
        with recorder.stage_run("studies", trained.paths, {}, []) as record:
            flow.record_settings(record, settings)
        runs = mlflow.MlflowClient().search_runs([record.experiment_id], "params.decoder_depth = '2'")
    finally:
        mlflow.set_tracking_uri(None)
    assert {run.data.params["nms"] for run in runs} == {"off", "0.7", "0.5"}
    assert all({"val/AP", "val/AP50"} <= run.data.metrics.keys() for run in runs)


def test_results_of_a_study_that_is_no_longer_in_the_profile_are_removed(copy: Paths) -> None:
    content = tiny_parameters()
    content["studies"] = {"evaluating": {"scoring": content["studies"]["evaluating"]["scoring"]}, "training": {}}
    settings = build(Profile, content, "tiny.yaml")
    with directories.atomic_directory(copy.evaluating_studies / "decoder-nms") as folder:
        (folder / "metrics.json").write_text("{}")
    memory = Memory()
    evaluating.run(settings, copy, memory)
    assert names(copy.evaluating_studies) == {"scoring", evaluating.INDEX}
    removed = "runs/tiny-copy/studies/evaluating/decoder-nms: removed, because the profile has no such study for its detector"
    assert removed in memory.messages
    own = copy.evaluating_studies / "decoder-nms" / "notes.txt"
    own.parent.mkdir()
    own.write_text("mine")
    with pytest.raises(ForeignFileError, match=r"decoder-nms: expected a new folder or results of an earlier run"):
        evaluating.run(settings, copy, Silent())
    assert own.read_text() == "mine"


def test_without_studies_the_folder_exists_all_the_same(copy: Paths) -> None:
    settings = build(Profile, tiny_parameters() | {"studies": {"evaluating": {}, "training": {}}}, "tiny.yaml")
    assert evaluating.run(settings, copy, Silent()) == {}
    assert names(copy.evaluating_studies) == {evaluating.INDEX}
    index = copy.evaluating_studies / evaluating.INDEX
    index.write_text("mine")
    with pytest.raises(StageError, match=r"studies\.json: expected a list of studies, found another file"):
        evaluating.run(settings, copy, Silent())
    assert index.read_text() == "mine"


def test_a_study_takes_no_more_threads_than_there_are_cores(copy: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    thread_counts: list[int] = []

    def study(inputs: StudyInputs, config: StudyConfig, folder: Path) -> None:
        thread_counts.append(torch.get_num_threads())
        (folder / "metrics.json").write_text("{}")

    monkeypatch.setitem(EVALUATING, "scoring", replace(EVALUATING["scoring"], run=study))
    before = torch.get_num_threads()
    for threads in (launch.cores() + 3, 1):
        torch.set_num_threads(threads)
        evaluating.run_study("scoring", tiny_settings(), copy, copy.evaluating_studies / "scoring", Silent())
    torch.set_num_threads(before)
    assert thread_counts == [launch.cores(), 1]


def test_a_study_evaluates_the_detector_that_learned_jointly_with_the_mask_head(copy: Paths) -> None:
    content = tiny_parameters()
    content["train_panoptic"]["detector"] = "joint"
    joint, results = build(Profile, content, "tiny.yaml"), copy.evaluating_studies / "decoder-nms"
    assert artifacts.studied_detector(joint, copy) == copy.panoptic / "checkpoint.pt"
    (copy.detection / "checkpoint.pt").unlink()
    assert evaluating.run_study("decoder-nms", joint, copy, results, Silent())
    with pytest.raises(StageError, match=r"detection/checkpoint\.pt"):
        evaluating.run_study("decoder-nms", tiny_settings(), copy, results, Silent())
    (copy.panoptic / "checkpoint.pt").unlink()
    with pytest.raises(StageError, match=r"panoptic/checkpoint\.pt: .*`python -m flows\.train_panoptic --profile tiny-copy`"):
        evaluating.run_study("decoder-nms", joint, copy, results, Silent())


def test_the_report_is_one_page(trained: Trained) -> None:
    page = (trained.paths.report / "index.html").read_text(encoding="utf-8")
    assert "tiny" in page
    assert "reports/tiny/index.html" in trained.reporters["report"].messages[-1]


def test_a_dataset_folder_is_evaluated_in_place(trained: Trained, copy: Paths) -> None:
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
    assert data.run(settings, copy, Silent()) == trained.metrics["data"]
    assert names(copy.data) == {"dataset.json", "profile.json", "manifest.json"}, "no image is copied"
    check.run(settings, copy, Silent())
    assert names(copy.dataset) == {"dataset.json", "profile.json", "index"}
    assert evaluate.run(settings, copy, Silent()) == trained.metrics["evaluate"]


def test_a_folder_that_is_no_dataset_leaves_nothing(trained: Trained) -> None:
    content = tiny_parameters()
    split = {"images": "images", "instances": "instances.json", "panoptic": None, "panoptic_masks": None}
    content["data"] |= {"source": "folder", "scenes": None, "folder": {"root": "no/such", **FOLDER, "train": split, "val": split}}
    where = Paths("tiny-nowhere")
    with pytest.raises(DatasetError, match=r"data\.folder\.root of .*: expected a folder, found none at .*no/such"):
        data.run(build(Profile, content, "tiny.yaml"), where, Silent())
    assert names(where.data.parent) == {path.name for path in where.data.parent.iterdir() if not path.name.startswith(".")}
    assert not where.data.exists()


@pytest.mark.parametrize("run", [train_detection.run, train_panoptic.run, evaluate.run, evaluating.run, report.run])
def test_a_stage_without_its_dataset_says_what_to_run(project: Path, run: Run) -> None:
    where = Paths("tiny-nothing")
    with pytest.raises(DatasetError) as raised:
        run(tiny_settings(), where, Silent())
    message = str(raised.value)
    assert message.startswith("data/tiny-nothing: there is no dataset of profile 'tiny-nothing' yet")
    assert "`python -m flows.data --profile tiny-nothing`" in message
    assert not where.runs.exists()


@pytest.mark.parametrize("run", [train_panoptic.run, evaluate.run, evaluating.run])
def test_a_stage_without_its_checkpoint_says_what_to_run(copy: Paths, run: Run) -> None:
    for folder in (copy.detection, copy.panoptic):
        shutil.rmtree(folder)
    with pytest.raises(StageError) as raised:
        run(tiny_settings(), copy, Silent())
    assert "runs/tiny-copy/detection/checkpoint.pt" in str(raised.value)
    assert "`python -m flows.train_detection --profile tiny-copy`" in str(raised.value)
    assert names(copy.runs) == {"check", "dataset"}


def test_a_dataset_of_another_profile_is_refused(copy: Paths) -> None:
    artifacts.claim(copy.data, "tiny")
    with pytest.raises(DatasetError, match="expected a dataset of profile 'tiny-copy', found one of 'tiny'"):
        evaluate.run(tiny_settings(), copy, Silent())


@pytest.mark.parametrize("run", [evaluate.run, evaluating.run])
def test_a_checkpoint_of_another_profile_is_refused(trained: Trained, copy: Paths, run: Run) -> None:
    for folder in ("detection", "panoptic"):
        shutil.copy(trained.paths.runs / folder / "checkpoint.pt", copy.runs / folder / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="expected a checkpoint of profile 'tiny-copy', found one of 'tiny'"):
        run(tiny_settings(), copy, Silent())
    assert names(copy.runs) == {"check", "dataset", "detection", "panoptic"}


def test_a_torn_checkpoint_is_refused_and_leaves_nothing(copy: Paths) -> None:
    path = copy.panoptic / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"panoptic/checkpoint\.pt"):
        evaluate.run(tiny_settings(), copy, Silent())
    assert names(copy.runs) == {"check", "dataset", "detection", "panoptic"}


def test_masks_are_not_trained_without_panoptic_annotations(copy: Paths) -> None:
    file = copy.dataset / "dataset.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["train"] |= {"panoptic": None, "panoptic_masks": None}
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"train\.panoptic: expected panoptic annotations"):
        train_panoptic.run(tiny_settings(), copy, Silent())


@pytest.mark.parametrize("kind", ["mask_rcnn", "panoptic_fpn"])
def test_a_detector_that_learns_masks_is_not_trained_on_a_dataset_without_them(kind: str, copy: Paths) -> None:
    file = copy.dataset / "dataset.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["train"] |= {"panoptic": None, "panoptic_masks": None}
    file.write_text(json.dumps(content), encoding="utf-8")
    said = rf"train\.panoptic: expected panoptic annotations for detector\.kind '{kind}', found null; add them, or set "
    with pytest.raises(DatasetError, match=rf"{said}.*detector\.kind to one that learns no masks by itself \('detr', "):
        train_detection.run(settings_of(kind), copy, Silent())
    assert names(copy.detection) == {"checkpoint.pt", "best.pt", "metrics.json", "history.jsonl"}, "nothing was replaced"


def test_panoptic_fpn_is_not_trained_on_a_dataset_without_stuff(copy: Paths) -> None:
    dataset = json.loads((copy.dataset / "dataset.json").read_text(encoding="utf-8"))
    shutil.copytree(copy.dataset / dataset["annotations"] / "annotations", copy.dataset / "own" / "annotations")
    (copy.dataset / "dataset.json").write_text(json.dumps(dataset | {"annotations": "own"}), encoding="utf-8")
    file = copy.dataset / "own" / dataset["train"]["panoptic"]
    content = json.loads(file.read_text(encoding="utf-8"))
    for category in content["categories"]:
        category["isthing"] = 1
    file.write_text(json.dumps(content), encoding="utf-8")
    said = rf"train\.panoptic: {file}: categories\.isthing: expected categories of things and of stuff for detector\.kind "
    with pytest.raises(DatasetError, match=rf"{said}'panoptic_fpn', found \d+ things and 0 of stuff; add the others, or set "):
        train_detection.run(settings_of("panoptic_fpn"), copy, Silent())


def settings_of(kind: str) -> Profile:
    """Returns the tiny profile with another kind of detector."""
    content, recipe = tiny_parameters(), RECIPES[kind]
    content["detector"], content["train_panoptic"] = recipe["detector"], None
    content["train_detection"] |= {"loss": recipe["loss"], "optimizer": recipe["optimizer"]}
    content["studies"] = {"evaluating": {}, "training": {}}
    return build(Profile, content, "tiny.yaml")


PREDICT = """
import json, sys, mlflow, numpy as np
from PIL import Image
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
found = model.predict(sys.argv[3])
again = model.predict(np.array(Image.open(sys.argv[3])))
import detr_core
print(json.dumps({
    "code": detr_core.__file__,
    **{name: found[name].tolist() for name in ("boxes", "labels", "scores")},
    "same": bool((found["boxes"] == again["boxes"]).all()),
    "panoptic": list(found["panoptic"].shape), "ids": sorted(set(found["panoptic"].ravel().tolist())),
    "segments": [segment["id"] for segment in found["segments"]],
}))
"""


def test_the_logged_model_predicts_as_evaluation_does_wherever_it_is_loaded(
    trained: Trained, database: Path, tmp_path: Path
) -> None:
    with recorder.stage_run("evaluate", trained.paths, {}, []) as record:
        record.model(trained.paths.panoptic / "checkpoint.pt", as_dict(trained.settings.evaluate))
    image = sorted((trained.paths.data / "val").iterdir())[0]
    answer = subprocess.run(
        [sys.executable, "-c", PREDICT, f"sqlite:///{database}", f"runs:/{record.run_id}/model", image],
        cwd=tmp_path,
        env={"PATH": "", "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    prediction = json.loads(answer.stdout.splitlines()[-1])
    assert prediction["code"].endswith("/model/code/detr_core/__init__.py"), "the code beside the model, not the checkout's"
    assert prediction["same"], "a file and its pixels give the same"
    results = read(trained.paths.evaluation / "bbox.json")
    images = read(trained.paths.data / "annotations" / "instances_val.json")
    assert isinstance(results, list)
    assert isinstance(images, dict)
    number = next(entry["id"] for entry in images["images"] if entry["file_name"] == image.name)
    things = {category["id"] for category in images["categories"]}
    expected = sorted(
        ([*entry["bbox"][:2], entry["bbox"][0] + entry["bbox"][2], entry["bbox"][1] + entry["bbox"][3]], entry["category_id"])
        for entry in results
        if entry["image_id"] == number
    )
    actual = sorted((box, label) for box, label in zip(prediction["boxes"], prediction["labels"], strict=True) if label in things)
    assert [label for _, label in actual] == [label for _, label in expected]
    np.testing.assert_allclose([box for box, _ in actual], [box for box, _ in expected], atol=1e-3)
    assert prediction["scores"] == sorted(prediction["scores"], reverse=True)
    with Image.open(image) as opened:
        assert prediction["panoptic"] == [opened.height, opened.width]
    assert set(prediction["ids"]) - {0} == set(prediction["segments"])
