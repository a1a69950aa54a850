"""Ends a command with one line instead of a traceback. This module imports nothing that takes long to import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from detr_core.errors import ExpectedError
from detr_core.storage import as_storage_error


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends a command with one line and exit code 1 for an expected error, and with exit code 130 after ctrl-c."""
    try:
        yield
    except KeyboardInterrupt:
        print("the command was interrupted", file=sys.stderr)
        sys.exit(130)
    except ExpectedError as error:
        sys.exit(_line(error))
    except OSError as error:
        refusal = as_storage_error(error)
        if refusal is None:
            raise
        sys.exit(_line(refusal))


def _line(error: Exception) -> str:
    return f"error: {' '.join(str(error).split())}"
