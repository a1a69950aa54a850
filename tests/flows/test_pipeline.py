"""The order of the pipeline's stages and its final message. The tests of the graph run a whole profile."""

from __future__ import annotations

import io

import yaml
from rich.console import Console

from flows.pipeline import stages, summary
from flows.profile.paths import ROOT, Paths


def test_each_stage_comes_after_those_it_depends_on() -> None:
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    made: set[str] = set()
    for name in stages(Paths("demo")):
        of_profile = {dependency for dependency in graph[name]["deps"] if "${profile}" in dependency}
        results = {dependency for dependency in of_profile if not dependency.startswith("params/")}
        assert all(any(f"{out}/".startswith(f"{result}/") for out in made) for result in results)
        made |= {next(iter(out)) for out in graph[name]["outs"]}
    assert stages(Paths("smoke")) == list(graph)


def test_the_summary_has_the_metrics_and_where_to_look_next() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(summary({"val/AP": 0.5214, "val/PQ": 0.61, "val/AP75": 0.4}, Paths("demo")))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "AP of boxes" in said
    assert "0.521" in said
    assert "0.610" in said
    assert "AP of masks" not in said  # not measured
    assert "reports/demo/index.html" in said
    assert "make serve" in said
