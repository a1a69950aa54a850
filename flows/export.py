"""Command: a checkpoint in the published format. `python -m flows.export --checkpoint X --out Y.pth`"""

from __future__ import annotations

import argparse
from pathlib import Path

from flows import checkpoints, stage


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a checkpoint in the published format.")
    checkpoints.add_arguments(parser, required=True)
    parser.add_argument("--out", required=True, type=Path, help="the file to write, which must not exist yet")
    arguments = parser.parse_args()
    with stage.one_line_errors():
        out = checkpoints.new_file(arguments.out)
        import torch  # takes seconds to import

        from detr_core.model.checkpoint import export_published

        export_published(checkpoints.named(arguments, torch.device("cpu")), out)
    print(arguments.out)


if __name__ == "__main__":
    main()
