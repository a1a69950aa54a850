"""Computes digests of the inputs of a variant's results: code and data. `variants.py` compares them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import yaml

from detr_core.checksums import digest
from detr_core.directories import MARK
from detr_core.model.spec import kind_of
from flows.profile import stage_results
from flows.profile.paths import ROOT, Paths

STAGES = {"detection": "train_detection", "panoptic": "train_panoptic", "evaluation": "evaluate"}  # maps result folders to stages
# No stage of its own measures the validations of a training and the costs of a detector. The code of the stage `evaluate` decides
# them, together with these modules.
VALIDATION = ("detr_core/jobs/validation.py",)
COST = ("detr_core/studies/cost.py", "detr_core/processor.py")


def shared_digest(paths: Paths) -> str:
    """Returns a digest of what all variants of a study share: the profile's data, and the code that all kinds share."""
    return combined_digest(data_digests(paths), [code_digest(stage, kind=None) for stage in STAGES.values()])


def data_digests(paths: Paths) -> list[str]:
    """Returns digests of the profile's annotation files and images. Raises DatasetError if the profile has no dataset.

    The mark of the folder `data/<profile>` has the checksums of the images in it, or that of the manifest, which describes the
    images of a dataset that is read in place.
    """
    files = [file for split in stage_results.dataset(paths).values() for file in (split.instances, split.panoptic) if file]
    mark = paths.data / MARK
    return [digest(file) for file in (*files, *([mark] if mark.is_file() else []))]


def code_digest(stage: str, kind: str | None, *more: str) -> str:
    """Returns a digest of the files that dvc.yaml names as the stage's code.

    kind: the kind of detector whose code is included; None for the code that all kinds share. more: further files.
    """
    names = [name for name in _graph()["stages"][stage]["deps"] if "${profile}" not in name]
    if kind is not None:
        names = [name.replace("${kind}", kind).replace("${builds_on}", kind_of(kind).builds_on) for name in names]
    paths = [ROOT / name for name in (*names, *more) if "${" not in name]
    files = {file for path in paths for file in (path, *path.rglob("*")) if file.is_file() and file.suffix != ".pyc"}
    return combined_digest([(str(file.relative_to(ROOT)), digest(file)) for file in sorted(files)])


def _graph() -> dict[str, Any]:
    graph: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    return graph


def combined_digest(*parts: Any) -> str:
    """Returns a digest of values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
