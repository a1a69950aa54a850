"""The golden cases, and what every test that reads them needs.

The environment variable GOLDEN_DIR names the folder of the cases (default: tests/golden), so the same tests run on any other
folder of that format. The tolerance is 1e-4 relative + 1e-5 absolute; integers must be equal.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detr_core.structures import Padding

GOLDEN = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parent / "golden"))


def cases(pattern: str) -> Any:
    """Returns a decorator that runs a test once for each golden file or folder of this name."""
    paths = sorted(GOLDEN.glob(pattern))
    return pytest.mark.parametrize("path", paths, ids=[path.name for path in paths])


def close(ours: Any, golden: Any) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(golden), rtol=1e-4, atol=1e-5)


def golden_weight(seed: int, key: str, like: torch.Tensor) -> torch.Tensor:
    rng, shape = np.random.default_rng([seed, zlib.crc32(key.encode())]), tuple(like.shape)
    if key.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif key.endswith(("running_mean", "bias")):
        value = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:
        value = rng.uniform(0.5, 1.0, shape)
    else:
        value = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def golden_images(golden: Any) -> tuple[torch.Tensor, Padding]:
    rng = np.random.default_rng(int(golden["seed"]))
    height, width = golden["sizes"].max(0)
    images = torch.zeros(len(golden["sizes"]), 3, height, width)
    padding = torch.ones(len(images), height, width, dtype=torch.bool)
    for i, (h, w) in enumerate(golden["sizes"]):
        images[i, :, :h, :w] = torch.from_numpy(rng.standard_normal((3, h, w)).astype(np.float32))
        padding[i, :h, :w] = False
    return images, Padding.of(padding)
