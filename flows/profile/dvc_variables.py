"""Checks each `profile.yaml`, from which `dvc` takes the values of the variables in dvc.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from detr_core.config import ConfigError
from detr_core.model.spec import KINDS, kind_of
from flows.profile import paths
from flows.profile.paths import Paths, relative


def dvc_errors() -> list[str]:
    """Returns a message for each unusable `profile.yaml`. `dvc` reads all these files, and runs no profile if one is unusable."""
    errors = []
    first: dict[str, str] = {}
    for folder in [paths.ROOT, *sorted(path.parent for path in paths.PARAMS.glob("*/dvc.yaml"))]:
        file = folder / "profile.yaml"
        try:
            name = _named_profile(file)
            if first.setdefault(name, relative(file)) != relative(file):
                expected = f"expected a name that no other profile.yaml has; {first[name]} has {name!r} too"
                raise ConfigError(f"{relative(file)}: profile: {expected}")
        except ConfigError as error:
            errors.append(str(error))
    return errors


def require_kind(profile: Paths, kind: str) -> None:
    """Raises ConfigError where the profile's `profile.yaml` names another kind of detector than the profile does.

    DVC would then watch the code of that other kind.
    """
    file = profile.dvc_folder / "profile.yaml"
    if not file.is_file():
        return
    actual = yaml.safe_load(file.read_text(encoding="utf-8"))
    origins = {"kind": f"as detector.kind in {relative(profile.params)}", "builds_on": f"as the kind {kind!r} does"}
    for key, expected in {"kind": kind, "builds_on": kind_of(kind).builds_on}.items():
        if actual.get(key) != expected:
            raise ConfigError(
                f"{relative(file)}: {key}: expected {expected!r}, {origins[key]}, found {actual.get(key)!r}; "
                "with this value dvc would watch the code of another detector"
            )


def _named_profile(file: Path) -> str:
    """Returns the profile that a `profile.yaml` names. Raises ConfigError, which names the file, if `dvc` can't use it."""
    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = getattr(error, "problem", None) or getattr(error, "strerror", None) or error
        raise ConfigError(f"{relative(file)}: expected YAML that can be read: {reason}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{relative(file)}: expected keys with values, found {content!r:.80}")
    for key in ("profile", "kind", "builds_on", "wd"):
        if not isinstance(content.get(key), str):
            known = key == "builds_on" and content["kind"] in KINDS
            expected = repr(KINDS[content["kind"]].builds_on) if known else "text"
            raise ConfigError(f"{relative(file)}: {key}: expected {expected}, found {content.get(key)!r:.80}")
    return str(content["profile"])
