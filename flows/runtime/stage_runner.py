"""Runs the flow of a command `python -m flows.<stage>`: it reads the arguments, finds a Prefect server, and prints errors."""

from __future__ import annotations

import functools
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from types import FrameType
from typing import Any

import httpx
from prefect import Flow, tags
from prefect.exceptions import TerminationSignal
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_UI_URL,
    temporary_settings,
)

from detr_core.errors import ExpectedError
from detr_core.storage import as_storage_error
from flows.profile import dvc_variables, graphs
from flows.profile.paths import Paths
from flows.profile.settings import load
from flows.runtime import arguments
from flows.runtime.fast_exit import work_is_done
from flows.runtime.server import came_back, ensure_server, own_address
from flows.runtime.starting import ServerError
from flows.tracking import dead_runs, ui_addresses

RETRIES = 2  # retries of a request to Prefect, after 2 and 4 seconds; Prefect's default of 5 takes a minute for each request
log = logging.getLogger(__name__)
_ending = False


def main(command: str, stage_flow: Flow[Any, Any]) -> None:
    """Runs the flow of `python -m flows.<command>` for the profile of the command line; see `run`."""
    run(stage_flow, arguments.parser(command).parse_args().profile)


def run(stage_flow: Flow[Any, Any], profile: str, **parameters: Any) -> None:
    """Runs the flow for a profile, with these other parameters, on a Prefect server that is found or started.

    Exits with 1 and one line on stderr for an expected error; an invalid profile is reported before any process is started.
    Exits with 130 after ctrl-c and with 143 after SIGTERM, when the flow has cleaned up. Other errors are raised with their
    traceback. A flow whose work is complete has succeeded, even if the Prefect server has ended by then.
    """
    with one_line_errors():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:  # a signal that nohup ignores stays ignored
                signal.signal(number, _end_in_order)
        settings = load(profile)
        for error in dvc_variables.dvc_errors():
            print(f"warning: {error}; until this is corrected, `dvc repro` can't run any profile", file=sys.stderr)
        if (message := graphs.outdated_message(Paths(profile))) is not None:
            print(f"warning: {message}", file=sys.stderr)
        dvc_variables.require_kind(Paths(profile), settings.detector.kind)
        url = ensure_server()
        with temporary_settings(_prefect_settings(url)), tags(*dead_runs.prefect_tags()):
            dead_runs.mark_in_prefect(url)
            _hide_prefect_errors()
            _carry_out(stage_flow, url, {"profile": profile, **parameters})
    work_is_done()


def _prefect_settings(url: str) -> dict[Any, Any]:
    """Returns Prefect's settings for a flow on the server at this address.

    The project's own server ends with its last command, so the pages that Prefect's log names are those of `make serve`. Nothing
    listens to heartbeats there (dead_runs.py finds runs whose process has ended), and their thread delays the end of a command.
    """
    own_server_settings = (
        {PREFECT_UI_URL: ui_addresses.OWN_PREFECT, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None} if url == own_address() else {}
    )
    return {PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: RETRIES, **own_server_settings}


def _carry_out(stage_flow: Flow[Any, Any], url: str, parameters: dict[str, Any], tries: int = 2) -> None:
    """Runs the flow; after its function has succeeded, an error of the connection to Prefect is only a warning.

    If the server ends before the function begins, and a restarted server answers, the flow is tried again.
    """
    started = complete = False
    observed, without_server = copy(stage_flow), ExitStack()

    @functools.wraps(stage_flow.fn)
    def function(*arguments: Any, **keywords: Any) -> Any:
        nonlocal started, complete
        started = True
        _take_signals()  # this replaces Prefect's handler, which would end the cleaning up when a second signal comes
        result = stage_flow.fn(*arguments, **keywords)
        complete = True
        if not came_back(url):  # without a server there are no further tries, and no message about each of them
            without_server.enter_context(temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}))
            logging.raiseExceptions = False
        return result

    observed.fn = function
    try:
        with without_server:
            observed(**parameters)
    except httpx.HTTPError as error:
        if not started and tries > 1 and came_back(url):
            _carry_out(stage_flow, url, parameters, tries - 1)
            return
        if not complete and isinstance(error, httpx.TransportError):
            raise ServerError(f"the Prefect server at {url} stopped answering before the work was complete: {error!r}") from None
        if not complete:
            raise
        log.warning("the work is complete, but no Prefect server answers at %s: the page of this run is not updated", url)


def _take_signals() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end_in_order)


def _end_in_order(number: int, _frame: FrameType | None) -> None:
    """Ends the work of the main thread by an exception that no stage catches; a second signal does not end the cleaning up."""
    global _ending
    if not _ending:
        _ending = True
        raise TerminationSignal(number)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends a command with one line and exit code 1 for an expected error, 130 after ctrl-c, and 143 after SIGTERM."""
    try:
        yield
    except KeyboardInterrupt:
        print("the command was interrupted", file=sys.stderr)
        sys.exit(130)
    except TerminationSignal as error:
        print("the command was ended by a signal", file=sys.stderr)
        sys.exit(128 + error.signal)
    except ExpectedError as error:
        sys.exit(_line(error))
    except OSError as error:
        refusal = as_storage_error(error)
        if refusal is None:
            raise
        sys.exit(_line(refusal))


def _line(error: Exception) -> str:
    return f"error: {' '.join(str(error).split())}"


def _hide_prefect_errors() -> None:
    """Hides the error and traceback that Prefect would print for a failing flow, because `run` prints the error itself.

    The Prefect server still receives them.
    """
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: not (record.name.startswith("prefect.") and record.levelno >= logging.ERROR))
