"""What a change makes stale: the table below, what dvc.yaml names, and what the stages really import agree with each other."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import yaml

from detr_core.model.spec import KINDS
from flows.studies.digests import COST, VALIDATION

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
    "gpus.py": set(),
    "numbers.py": {C, R},
    "processor.py": set(),
    "redaction.py": set(),
    "reporter.py": set(),
    "sampling.py": {A, R},
    "storage.py": set(),
    "structures.py": {C, T, P, E, A, R},
    "wording.py": set(),
    "download": set(),
    "data": {T, P, E, A},
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
    "model/default_lengths.py": set(),
    "model/layouts.py": set(),
    "model/spec.py": set(),
    **{f"model/{name}": {T, P, E, A} for name in ("checkpoint.py", "common", "transformer", "regions", *KINDS)},
    "loss": {T, P},
    "train": {T, P},
    "train/initial.py": {T},
    "train/masks.py": {T},
    "train_mask_head": {P},
    "evaluate": {E},
    "evaluate/areas.py": {C, E, A, R},
    "evaluate/average_precision.py": {E, A, R},
    "evaluate/boxes.py": {E, A},
    "evaluate/ground_truth.py": {C, E, A, R},
    "evaluate/inference.py": {E, A},
    "evaluate/metric_names.py": {E, A, R},
    "evaluate/panoptic_quality.py": {E, R},
    "evaluate/panoptic_sums.py": {E, R},
    "evaluate/results.py": {E, A},
    "studies": set(),  # training studies are no stage
    "studies/claims.py": {A, R},
    "studies/verdicts.py": {R},
    "studies/comparison.py": {R},
    "studies/evaluating": {A, R},
    "studies/measurements": {A},
    "studies/study.py": {A},
    "jobs/__init__.py": set(),
    "jobs/agreement.py": set(),
    "jobs/events.py": set(),
    "jobs/evaluate.py": {E},
    "jobs/train_detection.py": {T},
    "jobs/train_panoptic.py": {P},
    "jobs/training.py": {T, P},
    "jobs/validation.py": set(),  # neither training, whose weights do not depend on it
    "plots": {R},
    "plots/data_check.py": {C},
    "plots/page.py": {C, R},
    "plots/pictures.py": {C, R},
    "plots/predictions.py": set(),  # the command `predict` is no stage
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
    "gpus.py": "whether a GPU can be used",
    "jobs/agreement.py": "it refuses machines with different files",
    "jobs/events.py": "how the processes of a stage report",
    "model/default_lengths.py": "what `flows.adopt` writes into a profile",
    "model/layouts.py": "it recognises the layout of a checkpoint, and picks the code of a kind that reads it",
    "model/spec.py": "it refuses what does not fit a kind, and picks the code of the profile's kind, whose folder is named",
    "redaction.py": "what is removed from messages",
    "reporter.py": "how a stage reports",
    "storage.py": "how a full disk is reported",
    "wording.py": "how messages are worded",
}
STUDIES = {"studies/evaluating", "plots/studies"}  # packages that load their modules by the names of the studies
PICKS = ("model/layouts.py", "model/spec.py")  # the code that these files pick decides results, although they themselves do not
APART = {
    (C, "model"): "the check reads from the detector's configuration how many objects it finds, a parameter that DVC compares",
    (T, "evaluate"): "a training refuses a dataset without objects, but learns nothing from it; a change must not train again",
    (P, "evaluate"): "a training refuses a dataset without objects, but learns nothing from it",
    (T, "jobs/validation.py"): "a training validates, but learns nothing from it",
    (P, "jobs/validation.py"): "a training validates, but learns nothing from it",
}
# What a stage gets from flows/profile/settings.py. What these import decides nothing of it.
HANDED = {
    (C, "check/config.py"): "the configuration of the check",
    (R, "studies/evaluating"): "what the paper claims about the studies, and which kinds of detector they support",
}
DATA_FILES = {
    "plots/report.html.j2": "plots/page.py",
    "plots/claims.html.j2": "plots/claims_page.py",
    "plots/style.css.j2": "plots/page.py",
    "plots/published.json": "plots/report.py",
}  # file -> the module that reads it


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


def reached(start: Path, kind: str, apart: Sequence[str]) -> set[str]:
    """Returns the modules that decide the result of this file's work for a kind of detector: all that it imports, and itself."""
    of_others = {f"model/{other}" for other in KINDS} | {f"model/{other.builds_on}" for other in KINDS.values()}
    of_kind = {f"model/{kind}", f"model/{KINDS[kind].builds_on}"}
    of_others -= of_kind | {"model/common"}
    visited, pending = set[Path](), [start]
    while pending:
        for path in imported(pending.pop()) - visited:
            name = path_of(path)
            if within(name, [*of_others, *apart]) is not None:
                continue
            if name in PICKS:
                visited |= (picked := {file for file in imported(path) if within(path_of(file), of_kind)} - visited)
                pending += picked
            elif within(name, NO_RESULT) is None:
                visited.add(path)
                pending.append(path)
    return {path_of(path) for path in visited | ({start} if start.is_relative_to(CORE) else set())}


def decisive(stage: str, kind: str) -> set[str]:
    """Returns the modules that decide a stage's result for this kind of detector: what its work imports and is handed."""
    handed = [place for other, place in HANDED if other == stage]
    apart = [place for other, place in APART if other == stage]
    return reached(ROOT / WORK[stage], kind, apart) | {module for module in modules() if within(module, handed) is not None}


def named(stage: str, kind: str) -> list[str]:
    """Returns the paths below detr_core that dvc.yaml names as the code of the stage."""
    code = [name for name in STAGES[stage]["deps"] if "${profile}" not in name]
    assert all(name.startswith("detr_core/") for name in code), "no flow decides a result"
    folders = {"${kind}": kind, "${builds_on}": KINDS[kind].builds_on}
    for variable, folder in folders.items():
        code = [name.replace(variable, folder) for name in code]
    return [name.removeprefix("detr_core/") for name in code]


def modules() -> list[str]:
    return sorted(path_of(file) for file in CORE.rglob("*.py"))


def test_the_table_has_every_module_and_nothing_else() -> None:
    rows = {within(module, TABLE) for module in modules()}
    assert None not in rows
    assert rows == set(TABLE)


@pytest.mark.parametrize("module", [module for module in modules() if not module.endswith("__init__.py")])
def test_a_change_makes_stale_what_the_table_says(module: str) -> None:
    kind = next((kind for kind, row in KINDS.items() if within(module, [f"model/{kind}", f"model/{row.builds_on}"])), "detr")
    row = within(module, TABLE)
    assert row is not None
    stale = {stage for stage in STAGES if within(module, named(stage, kind)) is not None}
    assert stale == TABLE[row]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_code_that_decides_its_result(stage: str, kind: str) -> None:
    missing = {module for module in decisive(stage, kind) if within(module, named(stage, kind)) is None}
    assert missing == set()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_no_code_that_does_not_decide_its_result(stage: str, kind: str) -> None:
    needed = decisive(stage, kind)
    shared = KINDS[kind].builds_on  # named as a whole, although a kind may use only a part of it
    of_sharing = {module for other in KINDS if KINDS[other].builds_on == shared for module in decisive(stage, other)}
    needed |= {module for module in of_sharing if within(module, [f"model/{shared}"]) is not None}
    needed |= {file for file, reader in DATA_FILES.items() if reader in needed}
    files = [*modules(), *DATA_FILES]
    idle = {file for file in files if within(file, named(stage, kind)) is not None and not file.endswith("__init__.py")} - needed
    assert idle == set()
    assert [place for place in named(stage, kind) if not any(within(file, [place]) for file in needed)] == []


@pytest.mark.parametrize("files", [VALIDATION, COST])
@pytest.mark.parametrize("kind", KINDS)
def test_the_results_that_no_stage_makes_depend_on_the_code_of_the_evaluation(files: Sequence[str], kind: str) -> None:
    own = [path_of(ROOT / file) for file in files]
    missing = {module for module in reached(ROOT / files[0], kind, []) if within(module, [*named(E, kind), *own]) is None}
    assert missing == set()


def test_every_exception_is_needed() -> None:
    files = [*CORE.rglob("*.py"), *(ROOT / work for work in WORK.values())]
    for place in NO_RESULT:
        assert any(within(path_of(path), [place]) for file in files for path in imported(file)), place
    for stage, place in APART:
        paths = {path_of(path) for path in imported(ROOT / WORK[stage])}
        paths |= {path_of(path) for module in decisive(stage, "detr") for path in imported(CORE / module)}
        assert any(within(module, [place]) for module in paths), (stage, place)


def test_only_code_that_decides_weights_trains_a_detector_again() -> None:
    code = named(T, "detr")
    for module in (
        "sources/scenes.py",
        "sources/formats/voc.py",
        "sources/unpacking.py",
        "plots/study.py",
        "train_mask_head/initial.py",
        "model/deformable/model.py",
        "train_mask_head/loss.py",
        "jobs/train_panoptic.py",
        "evaluate/average_precision.py",
        "jobs/validation.py",
    ):
        assert (CORE / module).is_file()
        assert within(module, code) is None, module
    for module in ("data/transforms.py", "loss/matcher.py", "model/transformer/transformer.py", "model/detr/model.py"):
        assert within(module, code) is not None, module


def test_a_change_of_a_kind_trains_no_other_kind_and_one_of_a_shared_folder_those_that_build_on_it() -> None:
    for folder in {*KINDS, *(row.builds_on for row in KINDS.values())}:
        trained = {kind for kind in KINDS if within(f"model/{folder}/config.py", named(T, kind)) is not None}
        assert trained == {kind for kind, row in KINDS.items() if folder in (kind, row.builds_on, "common")}
