"""Defines the console command `detr`, whose subcommands are the commands of the project.

`detr evaluate` does the same as `python -m flows.evaluate`: a subcommand passes its arguments on to the command's module,
which reads them with the definitions of arguments.py. This module imports nothing that takes long to import.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

import typer
from typer.core import TyperCommand

from flows.runtime import arguments


class Subcommand(TyperCommand):
    """A command whose arguments, `--help` included, are left to the command's module."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.args = args
        return args


def main() -> None:
    """Runs the command that the command line of this process names."""
    app = typer.Typer(
        help="The commands of the DETR workbench. `detr COMMAND --help` shows the options of a command.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    for command, (description, _) in arguments.COMMANDS.items():
        app.command(command.replace("_", "-"), cls=Subcommand, short_help=description.partition("\n")[0])(_run)
    for alias, command in arguments.ALIASES.items():
        app.command(alias, cls=Subcommand, short_help=f"Does the same as `detr {command}`.")(_run)
    app(prog_name="detr")


def _run(context: typer.Context) -> None:
    """Runs the module of a command as `python -m` does."""
    name = str(context.info_name)
    command = arguments.ALIASES.get(name, name).replace("-", "_")
    arguments.started_as = f"detr {name}"
    sys.argv = [command, *context.args]
    runpy.run_module(f"flows.{command}", run_name="__main__", alter_sys=True)
