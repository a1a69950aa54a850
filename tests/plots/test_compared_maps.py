"""The panoptic maps of two variants side by side: which variants, which images, and what the report shows."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detr_core.evaluate.panoptic_quality import panoptic_quality, quality_of_images
from detr_core.plots.compared_maps import chosen, compared_pictures, pair_of
from detr_core.plots.report import Results
from detr_core.plots.study_sections import Shown, study_sections
from detr_core.studies.comparison import Run, StudyTable, write_table
from tests.plots.stage_results import split_of

DETR = Run("maps", 0, {}, {"detector": "detr"}, "finished", metrics={"val/PQ": 1.0, "val/AP": 0.5})
OTHER = Run("panoptic-fpn", 0, {}, {"detector": "panoptic_fpn"}, "finished", metrics={"val/PQ": 0.5, "val/AP": 0.5})
SAME_KIND = Run("no maps", 0, {}, {"detector": "detr"}, "finished", metrics={"val/PQ": 1.0, "val/AP": 0.5})
TABLE = StudyTable("panoptic", "tiny", "Table 5", "maps", [DETR, SAME_KIND, OTHER])


@pytest.fixture
def study(results: Results, tmp_path: Path) -> Path:
    """Returns the folder of a study: DETR finds everything, the other variant nothing in half of the images."""
    folder = tmp_path / "own" / "studies" / "training" / "panoptic"
    for run in TABLE.runs:
        shutil.copytree(results.evaluation, folder / f"{run.variant}-seed0" / "evaluation")
    worse = folder / "panoptic-fpn-seed0" / "evaluation"
    maps = json.loads((worse / "panoptic.json").read_text())
    for entry in maps["annotations"][::2]:
        entry["segments_info"] = []
        file = worse / "panoptic" / entry["file_name"]
        Image.fromarray(np.zeros_like(np.asarray(Image.open(file)))).save(file)
    (worse / "panoptic.json").write_text(json.dumps(maps))
    write_table(TABLE, folder)
    return folder


def test_the_pair_is_the_base_and_the_first_finished_variant_of_another_kind(study: Path) -> None:
    pair = pair_of(TABLE, study)
    assert pair is not None
    assert (pair.base, pair.other) == ("maps", "panoptic-fpn")
    assert pair_of(replace(TABLE, runs=[DETR, SAME_KIND]), study) is None
    assert pair_of(replace(TABLE, runs=[DETR, replace(OTHER, status="open")]), study) is None
    assert pair_of(replace(TABLE, runs=[OTHER]), study) is None, "the base is not finished"
    (study / "panoptic-fpn-seed0" / "evaluation" / "panoptic.json").unlink()
    assert pair_of(TABLE, study) is None, "its maps are not here"


def test_images_are_chosen_by_rank_with_both_ends() -> None:
    differences = {10: 0.3, 11: -0.9, 12: 0.0, 13: 0.8, 14: 0.0}
    assert chosen(differences, 3) == [11, 14, 13]
    assert chosen(differences, 2) == [11, 13]
    assert chosen(differences, 1) == [11]
    assert chosen(differences, 0) == []
    assert chosen(differences, 9) == [11, 12, 14, 10, 13]
    assert chosen({}, 4) == []


def test_the_quality_of_an_image_is_that_of_a_dataset_with_that_image_alone(
    study: Path, results: Results, tmp_path: Path
) -> None:
    split, worse = split_of(results), study / "panoptic-fpn-seed0" / "evaluation"
    assert split.panoptic is not None
    assert split.panoptic_masks is not None
    qualities = quality_of_images(split.panoptic, split.panoptic_masks, worse / "panoptic.json", worse / "panoptic")
    truth = json.loads(split.panoptic.read_text())
    numbers = sorted(image["id"] for image in truth["images"])
    assert list(qualities) == numbers
    assert set(qualities.values()) == {0.0, 1.0}
    for number in numbers[:2]:
        one = {**truth, "images": [image for image in truth["images"] if image["id"] == number]}
        one["annotations"] = [entry for entry in truth["annotations"] if entry["image_id"] == number]
        (tmp_path / "one.json").write_text(json.dumps(one))
        predicted = json.loads((worse / "panoptic.json").read_text())
        predicted["annotations"] = [entry for entry in predicted["annotations"] if entry["image_id"] == number]
        (tmp_path / "predicted.json").write_text(json.dumps(predicted))
        whole = panoptic_quality(tmp_path / "one.json", split.panoptic_masks, tmp_path / "predicted.json", worse / "panoptic")
        assert qualities[number] == whole["all"]["pq"]


def test_the_report_shows_the_pictures_with_the_rule(study: Path, results: Results, tmp_path: Path) -> None:
    split, pair = split_of(results), pair_of(TABLE, study)
    assert pair is not None
    (tmp_path / "out").mkdir()
    pictures = compared_pictures(pair, split, tmp_path / "out", 2)
    assert ["PQ 100" in text and "PQ 0" in text for _, text in pictures] == [False, True], "the last one is a failure"
    widths = [Image.open(file).width for file, _ in pictures]
    assert min(widths) > 3 * 300
    sections = study_sections(study.parents[1], tmp_path / "out", {}, {}, Shown(split, 2))
    (section,) = [section for section in sections if section.id == "study-panoptic"]
    assert [text for _, text in section.pictures] == [text for _, text in pictures]
    assert "sorted by the PQ of maps minus that of panoptic-fpn" in section.pictures_text
