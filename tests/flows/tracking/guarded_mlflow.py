"""An MLflow server on loopback that answers only to one user and password, for the tests of credentials in addresses."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

USER = "recorder"
PASSWORD = "zq7Geheim/of?the#wörkbench@night"
ENCODED = "zq7Geheim%2Fof%3Fthe%23w%C3%B6rkbench%40night"


class _Silent(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None: ...


@contextmanager
def guarded_mlflow(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Runs an MLflow server that asks for a user and password, and yields its address with both.

    Its database and its artifacts are in `folder`.
    """
    patch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{folder / 'mlflow.db'}")
    patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
    patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(folder / "artifacts"))
    patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
    from mlflow.server import app, handlers  # reads these variables

    patch.setattr(handlers, "_tracking_store", None)
    patch.setattr(handlers, "_artifact_repo", None)
    expected = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"

    def guarded(environment: dict[str, Any], answer: Callable[..., Any]) -> Iterable[bytes]:
        if environment.get("HTTP_AUTHORIZATION") != expected:
            answer("401 Unauthorized", [("Content-Type", "text/plain")])
            return [b"a user and a password are needed"]
        return app.wsgi_app(environment, answer)

    server = make_server("127.0.0.1", 0, guarded, threaded=True, request_handler=_Silent)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{USER}:{ENCODED}@127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
