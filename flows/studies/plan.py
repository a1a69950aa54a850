"""Shows what studies of a profile would do, without doing it: `python -m flows.studies STUDY --plan`.

For each variant of a training study it shows the length of the training, the number of parameters, for how many seeds the
results are up to date, and what differs, and below them the rows that the paper publishes and its claims.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from detr_core.coco import coco_categories
from detr_core.data.annotations import Targets
from detr_core.data.splits import DatasetError
from detr_core.wording import counted
from flows.profile import stage_results
from flows.profile.paths import Paths
from flows.profile.settings import Profile, load
from flows.studies import variants
from flows.studies.selection import selected

COCO_CLASSES: dict[Targets, int] = {"instances": 91, "panoptic": 250}
"""The outputs of the published models of DETR: one for each category id of COCO up to the last."""
_PUBLISHED = {"AP": "AP", "PQ": "PQ", "parameters": "M parameters", "gflops": "GFLOPs"}


@dataclass(frozen=True)
class Classes:
    """The classes of a detector: their number, and whether each is a thing, which kinds that predict panoptic maps need.

    note: what the reader has to know about the number.
    """

    number: int
    isthing: Sequence[bool]
    note: str = ""


def show(profile: str, names: Sequence[str]) -> None:
    """Prints the plan of the named studies of a profile; see `selected` for the names. Raises ConfigError as that does."""
    settings, paths = load(profile), Paths(profile)
    console, studies = Console(), selected(settings, profile, names)
    if not studies:
        console.print(f"params/{profile}.studies.yaml has no studies to plan.")
    for study in studies:
        for part in plan_of(study, settings, paths):
            console.print(part)


def plan_of(study: str, settings: Profile, paths: Paths) -> list[RenderableType]:
    """Returns what the plan shows of one study: sentences and tables."""
    if study in settings.studies.evaluating:
        config = settings.studies.evaluating[study]
        return [f"[bold]{study}[/bold], {config.paper}: measures the profile's trained detector and trains nothing.", ""]
    training = settings.studies.training[study]
    metrics = "metrics after the last epoch"
    if training.median_of > 1:
        metrics = f"medians over the validations of the last {training.median_of} epochs"
    all_classes = {targets: _classes(targets, paths) for targets in _targets(study, settings)}
    classes = ", ".join(
        f"{entry.number} classes of the {targets} annotations{entry.note}" for targets, entry in all_classes.items()
    )
    seeds = counted(len(training.seeds), "seed")
    parts: list[RenderableType] = [
        f"[bold]{study}[/bold], {training.paper}: {seeds}, {metrics}, {classes}; the base is '{escape(training.base)}'."
    ]
    if training.set:
        parts.append(f"All variants have {escape(_changes(training.set))}.")
    if training.measure:
        parts.append(f"The detector of each variant and seed is also measured by {', '.join(training.measure)}.")
    parts.append(_variants_table(study, settings, paths, all_classes))
    if (rows := _published_rows(study)) is not None:
        parts.append(rows)
    parts += [f"Claim: {escape(claim.text)}." for claim in training.claims]
    return [*parts, ""]


def _variants_table(study: str, settings: Profile, paths: Paths, all_classes: Mapping[Targets, Classes]) -> Table:
    table = Table("variant", box=None, pad_edge=False)
    for head in ("epochs", "M parameters", "up to date"):
        table.add_column(head, justify="right")
    table.add_column("differs in")
    training = settings.studies.training[study]
    planned, overrides = variants.variants_of(study, settings), training.overrides()
    for name, changed in overrides.items():
        of_name = [variant for variant in planned if variant.name == name]
        variant = of_name[0].settings
        number = _parameters(variant, training.trains_masks, all_classes[variant.train_detection.targets])
        epochs = _epochs(variant, training.trains_masks)
        table.add_row(escape(name), epochs, f"{number:.2f}", _up_to_date(of_name, paths), escape(_changes(changed)))
    return table


def _changes(overrides: Mapping[str, Any]) -> str:
    """Returns the overrides in one line; of a whole section only its name and its kind."""
    texts = []
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            texts.append(f"{key} of kind {value['kind']}" if "kind" in value else key)
        else:
            texts.append(f"{key} {json.dumps(value)}")
    return ", ".join(texts)


def _epochs(settings: Profile, trains_masks: bool) -> str:
    """Returns the length of the training, such as '300', or '300 + 25' with the mask head's."""
    detection, masks = settings.train_detection, settings.train_panoptic
    first = f"{detection.epochs}" if detection.steps is None else counted(detection.steps, "step")
    return f"{first} + {masks.epochs}" if trains_masks and masks is not None else first


def _targets(study: str, settings: Profile) -> list[Targets]:
    return list(dict.fromkeys(variant.settings.train_detection.targets for variant in variants.variants_of(study, settings)))


def _classes(targets: Targets, paths: Paths) -> Classes:
    """Returns the classes of the profile's dataset, or those of COCO's published models if there is no such dataset yet."""
    from detr_core.data.annotation_reader import read_annotations  # it takes a second to import

    try:
        split = stage_results.dataset(paths)["train"]
        categories = read_annotations(split, targets, masks=False).categories
    except DatasetError:
        isthing = [category.isthing for category in coco_categories().values()]
        return Classes(COCO_CLASSES[targets], isthing, " (COCO's, because there is no dataset yet)")
    return Classes(len(categories), [category.isthing for category in categories])


def _parameters(settings: Profile, mask_head: bool, classes: Classes) -> float:
    """Returns the trained parameters of a detector in millions. It is built without memory for its weights."""
    import torch  # torch takes seconds to import

    from detr_core.model.spec import build_detector
    from detr_core.studies.cost import parameters

    masks = settings.train_panoptic
    with torch.device("meta"):
        detector = replace(settings.detector, backbone=replace(settings.detector.backbone, weights=None))
        maps = masks.attention_maps if mask_head and masks else None
        return parameters(build_detector(detector, classes.number, maps, classes.isthing))


def _up_to_date(of_name: Sequence[variants.Variant], paths: Paths) -> str:
    """Returns for how many seeds of a variant all results are up to date. Without a dataset there is no result."""
    try:
        number = sum(variants.is_up_to_date(variant, paths, variants.build_digests(variant, paths)) for variant in of_name)
    except DatasetError:
        number = 0
    return f"{number} of {len(of_name)}"


def _published_rows(study: str) -> Table | None:
    from detr_core.plots.study import published  # matplotlib takes seconds to import

    section = published(study)
    rows: list[dict[str, Any]] = section["rows"]
    if not rows:
        return None
    columns = {key: head for key, head in _PUBLISHED.items() if any(key in row for row in rows)}
    table = Table("published", *columns.values(), box=None, pad_edge=False)
    for row in rows:
        table.add_row(escape(row["model"]), *(str(row.get(key, "")) for key in columns))
    return table
