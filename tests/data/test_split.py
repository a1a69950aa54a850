"""A validation split made of train's images: how large, of which classes, and the same each time."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from detr_core.data.split import only, stratified


def test_a_rare_class_is_in_both_splits() -> None:
    classes = {image: [1] + ([2] if image < 5 else []) for image in range(100)}
    for seed in range(20):
        val = stratified(classes, 0.2, seed)
        assert len(val) == 20
        assert len(val & set(range(5))) == 1


def test_the_seed_alone_says_which() -> None:
    classes = {image: [image % 3] for image in range(60)}
    shuffled = list(classes.items())
    random.Random(1).shuffle(shuffled)
    assert stratified(classes, 0.3, 4) == stratified(dict(shuffled), 0.3, 4)
    assert stratified(classes, 0.3, 4) != stratified(classes, 0.3, 5)


@given(
    st.dictionaries(st.integers(0, 10**9), st.lists(st.integers(1, 5), max_size=4), max_size=40),
    st.floats(0.05, 0.95),
    st.integers(0, 9),
)
def test_both_splits_have_images_and_about_their_share(classes: dict[int, list[int]], share: float, seed: int) -> None:
    val = stratified(classes, share, seed)
    assert val <= set(classes)
    if len(classes) > 1:
        assert 0 < len(val) < len(classes)
    assert abs(len(val) - share * len(classes)) <= 6, "a class may tip an image each"


def test_a_part_keeps_what_belongs_to_its_images() -> None:
    content = {
        "info": {"year": 2026},
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [{"id": 5, "image_id": 2}, {"id": 6, "image_id": 1}],
        "categories": [{"id": 1}],
    }
    assert only(content, {2}) == {**content, "images": [{"id": 2}], "annotations": [{"id": 5, "image_id": 2}]}
