"""A number is written with the singular or the plural of its noun."""

import pytest

from detr_core.wording import counted


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, "image"), "0 images"),
        ((1, "image"), "1 image"),
        ((1200, "image"), "1,200 images"),
        ((1, "class", "classes"), "1 class"),
        ((2, "class", "classes"), "2 classes"),
    ],
)
def test_a_number_has_its_noun_in_the_singular_or_plural(arguments: tuple[int, str], text: str) -> None:
    assert counted(*arguments) == text
