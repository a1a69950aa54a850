"""This command writes a checkpoint in a layout that other programs read. `python -m flows.export --checkpoint X --out Y.pth`"""

from __future__ import annotations

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds


from detr_core.atomic import atomic_new_file
from flows.profile import checkpoints
from flows.runtime import outputs
from flows.runtime.one_line_errors import one_line_errors


def main() -> None:
    arguments = command_line.parser("export").parse_args()
    with one_line_errors():
        out = outputs.new_file(arguments.out)
        import torch  # torch takes seconds to import

        from detr_core.model.checkpoint import export_checkpoint

        trained = checkpoints.load_named(arguments, torch.device("cpu"))
        try:
            with atomic_new_file(out) as temporary:
                export_checkpoint(trained, temporary, arguments.layout)
        except FileExistsError:
            outputs.new_file(arguments.out)  # raises the error that says so
            raise
    print(arguments.out)


if __name__ == "__main__":
    main()
