"""The model that the evaluation records in MLflow, loaded in a process without the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from detr_core.config import as_dict
from flows.tracking import recorder
from tests.conftest import Trained
from tests.flows.results import content_of

PREDICT = """
import json, sys, mlflow, numpy as np
from PIL import Image
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
prediction = model.predict(sys.argv[3])
again = model.predict(np.array(Image.open(sys.argv[3])))
import detr_core
print(json.dumps({
    "code": detr_core.__file__,
    **{name: prediction[name].tolist() for name in ("boxes", "labels", "scores")},
    "same": bool((prediction["boxes"] == again["boxes"]).all()),
    "panoptic": list(prediction["panoptic"].shape), "ids": sorted(set(prediction["panoptic"].ravel().tolist())),
    "segments": [segment["id"] for segment in prediction["segments"]],
}))
"""


def test_the_logged_model_predicts_as_evaluation_does_wherever_it_is_loaded(
    trained: Trained, database: Path, tmp_path: Path
) -> None:
    with recorder.stage_run("evaluate", trained.paths, {}, []) as record:
        record.model(trained.paths.panoptic / "checkpoint.pt", as_dict(trained.settings.evaluate))
    image = sorted((trained.paths.data / "val").iterdir())[0]
    answer = subprocess.run(
        [sys.executable, "-c", PREDICT, f"sqlite:///{database}", f"runs:/{record.run_id}/model", image],
        cwd=tmp_path,
        env={"PATH": "", "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    prediction = json.loads(answer.stdout.splitlines()[-1])
    assert prediction["code"].endswith("/model/code/detr_core/__init__.py"), "the code beside the model, not the checkout's"
    assert prediction["same"], "a file and its pixels give the same"
    results = content_of(trained.paths.evaluation / "bbox.json")
    images = content_of(trained.paths.data / "annotations" / "instances_val.json")
    assert isinstance(results, list)
    assert isinstance(images, dict)
    number = next(entry["id"] for entry in images["images"] if entry["file_name"] == image.name)
    things = {category["id"] for category in images["categories"]}
    expected = sorted(
        ([*entry["bbox"][:2], entry["bbox"][0] + entry["bbox"][2], entry["bbox"][1] + entry["bbox"][3]], entry["category_id"])
        for entry in results
        if entry["image_id"] == number
    )
    actual = sorted((box, label) for box, label in zip(prediction["boxes"], prediction["labels"], strict=True) if label in things)
    assert [label for _, label in actual] == [label for _, label in expected]
    np.testing.assert_allclose([box for box, _ in actual], [box for box, _ in expected], atol=1e-3)
    assert prediction["scores"] == sorted(prediction["scores"], reverse=True)
    with Image.open(image) as opened:
        assert prediction["panoptic"] == [opened.height, opened.width]
    assert set(prediction["ids"]) - {0} == set(prediction["segments"])
