"""Selects the studies of a profile by their names. This module imports nothing that takes long to import."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from detr_core.config import ConfigError, require
from detr_core.model.spec import kinds_with
from flows.profile.settings import Profile, unsupported_studies

ALL = "all"


def selected(settings: Profile, profile: str, names: Sequence[str]) -> list[str]:
    """Returns the names of the studies to carry out, in the order in which the profile lists them.

    names: names of studies; 'all' selects every study, and an empty list selects the studies that only evaluate. Studies that do
    not support the profile's kind of detector are left out. Raises ConfigError if such a study is named, or a study that the
    profile does not have.
    """
    known_studies = list(settings.studies.all)
    for name in names:
        if name not in (*known_studies, ALL):
            near = difflib.get_close_matches(name, known_studies, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"study {name!r}: profile {profile!r} has no such study; {hint}known: {', '.join(known_studies)}, {ALL}"
            )
    kind, unsupported = settings.detector.kind, unsupported_studies(settings)
    for name in unsupported:
        expected = kinds_with(*settings.studies.all[name].NEEDS)
        require(name not in names, f"study {name!r}", f"a detector of kind {expected}", f"{kind!r} in profile {profile!r}")
    possible = [name for name in known_studies if name not in unsupported]
    if not names:
        return [name for name in possible if name in settings.studies.evaluating]
    return possible if ALL in names else [name for name in possible if name in names]
