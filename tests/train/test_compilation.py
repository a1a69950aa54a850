"""torch.compile of a detector for its training: what is compiled, the same values, and an error without a compiler."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch

from detr_core.config import ConfigError
from detr_core.model.common.backbone import FrozenBatchNorm
from detr_core.structures import Validation
from detr_core.train.compilation import Compiled, require_compiler, without_graphs
from detr_core.train.config import CompileConfig
from detr_core.train.folding import fold_norms
from detr_core.train.recomputation import recompute_activations
from tests.train.test_folding import backbone
from tests.train.test_modules import batch
from tests.train.test_recomputation import detr, module_of, step

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _without_earlier_graphs() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_a_compiled_detector_has_the_same_gradients_and_compiles_each_size_once() -> None:
    plain, module = detr(), detr()
    compiled = Compiled(module.model, CompileConfig(multiple=32, backend="eager"))
    assert list(module.state_dict()) == list(plain.state_dict())
    assert compiled.note() is None
    loss, gradients, _ = step(plain, batch())
    other_loss, other_gradients, _ = step(module, batch())
    assert torch.equal(loss, other_loss)
    assert all(torch.equal(value, other_gradients[name]) for name, value in gradients.items())
    graphs = compiled.graphs()
    note = compiled.note()
    assert note is not None
    assert note.startswith("torch.compile (eager) has compiled ")
    assert note.endswith(" graphs of 5 modules, with 0 breaks")
    step(module, batch())
    assert (compiled.graphs(), compiled.note()) == (graphs, None), "a size is compiled once"

    def validate() -> Validation:
        module.eval()
        with torch.no_grad():
            module(batch(), module.normalizer([3, 0, 8]))
        return Validation({}, 1.0)

    assert without_graphs(validate)().score == 1.0
    assert compiled.graphs() == graphs, "a validation compiles nothing"


def test_folded_norms_are_compiled_in_one_graph() -> None:
    model = detr().model
    plain = backbone()
    model.backbone[0] = copy.deepcopy(plain)
    fold_norms(model)
    compiled = Compiled(model, CompileConfig(multiple=32, backend="eager"))
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps, expected = model.backbone[0](images), plain(images)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4)
    note = compiled.note()
    assert note is not None
    assert note.startswith("torch.compile (eager) has compiled 1 graphs")
    assert note.endswith("with 0 breaks")


@pytest.mark.long
@pytest.mark.parametrize("kind", ["detr", "deformable", "faster_rcnn"])
def test_every_kind_can_be_compiled_also_with_activation_checkpointing(kind: str) -> None:
    plain, module = (detr() if kind == "detr" else module_of(kind) for _ in range(2))
    recompute_activations(module.model)
    compiled = Compiled(module.model, CompileConfig(multiple=32, backend="aot_eager"))
    loss, gradients, _ = step(plain, batch())
    other_loss, other_gradients, _ = step(module, batch())
    torch.testing.assert_close(other_loss, loss, rtol=1e-5, atol=1e-6)
    if kind != "detr":  # without dropout, whose random numbers a compiled graph draws in another order
        for name, value in gradients.items():
            torch.testing.assert_close(other_gradients[name], value, rtol=1e-3, atol=1e-4 * float(value.abs().max() + 1e-3))
    assert compiled.graphs() > 0
    assert not any(isinstance(part, FrozenBatchNorm) for part in compiled.parts)


def test_a_machine_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("No working C++ compiler found in PATH\nand much more")

    require_compiler(CompileConfig(32, "eager"), CPU, "a.yaml: train_detection.compile")
    monkeypatch.setattr(torch, "compile", refuse)
    expected = (
        r"a\.yaml: train_detection\.compile: expected null, because torch\.compile with backend 'inductor' can't compile for cpu "
        r"on this machine \(No working C\+\+ compiler found in PATH\); install a C\+\+ compiler, or set the key to null"
    )
    with pytest.raises(ConfigError, match=expected):
        require_compiler(CompileConfig(32), CPU, "a.yaml: train_detection.compile")
