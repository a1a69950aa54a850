"""Writes the page of the data check: the findings, example pictures, and statistics of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw, ImageOps

from detr_core.check.accounting import source_counted
from detr_core.check.findings import KINDS, Finding
from detr_core.check.inspection import Inspection
from detr_core.check.statistics import Statistics, by_size
from detr_core.data.splits import Split, below_root
from detr_core.data.values import eight_bits
from detr_core.plots.page import write_page
from detr_core.plots.pictures import box, enlarged, save, scale_of, side_by_side, tag, text_size, text_width
from detr_core.plots.sections import Section, inline, jpeg
from detr_core.plots.style import COLORS, INK, plot
from detr_core.plots.tables import Row, Table
from detr_core.wording import counted

_RED, _CARD, _PALE = (232, 76, 61), (58, 64, 76), (232, 235, 240)


def write_data_check(
    profile: str, splits: Mapping[str, Split], inspection: Inspection, queries: int, lenient: bool, pictures: int, out: Path
) -> Path:
    """Writes `out`/index.html and returns its path.

    queries: the detector's number of queries. lenient: True if broken data is left out, False if it stops the training.
    pictures: the number of pictures for each kind of finding; images with the most findings are shown.
    """
    broken = sum(KINDS[finding.kind].broken for finding in inspection.findings)
    account = _account(splits, inspection)
    told = len(inspection.findings) - broken
    stopped = any(KINDS[finding.kind].stops for finding in inspection.findings)
    left_out = "Broken data is left out." if lenient and not stopped else "The broken data must be corrected."
    verdict = left_out if broken else "No data is broken."
    supplied = sum(account[f"{name} images"][0] for name in splits)
    with TemporaryDirectory() as temporary:
        sections = [
            _findings(inspection.findings, lenient, stopped),
            *_worst(splits, inspection.findings, pictures, Path(temporary)),
            _data(inspection.statistics, account, queries, Path(temporary)),
        ]
        return write_page(
            profile,
            f"The check has read all annotations and image files of {counted(supplied, 'image')}. {verdict}",
            {"broken": broken, "warnings": told} | {f"{name} images used": account[f"{name} images"][1] for name in splits},
            [section for section in sections if section is not None],
            {},
            out,
        )


def _account(splits: Mapping[str, Split], inspection: Inspection) -> dict[str, tuple[int, int, int]]:
    """Returns 'train images', 'train objects' and so on -> the numbers supplied, used and left out. Objects include crowds."""
    account = {}
    for name, found in inspection.statistics.items():
        supplied = inspection.supplied[name, source_counted(splits[name])]
        images, objects = sum(found.objects.values()), sum(found.sides.values()) + found.crowds
        account[f"{name} images"] = (supplied.images, images, supplied.images - images)
        account[f"{name} objects"] = (supplied.objects, objects, supplied.objects - objects)
    return account


def _findings(findings: Sequence[Finding], lenient: bool, stopped: bool) -> Section:
    counted = Counter((finding.kind, finding.split) for finding in findings)
    titles = {True: "Broken", False: "Warnings"}
    shown = {}
    for broken, title in titles.items():
        rows: list[Row] = [
            (kind.words, (counted[name, "train"], counted[name, "val"]))
            for name, kind in KINDS.items()
            if kind.broken == broken and (counted[name, "train"] or counted[name, "val"])
        ]
        shown[title] = Table("finding", ("train", "val"), rows)
    what = "is left out of training and evaluation" if lenient else "stops later stages: correct it, or use the mode `lenient`"
    what = "stops later stages and must be corrected, because nothing would be left to learn from" if stopped else what
    text = f"Broken data {what}. Data with warnings is used. The numbers are counts; findings.json lists every finding."
    return Section("findings", "Findings", [text if findings else "The check found no faults."], tables=shown)


def _worst(splits: Mapping[str, Split], findings: Sequence[Finding], pictures: int, folder: Path) -> list[Section]:
    sections = []
    unread = {(finding.split, finding.file) for finding in findings if finding.kind in ("image_link", "image_unreadable")}
    for name, kind in KINDS.items():
        own = [finding for finding in findings if finding.kind == name and finding.file]
        images = Counter((finding.split, finding.file) for finding in own)
        files = [file for file, _ in images.most_common(pictures)]
        drawn = []
        for number, (split, file) in enumerate(files):
            here = [finding for finding in own if (finding.split, finding.file) == (split, file)]
            picture = save(_picture(None if (split, file) in unread else splits[split], here), folder / f"{name}_{number}.jpg")
            drawn.append((jpeg(picture), f"{split}, {file}: {here[0].detail}"))
        if drawn:
            title = kind.words[0].upper() + kind.words[1:]
            are = "is" if len(own) == 1 else "are"
            text = f"There {are} {counted(len(own), 'such finding')} in {counted(len(images), 'image')}."
            if len(drawn) < len(images):
                text += " The pictures show the images with the most of them."
            sections.append(Section(name, title, [], tables={}, pictures=drawn, pictures_text=text))
    return sections


def _picture(split: Split | None, findings: Sequence[Finding]) -> Image.Image:
    """Returns the image with the boxes of the findings, or a card with the reason why it can't be shown.

    split: the split of the image; None opens no image and returns a card.
    """
    first = findings[0]
    image = None if split is None else _opened(split, first.file)
    if image is None:
        panel = Image.new("RGB", (512, 200), _CARD)
        ImageDraw.Draw(panel).text((256, 100), _fitting(first.detail, 480, 18), fill=_PALE, font_size=18, anchor="mm")
    else:
        boxes = [finding.box for finding in findings if finding.box is not None]
        image, left, top = _with_margin(image, boxes)
        scale = scale_of(image)
        panel = enlarged(image, scale)
        draw, size = ImageDraw.Draw(panel), text_size(panel, panels=1)
        limit = 4.0 * max(image.size)  # boxes further outside are drawn at this distance
        for x, y, w, h in boxes:
            low, high = (x + left, y + top), (x + w + left, y + h + top)
            x1, y1, x2, y2 = (scale * min(max(value, -limit), limit) for value in (*low, *high))
            box(draw, (x1, y1, x2, y2), _RED, line=max(2, size // 6))
        text = _fitting(first.detail, panel.width - 8, size)
        tag(draw, (4, 4, 4 + text_width(text, size), 4 + 1.25 * size), text, _RED, size)
    return side_by_side((_fitting(f"{first.split}: {first.file}", panel.width, text_size(panel, panels=1)),), [panel])


def _fitting(text: str, width: int, size: int) -> str:
    """Returns the text; if it is wider than `width` pixels at this font size, with an ellipsis in place of its middle."""
    kept, short = len(text), text
    while kept and text_width(short, size) > width:
        kept -= 1
        short = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return short


def _with_margin(image: Image.Image, boxes: Sequence[tuple[float, float, float, float]]) -> tuple[Image.Image, int, int]:
    """Returns the image with a margin for boxes outside of it, and the margins at the left and at the top, pixels.

    Each margin is at most half of the image's size.
    """
    width, height = image.size

    def room(beyond: list[float], side: int) -> int:
        return round(min(side / 2, max([0.0, *beyond])))

    left, right = room([-x for x, _, _, _ in boxes], width), room([x + w - width for x, _, w, _ in boxes], width)
    top, bottom = room([-y for _, y, _, _ in boxes], height), room([y + h - height for _, y, _, h in boxes], height)
    if not any((left, right, top, bottom)):
        return image, 0, 0
    ground = Image.new("RGB", (left + width + right, top + height + bottom), _CARD)
    ground.paste(image, (left, top))
    return ground, left, top


def _opened(split: Split, name: str) -> Image.Image | None:
    try:
        file = below_root(split.images, name, "file_name")
        with Image.open(file) as image:
            shallow = eight_bits(image, lambda: Image.open(file), split.value_ranges or {})
            return ImageOps.exif_transpose(shallow).convert("RGB")
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError):
        return None


def _data(
    statistics: Mapping[str, Statistics], account: Mapping[str, tuple[int, int, int]], queries: int, folder: Path
) -> Section:
    names = tuple(statistics)
    classes = [(name, tuple(statistics[split].classes[name] for split in names)) for name in statistics["train"].classes]
    sizes = [by_size(found.sides) for found in statistics.values()]
    bounds = {"small": "below 32² px", "medium": "32² to 96² px", "large": "above 96² px"}
    shown = {
        "Images and objects": Table("entries", ("supplied", "used", "left out"), list(account.items())),
        "Objects by class": Table("class", names, classes),
        "Objects by size": Table("size", names, [(size, tuple(part[size] for part in sizes)) for size in bounds], notes=bounds),
    }
    most = max(found.most_objects for found in statistics.values())
    limit = f"An image has at most {counted(most, 'object')}, and the detector has {counted(queries, 'query', 'queries')}."
    text = f"{limit} Broken objects and all objects of broken images are left out of these numbers."
    if crowds := sum(found.crowds for found in statistics.values()):
        text += f" Classes and sizes do not count {counted(crowds, 'crowd')}, because a detector is not trained on crowds."
    plots = [_objects_plot(statistics, queries, folder), _sides_plot(statistics, folder)]
    return Section("data", "Statistics of the data", [text], [inline(path) for path in plots], shown)


def _objects_plot(statistics: Mapping[str, Statistics], queries: int, folder: Path) -> Path:
    with plot(folder, "objects") as axes:
        for color, (name, found) in zip(COLORS, statistics.items(), strict=False):
            share = 1 / max(1, sum(found.objects.values()))
            counts = [100 * share * found.objects[number] for number in range(found.most_objects + 1)]
            edges = [number - 0.5 for number in range(found.most_objects + 2)]
            axes.stairs(counts, edges, color=color, label=name, linewidth=1.9)
        axes.axvline(queries, color=INK, linestyle="--", linewidth=1, label=counted(queries, "query", "queries"))
        axes.set(title="Objects per image, % of images", xlabel="objects", ylim=(0, None))
        axes.legend()
    return folder / "objects.svg"


def _sides_plot(statistics: Mapping[str, Statistics], folder: Path) -> Path:
    largest = max((max(found.sides, default=1) for found in statistics.values()), default=1)
    edges = [largest * place / 40 for place in range(41)]
    with plot(folder, "sides") as axes:
        for color, (name, found) in zip(COLORS, statistics.items(), strict=False):
            total = max(1, sum(found.sides.values()))
            weights = [100 * count / total for count in found.sides.values()]
            axes.hist(list(found.sides), bins=edges, weights=weights, histtype="step", color=color, label=name, linewidth=1.9)
        axes.set(title="Object size, % of objects", xlabel="square root of a box's area, pixels", ylim=(0, None))
        axes.legend()
    return folder / "sides.svg"
