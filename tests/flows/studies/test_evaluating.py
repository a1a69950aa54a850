"""The stage that runs the evaluating studies, on the tiny profile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch

from detr_core import directories
from detr_core.config import build
from detr_core.directories import ForeignFileError
from detr_core.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from detr_core.model.spec import build_detector, detector_config
from detr_core.reporter import Silent
from detr_core.studies.evaluating import EVALUATING
from detr_core.studies.study import StudyConfig, StudyInputs
from flows import evaluate, report, train_detection, train_panoptic
from flows.profile import stage_results
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from flows.profile.stage_results import StageError
from flows.runtime import launch
from flows.studies import evaluating, flow
from flows.tracking import recorder
from tests.conftest import Trained, copy_data, tiny_parameters, tiny_settings
from tests.flows.results import content_of, file_names
from tests.kinds import DEFORMABLE, RECIPES
from tests.recording_reporter import RecordingReporter


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
    assert file_names(where.evaluating_studies) == {"decoder-nms", evaluating.STUDIES_LIST}
    assert content_of(where.evaluating_studies / evaluating.STUDIES_LIST) == ["decoder-nms"]
    reporter = RecordingReporter()
    evaluating.remove_outdated(settings, where, reporter.message)
    assert reporter.messages == [
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
def test_a_study_that_supports_only_detr_refuses_other_kinds(kind: str, study: str, tiny_copy: Paths) -> None:
    settings, file = tiny_settings(), stage_results.detector(tiny_copy)
    categories = load_checkpoint(file, torch.device("cpu")).categories
    isthing = [category.isthing for category in categories]
    model = build_detector(detector_config(RECIPES[kind]["detector"], "tiny"), len(categories), isthing=isthing)
    save_checkpoint(file, model, categories, {"profile": tiny_copy.profile})
    expected = f"the study {study} supports detectors of kind 'detr' only, found kind '{model.config.kind}'"
    with pytest.raises(CheckpointError, match=expected):
        evaluating.run_study(study, settings, tiny_copy, tiny_copy.evaluating_studies / study, Silent())
    assert not (tiny_copy.evaluating_studies / study).exists()


def test_the_study_has_a_cell_for_each_depth_and_nms(trained: Trained) -> None:
    cells = content_of(trained.paths.evaluating_studies / "decoder-nms" / "cells.json")
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


def test_results_of_a_study_that_is_no_longer_in_the_profile_are_removed(tiny_copy: Paths) -> None:
    content = tiny_parameters()
    content["studies"] = {"evaluating": {"scoring": content["studies"]["evaluating"]["scoring"]}, "training": {}}
    settings = build(Profile, content, "tiny.yaml")
    with directories.atomic_directory(tiny_copy.evaluating_studies / "decoder-nms") as folder:
        (folder / "metrics.json").write_text("{}")
    reporter = RecordingReporter()
    evaluating.run(settings, tiny_copy, reporter)
    assert file_names(tiny_copy.evaluating_studies) == {"scoring", evaluating.STUDIES_LIST}
    removed = "runs/tiny-copy/studies/evaluating/decoder-nms: removed, because the profile has no such study for its detector"
    assert removed in reporter.messages
    own = tiny_copy.evaluating_studies / "decoder-nms" / "notes.txt"
    own.parent.mkdir()
    own.write_text("mine")
    with pytest.raises(ForeignFileError, match=r"decoder-nms: expected a new folder or results of an earlier run"):
        evaluating.run(settings, tiny_copy, Silent())
    assert own.read_text() == "mine"


def test_without_studies_the_folder_exists_all_the_same(tiny_copy: Paths) -> None:
    settings = build(Profile, tiny_parameters() | {"studies": {"evaluating": {}, "training": {}}}, "tiny.yaml")
    assert evaluating.run(settings, tiny_copy, Silent()) == {}
    assert file_names(tiny_copy.evaluating_studies) == {evaluating.STUDIES_LIST}
    index = tiny_copy.evaluating_studies / evaluating.STUDIES_LIST
    index.write_text("mine")
    with pytest.raises(StageError, match=r"studies\.json: expected a list of studies, found another file"):
        evaluating.run(settings, tiny_copy, Silent())
    assert index.read_text() == "mine"


def test_a_study_takes_no_more_threads_than_there_are_cores(tiny_copy: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    thread_counts: list[int] = []

    def study(inputs: StudyInputs, config: StudyConfig, folder: Path) -> None:
        thread_counts.append(torch.get_num_threads())
        (folder / "metrics.json").write_text("{}")

    monkeypatch.setitem(EVALUATING, "scoring", replace(EVALUATING["scoring"], run=study))
    before = torch.get_num_threads()
    for threads in (launch.cores() + 3, 1):
        torch.set_num_threads(threads)
        evaluating.run_study("scoring", tiny_settings(), tiny_copy, tiny_copy.evaluating_studies / "scoring", Silent())
    torch.set_num_threads(before)
    assert thread_counts == [launch.cores(), 1]


def test_a_study_evaluates_the_detector_that_learned_jointly_with_the_mask_head(tiny_copy: Paths) -> None:
    content = tiny_parameters()
    content["train_panoptic"]["detector"] = "joint"
    joint, results = build(Profile, content, "tiny.yaml"), tiny_copy.evaluating_studies / "decoder-nms"
    assert stage_results.studied_detector(joint, tiny_copy) == tiny_copy.panoptic / "checkpoint.pt"
    (tiny_copy.detection / "checkpoint.pt").unlink()
    assert evaluating.run_study("decoder-nms", joint, tiny_copy, results, Silent())
    with pytest.raises(StageError, match=r"detection/checkpoint\.pt"):
        evaluating.run_study("decoder-nms", tiny_settings(), tiny_copy, results, Silent())
    (tiny_copy.panoptic / "checkpoint.pt").unlink()
    with pytest.raises(StageError, match=r"panoptic/checkpoint\.pt: .*`python -m flows\.train_panoptic --profile tiny-copy`"):
        evaluating.run_study("decoder-nms", joint, tiny_copy, results, Silent())
