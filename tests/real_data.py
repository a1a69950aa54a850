"""The folder of real images that some tests read; they are skipped without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get("DETR_REAL_DATA", ROOT.parent / "shared" / "data")).resolve()
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"DETR_REAL_DATA: no real images at {REAL}")
