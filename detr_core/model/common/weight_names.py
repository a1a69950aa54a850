"""Names of weights in the layouts of other libraries: renaming, joining, and describing names of an unknown layout."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from detr_core.wording import counted

QKV = ("q_proj", "k_proj", "v_proj")
_JOINED = re.compile(r"(.*\.)in_proj_(weight|bias)")
_SEPARATE = re.compile(rf"(.*\.)({'|'.join(QKV)})\.(weight|bias)")
_GROUPS = 8  # the number of groups of names that a description lists


@dataclass(frozen=True)
class Names:
    """What another layout calls the weights of a detector.

    beginnings: pairs of the beginnings of names, ours and theirs; `{}` stands for a number. The first pair that fits is used, and
    a name that fits none is the same in both. split_attention: whether their attention has separate projections of query, key
    and value (`q_proj`, `k_proj`, `v_proj`), whose rows follow each other in our `in_proj`.
    """

    beginnings: Sequence[tuple[str, str]] = field(default=())
    split_attention: bool = False

    def theirs(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns weights under their names. state: weights under our names."""
        renamed: dict[str, Tensor] = {}
        for name, value in state.items():
            their_name = _renamed(name, self._to_theirs)
            if self.split_attention and (match := _JOINED.fullmatch(their_name)):
                parts = zip(QKV, value.chunk(3), strict=True)
                renamed |= {f"{match[1]}{part}.{match[2]}": rows.clone() for part, rows in parts}
            else:
                renamed[their_name] = value
        return renamed

    def ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns weights under our names. state: weights under their names, with all three projections of each attention."""
        all_parts: dict[str, dict[int, Tensor]] = {}
        for name, value in state.items():
            our_name, number = self._our_name(name)
            all_parts.setdefault(our_name, {})[number] = value
        return {
            name: torch.cat([parts[number] for number in sorted(parts)]) if len(parts) > 1 else parts[0]
            for name, parts in all_parts.items()
        }

    def our_shapes(self, state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """Returns our names and shapes of weights under their names. One of three projections shows the shape of all three."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, value in state.items():
            our_name, _ = self._our_name(name)
            shape = tuple(value.shape)
            joined = our_name != _renamed(name, self._to_ours) and len(shape) > 0
            shapes[our_name] = (3 * shape[0], *shape[1:]) if joined else shape
        return shapes

    def _our_name(self, name: str) -> tuple[str, int]:
        # Returns our name, and the place of the weight's rows among those of the projections.
        our_name = _renamed(name, self._to_ours)
        if self.split_attention and (match := _SEPARATE.fullmatch(our_name)):
            return f"{match[1]}in_proj_{match[3]}", QKV.index(match[2])
        return our_name, 0

    @cached_property
    def _to_theirs(self) -> list[tuple[re.Pattern[str], str]]:
        return [_rule(ours, theirs) for ours, theirs in self.beginnings]

    @cached_property
    def _to_ours(self) -> list[tuple[re.Pattern[str], str]]:
        return [_rule(theirs, ours) for ours, theirs in self.beginnings]


def _rule(beginning: str, replacement: str) -> tuple[re.Pattern[str], str]:
    return re.compile(re.escape(beginning).replace(r"\{\}", r"(\d+)")), replacement


def _renamed(name: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in rules:
        if match := pattern.match(name):
            return replacement.format(*match.groups()) + name[match.end() :]
    return name


def description(content: Any, inside: bool = True) -> str:
    """Returns what the keys of a checkpoint file's content look like, for an error about a file of an unknown layout.

    inside: whether it also describes the mappings that the content holds, but not those in them, of which there can be many.
    """
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    if not content:
        return "a mapping without keys"
    keys = [str(key) for key in content]
    first = ", ".join(map(repr, keys[:3]))
    groups = Counter(key.split(".")[0] for key in keys)
    listed = ", ".join(f"{group} ({number})" for group, number in groups.most_common(_GROUPS))
    others = f" and {counted(len(groups) - _GROUPS, 'other')}" if len(groups) > _GROUPS else ""
    held = [(key, value) for key, value in content.items() if isinstance(value, Mapping) and value] if inside else []
    parts = "".join(f"; {key!r} holds {description(value, False)}" for key, value in held[:_GROUPS])
    return f"{counted(len(keys), 'key')}, first {first}; by their beginnings: {listed}{others}{parts}"
