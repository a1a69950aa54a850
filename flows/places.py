"""Where a dataset may lie: apart from every folder that a command writes, of any profile."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from detr_core.config import ConfigError
from detr_core.directories import require_replaceable
from flows import paths
from flows.paths import Paths, relative


def require_apart(root: str, where: str, profiles: Iterable[str] = ()) -> None:
    """Raises ConfigError for a dataset that is inside, equal to or a parent of a folder that some command writes.

    root: of the dataset, relative to the project or absolute. where: names the setting in the error. profiles: names of profiles
    that count although they have no file yet.
    """
    require_apart_from(outputs({*known_profiles(), *profiles}), root, where)


def require_apart_from(results: Iterable[Path], root: str, where: str) -> None:
    """The same for these folders of results alone."""
    dataset = paths.ROOT / root
    for output in results:
        relation = _relation(dataset, output)
        if relation is not None:
            raise ConfigError(
                f"{where}: expected a dataset apart from all results, for results are replaced; found {dataset}, which is "
                f"{relation} {output}; move the dataset to another folder and name that one"
            )


def require_room(new: Paths, dataset: Path) -> None:
    """Raises an error unless a new profile, `new`, with this dataset can have its results where they go.

    Raises ConfigError where the dataset lies among results, or the dataset of another profile among those of the new one, and
    ForeignFileError where a folder for its results already holds something else.
    """
    require_apart(str(dataset.absolute()), "FOLDER", [new.profile])
    for link in sorted(paths.PARAMS.glob("*/source")):
        if link.is_symlink():
            require_apart_from(new.outputs, str(link.parent / os.readlink(link)), f"--name {new.profile}: {relative(link)}")
    for result in (new.data, new.check, new.dataset, new.detection, new.panoptic, new.evaluation, new.report):
        require_replaceable(result)


def outputs(profiles: Iterable[str]) -> list[Path]:
    """The folders that commands write for these profiles, and those that all profiles share."""
    own = [output for profile in sorted(profiles) for output in Paths(profile).outputs]
    shared = dict.fromkeys((paths.STATE, paths.SHARED, paths.ROOT / ".dvc", paths.MAIN / ".dvc"))
    return [*own, *shared]


def known_profiles() -> set[str]:
    """The names of all profiles of the project, those that have only one of their two parts included."""
    files = {path.stem for path in paths.PARAMS.glob("*.yaml")}
    return files | {path.parent.name for path in paths.PARAMS.glob("*/dvc.yaml")}


def dvc_errors() -> list[str]:
    """What is wrong with each `profile.yaml`: `dvc` reads all of them, whichever profile it runs, and refuses to run any then."""
    errors = []
    first: dict[str, str] = {}
    for folder in [paths.ROOT, *sorted(path.parent for path in paths.PARAMS.glob("*/dvc.yaml"))]:
        file = folder / "profile.yaml"
        try:
            name = _named_profile(file)
            if first.setdefault(name, relative(file)) != relative(file):
                raise ConfigError(f"{relative(file)}: profile: expected another name than in {first[name]}, found {name!r}")
        except ConfigError as error:
            errors.append(str(error))
    return errors


def _named_profile(file: Path) -> str:
    """The profile that a `profile.yaml` names. Raises ConfigError, which names the file, where `dvc` can't use it."""
    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = getattr(error, "problem", None) or getattr(error, "strerror", None) or error
        raise ConfigError(f"{relative(file)}: expected YAML that can be read: {reason}") from None
    for key in ("profile", "wd"):
        if not isinstance(content, dict) or not isinstance(content.get(key), str):
            raise ConfigError(f"{relative(file)}: {key}: expected text, found {content!r:.80}")
    return str(content["profile"])


def _relation(dataset: Path, output: Path) -> str | None:
    """How a dataset relates to an output: 'inside', 'the same as' or 'a parent of'; None where they are apart."""
    found = None
    for one in _forms(dataset):
        for other in _forms(output):
            if one == other:
                return "the same as"
            if one[: len(other)] == other:
                found = "inside"
            elif other[: len(one)] == one:
                found = "a parent of"
    return found


def _forms(path: Path) -> set[tuple[str, ...]]:
    """The parts of a path as it is written and with its links resolved, in the form in which a file system compares names.

    Some file systems take `Cells` for `cells`, and some store accents as characters of their own; so both count as one name.
    """
    written, resolved = os.path.abspath(path), os.path.realpath(path)
    return {tuple(unicodedata.normalize("NFC", part).casefold() for part in Path(form).parts) for form in (written, resolved)}
