"""This command makes a profile for a user's dataset. `python -m flows.adopt FOLDER --name cells`

FOLDER has COCO's annotation files (boxes, masks or panoptic), YOLO's data.yaml or Pascal VOC's Annotations. The command writes
params/cells.yaml, with sizes from the dataset's statistics, params/cells.studies.yaml, and params/cells/ for
`dvc repro params/cells/dvc.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from detr_core.check.statistics import Statistics
from detr_core.config import build, require
from detr_core.model.spec import kind_of
from detr_core.sources.config import FolderConfig
from detr_core.sources.formats.yolo_rows import Labels
from flows.new_profile import sizes
from flows.new_profile.dataset_contents import read_contents
from flows.new_profile.dataset_layout import find_layout
from flows.new_profile.dataset_notes import finding_notes, require_images
from flows.new_profile.profile_files import require_new, write_profile
from flows.new_profile.profile_text import profile_text, studies_text
from flows.new_profile.recipe import Start, copied_recipe, targets_of_masks
from flows.new_profile.summary import printable, summary_table
from flows.profile.paths import DEFAULT_PROFILE, Paths, relative
from flows.profile.profile_yaml import parsed
from flows.profile.settings import profile_from
from flows.runtime import arguments as command_line
from flows.runtime.one_line_errors import one_line_errors


@dataclass(frozen=True)
class NewProfile:
    """The new profile.

    content: the content of its first file. statistics: those of 'train' and 'val'. notes: messages about the dataset. deep: the
    sample type of the first training image that has more than 8 bits a value, None if none of the first images has.
    """

    paths: Paths
    content: dict[str, Any]
    statistics: dict[str, Statistics]
    notes: list[str]
    deep: str | None


def adopt(
    folder: Path,
    name: str,
    like: str,
    val_share: float,
    start: Start | None = None,
    detector: str | None = None,
    labels: Labels | None = None,
) -> NewProfile:
    """Makes the files of the profile <name> in params/ for the dataset in `folder`; existing files are never overwritten.

    like: the profile whose recipe is copied: `demo`, a small detector from scratch, or `coco`, a ResNet-50. detector: a variant
    of that profile's study `baselines`, such as `deformable`, whose detector and recipe are used instead. start: the trained
    detector that fine-tuning starts from, and whose architecture the profile gets; see `flows.profile.checkpoints.local_file`.
    Its recipe is that of its kind.
    labels: how to read the rows of YOLO's label files; with None, this is decided from all label files together.
    Raises ConfigError for an invalid share, an invalid or existing name, a dataset that lies among results, an unknown detector,
    a checkpoint that can't be fine-tuned, or a checkpoint together with a detector; ForeignFileError if the folders for results
    hold other files; DatasetError if the folder is not a dataset; CheckpointError if the checkpoint is not available or can't be
    read.
    """
    new = Paths(name)
    require(0 < val_share < 1, "--val-share", "a share between 0 and 1", val_share)
    require_new(new, folder)
    content, studies = copied_recipe(like, detector, start)
    folder = folder.absolute()
    layout = find_layout(folder, val_share, labels)
    section = {"root": relative(folder), **layout.section}
    content["data"] |= {"source": "folder", "scenes": None, "folder": section, "download": None}
    dataset = read_contents(build(FolderConfig, section, str(folder)), int(content["data"]["seed"]))
    require_images(dataset.statistics, dataset.findings, folder)
    content["check"]["mode"] = "strict"
    if start is None:
        content["train_detection"]["init"] = None
        if kind_of(content["detector"]["kind"]).objects == "queries":
            content["detector"]["queries"] = sizes.queries(dataset.statistics)
    option = "--checkpoint" if start is not None else "--detector" if detector is not None else f"--like {like}"
    masks = targets_of_masks(content, dataset, folder, option)
    sizes.fit(content, studies, dataset.statistics, masks, tuned=start is not None)
    origin = f" Training starts from {start.checkpoint}." if start else ""
    text = profile_text(
        content,
        f"This profile has the dataset in {section['root']}, the recipe of {like}.yaml, and sizes that fit the dataset.{origin}",
    )
    text_of_studies = studies_text(
        studies, f"The studies of the profile {name}, copied from those of {like}.yaml with new sizes."
    )
    profile_from(parsed(text), parsed(text_of_studies), relative(new.params))
    write_profile(new, text, text_of_studies, folder)
    notes = [*layout.notes, *dataset.notes, *finding_notes(dataset.findings)]
    return NewProfile(new, content, dataset.statistics, notes, dataset.deep)


def main() -> None:
    arguments = command_line.parser("adopt").parse_args()
    like = arguments.like or ("coco" if arguments.checkpoint else DEFAULT_PROFILE)
    with one_line_errors():
        adopted = adopt(
            arguments.folder,
            arguments.name,
            like,
            arguments.val_share,
            Start(arguments.checkpoint, arguments.sha256) if arguments.checkpoint else None,
            arguments.detector,
            arguments.labels,
        )
    console = Console()
    console.print(summary_table(adopted.paths.profile, adopted.content, adopted.statistics, adopted.deep))
    for note in adopted.notes:
        console.print(printable(note), highlight=False, markup=False, soft_wrap=True)
    graph = relative(adopted.paths.dvc_folder / "dvc.yaml")
    console.print(f"Check the settings in {relative(adopted.paths.params)}, then check the data, then train:\n")
    console.print(f"    dvc repro {graph}:check\n    dvc repro {graph}", highlight=False, soft_wrap=True)
