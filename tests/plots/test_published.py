"""The published metrics in published.json are those of the paper's tables, which stand here as they were read from the paper."""

from __future__ import annotations

import re

from detr_core.plots.study import published

TABLE_1 = """
| model | GFLOPs / FPS | params M | AP | AP50 | AP75 | APs | APm | APl |
|---|---|---|---|---|---|---|---|---|
| Faster R-CNN DC5 | 320 / 16 | 166 | 39.0 | 60.5 | 42.3 | 21.4 | 43.5 | 52.5 |
| Faster R-CNN FPN | 180 / 26 | 42 | 40.2 | 61.0 | 43.8 | 24.2 | 43.5 | 52.0 |
| Faster R-CNN R101-FPN | 246 / 20 | 60 | 42.0 | 62.5 | 45.9 | 25.2 | 45.6 | 54.6 |
| Faster R-CNN DC5+ | 320 / 16 | 166 | 41.1 | 61.4 | 44.3 | 22.9 | 45.9 | 55.0 |
| Faster R-CNN FPN+ | 180 / 26 | 42 | 42.0 | 62.1 | 45.5 | 26.6 | 45.4 | 53.4 |
| Faster R-CNN R101-FPN+ | 246 / 20 | 60 | 44.0 | 63.9 | 47.8 | 27.2 | 48.1 | 56.0 |
| DETR | 86 / 28 | 41 | 42.0 | 62.4 | 44.2 | 20.5 | 45.8 | 61.1 |
| DETR-DC5 | 187 / 12 | 41 | 43.3 | 63.1 | 45.9 | 22.5 | 47.3 | 61.1 |
| DETR-R101 | 152 / 20 | 60 | 43.5 | 63.8 | 46.4 | 21.9 | 48.0 | 61.8 |
| DETR-DC5-R101 | 253 / 10 | 60 | 44.9 | 64.7 | 47.7 | 23.7 | 49.5 | 62.3 |
"""
TABLE_2 = """
| layers | GFLOPs / FPS | params M | AP | AP50 | APs | APm | APl |
|---|---|---|---|---|---|---|---|
| 0 | 76 / 28 | 33.4 | 36.7 | 57.4 | 16.8 | 39.6 | 54.2 |
| 3 | 81 / 25 | 37.4 | 40.1 | 60.6 | 18.5 | 43.8 | 58.6 |
| 6 | 86 / 23 | 41.3 | 40.6 | 61.6 | 19.9 | 44.3 | 60.2 |
| 12 | 95 / 20 | 49.2 | 41.6 | 62.1 | 19.8 | 44.9 | 61.9 |
"""
TABLE_3 = """
| encoder | decoder | object queries | AP | AP50 |
|---|---|---|---|---|
| none | none | at input | 32.8 | 55.2 |
| sine at input | sine at input | at input | 39.2 | 60.0 |
| learned at attn. | learned at attn. | at attn. | 39.6 | 60.7 |
| none | sine at attn. | at attn. | 39.3 | 60.3 |
| sine at attn. | sine at attn. | at attn. | 40.6 | 61.6 |
"""
TABLE_4 = """
| class | L1 | GIoU | AP | AP50 | APs | APm | APl |
|---|---|---|---|---|---|---|---|
| yes | yes | | 35.8 | 57.3 | 13.7 | 39.8 | 57.9 |
| yes | | yes | 39.9 | 61.6 | 19.9 | 43.2 | 57.9 |
| yes | yes | yes | 40.6 | 61.6 | 19.9 | 44.3 | 60.2 |
"""
TABLE_5 = """
| model | PQ SQ RQ | things | stuff | AP |
|---|---|---|---|---|
| Panoptic FPN++ R50 | 42.4 79.3 51.6 | 49.2 82.4 58.8 | 32.3 74.8 40.6 | 37.7 |
| UPSNet R50 | 42.5 78.0 52.5 | 48.6 79.4 59.6 | 33.4 75.9 41.7 | 34.3 |
| UPSNet-M R50 | 43.0 79.1 52.8 | 48.9 79.7 59.7 | 34.1 78.2 42.3 | 34.3 |
| Panoptic FPN++ R101 | 44.1 79.5 53.3 | 51.0 83.2 60.6 | 33.6 74.0 42.1 | 39.7 |
| DETR R50 | 43.4 79.3 53.8 | 48.2 79.8 59.5 | 36.3 78.5 45.3 | 31.1 |
| DETR-DC5 R50 | 44.6 79.8 55.0 | 49.4 80.5 60.6 | 37.3 78.7 46.5 | 31.9 |
| DETR-R101 | 45.1 79.9 55.5 | 50.5 80.9 61.7 | 37.0 78.5 46.0 | 33.0 |
"""

DEFORMABLE = """
| model | AP | APs | APm | APl | params M | GFLOPs | V100 hours an epoch | FPS |
|---|---|---|---|---|---|---|---|---|
| single scale | 39.4 | 20.6 | 43.0 | 55.5 | 34 | 78 | 3.2 | 27.0 |
| single scale, DC5 | 41.5 | 24.1 | 45.3 | 56.0 | 34 | 128 | 4.3 | 22.1 |
| four levels | 44.5 | 27.1 | 47.6 | 59.6 | 40 | 173 | 6.5 | 15.0 |
| + iterative box refinement | 46.2 | 28.3 | 49.2 | 61.5 | 41 | 173 | 6.5 | 15.0 |
| ++ two-stage | 46.9 | 29.6 | 50.1 | 61.6 | 41 | 173 | 6.8 | 14.5 |
"""


def rows(table: str) -> list[list[str]]:
    """Returns the cells of a table's rows below its head; a cell with two or three values is as many cells."""
    lines = table.strip().splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [[value for cell in row for value in _values(cell)] for row in cells]


def _values(cell: str) -> list[str]:
    numbers = re.fullmatch(r"[\d.]+(?:(?: / | )[\d.]+)+", cell)
    return re.split(r" / | ", cell) if numbers else [cell]


def measured(study: str, names: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    """Returns published.json's rows of a study: model -> its values of these metrics."""
    return {row["model"]: tuple(float(row[name]) for name in names) for row in published(study)["rows"]}


COST = ("gflops", "images_per_second", "parameters")
BOXES = ("AP", "AP50", "APs", "APm", "APl")


def test_the_published_rows_equal_table_1() -> None:
    expected = {model: tuple(map(float, values)) for model, *values in rows(TABLE_1)}
    table = measured("detection", (*COST, "AP", "AP50", "AP75", "APs", "APm", "APl"))
    assert table == expected
    assert len(table) == 10
    for study in ("backbones", "baselines"):  # these studies show some of its rows
        names = (*COST, "AP", "AP50", "AP75", "APs", "APm", "APl")
        assert measured(study, names).items() <= expected.items()


def test_the_published_rows_equal_table_2() -> None:
    expected = {f"{layers} layers": tuple(map(float, values)) for layers, *values in rows(TABLE_2)}
    assert measured("encoder-depth", (*COST, *BOXES)) == expected
    assert len(expected) == 4


def test_the_published_rows_equal_table_3() -> None:
    names = ["none", "sine at input", "learned at attention", "sine, decoder only", "sine at attention"]
    expected = {name: (float(ap), float(ap50)) for name, (*_, ap, ap50) in zip(names, rows(TABLE_3), strict=True)}
    assert measured("positions", ("AP", "AP50")) == expected


def test_the_published_rows_equal_table_4_and_the_experiment_without_auxiliary_losses() -> None:
    names = {("yes", "yes", ""): "class + L1", ("yes", "", "yes"): "class + GIoU", ("yes", "yes", "yes"): "all"}
    expected = {names[a, b, c]: tuple(map(float, values)) for a, b, c, *values in rows(TABLE_4)}
    published_rows = published("losses")["rows"]
    assert {row["model"]: tuple(row[name] for name in BOXES) for row in published_rows[:3]} == expected
    assert published_rows[3] == {"model": "no auxiliary losses", "AP": 35.5}


def test_the_published_rows_equal_table_5() -> None:
    parts = ("PQ", "SQ", "RQ", "PQ_things", "SQ_things", "RQ_things", "PQ_stuff", "SQ_stuff", "RQ_stuff", "mask/AP")
    expected = {model: tuple(map(float, values)) for model, *values in rows(TABLE_5)}
    assert measured("panoptic", parts) == expected
    assert len(expected) == 7


def test_the_published_rows_equal_the_table_of_deformable_detr() -> None:
    expected = {
        model: tuple(map(float, (*aps, parameters, gflops, fps)))
        for model, *aps, parameters, gflops, _hours, fps in rows(DEFORMABLE)
    }
    assert measured("deformable", ("AP", "APs", "APm", "APl", "parameters", "gflops", "images_per_second")) == expected
    assert len(expected) == 5


def test_a_transformer_without_feed_forward_networks_has_fewer_parameters_and_2_3_ap_fewer() -> None:
    with_networks, without = published("feed-forward")["rows"]
    assert (with_networks["AP"], with_networks["parameters"]) == (40.6, 41.3)
    assert (without["AP"], without["parameters"]) == (round(40.6 - 2.3, 1), 28.7)
