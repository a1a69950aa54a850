"""Configuration of the studies that train: no more than the overrides by which their variants differ from the profile."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from detr_core.config import require
from detr_core.studies.config import EVALUATING, StudyConfig


@dataclass(frozen=True)
class TrainingStudyConfig(StudyConfig):
    """A study that trains and evaluates its variants, which differ from the profile by overrides of its keys.

    base: the variant that the others are compared with. seeds: each variant is trained once for each of them. set: overrides,
    by dotted key, of all variants, such as a budget of their own. A study that sets or varies anything of `train_panoptic`
    trains the mask head too.
    """

    base: str
    seeds: tuple[int, ...]
    set: dict[str, Any]

    def __post_init__(self) -> None:
        names = list(self.overrides())
        require(len(names) > 1, self._field, "two variants or more", names)
        for name in names:
            good = re.fullmatch(r"[A-Za-z0-9][\w .,=+-]*", name) is not None
            require(good, self._field, "names of letters, digits and ' .,=+-_', which folders can have", name)
        require(self.base in names, "base", f"one of the variants {', '.join(map(repr, names))}", self.base)
        require(len(self.seeds) > 0, "seeds", "one or more", list(self.seeds))
        require(len(set(self.seeds)) == len(self.seeds), "seeds", "each seed once", list(self.seeds))

    def overrides(self) -> dict[str, dict[str, Any]]:
        """The variants by name: what each overrides, by dotted key, beside `set`."""
        raise NotImplementedError

    @property
    def varied(self) -> list[str]:
        """The keys that make the variants differ."""
        return list(dict.fromkeys(key for override in self.overrides().values() for key in override))

    @property
    def trains_masks(self) -> bool:
        """Whether the mask head belongs to it."""
        return any(key.split(".")[0] == "train_panoptic" for key in (*self.set, *self.varied))

    @property
    def _field(self) -> str:
        return "variants"


@dataclass(frozen=True)
class GridStudyConfig(TrainingStudyConfig):
    """A training study whose variants are a grid: every combination of the values of `vary`'s keys.

    A variant is named after its value, or after all its `key=value` where several keys vary.
    """

    vary: dict[str, tuple[Any, ...]]

    def overrides(self) -> dict[str, dict[str, Any]]:
        points = [dict(zip(self.vary, values, strict=True)) for values in itertools.product(*self.vary.values())]
        return {self._name(point): point for point in points if point}

    def _name(self, point: Mapping[str, Any]) -> str:
        words = {key: value if isinstance(value, str) else json.dumps(value) for key, value in point.items()}
        if len(words) == 1:
            return next(iter(words.values()))
        return ",".join(f"{key.rpartition('.')[2]}={word}" for key, word in words.items())

    @property
    def _field(self) -> str:
        return "vary"


@dataclass(frozen=True)
class NamedStudyConfig(TrainingStudyConfig):
    """A training study whose variants are named one by one."""

    variants: dict[str, dict[str, Any]]

    def overrides(self) -> dict[str, dict[str, Any]]:
        return self.variants


def study_kind(name: str, content: object) -> type[StudyConfig]:
    """Which configuration the study of this name and content is."""
    if name in EVALUATING:
        return EVALUATING[name]
    return GridStudyConfig if isinstance(content, Mapping) and "vary" in content else NamedStudyConfig


Studies = Annotated[dict[str, StudyConfig], study_kind]
"""A profile's section `ablations`: the studies by name."""
