"""Values of a configuration that the names and shapes of a detector's weights show. The names are those of this project."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from detr_core.model.common.weight_names import Shapes

# name -> (number of blocks of each stage, whether they are bottlenecks of three convolutions)
_RESNETS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}


def resnet(shapes: Shapes) -> str:
    """Returns the name of the ResNet that is most similar to the weights. Differing weights are listed in a later error."""
    blocks = [count(shapes, rf"backbone\.0\.body\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
    bottlenecks = any(re.match(r"backbone\.0\.body\.layer\d\.\d+\.conv3\.", key) for key in shapes)

    def distance(name: str) -> tuple[bool, int]:
        expected, with_bottlenecks = _RESNETS[name]
        return bottlenecks != with_bottlenecks, sum(abs(a - b) for a, b in zip(blocks, expected, strict=True))

    return min(_RESNETS, key=distance)


def count(shapes: Shapes, pattern: str) -> int:
    """Returns how many different values the group of `pattern` has in the names."""
    return len({match[1] for key in shapes if (match := re.match(pattern, key))})


def agreed(shapes: Shapes, places: Sequence[tuple[str, int]], *likely_lengths: int) -> int:
    """Returns a length that the shapes of several weights give, by majority, so that one wrong shape does not decide.

    places: pairs of a name and an axis. likely_lengths: without a majority the length is one of these, by default the first.
    """
    lengths = Counter(shapes[key][axis] for key, axis in places if len(shapes.get(key, ())) > axis)
    candidates = [length for length, votes in lengths.items() if votes == max(lengths.values())]
    if len(candidates) == 1:
        return candidates[0]
    return next((length for length in likely_lengths if length in candidates), likely_lengths[0])
