"""Writes a tiny dataset and the results files of a profile in the form in which its stages write them."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from detr_core.data.splits import Split, read_dataset
from detr_core.evaluate.metric_names import METRICS
from detr_core.plots.report import Results
from detr_core.reporter import Silent
from detr_core.sources.config import ScenesConfig
from detr_core.sources.scenes import generate_scenes
from detr_core.studies.measurements.decoder_nms import Cell, write_cells

SCENES = ScenesConfig(
    train=1, val=3, size=64, objects=(1, 3), object_size=(16, 30), beside=0.2, beside_size=(0.5, 1), visible=0.55,
    color_noise=20, random_color=0, texture=(4, 20), rotation=0.4, log_aspect=0.2,
)  # fmt: skip


def split_of(results: Results) -> Split:
    """Returns the val split of the dataset."""
    return read_dataset(results.data)["val"]


def dump(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def cells(ap: Mapping[float | None, list[float]]) -> list[Cell]:
    """Returns a cell for each threshold and depth; every metric is the AP, except APl, for which there is nothing to measure."""
    return [
        Cell(depth, nms, {name: -1.0 if name == "APl" else value for name in METRICS})
        for nms, row in ap.items()
        for depth, value in enumerate(row, start=1)
    ]


def write_results(root: Path) -> Results:
    """Writes predictions that equal the ground truth, and metrics that are easy to recognise."""
    results = Results("tiny", *(root / name for name in ("data", "detection", "panoptic", "evaluation", "studies")))
    generate_scenes(SCENES, 0, results.data, 1, Silent())
    split = split_of(results)
    assert split.instances is not None
    assert split.panoptic is not None
    assert split.panoptic_masks is not None
    objects = json.loads(split.instances.read_text())["annotations"]
    keys = ("image_id", "category_id", "bbox")
    dump(results.evaluation / "bbox.json", [{key: entry[key] for key in keys} | {"score": 0.9} for entry in objects])
    maps = json.loads(split.panoptic.read_text())["annotations"]
    dump(results.evaluation / "panoptic.json", {"annotations": maps})
    (results.evaluation / "panoptic").mkdir()
    for entry in maps:
        pixels = np.asarray(Image.open(split.panoptic_masks / entry["file_name"]))
        Image.fromarray(pixels).save(results.evaluation / "panoptic" / entry["file_name"])
    boxes = {f"val/{name}": -1.0 if name == "APl" else 0.5 + i / 100 for i, name in enumerate(METRICS)}
    masks = {f"val/mask/{name}": 0.4 for name in METRICS}
    qualities = {f"val/{name}{part}": 0.61 for name in ("PQ", "SQ", "RQ") for part in ("", "_things", "_stuff")}
    dump(results.evaluation / "metrics.json", boxes | masks | qualities)
    sky = {"pq": 0.9, "sq": 0.95, "rq": 0.96}
    dump(
        results.evaluation / "per_class.json",
        {"bbox": {"circle": 0.7, "star": -1.0}, "segm": {"circle": 0.6, "star": 0.3}, "panoptic": {"sky": sky}},
    )
    kinds = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
    part = {"AP50": 0.8, "gain": dict.fromkeys(kinds, 0.021), "count": dict.fromkeys(kinds, 1234)}
    dump(results.evaluation / "errors.json", {"bbox": part, "segm": part})
    for folder, metric in ((results.detection, "val/AP"), (results.panoptic, "val/PQ")):
        folder.mkdir()
        history = [{"step": step, "epoch": step / 100, "train/loss": 20 / step, metric: 0.1 * step / 100} for step in (100, 200)]
        (folder / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))
    study = results.studies / "evaluating" / "decoder-nms"
    study.mkdir(parents=True)
    write_cells(cells({None: [0.524, 0.555], 0.7: [0.532, 0.557], 0.5: [0.52, 0.545]}), study)
    return results
