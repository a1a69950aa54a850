"""A training validates every so many epochs, after each of its last epochs if that is configured, and at its end.

A validation computes the metrics that the evaluation of the same weights computes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from detr_core.config import ConfigError
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import read_dataset
from detr_core.data.transforms import evaluation_transform
from detr_core.evaluate.metric_names import PANOPTIC_METRICS
from detr_core.evaluate.predictions import evaluate, predict
from detr_core.model.checkpoint import load_checkpoint
from detr_core.reporter import Silent
from tests.conftest import tiny_settings
from tests.jobs.training_jobs import ALONE, CPU, history, job, job_of, mask_job, weights
from tests.jobs.training_process import carry_out
from tests.tiny_detector import evaluation_data


def validated_epochs(folder: Path) -> list[float]:
    """Returns the epochs of the validations in the history of a training."""
    return [record["epoch"] for record in history(folder) if "val/AP" in record]


@pytest.mark.parametrize(
    ("every", "last", "expected"),
    [
        (4, 0, [4, 6]),
        (4, 1, [4, 6]),
        (4, 2, [4, 5, 6]),
        (9, 3, [4, 5, 6]),
        (1, 0, [1, 2, 3, 4, 5, 6]),
        (9, 6, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_the_last_epochs_are_validated(dataset: Path, tmp_path: Path, every: int, last: int, expected: list[float]) -> None:
    carry_out(job(dataset, tmp_path, epochs=6, validate_every=every, validate_last=last), ALONE, Silent())
    assert validated_epochs(tmp_path) == expected


def test_more_validations_do_not_change_the_weights(dataset: Path, tmp_path: Path) -> None:
    for last in (0, 2):
        carry_out(job(dataset, tmp_path / str(last), dropout=0.1, validate_every=9, validate_last=last), ALONE, Silent())
    few, many = weights(tmp_path / "0"), weights(tmp_path / "2")
    assert all((few[name] == many[name]).all() for name in few)


def test_more_epochs_than_there_are_cannot_be_validated(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="validate_last: expected 0 to 2 epochs, found 3"):
        job(dataset, tmp_path, validate_last=3)


def evaluated(folder: Path, dataset: Path, out: Path) -> dict[str, float]:
    """Returns the metrics of the evaluation of a training's last checkpoint."""
    split = read_dataset(dataset)["val"]
    images = CocoDataset(split, "panoptic", masks=False, transform=evaluation_transform(None), seed=0)
    out.mkdir()
    predict(load_checkpoint(folder / "out" / "checkpoint.pt", CPU), evaluation_data(images), tiny_settings().evaluate, out)
    return evaluate(out, split)


def test_the_panoptic_quality_of_a_validation_is_that_of_the_evaluation(dataset: Path, tmp_path: Path) -> None:
    carry_out(job_of("panoptic_fpn", dataset, tmp_path / "fpn", epochs=1), ALONE, Silent())
    last = {name: value for name, value in history(tmp_path / "fpn")[-1].items() if name.startswith("val/")}
    assert last == pytest.approx(evaluated(tmp_path / "fpn", dataset, tmp_path / "fpn-evaluation"))

    carry_out(job(dataset, tmp_path / "detector", targets="panoptic", steps=1), ALONE, Silent())
    carry_out(mask_job(dataset, tmp_path / "masks", tmp_path / "detector"), ALONE, Silent())
    metrics = evaluated(tmp_path / "masks", dataset, tmp_path / "masks-evaluation")
    last = history(tmp_path / "masks")[-1]
    assert {name for name in last if name.startswith("val/")} == {"val/loss", "val/focal", "val/dice"} | {
        f"val/{name}" for name in PANOPTIC_METRICS
    }
    for name in PANOPTIC_METRICS:
        assert last[f"val/{name}"] == pytest.approx(metrics[f"val/{name}"]), name
