"""An object that runs code when a pickle with it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Hostile:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call
