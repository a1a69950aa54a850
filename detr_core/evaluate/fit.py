"""Checks that the configuration of an evaluation fits a kind of detector. It imports neither torch nor the code of a kind."""

from __future__ import annotations

from detr_core.config import require
from detr_core.evaluate.config import EvaluateConfig
from detr_core.model.spec import kind_of, kinds_with


def require_evaluation_fits(kind: str, config: EvaluateConfig) -> None:
    """Raises ConfigError, which names the key and the kind, if a detector of this kind can't be evaluated in this way."""
    segments = "panoptic" in kind_of(kind).capabilities
    expected = f"null with detector.kind {kind!r}, because only {kinds_with('panoptic')} segment an image semantically"
    require(segments or config.multi_scale is None, "evaluate.multi_scale", expected, "a section")
