"""Reads a profile, `params/<profile>.yaml`, and checks all of it before any work begins."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from detr_core.check.config import CheckConfig
from detr_core.config import ConfigError, as_dict, build, flatten, require
from detr_core.evaluate.config import EvaluateConfig
from detr_core.model.spec import AnyDetectorConfig, kind_of, kinds_with
from detr_core.redaction import holds_credentials
from detr_core.sources.config import DataConfig
from detr_core.studies.training import GridStudyConfig, Studies, TrainingStudyConfig
from detr_core.train.config import DetectionConfig, require_fit
from detr_core.train_mask_head.config import PanopticConfig
from flows.profile import places
from flows.profile.paths import PARAMS, Paths, relative

VARIED = ("detector", "train_detection", "train_panoptic", "evaluate")  # sections that a study's variants may override


@dataclass(frozen=True)
class ReportConfig:
    """The settings of the report. pictures: the number of val images that it shows."""

    pictures: int

    def __post_init__(self) -> None:
        require(self.pictures >= 0, "pictures", "0 or more", self.pictures)


@dataclass(frozen=True)
class ResourcesConfig:
    """The settings that say on which hardware a profile runs; no result depends on them.

    gpus: numbers of the GPUs to use; null for all. processes: number of rank processes of a training or an evaluation, or 'auto'.
    workers: number of data loader processes of each of them. side_by_side: number of variants of a study that are trained at the
    same time, each on its share of the GPUs.
    """

    gpus: tuple[int, ...] | None
    processes: str | int
    workers: int
    side_by_side: int

    def __post_init__(self) -> None:
        gpus = self.gpus
        good = gpus is None or (len(set(gpus)) == len(gpus) > 0 and min(gpus) >= 0)
        require(good, "gpus", "different numbers from 0 on, or null", gpus)
        require(
            self.processes == "auto" or (type(self.processes) is int and self.processes >= 1),
            "processes",
            "'auto' or 1 or more",
            self.processes,
        )
        require(self.workers >= 0, "workers", "0 or more", self.workers)
        require(self.side_by_side >= 1, "side_by_side", "1 or more", self.side_by_side)


@dataclass(frozen=True)
class Profile:
    """The settings of one experiment, with a section for each stage."""

    data: DataConfig
    check: CheckConfig
    detector: AnyDetectorConfig
    train_detection: DetectionConfig
    train_panoptic: PanopticConfig | None  # with null no mask head is trained, as for data without masks
    evaluate: EvaluateConfig
    ablations: Studies
    report: ReportConfig
    resources: ResourcesConfig

    def __post_init__(self) -> None:
        require_fit(self.detector, self.train_detection)
        for name in self.ablations:
            variants(self, name)

    @property
    def trains_jointly(self) -> bool:
        """Whether the detector learns together with the mask head."""
        return self.train_panoptic is not None and self.train_panoptic.detector == "joint"

    def flat(self, *sections: str) -> dict[str, Any]:
        """Returns the parameters of these sections as `section.key: value`, for MLflow."""
        configs = {section: getattr(self, section) for section in sections}
        return flatten({section: None if config is None else as_dict(config) for section, config in configs.items()})


def variants(profile: Profile, study: str) -> dict[str, Profile]:
    """Returns the variants of a training study by name, each as a whole profile; none for a study that only evaluates.

    Raises ConfigError, which names the study and the key, if a variant overrides a key that doesn't exist or that a study can't
    vary, is not a valid profile, has a detector that can't have the mask head that the study trains or has other targets, or is
    the same as another variant.
    """
    config = profile.ablations[study]
    if not isinstance(config, TrainingStudyConfig):
        return {}
    found: dict[str, Profile] = {}
    plain = as_dict(dataclasses.replace(profile, ablations={}))
    for name, override in config.overrides().items():
        where = f"ablations.{study}.{'vary' if isinstance(config, GridStudyConfig) else 'variants'}.{name}"
        content = overridden(overridden(plain, config.set, f"ablations.{study}.set"), override, where)
        variant = build(Profile, content, where)
        can = not config.trains_masks or can_have_mask_head(variant)
        expected = f"detector.kind {kinds_with('mask_head')}, which can have a mask head"
        require(can, where, expected, variant.detector.kind)
        if config.trains_masks:
            _require_same_targets(variant, where)
        for other, earlier in found.items():
            require(variant != earlier, where, "variants that differ", f"the same as {other}")
        found[name] = variant
    return found


def overridden(content: dict[str, Any], overrides: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns a copy of a profile's content in which these dotted keys have these values.

    Raises ConfigError, which names `where` and the key, for a key that doesn't exist or that a study can't vary.
    """
    content = copy.deepcopy(content)
    for key, value in overrides.items():
        require(key.split(".")[0] in VARIED, where, f"keys of {', '.join(VARIED)}", key)
        require(not key.endswith(".seed"), where, "seeds in the study's `seeds`", key)
        known = [other for other in _keys(content) if other.split(".")[0] in VARIED]
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ConfigError(f"{where}: {key}: unknown key{f'; did you mean {near[0]!r}?' if near else ''}")
        *path, last = key.split(".")
        section = content
        for part in path:
            section = section[part]
        section[last] = value
    return content


def _keys(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")


def left_out(settings: Profile) -> list[str]:
    """Returns the studies of the profile that do not support its kind of detector."""
    capabilities = kind_of(settings.detector.kind).capabilities
    return [name for name, config in settings.ablations.items() if not capabilities.issuperset(config.NEEDS)]


def can_have_mask_head(settings: Profile) -> bool:
    """Returns whether a mask head can be trained on the profile's kind of detector."""
    return "mask_head" in kind_of(settings.detector.kind).capabilities


def load(profile: str) -> Profile:
    """Loads the profile of that name.

    Raises ConfigError, which names the file and the key, if the file is missing or is not YAML, if a key is unknown, missing or
    invalid, or if the dataset that the profile names lies among the results of a profile.
    """
    known = sorted(path.stem for path in PARAMS.glob("*.yaml"))
    if profile not in known:
        near = difflib.get_close_matches(profile, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known profiles: {', '.join(known)}"
        raise ConfigError(f"profile {profile!r}: there is no {relative(PARAMS)}/{profile}.yaml; {hint}")
    settings = read(Paths(profile).params)
    if settings.data.folder is not None:
        where = f"{relative(Paths(profile).params)}: data.folder.root"
        places.require_apart(settings.data.folder.root, where, [profile])
    return settings


def profile_from(content: Any, name: str) -> Profile:
    """Builds the profile with this content. name: the file's name, for errors. Raises ConfigError."""
    profile: Profile = build(Profile, content, name)
    _require_no_credentials(content, name)
    return profile


def _require_no_credentials(value: Any, where: str) -> None:
    """Raises ConfigError if an address in a profile holds credentials, because git, dvc.lock and MLflow store the profile."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _require_no_credentials(inner, f"{where}: {key}" if where.endswith(".yaml") else f"{where}.{key}")
    elif isinstance(value, list):
        for inner in value:
            _require_no_credentials(inner, where)
    elif isinstance(value, str):
        expected = "an address without a password, token or signature, because git, dvc.lock and MLflow store it"
        require(not holds_credentials(value), where, f"{expected}; download the file and give its path", value)


class _Loader(yaml.SafeLoader):
    """A YAML loader that reads 1e-5 as a number, as in YAML 1.2. `dvc exp run -S` writes such numbers, which are text in 1.1."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789"))


def parsed(text: str) -> Any:
    """Parses the text of a profile. Raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


def read(path: Path) -> Profile:
    """Reads the profile in this file. Raises ConfigError if it is not YAML or not a valid profile."""
    name = relative(path)
    try:
        content = parsed(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}:" if where else ""
        raise ConfigError(f"{name}:{line} not valid YAML: {getattr(error, 'problem', error)}") from None
    profile = profile_from(content, name)
    kind = profile.detector.kind
    fits = profile.train_panoptic is None or can_have_mask_head(profile)
    require(fits, f"{name}: train_panoptic", f"null with detector.kind {kind!r}, which can't have a mask head", "a section")
    _require_same_targets(profile, name)
    return profile


def _require_same_targets(profile: Profile, where: str) -> None:
    """Raises ConfigError if the mask head would be trained on other targets than its detector, which then lacks the classes."""
    masks, targets = profile.train_panoptic, profile.train_detection.targets
    expected = f"{targets!r}, which train_detection.targets is, or train_panoptic null, which trains no mask head"
    require(masks is None or masks.targets == targets, f"{where}: train_panoptic.targets", expected, masks and masks.targets)
