"""Training studies of the tiny profile: a result that is up to date is used again, and an interrupted study continues."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detr_core.config import build
from detr_core.data.splits import DatasetError
from detr_core.directories import MARK
from detr_core.reporter import Silent
from detr_core.studies.comparison import read_table
from flows import evaluate
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from flows.studies import results
from flows.studies.training import Study
from flows.studies.variants import build_digests, makers, variants_of
from tests.conftest import tiny_parameters
from tests.flows.studies.tiny_study import DEPTH, STEP, make_all, settings
from tests.recording_reporter import RecordingReporter


def test_only_results_whose_inputs_changed_are_made_again(where: Paths) -> None:
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
    assert list(without.differences) == ["AP"]
    assert base.differences == {}
    assert without.cost is not None
    assert base.cost is not None
    assert without.cost["parameters"] < base.cost["parameters"]
    assert not where.detection.exists(), "the profile's own detector is none of a study's business"
    assert not Paths(where.profile, "depth/0-seed0").unfinished("train_detection").exists()

    again = Study("depth", settings(), where)
    assert all(again.is_up_to_date(label) for label in again.variants)
    up_to_date = [
        f"{name}: the result is up to date; settings, data and code are unchanged" for name in ("detection", "evaluation", "cost")
    ]
    assert make_all(again)["0-seed0"] == ["the variant begins", *up_to_date]

    other = Study("depth", settings(set=STEP | {"evaluate.empty_slot_override": False}), where)
    assert not any(other.is_up_to_date(label) for label in other.variants)
    reporter = RecordingReporter()
    other.make("0-seed0", reporter, "a run")
    assert reporter.messages == ["the variant begins", up_to_date[0]], "an evaluation that changed trains nothing"
    assert [other.is_up_to_date(label) for label in other.variants] == [True, False]

    more = Study("depth", settings(seeds=[0, 1]), where)
    assert [label for label in more.variants if not more.is_up_to_date(label)] == ["0-seed0", "0-seed1", "1-seed1"]
    assert more.variants["0-seed1"].settings.train_detection.seed == 1
    annotations = where.data / "annotations" / "instances_val.json"
    annotations.write_text(annotations.read_text() + "\n")
    changed = Study("depth", settings(set=STEP | {"evaluate.empty_slot_override": False}), where)
    assert not changed.is_up_to_date("0-seed0"), "other data makes other results"


def test_an_interrupted_variant_continues_where_it_stopped(where: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "run", _fails)
        study = Study("depth", settings(), where)
        with pytest.raises(ValueError, match="out of luck"):
            study.make("0-seed0", Silent(), "a run")
    assert not study.is_up_to_date("0-seed0")
    reporter = RecordingReporter()
    study.make("0-seed0", reporter, "a run")
    assert reporter.messages == [
        "the variant begins",
        "detection: the result is up to date; settings, data and code are unchanged",
    ]
    assert study.is_up_to_date("0-seed0")


def test_a_study_of_masks_trains_the_head_and_shares_the_detector(where: Paths) -> None:
    heads = {"maps": {}, "none": {"train_panoptic.attention_maps": "none", "train_panoptic.attention_gain": 1}}
    steps = STEP | {"train_panoptic.epochs": 1, "train_panoptic.steps": 1}
    content = tiny_parameters()
    claim = {"text": "Maps raise PQ", "published": "none", "metric": "PQ", "ascending": ["none", "maps"]}
    heads_study = {"paper": "Table 5", "base": "maps", "seeds": [0], "median_of": 1, "set": steps, "variants": heads,
                   "claims": [claim]}  # fmt: skip
    content["studies"] = {"evaluating": {}, "training": {"heads": heads_study}}
    study = Study("heads", build(Profile, content, "tiny.yaml"), where)
    assert make_all(study) == {
        "maps-seed0": ["the variant begins"],
        "none-seed0": ["the variant begins", "detection: copying the result of heads/maps-seed0, which has the same inputs"],
    }
    study.write(intervals=True)
    file = where.training_studies / "heads" / "study.json"
    table = read_table(file)
    maps, none = (run.metrics or {} for run in table.runs)
    differences = table.runs[1].differences
    assert list(differences) == ["AP", "mask/AP", "PQ", "PQ_things", "PQ_stuff"]
    for metric, difference in differences.items():
        assert difference.value == pytest.approx(none[f"val/{metric}"] - maps[f"val/{metric}"]), metric
        assert difference.low <= difference.high
    (decided,) = table.claims
    pq = differences["PQ"]
    assert (decided.differences[0].low, decided.differences[0].high) == pytest.approx((-pq.high, -pq.low))
    assert decided.verdict == "undecided", "one seed"
    assert results.is_complete(file, study.variants, study.config)
    content = json.loads(file.read_text())
    for run in content["runs"]:
        run["difference"] = run.pop("differences").get("AP")
    file.write_text(json.dumps(content))
    assert not results.is_complete(file, study.variants, study.config), "a table of an earlier version is written again"
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


def test_changed_images_make_all_results_stale(where: Paths) -> None:
    (variant, *_) = variants_of("depth", settings())
    before = build_digests(variant, where)
    mark = where.data / MARK
    earlier = mark.read_bytes()
    content = json.loads(earlier)
    image = next(name for name in content["sha256"] if name.endswith((".jpg", ".png")))
    content["sha256"][image] = "0" * 64
    mark.write_text(json.dumps(content))
    try:
        after = build_digests(variant, where)
    finally:
        mark.write_bytes(earlier)
    assert not any(before[name] == after[name] for name in before), "although the annotations are the same"
    assert build_digests(variant, where) == before


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


def test_the_error_of_a_study_without_its_dataset_names_the_command_to_run(project: Path) -> None:
    with pytest.raises(DatasetError, match=r"`python -m flows\.data --profile tiny-nothing`"):
        Study("depth", settings(), Paths("tiny-nothing"))


def _fails(*arguments: object) -> dict[str, float]:
    raise ValueError("out of luck")
