"""How a GPU computes in float32."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from detr_core.distributed import compute_float32


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [backend.fp32_precision for backend in backends]
    yield
    for backend, precision in zip(backends, before, strict=True):
        backend.fp32_precision = precision


def test_float32_is_exact_unless_tf32_is_asked_for() -> None:
    for how in ("tf32", "ieee"):
        compute_float32(how, torch.device("cuda"))  # type: ignore[arg-type]
        assert (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision) == (how, how)
    compute_float32("tf32", torch.device("cpu"))
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
