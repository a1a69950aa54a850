"""Stage: the paper's studies on the trained model. `python -m flows.ablations [--profile demo]`

Decoder depth x NMS (section 4.2 of the paper, its figure 4), all cells from one pass over the val split.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import flow

from detr_core.reporter import Reporter
from flows import artifacts, pages, stage, tracking
from flows.paths import DEFAULT_PROFILE, Paths, whole_or_nothing
from flows.progress import Tee, reporter
from flows.settings import Profile, load
from flows.show import publish


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Writes cells.json, cells.csv and metrics.json into runs/<profile>/studies/decoder_nms/.

    Returns metrics.json. Raises DatasetError, StageError or CheckpointError before work begins.
    """
    split = artifacts.dataset(paths)["val"]
    path = artifacts.detector(paths)

    from detr_core.data.coco import CocoDataset  # torch takes seconds to import
    from detr_core.data.transforms import evaluation_transform
    from detr_core.evaluate.ground_truth import instances
    from detr_core.studies.decoder_nms import decoder_nms, write_cells

    config, device = settings.ablations.decoder_nms, artifacts.device()
    trained = artifacts.checkpoint(path, paths.profile, device)
    dataset = CocoDataset(split, artifacts.targets(split), masks=False, transform=evaluation_transform(config.resize), seed=0)
    with whole_or_nothing(paths.study("decoder_nms")) as folder:
        cells = decoder_nms(
            trained.model, trained.categories, dataset, config, instances(split), device, settings.resources.workers, reporter
        )
        write_cells(cells, folder)
        figures: dict[str, float] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return figures


@flow(name="ablations")
def ablations(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Runs the studies of a profile from its trained checkpoint: a run in MLflow, with one below it for each cell."""
    settings, paths = load(profile), Paths(profile)
    folder = paths.study("decoder_nms")
    params = settings.flat("data", "detector", "ablations")
    with tracking.stage_run("ablations", paths, params, [paths.data, paths.dataset, paths.detection]) as record:
        with reporter("ablations") as bar:
            figures = run(settings, paths, Tee(bar, record))
            links = _record_cells(record, folder / "cells.json")
            for what, address in links.items():
                bar.message(f"{what}: {address}")
        from detr_core.figures.decoder_nms import decoder_nms_figure

        for file in ("cells.csv", "cells.json"):
            record.artifact(folder / file)
        with TemporaryDirectory() as pictures:
            record.figures(decoder_nms_figure(folder / "cells.json", Path(pictures)))
    publish("ablations", profile, figures, links | {"MLflow run": record.url()})
    return figures


def _record_cells(record: tracking.Record, file: Path) -> dict[str, str]:
    """A child run for each cell, and the same figures as series over the depth in their parent; the pages that show them."""
    children: list[str] = []
    lines: list[str] = []
    for cell in json.loads(file.read_text(encoding="utf-8")):
        depth = cell["decoder_depth"]
        nms = "off" if cell["nms"] is None else f"{cell['nms']:g}"
        with record.child(f"depth {depth}, NMS {nms}", {"decoder_depth": depth, "nms": nms}) as child:
            child.metrics(cell["figures"], step=depth)
        children.append(child.run_id)
        record.metrics({f"{name}/nms_{nms}": value for name, value in cell["figures"].items()}, step=depth)
        lines.append(f"AP/nms_{nms}")
    comparison = pages.compare_page(children, record.experiment_id)
    record.tag(tracking.COMPARISON, comparison)
    return {
        "the cells compared in MLflow": comparison,
        "AP against decoder depth for each NMS": pages.chart_page(
            record.run_id, record.experiment_id, list(dict.fromkeys(lines))
        ),
    }


def main() -> None:
    stage.main(ablations)


if __name__ == "__main__":
    main()
