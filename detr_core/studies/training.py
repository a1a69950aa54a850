"""Defines the configuration of the studies that train: the overrides by which their variants differ from the profile."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detr_core.config import require
from detr_core.studies.claims import ClaimConfig
from detr_core.studies.study import StudyConfig


@dataclass(frozen=True)
class TrainingStudyConfig(StudyConfig):
    """A study that trains and evaluates its variants, which differ from the profile by overrides of its keys.

    base: the variant that the other variants are compared with. seeds: each variant is trained once with each seed. set: dotted
    key -> value, the overrides that all variants share, such as a smaller number of epochs. A study that overrides a key of
    `train_panoptic` trains the mask head too. median_of: the metrics of boxes are the median over the validations of this number
    of last epochs, ten in the paper's Tables 2 to 4; with 1 they are those of the evaluation after the last epoch, as in Table 1.
    claims: what the paper claims about the variants. measure: evaluating studies that are carried out with the detector of each
    variant and seed, with their settings in the profile.
    """

    base: str
    seeds: tuple[int, ...]
    median_of: int
    set: dict[str, Any]
    claims: tuple[ClaimConfig, ...] = field(default=(), kw_only=True, metadata={"optional": True})
    measure: tuple[str, ...] = field(default=(), kw_only=True, metadata={"optional": True})

    def __post_init__(self) -> None:
        names = list(self.overrides())
        require(len(names) > 1, self._field, "two variants or more", names)
        for name in names:
            valid = re.fullmatch(r"[A-Za-z0-9][\w .,=+-]*", name) is not None
            require(valid, self._field, "names of letters, digits and ' .,=+-_', because they name folders", name)
        require(self.base in names, "base", f"one of the variants {', '.join(map(repr, names))}", self.base)
        require(len(self.seeds) > 0, "seeds", "one or more", list(self.seeds))
        require(min(self.seeds, default=0) >= 0, "seeds", "numbers of 0 or more", list(self.seeds))
        require(len(set(self.seeds)) == len(self.seeds), "seeds", "each seed once", list(self.seeds))
        require(self.median_of >= 1, "median_of", "1 (the last epoch) or more", self.median_of)
        consistent = self.median_of == 1 or not self.trains_masks
        require(consistent, "median_of", "1 in a study that trains mask heads, which are evaluated once", self.median_of)
        for index, claim in enumerate(self.claims):
            unknown = [name for name in claim.named() if name not in names]
            require(not unknown, f"claims[{index}]", f"names of variants ({', '.join(names)})", unknown)

    def overrides(self) -> dict[str, dict[str, Any]]:
        """Returns variant -> its overrides (dotted key -> value) in addition to `set`."""
        raise NotImplementedError

    @property
    def varied(self) -> list[str]:
        """Returns the keys in which the variants differ."""
        return list(dict.fromkeys(key for override in self.overrides().values() for key in override))

    @property
    def trains_masks(self) -> bool:
        """Returns whether the study trains the mask head."""
        return any(key.split(".")[0] == "train_panoptic" for key in (*self.set, *self.varied))

    @property
    def _field(self) -> str:
        return "variants"


@dataclass(frozen=True)
class GridStudyConfig(TrainingStudyConfig):
    """A training study whose variants are all combinations of the values in `vary` (dotted key -> values).

    A variant is named after its value, or after all its `key=value` pairs if several keys vary.
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
    """A training study with named variants. variants: name -> overrides (dotted key -> value)."""

    variants: dict[str, dict[str, Any]]

    def overrides(self) -> dict[str, dict[str, Any]]:
        return self.variants


def training_kind(name: str, content: object) -> type[TrainingStudyConfig]:
    """Returns the type of configuration of the training study with this name and content."""
    return GridStudyConfig if isinstance(content, Mapping) and "vary" in content else NamedStudyConfig
