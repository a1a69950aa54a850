"""This stage evaluates the trained model on the val split. `python -m flows.evaluate [--profile demo]`

With `--checkpoint X --out FOLDER` the command evaluates any checkpoint, of this project or from elsewhere, and records no run.
"""

from __future__ import annotations

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import flow

from detr_core.atomic import write_text
from detr_core.config import as_dict
from detr_core.reporter import Reporter
from flows.profile import checkpoints, stage_results
from flows.profile.paths import DEFAULT_PROFILE, Paths, relative
from flows.profile.settings import Profile, load
from flows.runtime import joining, launch, outputs, stage_runner
from flows.runtime.locks import building
from flows.runtime.machines import machines
from flows.runtime.one_line_errors import one_line_errors
from flows.runtime.progress import Tee, reporter
from flows.tracking import recorder
from flows.tracking.prefect_summary import publish

EVALUATION = "detr_core.jobs.evaluate"
HEADLINE = ("val/AP", "val/AP50", "val/APs", "val/APm", "val/APl", "val/mask/AP", "val/PQ", "val/PQ_things", "val/PQ_stuff")
PICTURES = 6  # how many pictures of each kind MLflow gets; the report has more


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Writes predictions and their metrics (AP of boxes and masks, PQ, kinds of errors) to runs/<profile>/evaluation/.

    Returns the content of metrics.json. Raises DatasetError, StageError or CheckpointError before work begins, and
    RankProcessError if one of several rank processes fails.
    """
    stage_results.dataset(paths)
    model = stage_results.whole_model(paths)
    if not paths.variant:
        require_headline(paths.headline)
    metrics = evaluated(model, None, paths.profile, settings, paths, paths.evaluation, reporter)
    if not paths.variant:
        headline = {name: metrics[name] for name in HEADLINE if name in metrics}
        write_text(paths.headline, json.dumps(headline, indent=2) + "\n")
    return metrics


def run_checkpoint(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, float]:
    """Evaluates the checkpoint that the command line names on the profile's val split, into the folder `arguments.out`.

    Raises ConfigError if the folder isn't empty, and DatasetError or CheckpointError, before work begins.
    """
    settings, paths, out = load(arguments.profile), Paths(arguments.profile), outputs.empty_folder(arguments.out)
    stage_results.dataset(paths)
    with outputs.only_writer(out, reporter.message):
        return evaluated(checkpoints.named_file(arguments), arguments.dilation, None, settings, paths, out, reporter)


def evaluated(
    checkpoint: Path, dilation: bool | None, owner: str | None, settings: Profile, paths: Paths, out: Path, reporter: Reporter
) -> dict[str, float]:
    """Evaluates a checkpoint on the profile's val split, writes the results to `out`, and returns the metrics.

    The profile's `resources` decide the number of rank processes. dilation, owner: see detr_core/jobs/evaluate.py.
    """
    from detr_core.distributed import single_process  # torch takes seconds to import
    from detr_core.evaluate.predictions import evaluate
    from detr_core.jobs import evaluate as evaluation_job

    processes = launch.process_count(settings.resources)
    with building(out, reporter.message) as folder:
        job = evaluation_job.EvaluationJob(
            config=as_dict(settings.evaluate),
            checkpoint=str(checkpoint),
            dilation=dilation,
            owner=owner,
            data=str(paths.dataset),
            out=str(folder),
            workers=launch.worker_count(settings.resources, processes),
            stage="evaluation",
            profile=paths.profile,
        )
        together = machines(settings.resources)
        if processes == 1 and together is None:
            evaluation_job.run(job, single_process(stage_results.device(settings.resources.gpus)), reporter)
        else:
            hardware = launch.Hardware(settings.resources.gpus, machines=together)
            launch.run(asdict(job), processes, reporter, EVALUATION, paths.variant, hardware)
        return evaluate(folder, stage_results.dataset(paths)["val"])


def require_headline(file: Path) -> None:
    """Raises StageError if `file` exists and was not written by an earlier evaluation, because it would be replaced."""
    if not file.exists():
        return
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        is_headline = isinstance(content, dict) and set(content) <= set(HEADLINE)
    except (OSError, ValueError):
        is_headline = False
    if not is_headline:
        expected = "expected the metrics of an earlier evaluation"
        raise stage_results.StageError(f"{relative(file)}: {expected}, found another file; move it elsewhere")


@flow(name="evaluate", flow_run_name="evaluate {profile}")
def evaluate(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Evaluates the trained model of a profile on its val split."""
    settings, paths = load(profile), Paths(profile)
    params = settings.flat("data", "detector", "evaluate")
    with recorder.stage_run("evaluate", paths, params, [paths.data, paths.dataset, paths.detection, paths.panoptic]) as record:
        with reporter("evaluation") as bar:
            metrics = run(settings, paths, Tee(bar, record))
        record.metrics(metrics, step=0)
        for name in ("per_class.json", "errors.json"):
            record.artifact(paths.evaluation / name)
        with TemporaryDirectory() as folder:
            record.plots(_pictures(paths, Path(folder)))
        record.model(stage_results.whole_model(paths), as_dict(settings.evaluate), settings.masks)
    publish("evaluate", profile, metrics, {"MLflow run": record.url()})
    return metrics


def _pictures(paths: Paths, folder: Path) -> list[Path]:
    from detr_core.plots.detections import detection_pictures
    from detr_core.plots.panoptic import panoptic_pictures

    split = stage_results.dataset(paths)["val"]
    pictures = detection_pictures(split, paths.evaluation, folder, PICTURES)
    if split.panoptic is not None and (paths.evaluation / "panoptic.json").is_file():
        pictures += panoptic_pictures(split, paths.evaluation, folder, PICTURES)
    return pictures


def main() -> None:
    parser = command_line.parser("evaluate")
    arguments = parser.parse_args()
    if arguments.checkpoint is None:
        if any(value is not None for value in (arguments.out, arguments.sha256, arguments.dilation)):
            parser.error("--out, --sha256 and --dilation can only be used together with --checkpoint")
        if not joining.joined("evaluate", EVALUATION):
            stage_runner.run(evaluate, arguments.profile)
        return
    if arguments.out is None:
        parser.error("--checkpoint needs --out, because the profile's own evaluation is not replaced")
    with one_line_errors():
        with reporter("evaluation") as bar:
            metrics = run_checkpoint(arguments, bar)
        for name, value in metrics.items():
            print(f"{name:<20} {value:.4f}")


if __name__ == "__main__":
    main()
