"""The table of a training study's results, with the variants of every kind of detector."""

from __future__ import annotations

from detr_core.config import build
from detr_core.model.spec import KINDS
from detr_core.reporter import Silent
from detr_core.studies.comparison import read_table
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from flows.studies.training import Study
from tests.conftest import tiny_parameters
from tests.flows.studies.tiny_study import STEP, make_all, settings


def test_a_table_has_the_finished_variants_and_the_errors_of_the_failed_ones(where: Paths) -> None:
    study = Study("depth", settings(), where)
    study.make("0-seed0", Silent(), "a run")
    study.failed["1-seed0"] = "out of luck"
    study.write(intervals=True)
    runs = read_table(where.training_studies / "depth" / "study.json").runs
    assert [(run.status, run.error, run.metrics is None) for run in runs] == [
        ("finished", None, False), ("failed", "out of luck", True),
    ]  # fmt: skip
    assert runs[0].differences == {}, "there is no base to compare with"


def test_the_baselines_train_and_are_evaluated_as_detr_is(where: Paths) -> None:
    content = tiny_parameters()
    content["studies"]["training"] = {"baselines": content["studies"]["training"]["baselines"] | {"set": STEP}}
    variants = content["studies"]["training"]["baselines"]["variants"]
    study = Study("baselines", build(Profile, content, "tiny.yaml"), where)
    make_all(study)
    study.write(intervals=True)
    runs = read_table(where.training_studies / "baselines" / "study.json").runs
    assert [run.variant for run in runs] == list(variants)
    kinds = {name for name, kind in KINDS.items() if "panoptic" not in kind.capabilities}
    assert {run.varied["detector"] for run in runs} == kinds, "the other kinds are in the study of panoptic segmentation"
    for run in runs:
        assert run.status == "finished", run.error
        recipe = content | variants[run.variant]
        loss = recipe.get("train_detection.loss", content["train_detection"]["loss"])
        assert (run.varied["detector"], run.varied["train_detection.loss"]) == (recipe["detector"]["kind"], loss["kind"])
        assert run.metrics is not None
        assert {"val/AP", "train/loss"} <= run.metrics.keys()
        assert ("val/mask/AP" in run.metrics) == (run.varied["detector"] == "mask_rcnn")
        assert run.cost is not None
        assert min(run.cost[name] for name in ("parameters", "gflops", "images_per_second")) > 0


def test_detectors_of_panoptic_maps_are_compared_with_a_mask_head(where: Paths) -> None:
    content = tiny_parameters()
    panoptic = content["studies"]["training"]["panoptic"]
    variants = {name: overrides for name, overrides in panoptic["variants"].items() if "detector" in overrides}
    variants["attention maps"] = panoptic["variants"]["attention maps"]
    steps = STEP | {"train_panoptic.epochs": 1, "train_panoptic.steps": 1}
    content["studies"]["training"] = {"panoptic": panoptic | {"set": steps, "variants": variants}}
    study = Study("panoptic", build(Profile, content, "tiny.yaml"), where)
    make_all(study)
    study.write(intervals=True)
    folder = where.training_studies / "panoptic"
    runs = read_table(folder / "study.json").runs
    kinds = {name for name, kind in KINDS.items() if "panoptic" in kind.capabilities}
    assert {run.varied["detector"] for run in runs} == kinds | {"detr"}, "every kind that predicts panoptic maps is in the study"
    for run in runs:
        assert run.status == "finished", run.error
        assert run.metrics is not None
        assert {"val/AP", "val/mask/AP", "val/PQ"} <= run.metrics.keys()
        results = folder / f"{run.variant}-seed0"
        assert (results / "evaluation" / "panoptic.json").is_file()
        assert (results / "panoptic").exists() == (run.varied["detector"] == "detr"), "only DETR has a mask head to train"
