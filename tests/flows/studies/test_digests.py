"""The digest of the code that decides a variant's results changes with that code, and with no other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.profile.paths import ROOT
from flows.studies import digests
from flows.studies.digests import code_digest


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a copy of the code, which the digests are computed from."""
    shutil.copytree(ROOT / "detr_core", tmp_path / "detr_core", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.setattr(digests, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("loss/matcher.py", {"train_detection", "train_panoptic"}),
        ("train_mask_head/loss.py", {"train_panoptic"}),
        ("model/detr/model.py", {"train_detection", "train_panoptic", "evaluate"}),
        ("model/deformable/model.py", set()),
        ("model/transformer/position.py", {"train_detection", "train_panoptic", "evaluate"}),
        ("train/initial.py", {"train_detection"}),
        ("jobs/validation.py", set()),
    ],
)
def test_a_digest_changes_with_the_code_of_its_stage(copy: Path, module: str, stages: set[str]) -> None:
    before = {stage: code_digest(stage, "detr") for stage in digests.STAGES.values()}
    file = copy / "detr_core" / module
    file.write_text(file.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    assert {stage for stage, value in before.items() if code_digest(stage, "detr") != value} == stages


@pytest.mark.parametrize("kind", ["detr", "faster_rcnn"])
def test_a_change_of_the_transformer_changes_only_digests_of_kinds_with_one(copy: Path, kind: str) -> None:
    before, shared = code_digest("evaluate", kind), code_digest("evaluate", None)
    file = copy / "detr_core/model/transformer/transformer.py"
    file.write_text(file.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    assert (code_digest("evaluate", kind) != before) == (kind == "detr")
    assert code_digest("evaluate", None) == shared, "it is no code that all kinds share"


@pytest.mark.parametrize(("files", "others"), [(digests.COST, digests.VALIDATION), (digests.VALIDATION, digests.COST)])
def test_a_digest_changes_with_its_additional_files(copy: Path, files: tuple[str, ...], others: tuple[str, ...]) -> None:
    before = code_digest("evaluate", "detr", *files)
    for name, changed in ((others[0], False), (files[0], True)):
        (copy / name).write_text((copy / name).read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
        assert (code_digest("evaluate", "detr", *files) != before) == changed
