"""A validation split drawn from the training images: its size, its classes, and that it is reproducible."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from detr_core.sources.split import parted, same_content, stratified


def test_a_rare_class_is_in_both_splits() -> None:
    classes = {image: [1] + ([2] if image < 5 else []) for image in range(100)}
    for seed in range(20):
        val = stratified(classes, 0.2, seed)
        assert len(val) == 20
        assert len(val & set(range(5))) == 1


def test_the_split_depends_on_the_seed_alone() -> None:
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


def test_every_entry_is_in_exactly_one_part() -> None:
    images = [{"id": 1}, {"id": 2}, 7, {"id": "2"}, {"id": 2, "file_name": "again.jpg"}]
    annotations = [
        {"id": 5, "image_id": 2},
        {"id": 6, "image_id": 1},
        {"id": 7, "image_id": "2"},
        {"id": 8, "image_id": 99},
        None,
    ]
    content = {"info": {"year": 2026}, "images": images, "annotations": annotations, "categories": [{"id": 1}]}
    parts = parted(content, {2})
    assert parts["val"] == {**content, "images": [images[1], images[4]], "annotations": annotations[:1]}
    assert parts["train"] == {**content, "images": [images[0], *images[2:4]], "annotations": annotations[1:]}


@given(
    st.dictionaries(st.integers(0, 50), st.lists(st.integers(1, 4), max_size=3), min_size=2, max_size=30),
    st.floats(0.05, 0.95),
    st.integers(0, 9),
    st.integers(1, 8),
)
def test_copies_are_in_one_split(classes: dict[int, list[int]], share: float, seed: int, contents: int) -> None:
    groups = [[image for image in classes if image % contents == rest] for rest in range(contents)]
    copies = [same for same in groups if len(same) > 1]
    val = stratified(classes, share, seed, copies)
    assert all(set(same) <= val or not set(same) & val for same in copies)
    if len([same for same in groups if same]) > 1:
        assert 0 < len(val) < len(classes)
    else:
        assert len(val) in (0, len(classes)), "images of one content can't be divided"


def test_copies_are_recognised_by_their_bytes(tmp_path: Path) -> None:
    contents = {1: b"one", 2: b"two", 3: b"one", 4: b"", 5: b"", 6: b"longer", 7: b"two"}
    files = {number: tmp_path / f"{number}.jpg" for number in contents}
    for number, content in contents.items():
        files[number].write_bytes(content)
    assert same_content(files) == [[1, 3], [2, 7]]
    assert same_content({8: files[1], 9: files[1]}) == [[8, 9]], "a file that is listed twice"
