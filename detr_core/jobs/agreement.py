"""Makes sure that all processes of a training have the same code and the same files, which may be copies on several machines."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import detr_core
from detr_core.checksums import digest
from detr_core.data.splits import Split
from detr_core.distributed import ProcessContext
from detr_core.errors import ExpectedError


class DisagreementError(ExpectedError, ValueError):
    """The machines of a training have different files. The message names the files, the machines and both digests."""


def require_same_files(splits: Mapping[str, Split], initial: Sequence[str | None], process: ProcessContext) -> None:
    """Raises DisagreementError, in all processes, unless all have the same code, annotations and initial weights.

    splits: those of the dataset. initial: the paths of the files that the training starts from, or None.
    """
    if process.size == 1:
        return
    files = {"the code of detr_core": _code_digest()}
    for split in splits.values():
        files |= {
            f"{split.name} split, {file.name}": digest(file) for file in (split.instances, split.panoptic) if file is not None
        }
    files |= {Path(file).name: digest(Path(file)) for file in initial if file is not None}
    require_same(files, process)


def require_same(files: dict[str, str], process: ProcessContext) -> None:
    """Raises DisagreementError, in all processes, unless all have the same digests. files: name -> digest."""
    everywhere = process.gather((socket.gethostname(), files))
    first_host, expected = everywhere[0]
    for rank, (host, present) in enumerate(everywhere):
        for name in sorted(expected.keys() | present.keys()):
            if expected.get(name) != present.get(name):
                digests = f"{_short(expected.get(name))} on {first_host} and {_short(present.get(name))} on {host} (rank {rank})"
                raise DisagreementError(
                    f"{name}: expected the same content on all machines, found the digest {digests}; copy the file, or check out "
                    "the same commit and run the stages `data` and `check` on both machines"
                )


def _short(value: str | None) -> str:
    return "of no file" if value is None else value[:12]


def _code_digest() -> str:
    """Returns a digest of all modules of the core."""
    root, content = Path(detr_core.__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        content.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return content.hexdigest()
