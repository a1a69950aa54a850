"""Compiles the backbone and the transformer's layers of a detector for its training, and says what was compiled."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from detr_core.config import ConfigError
from detr_core.model.common.detector import Detector
from detr_core.structures import Validation
from detr_core.train.config import CompileConfig

MOST_GRAPHS = 1_024  # of one module; torch's own limit of 8 is below the number of padded sizes, and it then compiles no more


class Compiled:
    """A detector whose backbone and transformer layers torch.compile compiles, one graph for each padded size.

    Weights keep their names. Losses, matching and the other parts of a detector are executed as before.
    """

    def __init__(self, model: Detector, config: CompileConfig) -> None:
        import torch._dynamo.utils as dynamo  # seconds, only for trainings that compile

        self._counters, self._told = dynamo.counters, 0
        self._backend = config.backend
        torch._dynamo.config.recompile_limit = MOST_GRAPHS
        torch._dynamo.config.accumulated_recompile_limit = MOST_GRAPHS
        self.parts: list[nn.Module] = [model.backbone[0], *model.layers()]
        for part in self.parts:
            part.compile(backend=config.backend, dynamic=False)
        self._before = self.graphs()

    def graphs(self) -> int:
        """Returns how many graphs this process has compiled."""
        return int(self._counters["stats"]["unique_graphs"])

    def note(self) -> str | None:
        """Returns a sentence for the log if graphs were compiled since the last call, else None."""
        graphs = self.graphs() - self._before
        if graphs == self._told:
            return None
        self._told = graphs
        breaks = sum(self._counters["graph_break"].values())
        return f"torch.compile ({self._backend}) has compiled {graphs} graphs of {len(self.parts)} modules, with {breaks} breaks"


def without_graphs(validate: Callable[[], Validation]) -> Callable[[], Validation]:
    """Returns `validate` so that it compiles nothing: the sizes of a validation are too many to compile a graph for each."""

    def validate_eagerly() -> Validation:
        with torch.compiler.set_stance("force_eager"):
            return validate()

    return validate_eagerly


def require_compiler(config: CompileConfig, device: torch.device, where: str) -> None:
    """Raises ConfigError unless torch.compile can compile a small function for `device`. where: the key, for the error."""
    try:
        torch.compile(_small_function, backend=config.backend, dynamic=False)(torch.ones(32, device=device))
    except Exception as error:  # of a compiler that is missing or broken, which can fail in any way
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()
        needs = "a C++ compiler" if device.type == "cpu" else "Triton, and a C compiler with Python's headers"
        raise ConfigError(
            f"{where}: expected null, because torch.compile with backend {config.backend!r} can't compile for {device.type} on "
            f"this machine ({reason}); install {needs}, or set the key to null"
        ) from None
    finally:
        torch.compiler.reset()


def _small_function(x: torch.Tensor) -> torch.Tensor:
    return x.sin() * 2 + 1
