"""This stage makes the profile's dataset, in COCO's layout. `python -m flows.data [--profile demo]`"""

from __future__ import annotations

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds

import os
import shlex

from prefect import flow

from detr_core.config import require
from detr_core.data.fields import read_content
from detr_core.data.splits import DatasetError, Split, read_dataset
from detr_core.reporter import Reporter
from detr_core.sources import manifest
from flows.new_profile.yolo_layout import yolo_set
from flows.profile import dataset_location, stage_results
from flows.profile.paths import DEFAULT_PROFILE, ROOT, Paths, relative
from flows.profile.settings import Profile, load
from flows.runtime import stage_runner
from flows.runtime.locks import building, exclusive
from flows.runtime.progress import Tee, reporter
from flows.tracking.prefect_summary import publish


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Makes data/<profile>/ and returns the number of images of each split.

    It holds generated scenes, or a `dataset.json` that refers to a folder on disk, whose images are not copied, and a
    `manifest.json` with the content of that folder. If the profile has `data.download`, the folder is downloaded first. Raises
    ConfigError if DVC watches another folder for changes, and DatasetError if the folder isn't a dataset or can't be downloaded.
    """
    config = settings.data
    if config.folder is not None:
        dataset_location.require_apart(config.folder.root, f"{relative(paths.params)}: data.folder.root", [paths.profile])
    with building(paths.data, reporter.message) as folder:
        if config.scenes is not None:
            from detr_core.sources.scenes import generate_scenes

            # A process takes seconds to start, and draws some 500 images in a second.
            processes = min(os.cpu_count() or 1, 1 + (config.scenes.train + config.scenes.val) // 2000)
            generate_scenes(config.scenes, config.seed, folder, processes, reporter)
        elif config.folder is not None:
            from detr_core.sources.folder import write_folder_dataset

            root = (ROOT / config.folder.root).resolve()
            if config.download is None:
                if not root.is_dir():
                    where = f"data.folder.root of {relative(paths.params)}"
                    raise DatasetError(
                        f"{where}: expected a folder, found none at {root}; correct the path, or copy the dataset to it"
                    )
                _require_watched(config.folder.root, paths)
            else:
                from detr_core.sources.archives import fill

                with exclusive(root, tell=reporter.message):
                    fill(root, config.download, reporter)
            yolo = yolo_set(root) if config.folder.format == "yolo" else None
            write_folder_dataset(config.folder, root, config.seed, yolo, folder)
            manifest.write_manifest(folder, root, read_dataset(folder))
        stage_results.write_owner(folder, paths.profile)
        return {f"{name}/images": float(_images(split)) for name, split in read_dataset(folder).items()}


def _require_watched(root: str, paths: Paths) -> None:
    # The profile and a link name the folder, because dvc.yaml can't read a profile. If they differed, DVC would miss changes.
    link, folder = paths.source, ROOT / root
    if os.path.lexists(link):
        same = os.path.realpath(link) == os.path.realpath(folder)
        expected = f"a link to data.folder.root of {relative(paths.params)}, {root!r}, so that DVC sees changes of that folder"
        remedy = f"`ln -sfn {shlex.quote(str(folder))} {relative(link)}` makes the link"
        require(same, relative(link), f"{expected} ({remedy})", os.readlink(link) if link.is_symlink() else None)


def _images(split: Split) -> int:
    file = split.panoptic or split.instances
    assert file is not None  # every split has one of the two files
    return len(read_content(file)["images"])


@flow(name="data", flow_run_name="data {profile}")
def data(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Makes the dataset of a profile."""
    # The processes that draw import this file too, and should not spend seconds on importing mlflow.
    from flows.tracking import lineage, recorder

    settings, paths = load(profile), Paths(profile)
    with recorder.stage_run("data", paths, settings.flat("data"), inputs=[]) as record:
        with reporter("data") as bar:
            metrics = run(settings, paths, Tee(bar, record))
        record.metrics(metrics, step=0)
        record.artifact(paths.data / "dataset.json")
        record.dataset(paths.data, lineage.folder_hash(paths.data), "source")
        if (paths.data / manifest.NAME).is_file():
            record.artifact(paths.data / manifest.NAME)
    publish("data", profile, metrics, {"MLflow run": record.url()})
    return metrics


def main() -> None:
    stage_runner.main("data", data)


if __name__ == "__main__":
    main()
