"""The plots of the study `instance-count` are drawn from files alone, and its sentence states the measured values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detr_core.plots.studies.instance_count import conclusion, plots, read_counts
from detr_core.studies.measurements.instance_count import ClassCount, Example, write_counts


def write(folder: Path, counts: list[list[int]], most: int = 3) -> Path:
    folder.mkdir(exist_ok=True)
    image = torch.full((3, 40, 40), 200, dtype=torch.uint8)
    example = Example(image, torch.tensor([[5.0, 5, 20, 20]]), torch.tensor([0.9]), 2, 1)
    write_counts([ClassCount(name, most, np.array(counts), example, objects=1) for name in ("cat", "dog")], folder)
    return folder / "counts.json"


def test_the_plots_need_only_files_and_are_reproducible(tmp_path: Path) -> None:
    counts = write(tmp_path / "study", [[1, 1], [2, 1], [2, 2], [1, 2]])
    runs = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        files = plots(counts.parent, folder)
        assert sorted(folder.iterdir()) == sorted(files)
        runs.append([file.read_bytes() for file in files])
    assert runs[0] == runs[1]
    assert [file.name for file in files] == [
        "instance_count_missed.svg", "instance_count_missed.png", "instance_count_examples.svg", "instance_count_examples.png",
    ]  # fmt: skip
    assert b"most in a training image: 3" in runs[0][0]
    assert runs[0][2].count(b"1 of 2 found") == 2
    assert Image.open(files[3]).convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 0), "see-through around the pictures"


def test_class_names_are_no_formulas_and_none_is_hidden(tmp_path: Path) -> None:
    counts = write(tmp_path / "study", [[1, 1], [2, 1]])
    content = counts.read_text().replace('"cat"', '"$^$"').replace('"dog"', '"_dog"')
    counts.write_text(content)
    missed = plots(counts.parent, tmp_path)[0].read_text(encoding="utf-8")
    assert ">$^$<" in missed
    assert ">_dog<" in missed


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (
            [[1, 1], [2, 2], [2, 2], [1, 1]],
            "The smallest share of missed objects is 0 percent, with 1 visible objects; up to 2 it is at most 5 points higher; "
            "with all 4 it is 75 percent; a training image contains at most 3 objects of a class.",
        ),
        (
            [[1, 1], [2, 2], [3, 3]],
            "The smallest share of missed objects is 0 percent; it hardly rises up to 3 objects; a training image contains at "
            "most 3 objects of a class.",
        ),
    ],
)  # fmt: skip
def test_the_conclusion_follows_from_the_counts(tmp_path: Path, counts: list[list[int]], expected: str) -> None:
    assert conclusion(read_counts(write(tmp_path, counts))) == expected
