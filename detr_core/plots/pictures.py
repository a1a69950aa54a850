"""Draws pictures with panels side by side under titles, and the boxes, tags and legends on them."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
Corners = tuple[float, float, float, float]
"""A box: xyxy, pixels of a panel."""

_SMALLEST, _LARGEST = 384, 640  # limits of a panel's longer side, pixels; smaller images are enlarged
_GAP = 4
_HIDDEN = 0.25  # share of a box that a tag may cover at most
_SLATE, _PALE, _BLACK, _WHITE = (31, 36, 46), (232, 235, 240), (20, 22, 28), (255, 255, 255)
_FIRST_COLORS: tuple[Color, ...] = (
    (232, 76, 61), (242, 183, 5), (199, 72, 199), (38, 166, 154), (66, 133, 244), (76, 175, 80), (26, 82, 148), (255, 128, 48),
    (126, 96, 214), (150, 116, 70),
)  # fmt: skip


def category_colors(ids: Iterable[int]) -> dict[int, Color]:
    """Returns a colour for each category id: fixed colours for the first ten, then hues that are a golden angle apart."""
    colors: dict[int, Color] = {}
    for position, category in enumerate(sorted(ids)):
        if position < len(_FIRST_COLORS):
            colors[category] = _FIRST_COLORS[position]
        else:
            red, green, blue = colorsys.hsv_to_rgb(
                position * 0.618034 % 1, 0.55 + 0.15 * (position % 3), 0.65 + 0.15 * (position % 2)
            )
            colors[category] = (round(255 * red), round(255 * green), round(255 * blue))
    return colors


def scale_of(image: Image.Image) -> float:
    """Returns the factor by which an image is scaled in a picture."""
    return min(max(1.0, _SMALLEST / max(image.size)), _LARGEST / max(image.size))


def enlarged(image: Image.Image, scale: float) -> Image.Image:
    """Returns the image with its sides multiplied by `scale`."""
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def text_size(panel: Image.Image, panels: int) -> int:
    """Returns the text size, pixels, for a picture with this number of panels.

    It is a fixed share of the picture's width, because the page shows all pictures at the same width.
    """
    return max(12, round(panels * panel.width / 48))


def side_by_side(titles: Sequence[str], panels: Sequence[Image.Image]) -> Image.Image:
    """Returns a picture of the panels, which have the same size, from left to right under their titles on a dark background."""
    width, height = panels[0].size
    size = text_size(panels[0], len(panels))
    band = round(1.7 * size)
    sheet = Image.new("RGB", (len(panels) * (width + _GAP) + _GAP, band + height + _GAP), _SLATE)
    draw = ImageDraw.Draw(sheet)
    for position, (title, panel) in enumerate(zip(titles, panels, strict=True)):
        left = _GAP + position * (width + _GAP)
        sheet.paste(panel, (left, band))
        draw.text((left + size / 4, band / 2), title, fill=_PALE, font=ImageFont.load_default(size), anchor="lm")
    return sheet


def box(draw: ImageDraw.ImageDraw, corners: Corners, color: Color, line: int) -> None:
    """Draws an xyxy box with a line of `line` pixels and a dark casing, which keeps it visible on a background of its colour."""
    x1, y1, x2, y2 = (round(corner) for corner in corners)
    x2, y2 = max(x1, x2), max(y1, y2)
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_BLACK, width=line + 2)
    draw.rectangle((x1, y1, x2, y2), outline=color, width=line)


@dataclass(frozen=True)
class LabelledBox:
    """A box to draw. corners: xyxy, pixels of the image. label: the text of its tag. category: its category id."""

    corners: Corners
    label: str
    color: Color
    category: int


def draw_boxes(panel: Image.Image, boxes: Sequence[LabelledBox], scale: float, size: int) -> None:
    """Draws boxes onto a panel that shows the image scaled by `scale`, and tags of text size `size` where they fit.

    boxes: the most important box comes last; it is drawn on top, and its tag is placed first.
    """
    draw = ImageDraw.Draw(panel)
    scaled: list[Corners] = []
    for labelled in boxes:
        x1, y1, x2, y2 = (scale * corner for corner in labelled.corners)
        scaled.append((x1, y1, x2, y2))
        box(draw, scaled[-1], labelled.color, line=max(2, size // 5))
    tags: list[Corners] = []
    for labelled, corners in reversed(list(zip(boxes, scaled, strict=True))):
        place = tag_place(corners, labelled.label, size, panel.size, scaled, tags)
        if place is not None:
            tag(draw, place, labelled.label, labelled.color, size)
            tags.append(place)


def tag(draw: ImageDraw.ImageDraw, place: Corners, text: str, color: Color, size: int) -> None:
    """Draws `text` on a background of the given colour. place: the result of `tag_place`."""
    left, top, _right, bottom = place
    draw.rectangle(place, fill=color)
    bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 150
    middle, ink = (left + size / 4, (top + bottom) / 2), _BLACK if bright else _WHITE
    draw.text(middle, text, fill=ink, font=ImageFont.load_default(size), anchor="lm")


def text_width(text: str, size: int) -> float:
    """Returns the width of a tag with `text` in pixels."""
    return float(ImageFont.load_default(size).getlength(text)) + size / 2


def tag_place(
    box: Corners, text: str, size: int, panel: tuple[int, int], boxes: Sequence[Corners], tags: Sequence[Corners]
) -> Corners | None:
    """Returns a place (xyxy) for a tag with `text` beside a `box` (xyxy), or None if no place fits.

    The places tried are above the box, below it and, for a large box, inside its upper left corner. A place does not fit if it
    covers a quarter or more of any of the `boxes`, or touches one of the `tags` that are placed already. A box without a tag is
    identified by its colour only. panel: (width, height) in pixels, which tags stay within.
    """
    width, height = text_width(text, size), 1.25 * size
    left = min(max(0.0, box[0] - 1), max(0.0, panel[0] - width))
    for top in (box[1] - height, box[3], box[1]):
        place = (left, top, left + width, top + height)
        inside = top >= 0 and place[3] <= panel[1]
        if (
            inside
            and not any(_covered(covered, place) >= _HIDDEN for covered in boxes)
            and not any(_covered(covered, place) > 0 for covered in tags)
        ):
            return place
    return None


def _covered(box: Corners, place: Corners) -> float:
    """Returns the share of `box` that `place` covers."""
    width = min(box[2], place[2]) - max(box[0], place[0])
    height = min(box[3], place[3]) - max(box[1], place[1])
    area = max(box[2] - box[0], 1.0) * max(box[3] - box[1], 1.0)
    return max(width, 0.0) * max(height, 0.0) / area


def with_legend(picture: Image.Image, colors: Mapping[str, Color], size: int) -> Image.Image:
    """Returns the picture with a legend below it that shows the colour of each name."""
    font, height = ImageFont.load_default(size), round(1.6 * size)
    places: list[tuple[float, int, str]] = []
    x, line = size / 2, 0
    for name in colors:
        width = font.getlength(name) + 2 * size
        if x + width > picture.width and x > size / 2:
            x, line = size / 2, line + 1
        places.append((x, line, name))
        x += width
    if not places:
        return picture
    sheet = Image.new("RGB", (picture.width, picture.height + (line + 1) * height), _SLATE)
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for x, line, name in places:
        middle = picture.height + (line + 0.5) * height
        draw.rectangle((x, middle - 0.35 * size, x + 0.7 * size, middle + 0.35 * size), fill=colors[name])
        draw.text((x + size, middle), name, fill=_PALE, font=font, anchor="lm")
    return sheet


def caption(draw: ImageDraw.ImageDraw, center: tuple[float, float], text: str, size: int, width: int) -> None:
    """Draws white `text` with a dark outline centred at a point, but within a panel of this `width` in pixels."""
    font = ImageFont.load_default(size)
    half = draw.textlength(text, font=font) / 2 + size / 4
    x = max(half, min(center[0], width - half))
    draw.text((x, center[1]), text, fill=_WHITE, font=font, anchor="mm", stroke_width=max(2, size // 10), stroke_fill=_BLACK)


def save(picture: Image.Image, path: Path) -> Path:
    """Saves a picture as JPEG, which has a tenth of a PNG's size, and returns the path. Colour subsampling would blur lines."""
    picture.save(path, quality=88, subsampling=0, optimize=True)
    return path
