"""The fixtures of the tests of detr_core/evaluate, for these too."""

from tests.evaluate.conftest import dataset, split  # noqa: F401
