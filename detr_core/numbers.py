"""Formats numbers for reports."""

from __future__ import annotations


def signed(points: float, decimals: int = 1) -> str:
    """Formats a difference with its sign, such as '+3.1' or '−0.8'. A zero has no minus sign."""
    return f"{round(points, decimals) + 0.0:+.{decimals}f}".replace("-", "−")
