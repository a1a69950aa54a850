"""This module holds the address where MLflow records runs, and moves credentials in it to MLflow's environment variables."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from urllib.parse import unquote

from detr_core.redaction import without_credentials, without_user_information
from flows.profile.paths import SHARED

VARIABLE = "MLFLOW_TRACKING_URI"
FOLDER = SHARED / "mlflow"


def tracking_uri() -> str:
    """Returns the address where runs are recorded: MLFLOW_TRACKING_URI, or by default the project's own database.

    The default does not depend on the working directory. The address of a server has no credentials. The address of a database
    may hold a password: print `public_uri()` instead.
    """
    separate_credentials(os.environ)
    return os.environ.get(VARIABLE) or f"sqlite:///{FOLDER / 'mlflow.db'}"


def public_uri() -> str:
    """Returns the address of `tracking_uri` without credentials, for messages."""
    return without_credentials(tracking_uri())


def server() -> str | None:
    """Returns the address of the MLflow server that MLFLOW_TRACKING_URI names; None if runs go to a database or a folder."""
    uri = public_uri()
    return uri.rstrip("/") if uri.lower().startswith(("http://", "https://")) else None


def separate_credentials(environment: MutableMapping[str, str]) -> None:
    """Moves the user and password of the server's address into the environment variables that MLflow reads them from.

    Then the addresses that MLflow stores or prints contain no credentials, in this process and in the processes that it starts.
    """
    uri = environment.get(VARIABLE, "")
    scheme, _, rest = uri.partition("://")
    if scheme.lower() not in ("http", "https") or (address := without_user_information(uri)) == uri:
        return
    host_and_path = address.partition("://")[2]
    name, colon, password = rest.removesuffix(host_and_path).removesuffix("@").partition(":")
    if colon:
        environment["MLFLOW_TRACKING_USERNAME"] = unquote(name)
        environment["MLFLOW_TRACKING_PASSWORD"] = unquote(password)
    environment[VARIABLE] = address
