"""Defines the command lines of all commands. This module imports nothing that takes long to import.

Prefect, MLflow and torch take seconds to import. Each command module calls `check` before it imports them, so that a request for
help, a wrong argument or an unusable profile is answered at once. The definitions hold for both ways to start a command:
`python -m flows.COMMAND`, and `detr COMMAND` of detr_command.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from detr_core.errors import ExpectedError
from detr_core.sources.formats.spec import FORMATS
from flows.profile.paths import DEFAULT_PROFILE

TOLERANCE = 0.02  # how much the values of a repeated run may differ on a GPU; `--tolerance` sets another difference
MOST_PIXELS = 16_384  # of a side of an image for prediction; a square of this size has 3 GB as the network's input
_FORMATS = " or ".join(("COCO", "YOLO", *(row.title for row in FORMATS.values())))
started_as: str | None = None  # what was typed to start the command, such as `detr data`; None for `python -m flows.COMMAND`


def parser(command: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line of a command, which is named in COMMANDS or ALIASES."""
    description, add = COMMANDS[ALIASES.get(command, command)]
    program = started_as or f"python -m flows.{command}"
    formatter = argparse.RawDescriptionHelpFormatter
    built = argparse.ArgumentParser(prog=program, description=description, formatter_class=formatter)
    add(built)
    return built


def check() -> None:
    """Checks the command line of the command that this process runs, and the profile that it names.

    Exits with 0 after help, with 2 for wrong arguments, and with 1 and one line on stderr for a profile that does not exist or
    is not usable, and for a study that the profile does not have.
    """
    spec = sys.modules["__main__"].__spec__
    if spec is None:
        sys.exit(f"error: expected a command that is started as `python -m flows.COMMAND`, found `python {sys.argv[0]}`")
    arguments = parser(spec.name.removeprefix("flows.").removesuffix(".__main__")).parse_args()
    if "profile" not in arguments:
        return
    from flows.profile.settings import load  # imported only here, because a request for help does not need it

    try:
        settings = load(arguments.profile)
        if "study" in arguments:
            from flows.studies.selection import selected

            selected(settings, arguments.profile, arguments.study)
    except ExpectedError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


def _share(text: str) -> float:
    """Returns a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, found {text}")
    return value


def _pixels(text: str) -> int:
    """Returns a size of an image that fits into memory."""
    value = int(text)
    if not 1 <= value <= MOST_PIXELS:
        raise argparse.ArgumentTypeError(f"expected 1 to {MOST_PIXELS:,} pixels, found {text}")
    return value


def _nothing(parser: argparse.ArgumentParser) -> None:
    """Adds no arguments."""


def _profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile", default=DEFAULT_PROFILE, metavar="NAME", help="profile name: params/NAME.yaml (default: %(default)s)"
    )


def _checkpoint(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument(
        "--checkpoint",
        required=required,
        help="a checkpoint of this project or one from elsewhere, such as a published .pth or a .safetensors file: "
        "its path, or its address",
    )
    parser.add_argument("--sha256", help="SHA-256 checksum of the checkpoint's file; required with an address")
    parser.add_argument(
        "--dilation",
        action=argparse.BooleanOptionalAction,
        help="whether a published checkpoint is a DC5 model, which its weights do not show (default: the value stored in the "
        "file, or no if none is stored)",
    )


def _evaluate(parser: argparse.ArgumentParser) -> None:
    _profile(parser)
    _checkpoint(parser, required=False)
    parser.add_argument("--out", type=Path, help="with --checkpoint: a new or empty folder for the results")


def _studies(parser: argparse.ArgumentParser) -> None:
    _profile(parser)
    parser.add_argument("study", nargs="*", help="names of studies, or `all` (default: the studies that only evaluate)")
    parser.add_argument(
        "--plan", action="store_true", help="print the variants, their sizes and which results exist, and train nothing"
    )


def _predict(parser: argparse.ArgumentParser) -> None:
    _checkpoint(parser, required=True)
    parser.add_argument("--images", required=True, help="an image, a folder of images, or a glob in quotes")
    parser.add_argument("--out", required=True, type=Path, help="a new or empty folder for pictures and predictions.json")
    parser.add_argument("--threshold", type=_share, default=0.7, help="lowest score of a detection (default: %(default)s)")
    size = "(default: the size in the checkpoint's profile; for checkpoints from elsewhere 800 and 1333)"
    parser.add_argument("--short", type=_pixels, help=f"size in pixels to which an image's short side is resized {size}")
    parser.add_argument("--longest", type=_pixels, help="largest size in pixels of an image's long side after resizing")


def _export(parser: argparse.ArgumentParser) -> None:
    _checkpoint(parser, required=True)
    parser.add_argument("--out", required=True, type=Path, help="the file to write, which must not exist yet")
    parser.add_argument(
        "--layout",
        choices=("published", "torchvision", "hugging-face"),
        help="the layout of the file: the authors', that of torchvision's detectors, or that of Hugging Face's transformers, a "
        "safetensors file (default: published for detr and deformable, torchvision for faster_rcnn and mask_rcnn)",
    )


def _adopt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the dataset; it is read in place and never written to")
    parser.add_argument("--name", required=True, help="name of the new profile")
    parser.add_argument(
        "--like", help=f"the profile whose recipe is copied (default: {DEFAULT_PROFILE}, or coco with --checkpoint)"
    )
    parser.add_argument(
        "--val-share",
        type=_share,
        default=0.2,
        help="share of the training images to validate on if the dataset has no val split (default: %(default)s)",
    )
    parser.add_argument(
        "--detector",
        help="another detector: a variant of `baselines` or `panoptic` in the copied profile's studies, such as deformable, "
        "faster-rcnn or panoptic-fpn",
    )
    parser.add_argument("--checkpoint", help="the checkpoint to fine-tune: a path, or an address with --sha256")
    parser.add_argument("--sha256", help="SHA-256 checksum of the checkpoint's file")
    parser.add_argument(
        "--labels",
        choices=("boxes", "polygons", "keypoints"),
        help="how to read the rows of YOLO's label files (default: all label files decide; it is an error if they are ambiguous)",
    )


def _rerun(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_id", help="id of a stage's run in MLflow")
    parser.add_argument("--keep", action="store_true", help="keep the work tree; it is always kept if the results differ")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="on a GPU, how much the last value of each metric may differ; relative for values above 1 (default: %(default)s)",
    )


def _serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prefect-port", type=int, default=4200, help="port of the Prefect server (default: %(default)s)")
    parser.add_argument("--mlflow-port", type=int, default=5000, help="port of the MLflow UI (default: %(default)s)")


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "data": ("Makes the dataset of a profile.", _profile),
    "check": ("Checks every annotation and every image of a profile's dataset.", _profile),
    "train_detection": ("Trains the detector of a profile.", _profile),
    "train_panoptic": ("Trains the mask head of a profile, on its frozen detector or together with it.", _profile),
    "evaluate": ("Evaluates the detector of a profile, or any checkpoint on the profile's data.", _evaluate),
    "studies": (
        "Carries out studies of a profile, one after the other, and updates the report.\n\n"
        "params/NAME.studies.yaml lists them. Those that train variants take minutes to days.",
        _studies,
    ),
    "report": ("Writes the report of a profile.", _profile),
    "pipeline": ("Runs those stages of a profile that are out of date, like `dvc repro`, in one Prefect flow.", _profile),
    "predict": ("Draws and lists the detections in images.", _predict),
    "export": ("Writes a checkpoint in a layout that other programs read.", _export),
    "adopt": (
        f"Makes a profile for a dataset of your own, in the layout of {_FORMATS}.\n\n"
        "It writes params/NAME.yaml, with sizes from the dataset's statistics, params/NAME.studies.yaml\n"
        "and params/NAME/ with the DVC files of the profile: `dvc repro params/NAME/dvc.yaml` then runs the profile.",
        _adopt,
    ),
    "rerun": ("Repeats a recorded run, from its commit, parameters and data, and compares the results.", _rerun),
    "graphs": ("Writes the copies of dvc.yaml again, one for each profile, after a change of dvc.yaml.", _nothing),
    "serve": ("Runs a Prefect server, a Prefect worker and the MLflow UI on this machine until ctrl-c.", _serve),
}
ALIASES = {"again": "rerun", "ablations": "studies"}
