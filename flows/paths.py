"""Where things lie. The only file that names a path of the project."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".state"  # interrupted trainings, logs, what SHARED is for: nothing that git or DVC tracks
PARAMS = ROOT / "params"
DEFAULT_PROFILE = "demo"


def _main() -> Path:
    # `dvc exp run` with --queue or --temp works in a copy, .dvc/tmp/exps/<name>, which it removes afterwards.
    root = Path(os.environ.get("DVC_ROOT", ROOT))  # dvc's name for the checkout that the copy was made of
    return root if ROOT.is_relative_to(root / ".dvc") else ROOT


MAIN = _main()  # the checkout that stays
SHARED = MAIN / ".state"  # the record, servers and downloads: the same for the checkout and its copies


@dataclass(frozen=True)
class Paths:
    """The artifacts of one profile; each stage writes one and reads earlier ones.

    variant: STUDY/VARIANT for one variant of a study: it has the profile's data, and its own models and evaluation.
    """

    profile: str
    variant: str = ""

    @property
    def params(self) -> Path:
        return PARAMS / f"{self.profile}.yaml"

    @property
    def dvc_folder(self) -> Path:
        """Where this profile's dvc.yaml and dvc.lock are."""
        return ROOT if self.profile == DEFAULT_PROFILE else PARAMS / self.profile

    @property
    def source(self) -> Path:
        """The link to what DVC watches for the data stage: the folder of the dataset, or the code that makes it.

        DVC compares paths without resolving links. If dvc.yaml named the folder itself, a folder that lies in an output would
        be both a dependency and an output, and DVC would then refuse to run any profile of the project.
        """
        return PARAMS / self.profile / "source"

    @property
    def data(self) -> Path:
        return ROOT / "data" / self.profile

    @property
    def check(self) -> Path:
        """What the data check found."""
        return ROOT / "runs" / self.profile / "check"

    @property
    def dataset(self) -> Path:
        """The dataset as checked: `dataset.json` and, where something was left out, annotation files without it."""
        return ROOT / "runs" / self.profile / "dataset"

    @property
    def runs(self) -> Path:
        runs = ROOT / "runs" / self.profile
        return runs / "studies" / self.variant if self.variant else runs

    @property
    def detection(self) -> Path:
        return self.runs / "detection"

    @property
    def panoptic(self) -> Path:
        return self.runs / "panoptic"

    @property
    def evaluation(self) -> Path:
        return self.runs / "evaluation"

    def study(self, name: str) -> Path:
        return self.runs / "studies" / name

    @property
    def headline(self) -> Path:
        """A few metrics of the evaluation, which `dvc metrics show` prints for all profiles."""
        return ROOT / "metrics" / f"{self.profile}.json"

    @property
    def report(self) -> Path:
        return ROOT / "reports" / self.profile

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The file and the folders that hold every result of the profile."""
        return (*(ROOT / kind / self.profile for kind in ("data", "runs", "reports")), self.headline)

    def unfinished(self, stage: str) -> Path:
        """What an interrupted stage resumes from."""
        return STATE / "unfinished" / self.profile / self.variant / stage


def relative(path: Path) -> str:
    """`path` as people read it: below the project without the project's own address."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
