"""The tag of a box lies beside it, and never on another object or another tag."""

from detr_core.plots.pictures import Corners, tag_place

PANEL = (400, 400)


def covered(box: Corners, place: Corners) -> float:
    width = min(box[2], place[2]) - max(box[0], place[0])
    height = min(box[3], place[3]) - max(box[1], place[1])
    return max(width, 0.0) * max(height, 0.0)


def test_a_tag_stands_above_its_box() -> None:
    box = (100.0, 100.0, 200.0, 200.0)
    place = tag_place(box, "cat 0.90", 12, PANEL, [box], [])
    assert place is not None
    assert place[3] == box[1]


def test_a_tag_goes_below_where_it_would_hide_another_object() -> None:
    box, small = (100.0, 100.0, 200.0, 200.0), (105.0, 88.0, 117.0, 98.0)
    place = tag_place(box, "cat 0.90", 12, PANEL, [box, small], [])
    assert place is not None
    assert place[1] == box[3]
    assert covered(small, place) == 0


def test_small_objects_in_a_crowd_go_without_tags_rather_than_be_hidden() -> None:
    boxes = [(20.0 * x, 20.0 * y, 20.0 * x + 12, 20.0 * y + 12) for x in range(20) for y in range(20)]
    assert tag_place(boxes[210], "platelets 0.90", 14, PANEL, boxes, []) is None


def test_tags_never_overlap() -> None:
    boxes = [(100.0, 100.0, 160.0, 160.0), (104.0, 100.0, 164.0, 160.0)]
    first = tag_place(boxes[0], "cat 0.90", 12, PANEL, boxes, [])
    assert first is not None
    second = tag_place(boxes[1], "cat 0.80", 12, PANEL, boxes, [first])
    assert second is None or covered(first, second) == 0
