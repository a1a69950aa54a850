"""Works for a training or an evaluation of another machine: the same command, on a machine that is not the first one."""

from __future__ import annotations

from detr_core.reporter import Reporter
from flows.profile.settings import load
from flows.runtime import arguments, launch
from flows.runtime.machines import machines
from flows.runtime.one_line_errors import one_line_errors


class Lines(Reporter):
    """Prints messages. Progress and metrics are those of the first machine, which records them."""

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None:
        pass

    def metrics(self, values: object, step: int) -> None:
        pass

    def message(self, text: str) -> None:
        print(text, flush=True)


def joined(command: str, module: str) -> bool:
    """Works for the first machine, if the environment or the profile says that this is another one.

    command: the stage, whose arguments are read. module: the name of the job module. Returns False, without doing anything, on
    the first machine and on a machine that works alone. Exits with 1 and one line on stderr for an expected error.
    """
    with one_line_errors():
        profile = arguments.parser(command).parse_args().profile
        resources = load(profile).resources
        together = machines(resources)
        if together is None or together.first:
            return False
        reporter = Lines()
        reporter.message(
            f"machine {together.number} of {together.count}: works for the machine at {together.address}:{together.port}, which "
            "has the results and records the run"
        )
        processes = launch.process_count(resources)
        job = {"profile": profile, "stage": f"{command}-machine{together.number}"}
        launch.run(job, processes, reporter, module, hardware=launch.Hardware(resources.gpus, machines=together))
    return True
