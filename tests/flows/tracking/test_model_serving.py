"""The logged model behind `mlflow models serve`: its requests and responses, and the files that a request can't read."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
import uvicorn
from mlflow.pyfunc import scoring_server
from PIL import Image

from detr_core.config import as_dict
from detr_core.model.checkpoint import load_checkpoint
from detr_core.reporter import Silent
from detr_core.serving.image_inputs import images_of
from flows import predict
from flows.tracking import recorder
from tests.conftest import Trained

Ask = Callable[..., tuple[int, Any]]
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(params=["application", pytest.param("command", marks=pytest.mark.long)])
def served(
    request: pytest.FixtureRequest, trained: Trained, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ask]:
    """Returns a function that sends a request to a served model, and returns the status and the answer.

    The server was started in a folder with the val images below `val/`. It is the application that `mlflow models serve` starts,
    in a thread, or that command itself, which takes longer.
    """
    with recorder.stage_run("evaluate", trained.paths, {}, []) as record:
        record.model(trained.paths.panoptic / "checkpoint.pt", as_dict(trained.settings.evaluate), "panoptic")
    folder, model = tmp_path / "served", f"runs:/{record.run_id}/model"
    shutil.copytree(trained.paths.data / "val", folder / "val")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])  # MLflow adds the folder of the model's code
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "false")  # MLflow sets it, and it is as it was afterwards
    start = _in_a_thread if request.param == "application" else _as_a_command
    with start(model, port):
        yield partial(_ask, port)


@contextmanager
def _in_a_thread(model: str, port: int) -> Iterator[None]:
    app = scoring_server.init(mlflow.pyfunc.load_model(model))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        _wait(port, thread.is_alive)
        yield
    finally:
        server.should_exit = True
        thread.join()
        sys.modules.pop("detector_model")


@contextmanager
def _as_a_command(model: str, port: int) -> Iterator[None]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local", "--port", str(port)]
    server = subprocess.Popen(command, env=os.environ | {"PATH": path}, start_new_session=True)
    try:
        _wait(port, lambda: server.poll() is None)
        yield
    finally:
        os.killpg(server.pid, 9)  # of the session that was started here
        server.wait()


def _wait(port: int, runs: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while True:
        try:
            NO_PROXY.open(f"http://127.0.0.1:{port}/ping", timeout=5).close()
            return
        except OSError:
            assert runs()
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _ask(port: int, body: Any, content: str = "application/json") -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", data, {"Content-Type": content})
    try:
        with NO_PROXY.open(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture
def images(trained: Trained) -> list[Path]:
    """Returns two images of the val split, which the server has below `val/`."""
    return sorted((trained.paths.data / "val").iterdir())[:2]


@pytest.fixture
def require_same(trained: Trained, images: list[Path], tmp_path: Path) -> Callable[..., None]:
    """Returns a function that asserts that a prediction has the boxes that the command `flows.predict` finds in an image."""
    checkpoint = load_checkpoint(trained.paths.panoptic / "checkpoint.pt", torch.device("cpu"))
    predictions = predict.run(checkpoint, images, 0.0, trained.settings.evaluate, tmp_path / "predicted", Silent())
    things = {category["id"] for category in predictions["categories"] if category["isthing"]}
    expected: list[list[tuple[float, int, list[float]]]] = [[] for _ in images]
    for entry in predictions["annotations"]:
        expected[entry["image_id"] - 1].append((entry["score"], entry["category_id"], entry["bbox"]))

    def require(prediction: dict[str, Any], index: int = 0) -> None:
        boxes = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in prediction["boxes"]]
        detections = sorted(zip(prediction["scores"], prediction["labels"], boxes, strict=True), reverse=True)
        served_things = [entry for entry in detections if entry[1] in things]
        expected_things = [entry for entry in sorted(expected[index], reverse=True) if entry[1] in things]
        assert [entry[1] for entry in served_things] == [entry[1] for entry in expected_things]
        np.testing.assert_allclose([entry[2] for entry in served_things], [entry[2] for entry in expected_things], atol=2e-3)

    return require


@pytest.mark.timeout(600)
def test_a_server_finds_what_the_command_finds_in_any_form_of_an_image(
    served: Ask, images: list[Path], require_same: Callable[..., None]
) -> None:
    first, second = (f"val/{image.name}" for image in images)
    encoded = base64.b64encode(images[0].read_bytes()).decode()
    pixels = np.asarray(Image.open(images[0]).convert("RGB")).tolist()
    for body in (
        {"inputs": first},
        {"inputs": pixels},
        {"inputs": {"image": first}},
    ):
        status, answer = served(body)
        assert status == 200, answer
        assert isinstance(answer["predictions"], dict), "a prediction for a single image"
        require_same(answer["predictions"])
    for body in (
        {"inputs": [first]},
        {"inputs": [encoded]},
        {"inputs": [f"data:image/png;base64,{encoded}"]},
        {"inputs": [pixels]},
        {"inputs": {"image": [first]}},
        {"inputs": [{"image": first}]},
        {"instances": [first]},
        {"instances": [encoded]},
        {"instances": [pixels]},
        {"instances": [{"image": first}]},
        {"instances": [{"image": pixels}]},
        {"dataframe_split": {"columns": ["image"], "data": [[first]]}},
        {"dataframe_split": {"columns": ["image"], "data": [[pixels]]}},
        {"dataframe_records": [{"image": encoded}]},
        {"dataframe_records": [{"image": pixels}]},
    ):
        status, answer = served(body)
        assert status == 200, (str(body)[:80], answer)
        (prediction,) = answer["predictions"]
        require_same(prediction)
    with Image.open(images[0]) as opened:
        assert np.shape(prediction["panoptic"]) == (opened.height, opened.width)
    status, answer = served(f"image\n{first}\n{second}\n".encode(), "text/csv")
    assert status == 200, answer
    require_same(answer["predictions"][0])
    require_same(answer["predictions"][1], 1)


@pytest.mark.timeout(600)
def test_a_server_applies_the_threshold_and_refuses_other_inputs_with_a_reason(
    served: Ask, images: list[Path], tmp_path: Path
) -> None:
    status, answer = served({"inputs": [f"val/{images[0].name}"]})
    assert status == 200, answer
    scores = answer["predictions"][0]["scores"]
    middle = sorted(scores)[len(scores) // 2]
    status, answer = served({"inputs": [f"val/{images[0].name}"], "params": {"threshold": middle}})
    assert status == 200
    assert 0 < len(answer["predictions"][0]["scores"]) < len(scores)
    assert min(answer["predictions"][0]["scores"]) >= middle

    (tmp_path / "secret.png").write_bytes(images[0].read_bytes())
    for request, why in (
        (str(tmp_path / "secret.png"), "found one outside of it"),
        ("../secret.png", "found one outside of it"),
        ("val/../../secret.png", "found one outside of it"),
        ("val/none.png", "found text that is neither a file's path nor base64 of an image"),
        (base64.b64encode(b"\x89PNG, but not really").decode(), "bytes that can't be read as an image"),
        ([[[300, 0, 0]]], "found int64 [1, 1, 3] from 0 to 300"),
        ([[1.5, 2.5]], "image: expected a path, base64 text"),
    ):
        status, answer = served({"inputs": [request]})
        assert status == 400
        assert why in answer["message"], answer
        assert "Traceback" not in json.dumps(answer)


def test_an_image_is_taken_in_many_forms(tmp_path: Path) -> None:
    array = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(array).save(tmp_path / "a.png")
    text = base64.encodebytes((tmp_path / "a.png").read_bytes()).decode()
    for image_form in (
        array,
        array.astype(np.int64),
        array.tolist(),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        text,
        {"b64": text},
    ):
        (image,), single = images_of(image_form)
        assert single
        assert torch.equal(image, torch.from_numpy(array).permute(2, 0, 1))
    for several in ([array, array], np.stack([array, array]), [text, {"image": array.tolist()}], np.array([text, text])):
        images, single = images_of(several)
        assert not single
        assert [image.shape for image in images] == [(3, 2, 3)] * 2
    for wrong in (
        array / 255.0,
        array[..., :2],
        array.astype(np.int64) - 1,
        7,
        None,
        {"picture": text},
        [[[1, 2, 3], [1, 2]]],
        "",
    ):
        with pytest.raises(ValueError, match="expected"):
            images_of(wrong)
