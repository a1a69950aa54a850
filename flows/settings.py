"""One profile, `params/<profile>.yaml`, read and checked as a whole before any work."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from detr_core.check.config import CheckConfig
from detr_core.config import ConfigError, as_dict, build, flatten, require
from detr_core.data.config import DataConfig
from detr_core.evaluate.config import EvaluateConfig
from detr_core.model.config import DetectorConfig
from detr_core.studies.config import DecoderNmsConfig
from detr_core.train.config import DetectionConfig, PanopticConfig
from flows.paths import PARAMS, Paths, relative


@dataclass(frozen=True)
class AblationsConfig:
    """The studies of the paper that this profile runs."""

    decoder_nms: DecoderNmsConfig


@dataclass(frozen=True)
class ReportConfig:
    """pictures: how many val images are shown."""

    pictures: int

    def __post_init__(self) -> None:
        require(self.pictures >= 0, "pictures", "0 or more", self.pictures)


@dataclass(frozen=True)
class ResourcesConfig:
    """How to run a profile, not what it is. processes: of a training, or 'auto'. workers: loader processes of each."""

    processes: str | int
    workers: int

    def __post_init__(self) -> None:
        require(
            self.processes == "auto" or (type(self.processes) is int and self.processes >= 1),
            "processes",
            "'auto' or 1 or more",
            self.processes,
        )
        require(self.workers >= 0, "workers", "0 or more", self.workers)


@dataclass(frozen=True)
class Profile:
    """One whole experiment; sections are named after stages."""

    data: DataConfig
    check: CheckConfig
    detector: DetectorConfig
    train_detection: DetectionConfig
    train_panoptic: PanopticConfig | None  # null: no mask head, for data without panoptic annotations
    evaluate: EvaluateConfig
    ablations: AblationsConfig
    report: ReportConfig
    resources: ResourcesConfig

    def flat(self, *sections: str) -> dict[str, Any]:
        """The parameters of these sections as `section.key: value`, for the record."""
        configs = {section: getattr(self, section) for section in sections}
        return flatten({section: None if config is None else as_dict(config) for section, config in configs.items()})


def load(profile: str) -> Profile:
    """The profile of that name.

    Raises ConfigError, which names the file and the key, for a file that isn't there, isn't YAML, or has a key that is unknown,
    missing or of no sense.
    """
    known = sorted(path.stem for path in PARAMS.glob("*.yaml"))
    if profile not in known:
        near = difflib.get_close_matches(profile, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known profiles: {', '.join(known)}"
        raise ConfigError(f"profile {profile!r}: there is no {relative(PARAMS)}/{profile}.yaml; {hint}")
    return read(Paths(profile).params)


def read(path: Path) -> Profile:
    """The profile in this file; errors as `load`."""
    name = relative(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}:" if where else ""
        raise ConfigError(f"{name}:{line} not valid YAML: {getattr(error, 'problem', error)}") from None
    return build(Profile, content, name)
