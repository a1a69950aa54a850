"""The order of the pipeline's stages and its final message. The tests of the graph run a whole profile."""

from __future__ import annotations

import io
from pathlib import Path

import yaml
from rich.console import Console

from flows.pipeline import stages, summary
from flows.profile.paths import ROOT, Paths


def test_each_stage_comes_after_those_it_depends_on() -> None:
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outputs: set[str] = set()
    for name in stages(Paths("demo")):
        of_profile = {dependency for dependency in graph[name]["deps"] if "${profile}" in dependency}
        results = {dependency for dependency in of_profile if not dependency.startswith("params/")}
        # A result is an output, a folder around outputs, or a file in an output.
        for result in results:
            assert any(Path(out).is_relative_to(result) or Path(result).is_relative_to(out) for out in outputs), result
        outputs |= {next(iter(out)) for out in graph[name]["outs"]}
    assert stages(Paths("smoke")) == list(graph)


def test_the_summary_has_the_metrics_and_where_to_look_next() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(summary({"val/AP": 0.5214, "val/PQ": 0.61, "val/AP75": 0.4}, Paths("demo")))
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "AP of boxes" in output
    assert "0.521" in output
    assert "0.610" in output
    assert "AP of masks" not in output  # not measured
    assert "reports/demo/index.html" in output
    assert "make serve" in output
