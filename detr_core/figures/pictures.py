"""Panels side by side under titles, and what is drawn on them: what pictures of detections and of panoptic maps share."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Color = tuple[int, int, int]

_SMALLEST, _LARGEST = 384, 640  # pixels of a panel's longer side: a 96-pixel scene is enlarged, a photograph shrunk
_GAP = 4
_SLATE, _PALE, _BLACK, _WHITE = (31, 36, 46), (232, 235, 240), (20, 22, 28), (255, 255, 255)
_FIRST_COLORS: tuple[Color, ...] = (
    (232, 76, 61), (242, 183, 5), (199, 72, 199), (38, 166, 154), (66, 133, 244), (76, 175, 80), (26, 82, 148), (255, 128, 48),
    (126, 96, 214), (150, 116, 70),
)  # fmt: skip


def chosen(images: int, count: int) -> list[int]:
    """The places of `count` images (or all, if there are fewer), evenly spaced, so that nobody picked the good ones."""
    count = min(count, images)
    return [place * images // count for place in range(count)]


def category_colors(ids: Iterable[int]) -> dict[int, Color]:
    """A colour for each category id: hand-picked ones for the first ten, then hues a golden angle apart."""
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


def as_picture(image: Tensor) -> Image.Image:
    """A uint8 RGB tensor [3, H, W] to draw on."""
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def scale_of(image: Image.Image) -> float:
    """By what an image is enlarged to be looked at."""
    return min(max(1.0, _SMALLEST / max(image.size)), _LARGEST / max(image.size))


def enlarged(image: Image.Image, scale: float) -> Image.Image:
    """The image, `scale` times as large."""
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def text_size(panel: Image.Image, panels: int) -> int:
    """Of text on a picture of so many panels: the same share of the whole, because the page shows all pictures at one width."""
    return max(12, round(panels * panel.width / 48))


def side_by_side(titles: Sequence[str], panels: Sequence[Image.Image]) -> Image.Image:
    """The panels, all of one size, left to right under their titles, on a dark card that suits light pages and dark ones."""
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


def box(draw: ImageDraw.ImageDraw, corners: tuple[float, float, float, float], color: Color, line: int) -> None:
    """An xyxy box, `line` pixels thick, with a dark casing, so that it is seen on a ground of its own colour too."""
    x1, y1, x2, y2 = (round(corner) for corner in corners)
    x2, y2 = max(x1, x2), max(y1, y2)
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_BLACK, width=line + 2)
    draw.rectangle((x1, y1, x2, y2), outline=color, width=line)


def tag(
    draw: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, color: Color, size: int, panel: tuple[int, int]
) -> None:
    """`text` on its colour, standing on the box whose upper left corner is given; pushed inside a panel of (width, height)."""
    font = ImageFont.load_default(size)
    width, height = draw.textlength(text, font=font) + size / 2, 1.25 * size
    left = min(max(0.0, corner[0] - 1), max(0.0, panel[0] - width))
    top = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((left, top, left + width, top + height), fill=color)
    bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 150
    draw.text((left + size / 4, top + height / 2), text, fill=_BLACK if bright else _WHITE, font=font, anchor="lm")


def caption(draw: ImageDraw.ImageDraw, center: tuple[float, float], text: str, size: int, width: int) -> None:
    """White `text` with a dark outline around a point, for regions of any colour; pushed inside a panel of this width."""
    font = ImageFont.load_default(size)
    half = draw.textlength(text, font=font) / 2 + size / 4
    x = max(half, min(center[0], width - half))
    draw.text((x, center[1]), text, fill=_WHITE, font=font, anchor="mm", stroke_width=max(2, size // 10), stroke_fill=_BLACK)


def save(picture: Image.Image, path: Path) -> Path:
    """As JPEG without colour subsampling: a tenth of a PNG's size, and coloured lines stay sharp."""
    picture.save(path, quality=88, subsampling=0, optimize=True)
    return path
