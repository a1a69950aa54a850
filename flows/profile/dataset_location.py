"""Checks that a dataset lies apart from every folder that a command writes, for any profile."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from detr_core.config import ConfigError
from detr_core.directories import require_replaceable
from flows.profile import graphs, paths
from flows.profile.paths import Paths, relative


def require_apart(root: str, where: str, profiles: Iterable[str] = ()) -> None:
    """Raises ConfigError for a dataset that is inside, equal to or a parent of a folder that some command writes.

    root: the dataset's folder, relative to the project or absolute. where: the setting's name for the error. profiles: names of
    profiles that have no file yet, whose results are checked, too.
    """
    require_apart_from(outputs({*known_profiles(), *profiles}), root, where)


def require_apart_from(results: Iterable[Path], root: str, where: str) -> None:
    """Raises ConfigError for a dataset that is inside, equal to or a parent of one of these folders of results."""
    dataset = paths.ROOT / root
    for output in results:
        relation = _relation(dataset, output)
        if relation is not None:
            raise ConfigError(
                f"{where}: expected a dataset apart from all results, because results are replaced; found {dataset}, which is "
                f"{relation} {output}; move the dataset to another folder and name that folder"
            )


def require_room(new: Paths, dataset: Path) -> None:
    """Raises an error unless the results of the new profile can be written without harm to the dataset and other files.

    Raises ConfigError if the dataset lies among results, or the dataset of another profile lies among the results of the new
    profile. Raises ForeignFileError if a folder for the results of the new profile already holds other files.
    """
    require_apart(str(dataset.absolute()), "FOLDER", [new.profile])
    for link in sorted(paths.PARAMS.glob("*/source")):
        if link.is_symlink():
            require_apart_from(new.outputs, str(link.parent / os.readlink(link)), f"--name {new.profile}: {relative(link)}")
    for result in graphs.outputs(new):
        if result != new.headline:
            require_replaceable(result)


def outputs(profiles: Iterable[str]) -> list[Path]:
    """Returns the folders that commands write for these profiles, and the folders that all profiles share."""
    profile_outputs = [output for profile in sorted(profiles) for output in Paths(profile).outputs]
    shared = dict.fromkeys((paths.STATE, paths.SHARED, paths.ROOT / ".dvc", paths.MAIN / ".dvc"))
    return [*profile_outputs, *shared]


def known_profiles() -> set[str]:
    """Returns the names of all profiles of the project, including those that lack either the file or the folder."""
    return set(paths.profile_names()) | {path.parent.name for path in paths.PARAMS.glob("*/dvc.yaml")}


def _relation(dataset: Path, output: Path) -> str | None:
    """Returns how a dataset lies relative to an output: 'inside', 'the same as' or 'a parent of'; None if they lie apart."""
    relation = None
    for dataset_parts in _forms(dataset):
        for output_parts in _forms(output):
            if dataset_parts == output_parts:
                return "the same as"
            if dataset_parts[: len(output_parts)] == output_parts:
                relation = "inside"
            elif output_parts[: len(dataset_parts)] == dataset_parts:
                relation = "a parent of"
    return relation


def _forms(path: Path) -> set[tuple[str, ...]]:
    """Returns the parts of a path, once as it is written and once with its links resolved, in a form that can be compared.

    Some file systems treat `Cells` and `cells` as one name, and some store an accent as a separate character. Therefore such
    names are equal in this form.
    """
    absolute, resolved = os.path.abspath(path), os.path.realpath(path)
    return {tuple(unicodedata.normalize("NFC", part).casefold() for part in Path(form).parts) for form in (absolute, resolved)}
