"""Formats numbers with their nouns, in the singular or the plural."""

from __future__ import annotations


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Returns the number with its noun: '1 class', '1,200 images', '2 studies'. plural: if it is not singular + 's'."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
