"""Writes the files of a new profile: all of them, or none. No existing file is overwritten."""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml

from detr_core.config import ConfigError
from detr_core.model.spec import kind_of
from flows.profile import dataset_location, paths
from flows.profile.graphs import graph_text
from flows.profile.paths import Paths, relative


def require_new(new: Paths, dataset: Path) -> None:
    """Raises an error unless a profile of this name can be made for the dataset in the folder `dataset`.

    Raises ConfigError for an invalid or existing name, or a dataset that lies among results; ForeignFileError if the folders for
    the results of the new profile hold other files.
    """
    name = new.profile
    if not re.fullmatch("[a-z0-9][a-z0-9_-]*", name):
        raise ConfigError(f"--name: expected a name of lower-case letters, digits, - and _, found {name!r}")
    if existing := [relative(path) for path in (new.params, new.studies_params, paths.PARAMS / name) if path.exists()]:
        verb, remedy = ("exists", existing[0]) if len(existing) == 1 else ("exist", "them")
        raise ConfigError(f"--name: {' and '.join(existing)} {verb}; choose another name, or remove {remedy}")
    dataset_location.require_room(new, dataset)


def write_profile(new: Paths, text: str, studies: str, dataset: Path) -> None:
    """Writes params/<name>.yaml and params/<name>.studies.yaml, and the folder params/<name>/ with a link to `dataset`.

    text, studies: the texts of the two files. dataset: the folder of the dataset.

    Raises ConfigError if another command has made a profile of the same name at the same time.
    """
    folder = paths.PARAMS / new.profile
    kind = yaml.safe_load(text)["detector"]["kind"]
    profile = {"profile": new.profile, "kind": kind, "builds_on": kind_of(kind).builds_on, "wd": "../.."}
    files = {
        new.params: text,
        new.studies_params: studies,
        folder / "profile.yaml": yaml.safe_dump(profile, sort_keys=False, allow_unicode=True),
        folder / "dvc.yaml": graph_text(),  # written last, because DVC reads the folder once it exists
    }
    written: list[Path] = []
    try:
        folder.mkdir()
        inside = dataset.is_relative_to(paths.ROOT)  # a relative link is also right in a copy of the project
        new.source.symlink_to(os.path.relpath(dataset, folder.resolve()) if inside else dataset)
        written.append(new.source)
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
