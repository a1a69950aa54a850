"""What a change makes stale: the table below, what dvc.yaml names, and what the stages really import agree with each other."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
import yaml

from detr_core.model.spec import KINDS
from flows.profile.graphs import BUILDS_ON, with_kind

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "detr_core"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

D, C, T, P, E, A, R = "data", "check", "train_detection", "train_panoptic", "evaluate", "studies", "report"
# A module or a folder of detr_core -> the stages that a change of it makes stale; the longest path that fits counts. A folder of
# a kind of detector concerns the profiles of that kind alone.
TABLE: dict[str, set[str]] = {
    "__init__.py": set(),
    "atomic.py": set(),
    "checksums.py": set(),
    "coco.py": set(),
    "config.py": {D, C, T, P, E, A, R},
    "directories.py": set(),
    "distributed.py": {T, P, E, A},
    "errors.py": set(),
    "numbers.py": {C, A, R},
    "processor.py": set(),
    "redaction.py": set(),
    "reporter.py": set(),
    "sampling.py": {A, R},
    "storage.py": set(),
    "structures.py": {C, T, P, E, A, R},
    "wording.py": set(),
    "download": set(),
    "data": {T, P, E, A, R},
    "data/annotation_cache.py": {C, T, P, E, A, R},
    "data/annotation_reader.py": {C, T, P, E, A, R},
    "data/annotations.py": {C, T, P, E, A, R},
    "data/config.py": {D, C, T, P, E, A, R},
    "data/fields.py": {D, C, T, P, E, A, R},
    "data/images.py": {D, C, T, P, E, A, R},
    "data/masks.py": {C, T, P, E, A, R},
    "data/run_lengths.py": {C, T, P, E, A, R},
    "data/splits.py": {D, C, T, P, E, A, R},
    "data/texts.py": {C, T, P, E, A, R},
    "data/values.py": {D, C, T, P, E, A, R},
    "sources": {D},
    "sources/account.py": {D, C},
    "sources/image_entries.py": {D, C},
    "sources/split.py": {D, C},
    "sources/formats/conversion.py": {D, C},
    "check": {C},
    "model/__init__.py": set(),
    "model/spec.py": set(),
    "model/checkpoint.py": {T, P, E, A},
    "model/common": {T, P, E, A},
    **{f"model/{kind}": {T, P, E, A} for kind in KINDS},
    "model/panoptic": {T, P, E, A},  # of the kinds that build on it
    "loss": {T, P},
    "train": {T, P},
    "train_mask_head": {P},
    "evaluate": {E, A, R},
    "evaluate/areas.py": {C, E, A, R},
    "evaluate/ground_truth.py": {C, E, A, R},
    "evaluate/validation.py": {E, A, R},  # neither training, whose weights do not depend on it
    "studies": {A, R},
    "jobs/__init__.py": set(),
    "jobs/events.py": set(),
    "jobs/evaluate.py": {E},
    "jobs/train_detection.py": {T},
    "jobs/train_panoptic.py": {P},
    "jobs/training.py": {T, P},
    "plots": {R},
    "plots/data_check.py": {C, R},
    "plots/page.py": {C, R},
    "plots/pictures.py": {C, R},
    "plots/sections.py": {C, R},
    "plots/style.py": {C, R},
    "plots/tables.py": {C, R},
    "serving": set(),
}

# Where the work of a stage happens: its own process, or the processes that it starts.
WORK = {
    D: "flows/data.py",
    C: "flows/check.py",
    T: "detr_core/jobs/train_detection.py",
    P: "detr_core/jobs/train_panoptic.py",
    E: "detr_core/jobs/evaluate.py",
    A: "flows/studies/evaluating.py",
    R: "flows/report.py",
}
# What a stage imports although no value in its result depends on it, and why. What these import counts only if others import it.
NO_RESULT = {
    "atomic.py": "how a file is written, not what is in it",
    "checksums.py": "a checksum is the same whoever computes it",
    "coco.py": "the categories of COCO never change",
    "directories.py": "how a folder is written, not what is in it",
    "download": "what is downloaded is verified, whatever brought it",
    "errors.py": "how a refusal is worded",
    "jobs/events.py": "how the processes of a stage report",
    "model/spec.py": "it refuses what does not fit a kind, and picks the code of the profile's kind, whose folder is named",
    "redaction.py": "what is removed from messages",
    "reporter.py": "how a stage reports",
    "storage.py": "how a full disk is reported",
    "wording.py": "how messages are worded",
}
STUDIES = {"studies/evaluating", "plots/studies"}  # packages that load their modules by the names of the studies
SPEC = "model/spec.py"  # the code that this file picks decides results, although the file itself does not
APART = {
    (
        C,
        "model",
    ): "the check reads from the detector's configuration how many objects it finds; DVC compares that parameter itself",
    (T, "evaluate"): "a training validates, but learns nothing from it; a change must not train again",
    (P, "evaluate"): "a training validates and refuses a dataset without objects, but learns nothing from it",
}


def path_of(file: Path) -> str:
    return file.relative_to(CORE).as_posix()


def within(path: str, places: object) -> str | None:
    """Returns the longest of `places` that is this path or a folder around it."""
    fitting = [place for place in places if path == place or path.startswith(f"{place}/")]  # type: ignore[attr-defined]
    return max(fitting, key=len, default=None)


@cache
def imported(file: Path) -> frozenset[Path]:
    """Returns the modules of detr_core that a file imports, also inside of functions; of a package of studies, all modules."""
    paths: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("detr_core"):
            for module in (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)):
                path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
                if path.is_file():
                    paths.add(path)
                elif path_of(path.with_suffix("")) in STUDIES:
                    paths |= set(path.with_suffix("").glob("*.py"))
    return frozenset(paths)


def decisive(stage: str, kind: str) -> set[str]:
    """Returns the modules that decide a stage's result for this kind of detector: all that its work imports."""
    start = ROOT / WORK[stage]
    visited: set[Path] = set()
    pending = [start]
    while pending:
        for path in imported(pending.pop()) - visited:
            name = path_of(path)
            of_others = [f"model/{other}" for other in KINDS if other not in (kind, *KINDS[kind].builds_on)]
            apart = [place for of, place in APART if of == stage]
            if within(name, [*of_others, *apart]) is not None:
                continue
            if name == SPEC:
                visited |= (picked := {file for file in imported(path) if within(path_of(file), [f"model/{kind}"])} - visited)
                pending += picked
            elif within(name, NO_RESULT) is None:
                visited.add(path)
                pending.append(path)
    return {path_of(path) for path in visited | ({start} if start.is_relative_to(CORE) else set())}


def named(stage: str, kind: str) -> list[str]:
    """Returns the paths below detr_core that dvc.yaml names as the code of the stage."""
    code = [name for name in STAGES[stage]["deps"] if "${profile}" not in name]
    assert all(name.startswith("detr_core/") for name in code), "no flow decides a result"
    return [with_kind(name.removeprefix("detr_core/"), kind) for name in code]


def modules() -> list[str]:
    return sorted(path_of(file) for file in CORE.rglob("*.py"))


def test_the_table_has_every_module_and_nothing_else() -> None:
    rows = {within(module, TABLE) for module in modules()}
    assert None not in rows
    assert rows == set(TABLE)


@pytest.mark.parametrize("module", [module for module in modules() if not module.endswith("__init__.py")])
def test_a_change_makes_stale_what_the_table_says(module: str) -> None:
    folder = module.split("/")[1] if module.startswith("model/") else ""
    kind = next((kind for kind in KINDS if folder in (kind, *KINDS[kind].builds_on)), "detr")
    row = within(module, TABLE)
    assert row is not None
    stale = {stage for stage in STAGES if within(module, named(stage, kind)) is not None}
    assert stale == TABLE[row]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_code_that_decides_its_result(stage: str, kind: str) -> None:
    missing = {module for module in decisive(stage, kind) if within(module, named(stage, kind)) is None}
    assert missing == set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_nothing_that_it_does_not_import(stage: str) -> None:
    needed = decisive(stage, "detr") | {"plots/report.html.j2"}  # which plots/page.py reads
    idle = {place for place in named(stage, "detr") if not any(within(module, [place]) for module in needed)}
    assert idle == set()


def test_every_exception_is_needed() -> None:
    files = [*CORE.rglob("*.py"), *(ROOT / work for work in WORK.values())]
    for place in NO_RESULT:
        assert any(within(path_of(path), [place]) for file in files for path in imported(file)), place
    for stage, place in APART:
        paths = {path_of(path) for path in imported(ROOT / WORK[stage])}
        paths |= {path_of(path) for module in decisive(stage, "detr") for path in imported(CORE / module)}
        assert any(within(module, [place]) for module in paths), (stage, place)


def test_what_must_not_train_a_detector_again() -> None:
    code = named(T, "detr")
    for module in (
        "sources/scenes.py",
        "sources/formats/voc.py",
        "sources/unpacking.py",
        "plots/study.py",
        "model/deformable/model.py",
        "train_mask_head/loss.py",
        "jobs/train_panoptic.py",
        "evaluate/average_precision.py",
        "evaluate/validation.py",
    ):
        assert (CORE / module).is_file()
        assert within(module, code) is None, module
    for module in ("data/transforms.py", "loss/matcher.py", "model/common/transformer.py", "model/detr/model.py"):
        assert within(module, code) is not None, module


def test_there_is_a_place_for_every_folder_that_a_kind_builds_on() -> None:
    assert max(len(kind.builds_on) for kind in KINDS.values()) == BUILDS_ON
    for stage in (T, P, E, A):
        assert {f"detr_core/model/${{builds_on[{place}]}}" for place in range(BUILDS_ON)} <= set(STAGES[stage]["deps"])


def test_a_change_of_a_kind_trains_only_the_kinds_again_that_build_on_it() -> None:
    def retrained(module: str) -> set[str]:
        assert (CORE / module).is_file()
        return {kind for kind in KINDS if within(module, named(T, kind)) is not None}

    assert retrained("model/panoptic_fpn/semantic.py") == {"panoptic_fpn"}
    assert {"mask_rcnn", "panoptic_fpn"} <= retrained("model/mask_rcnn/model.py")
    assert not {"detr", "deformable", "faster_rcnn"} & retrained("model/mask_rcnn/model.py")
    assert {"faster_rcnn", "mask_rcnn", "panoptic_fpn"} <= retrained("model/faster_rcnn/model.py")
