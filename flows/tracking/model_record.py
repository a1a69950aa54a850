"""Logs the checkpoint of a run as its model in MLflow, with the code, a signature and an example, so that it works anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, Object, Property
from PIL import Image

from flows.profile.paths import ROOT

if TYPE_CHECKING:
    from detr_core.data.annotations import Targets

REQUIREMENTS = ("torch", "torchvision", "numpy", "scipy", "pycocotools", "hotcoco", "pillow")  # a logged model needs these


def log_model(checkpoint: Path, evaluate: Mapping[str, object], masks: Targets | None) -> None:
    """Logs the checkpoint as the model of the active run; flows/tracking/detector_model.py describes its inputs and outputs.

    evaluate: the profile's section `evaluate`, which says how to read the output. masks: what the model's mask head was trained
    on, None without a mask head.
    """
    Model.log(
        None,
        name="model",
        flavor=_Flavor,
        flavor_name="pyfunc",
        loader_module="detector_model",
        data_path=str(checkpoint),
        model_config=dict(evaluate),
        code_paths=[str(ROOT / "detr_core"), str(ROOT / "flows" / "tracking" / "detector_model.py")],
        pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],  # MLflow would take 9 s to infer them
        signature=signature(masks),
        input_example=[example()],
        validate_serving_input=False,
    )


class _Flavor:
    """MLflow's flavor `pyfunc` as `Model.log` expects it, but without the validation of the example.

    `mlflow.pyfunc.log_model` always imports torch and loads the model to validate the example, and ends with a warning if that
    fails. This takes seconds, in stages that don't import torch themselves.
    """

    @staticmethod
    def save_model(path: str, validate_serving_input: bool, **arguments: Any) -> None:
        mlflow.pyfunc.save_model(path, **arguments)


def signature(masks: Targets | None) -> ModelSignature:
    """Returns the model's signature: the fields of a prediction, and the parameter `threshold`.

    The input has no schema: an image is a text or an array, and MLflow's schemas have no type that allows both. With a schema,
    MLflow would refuse paths or pixels before the model sees them.
    """
    numbers, whole = Array(DataType.double), Array(DataType.long)
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(numbers, "scores"),
        ColSpec(whole, "labels"),
        ColSpec(Array(DataType.string), "names"),
        ColSpec(Array(numbers), "boxes"),
    ]
    if masks == "instances":
        run_lengths = Object([Property("size", Array(DataType.long)), Property("counts", DataType.string)])
        columns.append(ColSpec(Array(run_lengths), "masks"))
    if masks == "panoptic":
        fields = {"id": "long", "category_id": "long", "name": "string", "isthing": "boolean", "area": "long"}
        segment = Object([Property(name, kind) for name, kind in fields.items()])
        columns += [ColSpec(Array(whole), "panoptic"), ColSpec(Array(segment), "segments")]
    return ModelSignature(outputs=Schema(columns), params=ParamSchema([ParamSpec("threshold", DataType.double, 0.0)]))


def example() -> str:
    """Returns a picture of a red rectangle as base64 text of a PNG file."""
    picture = Image.new("RGB", (64, 48), "white")
    picture.paste("red", (16, 12, 48, 36))
    file = io.BytesIO()
    picture.save(file, "png")
    return base64.b64encode(file.getvalue()).decode()
