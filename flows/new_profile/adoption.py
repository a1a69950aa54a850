"""This command makes a profile for a user's dataset. `python -m flows.adopt FOLDER --name cells`

FOLDER has COCO's annotation files (boxes, masks or panoptic), YOLO's data.yaml or Pascal VOC's Annotations. The command writes
params/cells.yaml, with sizes from the dataset's statistics, and params/cells/, for `dvc repro params/cells/dvc.yaml`.
"""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice
from operator import getitem
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from detr_core.check.conversion import unreadable_images
from detr_core.check.entries import category_difference, category_names, check_entries
from detr_core.check.findings import Finding
from detr_core.check.statistics import Statistics, count, quantile
from detr_core.config import ConfigError, as_dict, build
from detr_core.data.fields import read_content
from detr_core.data.splits import read_dataset, targets
from detr_core.data.values import first_sample_type
from detr_core.model.spec import kind_of, kinds_with
from detr_core.sources.config import FolderConfig
from detr_core.sources.formats.yolo_rows import Labels
from detr_core.studies.config import EVALUATING
from detr_core.wording import counted
from flows.new_profile import sizes
from flows.new_profile.dataset_layout import find_layout
from flows.new_profile.dataset_notes import require_images, told
from flows.new_profile.yolo_layout import yolo_set
from flows.profile import places
from flows.profile.paths import DEFAULT_PROFILE, PARAMS, ROOT, Paths, relative
from flows.profile.settings import overridden, parsed, profile_from, read
from flows.runtime import arguments as command_line
from flows.runtime.stage_runner import one_line_errors

_LOOKED_AT = 50  # the number of images whose header `adopt` reads

TOOL = YAML()  # this YAML library keeps the comments of the profile that is copied
TOOL.width = 160
TOOL.representer.add_representer(type(None), lambda tool, _: tool.represent_scalar("tag:yaml.org,2002:null", "null"))


@dataclass(frozen=True)
class Start:
    """The checkpoint that fine-tuning starts from: a path, or an address with the checksum of its file."""

    checkpoint: str
    sha256: str | None


@dataclass(frozen=True)
class Adopted:
    """The new profile.

    content: the content of its file. statistics: those of 'train' and 'val'. told: messages about the dataset. deep: the sample
    type of the first training image that has more than 8 bits a value, None if none of the first images has.
    """

    paths: Paths
    content: dict[str, Any]
    statistics: dict[str, Statistics]
    told: list[str]
    deep: str | None


def adopt(
    folder: Path,
    name: str,
    like: str,
    val_share: float,
    start: Start | None = None,
    detector: str | None = None,
    labels: Labels | None = None,
) -> Adopted:
    """Makes params/<name>.yaml and params/<name>/ for the dataset in `folder`; existing files are never overwritten.

    like: the profile whose recipe is copied: `demo`, a small detector from scratch, or `coco`, a ResNet-50. detector: a variant
    of that profile's study `baselines`, such as `deformable`, whose detector and recipe are used instead. start: the trained
    detector that fine-tuning starts from, and whose architecture the profile gets; see `flows.profile.checkpoints.local_file`.
    labels: how to read the rows of YOLO's label files; with None, this is decided from all label files together.
    Raises ConfigError for an invalid or existing name, a dataset that lies among results, an unknown detector, a checkpoint of
    another kind than DETR, or a checkpoint together with a detector; ForeignFileError if the folders for results hold other
    files; DatasetError if the folder is not a dataset; CheckpointError if the checkpoint is not available or can't be read.
    """
    paths = Paths(name)
    if not re.fullmatch("[a-z0-9][a-z0-9_-]*", name):
        raise ConfigError(f"--name: expected a name of lower-case letters, digits, - and _, found {name!r}")
    if taken := [relative(path) for path in (paths.params, PARAMS / name) if path.exists()]:
        exist, them = ("exists", taken[0]) if len(taken) == 1 else ("exist", "both")
        raise ConfigError(f"--name: {' and '.join(taken)} {exist}; choose another name, or remove {them}")
    places.require_room(paths, folder)
    model = Paths(like).params
    if not model.is_file():
        raise ConfigError(f"--like: expected the name of a profile, found {like!r}")
    if detector is not None and start is not None:
        raise ConfigError("--detector: expected no --checkpoint, because a checkpoint has its own detector; give only one")
    read(model)  # reading all of it reports its errors, with the file's name, before any work
    content = TOOL.load(model.read_text(encoding="utf-8"))
    if detector is not None:
        content = _with_detector(content, detector, relative(model))
    folder = folder.absolute()
    found = find_layout(folder, val_share, labels)
    layout = {"root": relative(folder), **found.section}
    content["data"] |= {"source": "folder", "scenes": None, "folder": layout, "download": None}
    read_data = _statistics(build(FolderConfig, layout, str(folder)), int(content["data"]["seed"]))
    statistics, panoptic = read_data.statistics, read_data.panoptic
    require_images(statistics, read_data.findings, folder)
    content["check"]["mode"] = "strict"
    for study in [study for study in content["ablations"] if study not in EVALUATING]:
        del content["ablations"][study]  # its schedules fit the copied profile, not this dataset
    if start is None:
        if kind_of(content["detector"]["kind"]).objects == "queries":
            content["detector"]["queries"] = sizes.queries(statistics)
        content["train_detection"]["init"] = None
    else:
        init = {"checkpoint": start.checkpoint, "sha256": start.sha256}
        content["train_detection"]["init"] = init
        content["detector"], maps = _built_as(start)
        if maps is not None and content["train_panoptic"] is not None:
            content["train_panoptic"] |= {"init": dict(init), "attention_maps": maps, "attention_gain": 1}
    masks = panoptic and content["train_panoptic"] is not None
    sizes.fit(content, statistics, masks, tuned=start is not None)
    begun = f" Training starts from {start.checkpoint}." if start else ""
    content.yaml_set_start_comment(
        f"This profile has the dataset in {layout['root']}, the recipe of {like}.yaml, and sizes that fit the dataset.{begun}"
    )
    text = _text(content)
    profile_from(parsed(text), relative(paths.params))
    _write(paths, text, folder)
    return Adopted(paths, content, statistics, [*found.notes, *read_data.notes, *told(read_data.findings)], read_data.deep)


def _with_detector(content: Any, name: str, where: str) -> Any:
    """Returns a copy of a profile's content with the detector and recipe of the variant `name` of its study `baselines`."""
    variants = content["ablations"].get("baselines", {}).get("variants", {})
    if name not in variants:
        known = ", ".join(variants) or "none"
        raise ConfigError(f"--detector: expected a variant of ablations.baselines in {where} ({known}), found {name!r}")
    overrides = json.loads(json.dumps(variants[name]))  # this removes anchors and comments
    content = overridden(content, overrides, f"{where}: ablations.baselines.variants.{name}")
    for key in overrides:
        *path, last = key.split(".")
        reduce(getitem, path, content).ca.items.pop(last, None)  # the comment described the old value
    if "mask_head" not in kind_of(content["detector"]["kind"]).capabilities:
        content["train_panoptic"] = None
    return content


@dataclass(frozen=True)
class _Data:
    """The content of a dataset.

    statistics: those of 'train' and 'val'. findings: the faults of the annotations. notes: lines for the user. panoptic: both
    splits have panoptic annotations. deep: the sample type of the first training image with more than 8 bits a value, or None.
    """

    statistics: dict[str, Statistics]
    findings: list[Finding]
    notes: list[str]
    panoptic: bool
    deep: str | None


def _statistics(config: FolderConfig, seed: int) -> _Data:
    """Reads the annotations of both splits, and the headers of the first training images."""
    from detr_core.sources.folder import write_folder_dataset  # torch takes seconds to import

    root = (ROOT / config.root).resolve()
    with TemporaryDirectory() as temporary:
        write_folder_dataset(config, root, seed, yolo_set(root) if config.format == "yolo" else None, Path(temporary))
        splits = read_dataset(Path(temporary))
        found: dict[str, Statistics] = {}
        names: dict[str, dict[int, str]] = {}
        findings: list[Finding] = []
        source = targets(splits["train"] if splits["val"].panoptic is not None else splits["val"])
        for name, split in splits.items():
            file = getattr(split, source)
            content = read_content(file)
            entries = check_entries(content, name, source)
            findings += [*entries.findings, *unreadable_images(content, name, source)]
            names[name] = category_names(content, str(file))
            found[name] = count(entries, names[name])
            if name == "train":
                deep = first_sample_type(split.images / image.name for image in islice(entries.images.values(), _LOOKED_AT))
    if config.format != "coco":  # then a finding's place is that in a converted file, which the user does not have
        findings = [replace(finding, place=None) for finding in findings]
    difference = category_difference(names)
    notes = (
        [f"the categories differ between the splits, and the check stops at such a dataset: {difference}"] if difference else []
    )
    return _Data(found, findings, notes, source == "panoptic", deep)


def _built_as(start: Start) -> tuple[dict[str, Any], str | None]:
    """Returns the section `detector` of a checkpoint, and the setting `attention_maps` of its mask head, None without one."""
    import torch

    from detr_core.model.checkpoint import load_checkpoint
    from flows.profile.checkpoints import local_file

    model = load_checkpoint(local_file(start.checkpoint, start.sha256), torch.device("cpu")).model
    if "init" not in kind_of(model.config.kind).capabilities:
        expected = f"a detector of kind {kinds_with('init')}, which can be fine-tuned"
        raise ConfigError(f"--checkpoint: expected {expected}, found {model.config.kind!r}")
    return as_dict(model.config), model.attention_maps if model.has_mask_head else None


def _text(content: Any) -> str:
    """Returns the text of the profile, with new values in one line each and a blank line between sections."""
    for section in content.values():
        for key, value in section.items() if isinstance(section, dict) else ():
            if type(value) in (dict, list):  # this command has set the value; values that were read have ruamel's types
                section[key] = _in_lines(value) if key in ("folder", "augmentation") else _in_one_line(value)
    for study in content["ablations"].values():
        for key in ("resize", "fill"):
            if type(study.get(key)) in (dict, list):
                study[key] = _in_one_line(study[key])
        study.ca.items.pop("resize", None)  # the comment below it describes studies that are left out
    # These comments of the copied profile describe its own values.
    for section, keys in (
        (content["train_detection"], ("targets", "epochs")),
        (content["ablations"]["instance-count"], ("grid", "canvas", "fill")),
    ):
        for key in keys:
            section.ca.items.pop(key, None)
    text = io.StringIO()
    TOOL.dump(content, text)
    lines = [line for line in text.getvalue().splitlines() if line.strip()]
    return "\n".join(f"\n{line}" if place > 1 and line[0].isalpha() else line for place, line in enumerate(lines)) + "\n"


def _in_lines(value: dict[str, Any]) -> CommentedMap:
    return CommentedMap({key: _in_one_line(item) if isinstance(item, dict) else item for key, item in value.items()})


def _in_one_line(value: Any) -> Any:
    if not isinstance(value, (dict, list)):
        return value
    items = {key: _in_one_line(item) for key, item in value.items()} if isinstance(value, dict) else {}
    shown = CommentedMap(items) if isinstance(value, dict) else CommentedSeq(value)
    shown.fa.set_flow_style()
    return shown


def _write(paths: Paths, text: str, dataset: Path) -> None:
    folder = PARAMS / paths.profile
    profile = {"profile": paths.profile, "kind": yaml.safe_load(text)["detector"]["kind"], "wd": "../.."}
    files = {
        paths.params: text,
        folder / "profile.yaml": yaml.safe_dump(profile, sort_keys=False, allow_unicode=True),
        folder / "dvc.yaml": (ROOT / "dvc.yaml").read_text(encoding="utf-8"),  # the last file: with it DVC reads the folder
    }
    written: list[Path] = []
    try:
        folder.mkdir()
        inside = dataset.is_relative_to(ROOT)  # then a relative link is also right in copies of the project
        paths.source.symlink_to(os.path.relpath(dataset, folder.resolve()) if inside else dataset)
        written.append(paths.source)
        for path, content in files.items():
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(content)
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if written:
            folder.rmdir()
        if isinstance(error, FileExistsError):  # another command has made a profile of the same name at the same time
            raise ConfigError(f"--name: {error.filename} exists; choose another name, or remove {error.filename}") from None
        raise


def table(made: Adopted) -> Table:
    """Returns a table of the dataset's statistics and the chosen settings, which is shown before training."""
    train, content = made.statistics["train"], made.content
    detection = content["train_detection"]
    shown = Table(title=f"Profile {made.paths.profile}", title_justify="left", show_header=False)
    for name, found in made.statistics.items():
        images, objects = sum(found.objects.values()), sum(found.classes.values())
        most = f", at most {found.most_objects} an image" if objects else "; there is nothing to learn from"
        crowds = f", {counted(found.crowds, 'crowd')}, which are not used for training" if found.crowds else ""
        shown.add_row(f"{name}", f"{counted(images, 'image')}, {counted(objects, 'object')}{crowds}{most}")
    classes = list(train.classes)
    listed = escape(", ".join(classes[:8]))  # a class may be called [x], which would be markup
    shown.add_row("classes", f"{len(classes)}: {listed}{', ...' if len(classes) > 8 else ''}")
    shown.add_row("objects", f"the median size is {quantile(train.sides, 0.5)} pixels")
    if made.deep is not None:
        shown.add_row("pixels", f"{made.deep} values, which the check's `value_range` scales to 8 bits")
    shown.add_section()
    detector = content["detector"]
    shown.add_row(
        "detector", detector["kind"] + (f", {counted(detector['queries'], 'query', 'queries')}" if "queries" in detector else "")
    )
    resize = content["evaluate"]["resize"]
    shown.add_row("resize", f"short side {resize['short'][0]}, long side at most {resize['longest']}")
    shown.add_row("epochs", f"{detection['epochs']}, {counted(detection['batch_size'], 'image')} a step")
    shown.add_row("masks", "trained on the panoptic annotations" if content["train_panoptic"] else "none; only boxes are trained")
    return shown


def main() -> None:
    arguments = command_line.parser("adopt").parse_args()
    like = arguments.like or ("coco" if arguments.checkpoint else DEFAULT_PROFILE)
    with one_line_errors():
        made = adopt(
            arguments.folder,
            arguments.name,
            like,
            arguments.val_share,
            Start(arguments.checkpoint, arguments.sha256) if arguments.checkpoint else None,
            arguments.detector,
            arguments.labels,
        )
    console = Console()
    console.print(table(made))
    for line in made.told:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    graph = relative(made.paths.dvc_folder / "dvc.yaml")
    console.print(f"Check the settings in {relative(made.paths.params)}, then check the data, then train:\n")
    console.print(f"    dvc repro {graph}:check\n    dvc repro {graph}", highlight=False, soft_wrap=True)
