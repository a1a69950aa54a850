"""What `python -m flows.<stage>` does around a stage's flow: arguments, the server, and errors that a person can read."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import Flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from detr_core.errors import ExpectedError
from flows import places
from flows.attached import end_with_parent
from flows.leaving import work_is_done
from flows.paths import DEFAULT_PROFILE
from flows.server import ensure_server
from flows.settings import load


def main(stage_flow: Flow[Any, Any]) -> None:
    """Runs the flow for the profile of the command line; see `run`. Exits with 2 for arguments that make no sense."""
    run(stage_flow, profile_parser(stage_flow.description).parse_args().profile)


def profile_parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with `--profile`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--profile", default=DEFAULT_PROFILE, help="params/PROFILE.yaml (default: %(default)s)")
    return parser


def run(stage_flow: Flow[Any, Any], profile: str, **parameters: Any) -> None:
    """Runs the flow for a profile, with these other parameters, on a Prefect server that is found or started.

    Exits with 1 and one line on stderr for an error that is expected (a bad profile before anything is started), with 130 when
    interrupted; any other error goes on with its traceback.
    """
    if "DVC_STAGE" in os.environ:
        end_with_parent()  # dvc, killed, would leave us at work
    with one_line_errors():
        load(profile)
        for error in places.source_errors():
            print(f"warning: {error}; until then `dvc repro` can't run any profile", file=sys.stderr)
        url = ensure_server()
        with temporary_settings({PREFECT_API_URL: url}):
            _errors_told_once()
            stage_flow(profile=profile, **parameters)
    work_is_done()


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Around a command's work: exits with 1 and one line on stderr for an expected error, with 130 when interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except ExpectedError as error:
        sys.exit(_line(error))


def _line(error: Exception) -> str:
    return f"error: {' '.join(str(error).split())}"


def _errors_told_once() -> None:
    """Prefect prints a failing flow's error with a traceback; `main` says it, so here it isn't. The server still gets it."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: not (record.name.startswith("prefect.") and record.levelno >= logging.ERROR))
