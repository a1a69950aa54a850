"""Studies that train, on a tiny profile: results are built once, interrupted runs resume, and failures are reported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest

from detr_core.config import build
from detr_core.data.splits import DatasetError
from detr_core.reporter import Memory, Silent
from detr_core.studies.comparison import read_table
from flows import evaluate
from flows.profile.paths import Paths, relative
from flows.profile.settings import Profile
from flows.runtime import launch
from flows.runtime.locks import exclusive
from flows.studies.training import Study, StudyError, shares
from flows.studies.variants import build_digests, makers, variants_of
from tests.conftest import Trained, copy_data, tiny_parameters, write_parameters

STEP = {"train_detection.epochs": 1, "train_detection.steps": 1}
DEPTH = {"paper": "Table 2", "base": "1", "seeds": [0], "median_of": 1, "set": STEP, "vary": {"detector.encoder_layers": [0, 1]}}


@pytest.fixture
def where(trained: Trained) -> Paths:
    """The tiny profile's data under another name, without any models."""
    paths = Paths("tiny-studies")
    shutil.rmtree(paths.runs, ignore_errors=True)
    copy_data(trained.paths, paths)
    return paths


def settings(**study: Any) -> Profile:
    content = tiny_parameters()
    content["studies"] = {"evaluating": {}, "training": {"depth": DEPTH | study}}
    return build(Profile, content, "tiny.yaml")


def make_all(study: Study) -> dict[str, list[str]]:
    """What each variant told while it was made."""
    told = {}
    for label in study.variants:
        memory = Memory()
        study.make(label, memory, f"run of {study.name} {label}")
        told[label] = memory.messages
    return told


def test_a_study_is_made_once_and_again_only_as_far_as_something_changed(where: Paths) -> None:
    study = Study("depth", settings(), where)
    assert list(study.variants) == ["0-seed0", "1-seed0"]
    assert not any(study.is_up_to_date(label) for label in study.variants)
    assert make_all(study) == {label: ["the variant begins"] for label in study.variants}
    study.write(intervals=True)

    table = read_table(where.training_studies / "depth" / "study.json")
    assert [(run.variant, run.seed, run.status, run.varied) for run in table.runs] == [
        ("0", 0, "finished", {"detector.encoder_layers": 0}),
        ("1", 0, "finished", {"detector.encoder_layers": 1}),
    ]
    without, base = table.runs
    assert without.overrides == {**STEP, "detector.encoder_layers": 0}
    assert without.metrics is not None
    assert {"val/AP", "val/AP50", "train/loss", "val/PQ"} & without.metrics.keys() == {"val/AP", "val/AP50", "train/loss"}
    assert without.difference is not None
    assert base.difference is None
    assert without.cost is not None
    assert base.cost is not None
    assert without.cost["parameters"] < base.cost["parameters"]
    assert not where.detection.exists(), "the profile's own detector is none of a study's business"
    assert not Paths(where.profile, "depth/0-seed0").unfinished("train_detection").exists()

    again = Study("depth", settings(), where)
    assert all(again.is_up_to_date(label) for label in again.variants)
    there = [
        f"{name}: the result is up to date; settings, data and code are unchanged" for name in ("detection", "evaluation", "cost")
    ]
    assert make_all(again)["0-seed0"] == ["the variant begins", *there]

    other = Study("depth", settings(set=STEP | {"evaluate.empty_slot_override": False}), where)
    assert not any(other.is_up_to_date(label) for label in other.variants)
    memory = Memory()
    other.make("0-seed0", memory, "a run")
    assert memory.messages == ["the variant begins", there[0]], "an evaluation that changed trains nothing"
    assert [other.is_up_to_date(label) for label in other.variants] == [True, False]

    more = Study("depth", settings(seeds=[0, 1]), where)
    assert [label for label in more.variants if not more.is_up_to_date(label)] == ["0-seed0", "0-seed1", "1-seed1"]
    assert more.variants["0-seed1"].settings.train_detection.seed == 1
    annotations = where.data / "annotations" / "instances_val.json"
    annotations.write_text(annotations.read_text() + "\n")
    changed = Study("depth", settings(set=STEP | {"evaluate.empty_slot_override": False}), where)
    assert not changed.is_up_to_date("0-seed0"), "other data makes other results"


def test_a_variant_that_was_interrupted_goes_on_where_it_was(where: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "run", _fails)
        study = Study("depth", settings(), where)
        with pytest.raises(ValueError, match="out of luck"):
            study.make("0-seed0", Silent(), "a run")
    assert not study.is_up_to_date("0-seed0")
    memory = Memory()
    study.make("0-seed0", memory, "a run")
    assert memory.messages == ["the variant begins", "detection: the result is up to date; settings, data and code are unchanged"]
    assert study.is_up_to_date("0-seed0")


def test_a_table_holds_what_is_finished_and_says_what_failed(where: Paths) -> None:
    study = Study("depth", settings(), where)
    study.make("0-seed0", Silent(), "a run")
    study.failed["1-seed0"] = "out of luck"
    study.write(intervals=True)
    runs = read_table(where.training_studies / "depth" / "study.json").runs
    assert [(run.status, run.error, run.metrics is None) for run in runs] == [
        ("finished", None, False), ("failed", "out of luck", True),
    ]  # fmt: skip
    assert runs[0].difference is None, "there is no base to compare with"


def test_a_study_of_masks_trains_the_head_and_shares_the_detector(where: Paths) -> None:
    heads = {"maps": {}, "none": {"train_panoptic.attention_maps": "none", "train_panoptic.attention_gain": 1}}
    steps = STEP | {"train_panoptic.epochs": 1, "train_panoptic.steps": 1}
    content = tiny_parameters()
    heads_study = {"paper": "Table 5", "base": "maps", "seeds": [0], "median_of": 1, "set": steps, "variants": heads}
    content["studies"] = {"evaluating": {}, "training": {"heads": heads_study}}
    study = Study("heads", build(Profile, content, "tiny.yaml"), where)
    assert make_all(study) == {
        "maps-seed0": ["the variant begins"],
        "none-seed0": ["the variant begins", "detection: copying the result of heads/maps-seed0, which has the same inputs"],
    }
    study.write(intervals=False)
    for run in read_table(where.training_studies / "heads" / "study.json").runs:
        assert run.metrics is not None
        assert "val/PQ" in run.metrics
    ours, theirs = (where.training_studies / "heads" / label / "detection" / "checkpoint.pt" for label in study.variants)
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_changed_initial_checkpoint_makes_the_results_that_start_from_it_stale(where: Paths, tmp_path: Path) -> None:
    content = tiny_parameters()
    content["train_detection"]["init"] = {"checkpoint": str(tmp_path / "detector.pth"), "sha256": None}
    content["train_panoptic"] |= {"init": {"checkpoint": str(tmp_path / "masks.pth"), "sha256": None}, "attention_gain": 1}
    variants = {"a": {}, "b": {"train_panoptic.epochs": 3}}
    masks = {"paper": "Table 5", "base": "a", "seeds": [0], "median_of": 1, "set": {}, "variants": variants}
    content["studies"] = {"evaluating": {}, "training": {"masks": masks}}
    variant, _ = variants_of("masks", build(Profile, content, "tiny.yaml"))

    def digests(detector: str, masks: str) -> dict[str, str]:
        (tmp_path / "detector.pth").write_text(detector)
        (tmp_path / "masks.pth").write_text(masks)
        return build_digests(variant, where)

    first, other_masks, other_detector = digests("a", "a"), digests("a", "b"), digests("b", "a")
    assert {name for name in first if first[name] == other_masks[name]} == {"detection"}
    assert not any(first[name] == other_detector[name] for name in first)


def test_a_result_of_another_study_with_the_same_inputs_is_copied(where: Paths) -> None:
    content = tiny_parameters()
    forward = {"with": {}, "without": {"detector.feed_forward": 0}}
    content["studies"]["training"] = {
        "depth": DEPTH,
        "feed-forward": {"paper": "section 4.2", "base": "with", "seeds": [0], "median_of": 1, "set": STEP, "variants": forward},
    }
    profile = build(Profile, content, "tiny.yaml")
    first, second = Study("depth", profile, where), Study("feed-forward", profile, where)
    make_all(first)
    names = ("detection", "evaluation", "cost")
    assert make_all(second) == {
        "with-seed0": [
            "the variant begins",
            *(f"{name}: copying the result of depth/1-seed0, which has the same inputs" for name in names),
        ],
        "without-seed0": ["the variant begins"],
    }
    for label, maker in (("with-seed0", "depth 1-seed0"), ("without-seed0", "feed-forward without-seed0")):
        own = second.variants[label].paths(where.profile)
        assert makers(own, second.digests[label]) == dict.fromkeys(names, f"run of {maker}")
        assert second.is_up_to_date(label)


def test_two_commands_at_once_make_a_variant_once(where: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = [Study("depth", settings(), where) for _ in range(2)]
    told = [Memory(), Memory()]
    own = studies[0].variants["1-seed0"].paths(where.profile)
    waiting = f"waiting for another thread of this process that is building this result: {relative(own.runs)}"
    train = launch.run

    def train_once_the_other_waits(*arguments: Any, **named: Any) -> None:
        while not any(waiting in memory.messages for memory in told):
            time.sleep(0.01)
        train(*arguments, **named)

    monkeypatch.setattr(launch, "run", train_once_the_other_waits)
    with ThreadPoolExecutor() as pool:
        made = [pool.submit(each.make, "1-seed0", memory, "a run") for each, memory in zip(studies, told, strict=True)]
        assert made[0].result() == made[1].result()
    first, second = sorted((memory.messages for memory in told), key=len)
    there = [
        f"{name}: the result is up to date; settings, data and code are unchanged" for name in ("detection", "evaluation", "cost")
    ]
    assert first == ["the variant begins"]
    assert [*dict.fromkeys(second)] == ["the variant begins", waiting, *there]


def test_who_waits_ends_with_its_study(where: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.runtime.locks.SECONDS_BETWEEN_MESSAGES", 0.1)
    study = Study("depth", settings(), where)
    own = study.variants["1-seed0"].paths(where.profile)
    with exclusive(own.runs, tell=Silent().message), ThreadPoolExecutor() as pool:
        waits = pool.submit(study.make, "1-seed0", Silent(), "a run")
        with pytest.raises(TimeoutError):
            waits.result(timeout=1)
        study.stop()
        with pytest.raises(StudyError, match="stopped"):
            waits.result(timeout=10)
    assert not own.runs.exists()


def test_the_baselines_train_and_are_evaluated_as_detr_is(where: Paths) -> None:
    content = tiny_parameters()
    content["studies"]["training"] = {"baselines": content["studies"]["training"]["baselines"] | {"set": STEP}}
    study = Study("baselines", build(Profile, content, "tiny.yaml"), where)
    make_all(study)
    study.write(intervals=True)
    runs = read_table(where.training_studies / "baselines" / "study.json").runs
    assert [(run.variant, run.status, run.varied["detector"], run.varied["train_detection.loss"]) for run in runs] == [
        ("detr", "finished", "detr", "softmax"),
        ("deformable", "finished", "deformable", "focal"),
        ("faster-rcnn", "finished", "faster_rcnn", "regions"),
        ("mask-rcnn", "finished", "mask_rcnn", "regions_and_masks"),
        ("faster-rcnn-dc5", "finished", "faster_rcnn", "regions"),
        ("faster-rcnn-plus", "finished", "faster_rcnn", "regions"),
    ]
    for run in runs:
        assert run.metrics is not None
        assert {"val/AP", "train/loss"} <= run.metrics.keys()
        assert ("val/mask/AP" in run.metrics) == (run.variant == "mask-rcnn")
        assert run.cost is not None
        assert min(run.cost[name] for name in ("parameters", "gflops", "images_per_second")) > 0


def test_panoptic_fpn_is_compared_with_a_mask_head(where: Paths) -> None:
    content = tiny_parameters()
    panoptic = content["studies"]["training"]["panoptic"]
    chosen = {name: panoptic["variants"][name] for name in ("attention maps", "panoptic-fpn")}
    steps = STEP | {"train_panoptic.epochs": 1, "train_panoptic.steps": 1}
    content["studies"]["training"] = {"panoptic": panoptic | {"set": steps, "variants": chosen}}
    study = Study("panoptic", build(Profile, content, "tiny.yaml"), where)
    make_all(study)
    study.write(intervals=True)
    folder = where.training_studies / "panoptic"
    runs = read_table(folder / "study.json").runs
    assert [(run.variant, run.status, run.varied["detector"]) for run in runs] == [
        ("attention maps", "finished", "detr"),
        ("panoptic-fpn", "finished", "panoptic_fpn"),
    ]
    assert all(run.metrics is not None and {"val/AP", "val/mask/AP", "val/PQ"} <= run.metrics.keys() for run in runs)
    of_detr, of_fpn = (folder / f"{run.variant}-seed0" for run in runs)
    assert (of_detr / "panoptic").is_dir()
    assert not (of_fpn / "panoptic").exists(), "no mask head is trained"
    assert all((each / "evaluation" / "panoptic.json").is_file() for each in (of_detr, of_fpn))


def test_a_study_that_is_stopped_begins_nothing(where: Paths) -> None:
    study = Study("depth", settings(), where)
    study.stop()
    with pytest.raises(StudyError, match="stopped"):
        study.make("0-seed0", Silent(), "a run")
    assert not (where.training_studies / "depth").exists()


def test_a_study_without_its_dataset_says_what_to_run(project: Path) -> None:
    with pytest.raises(DatasetError, match=r"`python -m flows\.data --profile tiny-nothing`"):
        Study("depth", settings(), Paths("tiny-nothing"))


def test_each_variant_at_once_has_its_share_of_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shares((), 2) == [None, None]
    assert shares((0, 1, 2, 3, 4), 2) == [(0, 2, 4), (1, 3)]
    assert shares((3,), 2) == [(3,), (3,)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert launch._environment(1, (0, 2))["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert launch._environment(1, None)["CUDA_VISIBLE_DEVICES"] == "4,5,6"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert launch._environment(1, (1,))["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.timeout(900)
def test_the_command_names_what_failed_and_mlflow_has_each_variant(
    trained: Trained, checkout: Path, environment: dict[str, str], server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tiny_parameters()
    broken = {"detector.encoder_layers": 2, "train_detection.init": {"checkpoint": "no/such.pt", "sha256": None}}
    variants = {"none": {"detector.encoder_layers": 0}, "one + more": {"detector.encoder_layers": 1}, "broken": broken}
    depth = {"paper": "Table 2", "base": "one + more", "seeds": [0], "median_of": 1, "set": STEP, "variants": variants}
    content["studies"] = {"evaluating": {}, "training": {"depth": depth}}
    content["resources"]["side_by_side"] = 2
    write_parameters(checkout / "params" / "tiny.yaml", content)
    shutil.copytree(trained.paths.data, checkout / "data" / "tiny")
    shutil.copytree(trained.paths.dataset, checkout / "runs" / "tiny" / "dataset")
    shutil.copytree(trained.paths.evaluation, checkout / "runs/tiny/evaluation")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows.studies", *arguments, "--profile", "tiny"]
        return subprocess.run(command, cwd=checkout, env=environment | server, capture_output=True, text=True, check=False)

    unknown = run("dept")
    assert unknown.returncode == 1
    assert (
        unknown.stderr.strip() == "error: study 'dept': profile 'tiny' has no such study; did you mean 'depth'? known: depth, all"
    )

    done = run("depth")
    assert done.returncode == 1, done.stdout + done.stderr
    said = "error: study depth: 1 of 3 variants failed: broken-seed0: no/such.pt: expected a file, found none"
    assert said in done.stderr
    table = json.loads((checkout / "runs/tiny/studies/training/depth/study.json").read_text())
    assert [run["status"] for run in table["runs"]] == ["finished", "finished", "failed"]
    assert table["runs"][0]["difference"] is not None

    report = checkout / "reports/tiny/index.html"
    assert "reports/tiny/index.html: writing the report again" in done.stdout + done.stderr
    page = report.read_text()
    assert 'id="study-depth"' in page
    assert "broken, seed 0" in page

    record = f"sqlite:///{checkout / '.state/mlflow/mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", record)
    mlflow.set_tracking_uri(record)
    try:
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name("detr tiny")
        assert experiment is not None
        (parent,) = client.search_runs([experiment.experiment_id], "tags.stage = 'studies'")
        assert (parent.info.run_name, parent.info.status) == ("depth tiny", "FAILED")
        (child,) = client.search_runs([experiment.experiment_id], "params.encoder_layers = '1'")
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params["variant"] == "one + more"
        assert child.data.params["detector.encoder_layers"] == "1"
        assert {"val/AP", "train/loss", "cost/gflops"} <= child.data.metrics.keys()
        assert child.data.metrics["val/AP"] == table["runs"][1]["metrics"]["val/AP"]
        assert child.info.run_id in parent.data.tags["comparison"]
        assert not [tag for tag in child.data.tags if tag.startswith("reused")]
    finally:
        mlflow.set_tracking_uri(None)

    del variants["broken"]
    write_parameters(checkout / "params" / "tiny.yaml", content)
    assert run("depth").returncode == 0
    page = report.read_text()
    assert "broken, seed 0" not in page
    mlflow.set_tracking_uri(record)
    try:
        newest = client.search_runs([experiment.experiment_id], "params.encoder_layers = '1'")[0]
        assert newest.data.tags["reused.detection"] == newest.data.tags["reused.evaluation"] == child.info.run_id
    finally:
        mlflow.set_tracking_uri(None)
    again = run("depth")
    assert again.returncode == 0
    assert "all 2 variants are up to date, and nothing is done" in again.stdout + again.stderr
    assert "writing the report again" not in again.stdout + again.stderr, "the page has it all"


def _fails(*arguments: object) -> dict[str, float]:
    raise ValueError("out of luck")
