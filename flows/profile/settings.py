"""Reads a profile, `params/<profile>.yaml` and `params/<profile>.studies.yaml`, and checks all of it before any work begins."""

from __future__ import annotations

import copy
import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from detr_core.check.config import CheckConfig
from detr_core.config import ConfigError, as_dict, build, flatten, require
from detr_core.evaluate.config import EvaluateConfig
from detr_core.evaluate.fit import require_evaluation_fits
from detr_core.model.spec import AnyDetectorConfig, kind_of, kinds_with
from detr_core.redaction import holds_credentials
from detr_core.sources.config import DataConfig
from detr_core.studies.config import Studies
from detr_core.studies.training import GridStudyConfig
from detr_core.train.config import DetectionConfig, require_fit
from detr_core.train_mask_head.config import PanopticConfig
from flows.profile import dataset_location
from flows.profile.paths import PARAMS, Paths, profile_names, relative, studies_file
from flows.profile.profile_yaml import parsed
from flows.profile.sections import ReportConfig, ResourcesConfig

if TYPE_CHECKING:
    from detr_core.data.annotations import Targets  # it imports numpy

VARIED = ("detector", "train_detection", "train_panoptic", "evaluate")  # sections that a study's variants may override
NO_STUDIES = Studies(evaluating={}, training={})


@dataclass(frozen=True)
class Profile:
    """The settings of one experiment, with a section for each stage. `studies` is in a file of its own."""

    data: DataConfig
    check: CheckConfig
    detector: AnyDetectorConfig
    train_detection: DetectionConfig
    train_panoptic: PanopticConfig | None  # with null no mask head is trained, as for data without masks
    evaluate: EvaluateConfig
    studies: Studies
    report: ReportConfig
    resources: ResourcesConfig

    def __post_init__(self) -> None:
        require_fit(self.detector, self.train_detection)
        require_evaluation_fits(self.detector.kind, self.evaluate)

    @property
    def trains_jointly(self) -> bool:
        """Whether the detector learns together with the mask head."""
        return self.train_panoptic is not None and self.train_panoptic.detector == "joint"

    @property
    def masks(self) -> Targets | None:
        """What the masks of the whole model are: those of panoptic maps or of instances; None if it predicts no masks."""
        if self.train_panoptic is not None and can_have_mask_head(self):
            return self.train_panoptic.targets
        if not learns_masks(self):
            return None
        return "panoptic" if "panoptic" in kind_of(self.detector.kind).capabilities else "instances"

    def flat(self, *sections: str) -> dict[str, Any]:
        """Returns the parameters of these sections for MLflow, as a flat mapping `section.key` -> value."""
        configs = {section: getattr(self, section) for section in sections}
        return flatten({section: None if config is None else as_dict(config) for section, config in configs.items()})


def variants(profile: Profile, study: str) -> dict[str, Profile]:
    """Returns the variants of a training study by name, each as a whole profile.

    Raises ConfigError, which names the study and the key, if a variant

    - overrides a key that doesn't exist or that a study can't vary,
    - is not a valid profile,
    - has a detector without masks in a study that trains masks, or a mask head that does not fit its detector,
    - has a detector that a study of `measure` does not support,
    - does not validate as often as the study's median needs, or
    - is the same as another variant.
    """
    config = profile.studies.training[study]
    profiles: dict[str, Profile] = {}
    plain = as_dict(dataclasses.replace(profile, studies=NO_STUDIES))
    measured = Studies({other: profile.studies.evaluating[other] for other in config.measure}, training={})
    for name, override in config.overrides().items():
        where = f"training.{study}.{'vary' if isinstance(config, GridStudyConfig) else 'variants'}.{name}"
        content = overridden(overridden(plain, config.set, f"training.{study}.set"), override, where)
        variant = build(Profile, content, where)
        can = not config.trains_masks or can_have_mask_head(variant) or learns_masks(variant)
        expected = (
            f"detector.kind {kinds_with('mask_head')}, which can have a mask head, or {kinds_with('masks')}, which learn masks"
        )
        require(can, where, expected, variant.detector.kind)
        if config.trains_masks:
            _require_no_mask_head(variant, where)
            _require_same_targets(variant, where)
        _require_validations(variant.train_detection, config.median_of, where)
        for other in config.measure:
            needs = profile.studies.evaluating[other].NEEDS
            kinds, kind = kinds_with(*needs), variant.detector.kind
            supported = kind_of(kind).capabilities.issuperset(needs)
            require(supported, where, f"detector.kind {kinds}, which `measure: [{other}]` supports", kind)
        for other, earlier in profiles.items():
            require(
                variant != dataclasses.replace(earlier, studies=NO_STUDIES), where, "variants that differ", f"the same as {other}"
            )
        profiles[name] = dataclasses.replace(variant, studies=measured)
    return profiles


def _require_validations(training: DetectionConfig, median_of: int, where: str) -> None:
    """Raises ConfigError unless a variant's training validates after each of the epochs whose median the study takes."""
    if median_of > 1:
        every = training.validate_every == 1 and training.epochs >= median_of
        expected = f"train_detection.validate_last {median_of} or more, because median_of is {median_of}"
        require(every or training.validate_last >= median_of, where, expected, training.validate_last)


def overridden(content: dict[str, Any], overrides: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns a copy of a profile's content in which these dotted keys have these values.

    Raises ConfigError, which names `where` and the key, for a key that doesn't exist or that a study can't vary.
    """
    content = copy.deepcopy(content)
    for key, value in overrides.items():
        require(key.split(".")[0] in VARIED, where, f"keys of {', '.join(VARIED)}", key)
        require(not key.endswith(".seed"), where, "seeds in the study's `seeds`", key)
        known_keys = [candidate for candidate in _keys(content) if candidate.split(".")[0] in VARIED]
        if key not in known_keys:
            near = difflib.get_close_matches(key, known_keys, n=1)
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


def unsupported_studies(settings: Profile) -> list[str]:
    """Returns the studies of the profile that do not support its kind of detector."""
    capabilities = kind_of(settings.detector.kind).capabilities
    return [name for name, config in settings.studies.all.items() if not capabilities.issuperset(config.NEEDS)]


def can_have_mask_head(settings: Profile) -> bool:
    """Returns whether a mask head can be trained on the profile's kind of detector."""
    return "mask_head" in kind_of(settings.detector.kind).capabilities


def learns_masks(settings: Profile) -> bool:
    """Returns whether the profile's detector learns masks by itself, in its own training."""
    return "masks" in kind_of(settings.detector.kind).capabilities


def load(profile: str) -> Profile:
    """Loads the profile of that name.

    Raises ConfigError, which names the file and the key, if a file is missing or is not YAML, if a key is unknown, missing or
    invalid, or if the dataset that the profile names lies among the results of a profile.
    """
    known_profiles = profile_names()
    if profile not in known_profiles:
        near = difflib.get_close_matches(profile, known_profiles, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known profiles: {', '.join(known_profiles)}"
        raise ConfigError(f"profile {profile!r}: there is no {relative(PARAMS)}/{profile}.yaml; {hint}")
    settings = read(Paths(profile).params)
    if settings.data.folder is not None:
        where = f"{relative(Paths(profile).params)}: data.folder.root"
        dataset_location.require_apart(settings.data.folder.root, where, [profile])
    return settings


def profile_from(content: Any, studies: Any, file: str) -> Profile:
    """Builds a profile and checks every variant of its studies.

    content, studies: the content of its two files; studies is None if there is no second file. file: the name of the first one,
    for errors; that of the second one follows from it. Raises ConfigError.
    """
    studies_name = str(studies_file(Path(file)))
    if isinstance(content, Mapping):
        for key in [key for key in ("ablations", "studies") if key in content]:
            raise ConfigError(
                f"{file}: {key}: expected the studies in {studies_name}, in its sections `evaluating` and `training`, found a "
                "section of this file; move its content there"
            )
        content = {**content, "studies": as_dict(NO_STUDIES)}
    plain: Profile = build(Profile, content, file)
    if studies is None:
        raise ConfigError(
            f"{studies_name}: expected the profile's studies, found no such file or an empty one; copy that of another profile, "
            f"such as {relative(PARAMS)}/demo.studies.yaml, or write the sections `evaluating: {{}}` and `training: {{}}`"
        )
    profile = dataclasses.replace(plain, studies=build(Studies, studies, studies_name))
    try:
        for name in profile.studies.training:
            variants(profile, name)
    except ConfigError as error:
        raise ConfigError(f"{studies_name}: {error}") from None
    _require_no_credentials(content, file)
    _require_no_credentials(studies, studies_name)
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


def read(path: Path) -> Profile:
    """Reads the profile in this file and its studies in the file beside it. Raises ConfigError if one is not valid."""
    name, studies = relative(path), studies_file(path)
    content = _content(path)
    profile = profile_from(content, _content(studies) if studies.is_file() else None, name)
    _require_no_mask_head(profile, name)
    _require_same_targets(profile, name)
    return profile


def _require_no_mask_head(profile: Profile, where: str) -> None:
    """Raises ConfigError if a mask head would be trained on a kind of detector that can't have one."""
    reason = "learns masks by itself" if learns_masks(profile) else "can't have a mask head"
    fits = profile.train_panoptic is None or can_have_mask_head(profile)
    expected = f"null with detector.kind {profile.detector.kind!r}, which {reason}"
    require(fits, f"{where}: train_panoptic", expected, "a section")


def _require_same_targets(profile: Profile, where: str) -> None:
    """Raises ConfigError if the mask head would be trained on other targets than its detector, which then lacks the classes."""
    masks, targets = profile.train_panoptic, profile.train_detection.targets
    expected = f"{targets!r}, which train_detection.targets is, or train_panoptic null, which trains no mask head"
    require(masks is None or masks.targets == targets, f"{where}: train_panoptic.targets", expected, masks and masks.targets)


def read_resources(path: Path) -> ResourcesConfig:
    """Reads the section `resources` of the profile in this file alone. Raises ConfigError."""
    content = _content(path)
    section = content.get("resources") if isinstance(content, Mapping) else None
    return build(ResourcesConfig, section, f"{relative(path)}: resources")


def _content(path: Path) -> Any:
    try:
        return parsed(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ConfigError(f"{relative(path)}: expected a profile, found YAML that is nested too deeply") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}:" if where else ""
        raise ConfigError(f"{relative(path)}:{line} not valid YAML: {getattr(error, 'problem', error)}") from None
