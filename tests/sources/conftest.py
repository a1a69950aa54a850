"""The fixtures of the tests of detr_core/data, for these too."""

from tests.data.conftest import noise, real_data, write_split  # noqa: F401
