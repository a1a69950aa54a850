"""The layers of the project: which package may import which. The imports are read from the code, including function bodies."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from detr_core.model.spec import KINDS
from flows.runtime.arguments import ALIASES, COMMANDS

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "detr_core"
FLOWS = ROOT / "flows"
TESTS = ROOT / "tests"

# A package of the core may import from the packages named here, and from the modules at the top.
PACKAGES: dict[str, set[str]] = {
    "download": set(),
    "data": set(),
    "sources": {"data", "download"},
    "check": {"data", "sources", "evaluate"},
    "model": set(),
    "loss": set(),
    "train": {"data", "model", "loss"},
    "train_mask_head": {"model", "loss", "train"},
    "evaluate": {"data", "model"},
    "studies": {"data", "model", "evaluate"},
    "jobs": {"data", "model", "loss", "train", "train_mask_head", "evaluate"},
    "plots": {"data", "check", "evaluate", "studies"},
    "serving": {"data"},
}
TOP = {
    "atomic",
    "checksums",
    "coco",
    "config",
    "directories",
    "distributed",
    "errors",
    "gpus",
    "redaction",
    "reporter",
    "sampling",
    "storage",
    "structures",
    "numbers",
    "processor",
    "wording",
}
OUTSIDE = {
    "torch",
    "filelock",
    "torchvision",
    "safetensors",
    "numpy",
    "scipy",
    "pycocotools",
    "hotcoco",
    "PIL",
    "matplotlib",
    "jinja2",
    "markupsafe",
}
ANNOTATIONS = {"transformer": "detr_core.model.detr.config"}  # imported for annotations alone


def imports(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names.add(node.module or "")
    return names


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_from_those_below_them(package: str) -> None:
    for file in files(CORE / package):
        for name in imports(file):
            if name.startswith("detr_core."):
                other = name.split(".")[1]
                allowed = other in PACKAGES[package] | {package} | TOP or name.endswith(".config")
                assert allowed, f"{file.relative_to(ROOT)} imports {name}"


def test_a_kind_of_detector_imports_only_its_own_folder_and_those_that_it_builds_on() -> None:
    allowed = {kind: {kind, row.builds_on, "common"} for kind, row in KINDS.items()}
    allowed |= {"common": {"common"}} | {row.builds_on: {row.builds_on, "common"} for row in KINDS.values()}
    assert {path.name for path in (CORE / "model").iterdir() if path.is_dir() and path.name != "__pycache__"} == set(allowed)
    for folder, others in allowed.items():
        for file in files(CORE / "model" / folder):
            for name in imports(file) - {ANNOTATIONS.get(folder, "")}:
                other = name.removeprefix("detr_core.model.").split(".")[0]
                assert other not in allowed.keys() - others, f"{file.relative_to(ROOT)} imports {name}"


def test_the_modules_at_the_top_of_flows_are_the_commands() -> None:
    modules = {file.stem for file in FLOWS.glob("*.py")} - {"__init__"}
    packages = {file.parent.name for file in FLOWS.glob("*/__main__.py")}
    assert modules | packages == COMMANDS.keys() | ALIASES.keys()
    assert not modules & packages


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files(CORE) + files(FLOWS)
    }
    remaining = {}
    for module, file in known.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        # A package's own __init__ counts only where nothing in the package is meant.
        remaining[module] = {name for name in names & known.keys() if known[name].name != "__init__.py"}
    while ends := [module for module, imported in remaining.items() if not imported & remaining.keys()]:
        for module in ends:
            del remaining[module]
    assert not remaining, f"these import each other in a circle, or import modules that do: {sorted(remaining)}"


def test_every_package_is_listed() -> None:
    assert {path.name for path in CORE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(PACKAGES)


@pytest.mark.parametrize("file", files(CORE) + files(FLOWS) + files(TESTS), ids=lambda file: str(file.relative_to(ROOT)))
def test_modules_have_at_most_300_lines(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("file", files(CORE) + files(FLOWS), ids=lambda file: str(file.relative_to(ROOT)))
def test_functions_are_short(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{node.name} has more than 60 lines, with its docstring"
            assert len(parameters(node)) <= 7, f"{node.name} has more than 7 parameters: {', '.join(parameters(node))}"


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Returns the names of a function's parameters, without the instance or the class of a method."""
    arguments = function.args
    several = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *several)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


@pytest.mark.parametrize("file", files(CORE), ids=lambda file: str(file.relative_to(CORE)))
def test_the_core_knows_no_orchestrator(file: Path) -> None:
    packages = {name.split(".")[0] for name in imports(file)} - set(sys.stdlib_module_names) - {"detr_core"}
    assert packages <= OUTSIDE, f"unexpected: {packages - OUTSIDE}"
    if CORE / "plots" not in file.parents:
        assert not packages & {"matplotlib", "jinja2", "markupsafe"}


def test_only_the_record_imports_mlflow_and_only_paths_names_the_project() -> None:
    recorders = {file.name for file in files(FLOWS) if any(name.split(".")[0] == "mlflow" for name in imports(file))}
    assert recorders <= {"recorder.py", "reader.py", "model_record.py", "detector_model.py"}
    placers = {file.name for file in files(FLOWS) if "__file__" in file.read_text(encoding="utf-8")}
    assert placers <= {"paths.py", "detector_model.py"}


def test_the_core_imports_without_what_flows_need() -> None:
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('prefect', 'mlflow', 'dvc', 'rich', 'yaml', 'flows'):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import detr_core.jobs.train_detection, detr_core.jobs.train_panoptic, detr_core.jobs.evaluate
import detr_core.studies.measurements.decoder_nms, detr_core.evaluate.predictions, detr_core.sources.scenes
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_data_the_check_and_the_report_start_without_torch() -> None:
    modules = (
        "flows.data, flows.check, flows.report, detr_core.sources.scenes, detr_core.check.inspection, detr_core.plots.report"
    )
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
