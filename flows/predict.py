"""This command runs a detector on images. `python -m flows.predict --checkpoint X --images PATH --out FOLDER`

The checkpoint is one of this project or one from elsewhere; the images are a file, a folder or a glob. The output folder gets
predictions.json in COCO's format, pictures of the predictions in pictures/ and, if the checkpoint predicts panoptic
maps, these maps in panoptic/*.png.
"""

from __future__ import annotations

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds

import glob
import json
import os
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from detr_core.config import ConfigError, require
from detr_core.data.config import ResizeConfig
from detr_core.data.splits import DatasetError, Split
from detr_core.evaluate.config import EvaluateConfig
from detr_core.reporter import Reporter
from detr_core.wording import counted
from flows.profile import checkpoints, stage_results
from flows.profile.settings import load
from flows.runtime import outputs, stage_runner
from flows.runtime.locks import building
from flows.runtime.outputs import only_writer
from flows.runtime.progress import reporter

if TYPE_CHECKING:
    from detr_core.data.values import Ranges
    from detr_core.model.checkpoint import Checkpoint

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}  # files of a folder with these suffixes are images
PUBLISHED = "coco"  # published weights are evaluated with the settings of this profile


def run(
    trained: Checkpoint, images: list[Path], threshold: float, config: EvaluateConfig, out: Path, reporter: Reporter
) -> dict[str, Any]:
    """Writes the predictions of `trained` for `images` to the folder `out`, and returns the content of predictions.json.

    images: absolute paths. threshold: the lowest score of a detection; panoptic maps have a threshold of their own in `config`.
    predictions.json has `images` {id, file_name relative to the common folder, height, width}, `categories`, `annotations` {id,
    image_id, category_id, bbox (xywh pixels), score, with a mask head also segmentation (run-length)}, and with a mask head that
    was not trained on masks of instances `panoptic` {image_id, file_name, segments_info}.
    Raises DatasetError and writes nothing if an image can't be read.
    """
    from detr_core.data.coco_dataset import CocoDataset  # torch takes seconds to import
    from detr_core.data.images import upright_size
    from detr_core.data.transforms import evaluation_transform
    from detr_core.distributed import single_process
    from detr_core.evaluate.inference import EvaluationData
    from detr_core.evaluate.predictions import predict

    root = Path(os.path.commonpath([image.parent for image in images]))
    sizes = [upright_size(image) for image in images]
    image_entries = [
        {"id": number, "file_name": image.relative_to(root).as_posix(), "height": height, "width": width}
        for number, (image, (height, width)) in enumerate(zip(images, sizes, strict=True), start=1)
    ]
    categories = [
        {"id": category.id, "name": category.name or f"class {category.id}", "isthing": int(category.isthing)}
        for category in trained.categories
        if category.used
    ]
    content: dict[str, Any] = {"images": image_entries, "categories": categories, "annotations": []}
    with only_writer(out, reporter.message), building(out, reporter.message) as folder, TemporaryDirectory() as scratch:
        file = Path(scratch) / "images.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        split = Split("images", root, file, None, None, value_ranges=trained.value_ranges)
        dataset = CocoDataset(split, "instances", masks=False, transform=evaluation_transform(config.resize), seed=0)
        results = Path(scratch) / "results"
        results.mkdir()
        # Where `no object` wins, no class reaches 0.5, so with such a threshold the masks of these queries are not needed.
        filtered_config = replace(config, empty_slot_override=config.empty_slot_override and threshold < 0.5)
        data = EvaluationData(dataset, config.batch_size, single_process(stage_results.device()), 0, reporter)
        predict(trained, data, filtered_config, results)
        content["annotations"] = _annotations(results, threshold)
        if trained.predicts_panoptic_maps:
            content["panoptic"] = json.loads((results / "panoptic.json").read_text(encoding="utf-8"))["annotations"]
            shutil.move(results / "panoptic", folder / "panoptic")
        (folder / "predictions.json").write_text(json.dumps(content), encoding="utf-8")
        _pictures(content, root, folder, trained.value_ranges)
    return content


def images_at(where: str) -> list[Path]:
    """Returns the absolute paths, sorted, of the images that `where` names: a file, a folder with images in it, or a glob.

    Raises DatasetError if there is no image.
    """
    path = Path(where)
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in IMAGES]
    elif path.is_file():
        files = [path]
    else:
        files = [file for file in map(Path, glob.glob(where, recursive=True)) if file.suffix.lower() in IMAGES]
    if not files:
        raise DatasetError(f"--images {where}: expected an image, a folder of images or a glob, found no image there")
    return sorted(file.absolute() for file in files)


def evaluation(trained: Checkpoint, short: int | None, longest: int | None) -> EvaluateConfig:
    """Returns the evaluation settings for a checkpoint: those of its profile, or of `coco` for a published checkpoint.

    short, longest: another size of the images, if given.
    """
    try:
        config = load(str(trained.meta.get("profile", PUBLISHED))).evaluate
    except ConfigError:  # the checkpoint's profile does not exist in this project
        config = load(PUBLISHED).evaluate
    if short is None and longest is None:
        return config
    require(short is not None and longest is not None, "--short, --longest", "both or neither", [short, longest])
    assert short is not None
    assert longest is not None
    return replace(config, resize=ResizeConfig((short,), longest))


def _annotations(results: Path, threshold: float) -> list[dict[str, Any]]:
    boxes = json.loads((results / "bbox.json").read_text(encoding="utf-8"))
    masks = results / "segm.json"
    if masks.exists():  # the same detections in the same order
        segments = json.loads(masks.read_text(encoding="utf-8"))
        boxes = [{**box, "segmentation": segment["segmentation"]} for box, segment in zip(boxes, segments, strict=True)]
    confident = [result for result in boxes if result["score"] >= threshold]
    return [{"id": number, **result} for number, result in enumerate(confident, start=1)]


def _pictures(content: dict[str, Any], root: Path, folder: Path, ranges: Ranges | None) -> None:
    from detr_core.plots.pictures import category_colors
    from detr_core.plots.predictions import prediction_picture

    names = {category["id"]: category["name"] for category in content["categories"]}
    colors = category_colors(names)
    detections_of = defaultdict(list)
    for annotation in content["annotations"]:
        detections_of[annotation["image_id"]].append(annotation)
    panoptic = {entry["image_id"]: entry for entry in content.get("panoptic", [])}
    (folder / "pictures").mkdir()
    for image in content["images"]:
        number, segments = image["id"], None
        if number in panoptic:
            segments = (folder / "panoptic" / panoptic[number]["file_name"], panoptic[number]["segments_info"])
        name = f"{number:04d}_{Path(image['file_name']).stem}.jpg"
        file = folder / "pictures" / name
        prediction_picture(root / image["file_name"], detections_of[number], segments, names, colors, file, ranges)


def main() -> None:
    arguments = command_line.parser("predict").parse_args()
    with stage_runner.one_line_errors():
        images, out = images_at(arguments.images), outputs.empty_folder(arguments.out)
        trained = checkpoints.load_named(arguments, stage_results.device())
        config = evaluation(trained, arguments.short, arguments.longest)
        with reporter("prediction") as bar:
            content = run(trained, images, arguments.threshold, config, out, bar)
        summary = f"{counted(len(content['annotations']), 'detection')} in {counted(len(images), 'image')}"
        score = f"with a score of at least {arguments.threshold:g} (--threshold)"
        print(f"{summary} {score}; the folder {arguments.out} has the results")


if __name__ == "__main__":
    main()
