"""Stage: the profile's dataset, in COCO's layout. `python -m flows.data [--profile demo]`"""

from __future__ import annotations

import json
import os

from prefect import flow

from detr_core.data.dataset import DatasetError, Split, read_dataset
from detr_core.reporter import Reporter
from flows import artifacts, stage
from flows.layout import yolo_names
from flows.paths import DEFAULT_PROFILE, ROOT, Paths, relative, whole_or_nothing
from flows.progress import Tee, reporter
from flows.settings import Profile, load
from flows.show import publish


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Makes data/<profile>/: generated scenes, or a `dataset.json` that points into a folder on disk, no image copied.

    Returns the number of images of each split. Raises DatasetError for a folder that isn't a dataset.
    """
    config = settings.data
    with whole_or_nothing(paths.data) as folder:
        if config.scenes is not None:
            from detr_core.data.scenes import generate_scenes

            # A process costs seconds to start and draws some 500 images in one.
            processes = min(os.cpu_count() or 1, 1 + (config.scenes.train + config.scenes.val) // 2000)
            generate_scenes(config.scenes, config.seed, folder, processes, reporter)
        elif config.folder is not None:
            from detr_core.data.folder import write_folder_dataset

            root = (ROOT / config.folder.root).resolve()
            names = yolo_names(root) if config.folder.format == "yolo" else ()
            write_folder_dataset(config.folder, root, config.seed, names, folder)
        artifacts.claim(folder, paths.profile)
        return {f"{name}/images": float(_images(split)) for name, split in read_dataset(folder).items()}


def _images(split: Split) -> int:
    file = split.panoptic or split.instances
    assert file is not None  # a split has one of the two
    try:
        return len(json.loads(file.read_text(encoding="utf-8"))["images"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{relative(file)}: expected a COCO annotation file with a list `images`: {error!r}") from None


@flow(name="data")
def data(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Makes the dataset of a profile."""
    from flows import lineage, tracking  # not by the processes that draw, which import this file too: mlflow takes seconds

    settings, paths = load(profile), Paths(profile)
    with tracking.stage_run("data", paths, settings.flat("data"), inputs=[]) as record:
        with reporter("data") as bar:
            figures = run(settings, paths, Tee(bar, record))
        record.metrics(figures, step=0)
        record.artifact(paths.data / "dataset.json")
        record.dataset(paths.data, lineage.folder_hash(paths.data), "source")
    publish("data", profile, figures, {"MLflow run": record.url()})
    return figures


def main() -> None:
    stage.main(data)


if __name__ == "__main__":
    main()
