"""This command writes the copies of dvc.yaml again after a change of dvc.yaml: `python -m flows.graphs`

It writes params/<profile>/dvc.yaml of every profile, adopted ones included.
"""

from flows.runtime import arguments as command_line


def main() -> None:
    """Prints the files that have changed."""
    command_line.parser("graphs").parse_args()
    from flows.profile.graphs import write_copies  # imported after the arguments, because these imports take a second
    from flows.profile.paths import relative
    from flows.runtime.one_line_errors import one_line_errors

    with one_line_errors():
        for copy in write_copies():
            print(f"{relative(copy)} was written again")


if __name__ == "__main__":
    main()
