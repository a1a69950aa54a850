"""Fixtures with generated scenes, for the tests of the studies."""

from __future__ import annotations

import pytest

from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import Split
from tests.tiny_detector import dataset_of, scenes


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Returns the val split of generated scenes."""
    return scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def dataset(split: Split) -> CocoDataset:
    """Returns the generated scenes as a dataset for evaluation."""
    return dataset_of(split)
