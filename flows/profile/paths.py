"""Names the folders of the project and of each profile."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".state"  # interrupted trainings, logs, locks and the folders of SHARED; neither git nor DVC tracks them
PARAMS = ROOT / "params"
DEFAULT_PROFILE = "demo"


def _main() -> Path:
    # `dvc exp run` with --queue or --temp works in a copy, .dvc/tmp/exps/<name>, which it removes afterwards.
    root = Path(os.environ.get("DVC_ROOT", ROOT))  # dvc sets this to the checkout from which it made the copy
    return root if ROOT.is_relative_to(root / ".dvc") else ROOT


MAIN = _main()  # the checkout itself, also when this code runs in one of its temporary copies
SHARED = MAIN / ".state"  # MLflow's and Prefect's databases, and downloads: the same for the checkout and its copies


@dataclass(frozen=True)
class Paths:
    """The paths of one profile's results; each stage writes some of them and reads those of earlier stages.

    variant: STUDY/VARIANT for one variant of a study, which shares the profile's data, and has its own models and evaluation.
    """

    profile: str
    variant: str = ""

    @property
    def params(self) -> Path:
        return PARAMS / f"{self.profile}.yaml"

    @property
    def studies_params(self) -> Path:
        """The file of the profile's studies."""
        return studies_file(self.params)

    @property
    def dvc_folder(self) -> Path:
        """The folder with the dvc.yaml and dvc.lock of this profile."""
        return ROOT if self.profile == DEFAULT_PROFILE else PARAMS / self.profile

    @property
    def source(self) -> Path:
        """The link to the folder that DVC watches for the data stage: the dataset's folder, or the code that generates it.

        DVC compares paths without resolving links. If dvc.yaml named the folder itself, a folder that lies in an output would
        be both a dependency and an output, and DVC would then refuse to run any profile of the project.
        """
        return PARAMS / self.profile / "source"

    @property
    def data(self) -> Path:
        return ROOT / "data" / self.profile

    @property
    def check(self) -> Path:
        """The findings of the data check, and its page."""
        return ROOT / "runs" / self.profile / "check"

    @property
    def dataset(self) -> Path:
        """The checked dataset: `dataset.json`, and new annotation files if the check left images or annotations out."""
        return ROOT / "runs" / self.profile / "dataset"

    @property
    def runs(self) -> Path:
        runs = ROOT / "runs" / self.profile
        return runs / "studies" / "training" / self.variant if self.variant else runs

    def result(self, name: str) -> Path:
        """The folder of a result, such as `detection`. A stage without a property here writes to the folder of its name."""
        return self.runs / name

    @property
    def detection(self) -> Path:
        return self.result("detection")

    @property
    def panoptic(self) -> Path:
        return self.result("panoptic")

    @property
    def evaluation(self) -> Path:
        return self.result("evaluation")

    @property
    def studies(self) -> Path:
        """The folder with the results of all studies."""
        return self.runs / "studies"

    @property
    def evaluating_studies(self) -> Path:
        """The parent of the results folders of evaluating studies."""
        return self.studies / "evaluating"

    @property
    def training_studies(self) -> Path:
        """The parent of the results folders of training studies. Each has the study's table and the results of its variants."""
        return self.studies / "training"

    @property
    def headline(self) -> Path:
        """The file of the evaluation's main metrics, which `dvc metrics show` prints for all profiles."""
        return ROOT / "metrics" / f"{self.profile}.json"

    @property
    def report(self) -> Path:
        return ROOT / "reports" / self.profile

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The file and the folders that hold every result of the profile."""
        return (*(ROOT / kind / self.profile for kind in ("data", "runs", "reports")), self.headline)

    def unfinished(self, stage: str) -> Path:
        """The state from which an interrupted stage resumes."""
        return STATE / "unfinished" / self.profile / self.variant / stage


def studies_file(params: Path) -> Path:
    """Returns the file of the studies of the profile in `params`: params/demo.studies.yaml for params/demo.yaml."""
    return params.with_suffix(".studies.yaml")


def profile_names() -> list[str]:
    """Returns the names of all profiles that have a file params/<profile>.yaml."""
    return sorted(path.stem for path in PARAMS.glob("*.yaml") if not path.name.endswith(".studies.yaml"))


def relative(path: Path) -> str:
    """Returns the path for a message: relative to the project if it is inside of the project, else unchanged."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
