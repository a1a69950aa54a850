"""Defines the configuration of all studies of a profile: the two sections of params/<profile>.studies.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from detr_core.config import ConfigError, require
from detr_core.studies.claims import PaperClaim
from detr_core.studies.evaluating import EVALUATING
from detr_core.studies.study import StudyConfig
from detr_core.studies.training import TrainingStudyConfig, training_kind


def evaluating_kind(name: str, content: object) -> type[StudyConfig]:
    """Returns the type of configuration of the evaluating study with this name. Raises ConfigError if there is no such study."""
    if name not in EVALUATING:
        near = difflib.get_close_matches(name, EVALUATING, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known studies: {', '.join(EVALUATING)}"
        raise ConfigError(f"{name}: unknown study; {hint}")
    config: type[StudyConfig] = EVALUATING[name].config
    return config


@dataclass(frozen=True)
class Studies:
    """The studies of a profile by name.

    evaluating: those that only evaluate the trained detector. training: those that train and evaluate variants of the profile.
    """

    evaluating: Annotated[dict[str, StudyConfig], evaluating_kind]
    training: Annotated[dict[str, TrainingStudyConfig], training_kind]

    def __post_init__(self) -> None:
        for name in self.training:
            require(name not in EVALUATING, "training", "names other than those of evaluating studies", name)
        for name, study in self.training.items():
            unknown = [other for other in study.measure if other not in self.evaluating]
            require(not unknown, f"training.{name}.measure", f"studies of `evaluating` ({', '.join(self.evaluating)})", unknown)

    @property
    def all(self) -> dict[str, StudyConfig]:
        """The studies of both sections by name, first the evaluating ones."""
        return {**self.evaluating, **self.training}

    def claims(self, study: str) -> Sequence[PaperClaim]:
        """Returns the paper's claims that a study decides."""
        return EVALUATING[study].claims if study in self.evaluating else self.training[study].claims
