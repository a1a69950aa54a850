"""Defines what an evaluating study consists of, and what it gets to work with.

The studies themselves are the modules of evaluating/. This module imports nothing that takes long to import, because every
command reads the configurations of the studies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from detr_core.model.spec import Capability
from detr_core.studies.claims import PaperClaim

if TYPE_CHECKING:
    import torch

    from detr_core.data.coco_dataset import CocoDataset
    from detr_core.data.config import ResizeConfig
    from detr_core.data.splits import Split
    from detr_core.evaluate.inference import EvaluationData
    from detr_core.model.common.detector import Detector
    from detr_core.model.detr.model import Detr
    from detr_core.reporter import Reporter
    from detr_core.structures import Category


@dataclass(frozen=True)
class StudyConfig:
    """The common part of the configuration of all studies.

    paper: the table, figure or section of the paper that the study reproduces, or a short description if the paper has none.
    NEEDS: the capabilities that a detector must have for this study.
    """

    NEEDS: ClassVar[tuple[Capability, ...]] = ()
    paper: str


@dataclass(frozen=True)
class StudyInputs:
    """What an evaluating study works with.

    model: the trained detector, on `device` and in eval mode. categories: those that it was trained on. checkpoint: its file, for
    errors. splits: 'train' and 'val' of the dataset. workers: the number of dataloader workers. reporter: gets the progress.
    """

    model: Detector
    categories: Sequence[Category]
    checkpoint: Path
    splits: Mapping[str, Split]
    device: torch.device
    workers: int
    reporter: Reporter

    def dataset(self, resize: ResizeConfig | None, masks: bool = False) -> CocoDataset:
        """Returns the val images with their targets. resize: see EvaluateConfig. masks: whether the targets have masks."""
        from detr_core.data.coco_dataset import CocoDataset  # torch takes seconds to import
        from detr_core.data.splits import targets
        from detr_core.data.transforms import evaluation_transform

        split = self.splits["val"]
        return CocoDataset(split, targets(split), masks=masks, transform=evaluation_transform(resize), seed=0)

    def evaluation_data(self, dataset: CocoDataset, batch_size: int) -> EvaluationData:
        """Returns the images of `dataset` as this process alone reads them. batch_size: see EvaluateConfig."""
        from detr_core.distributed import single_process  # torch takes seconds to import
        from detr_core.evaluate.inference import EvaluationData

        return EvaluationData(dataset, batch_size, single_process(self.device), self.workers, self.reporter)

    def detr(self, study: str) -> Detr:
        """Returns the detector for the study of this name, which supports only DETR. Raises CheckpointError for another kind."""
        from detr_core.model.checkpoint import as_detr

        return as_detr(self.model, f"the study {study}", self.checkpoint)


@dataclass(frozen=True)
class Setting:
    """One setting of a study, which gets its own run in MLflow: its short name, its parameters, and its metrics by step.

    series: the name of the curve, in the study's run, that also gets these metrics; empty if there is no such curve.
    """

    name: str
    params: Mapping[str, object]
    metrics: Mapping[int, Mapping[str, float]]
    series: str = ""


def no_settings(folder: Path) -> list[Setting]:
    """Returns no settings, for a study that measures only one setting."""
    return []


Config = TypeVar("Config", bound=StudyConfig)


@dataclass(frozen=True)
class EvaluatingStudy(Generic[Config]):
    """A study that only evaluates the trained detector.

    config: the dataclass of its section in a profile. run: writes its results, with a flat `metrics.json`, to a folder; it
    imports torch when it is called. settings: reads from such a folder the settings that MLflow compares. claims: what the paper
    claims about the study; `run` writes the measured differences with `write_measured`.
    """

    config: type[Config]
    run: Callable[[StudyInputs, Config, Path], None]
    settings: Callable[[Path], list[Setting]] = no_settings
    claims: Sequence[PaperClaim] = ()
