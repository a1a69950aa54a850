"""Writes the page of the data check: the findings, example pictures, and statistics of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw, ImageOps

from detr_core.check.accounting import source_counted
from detr_core.check.findings import FINDING_KINDS, Finding
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
    broken = sum(FINDING_KINDS[finding.kind].broken for finding in inspection.findings)
    account = _account(splits, inspection)
    warnings = len(inspection.findings) - broken
    stopped = any(FINDING_KINDS[finding.kind].stops for finding in inspection.findings)
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
            {"broken": broken, "warnings": warnings} | {f"{name} images used": account[f"{name} images"][1] for name in splits},
            [section for section in sections if section is not None],
            {},
            out,
        )


def _account(splits: Mapping[str, Split], inspection: Inspection) -> dict[str, tuple[int, int, int]]:
    """Returns 'train images', 'train objects' and so on -> the numbers supplied, used and left out. Objects include crowds."""
    account = {}
    for name, counts in inspection.statistics.items():
        supplied = inspection.supplied[name, source_counted(splits[name])]
        images, objects = sum(counts.objects.values()), sum(counts.sides.values()) + counts.crowds
        account[f"{name} images"] = (supplied.images, images, supplied.images - images)
        account[f"{name} objects"] = (supplied.objects, objects, supplied.objects - objects)
    return account


def _findings(findings: Sequence[Finding], lenient: bool, stopped: bool) -> Section:
    numbers = Counter((finding.kind, finding.split) for finding in findings)
    titles = {True: "Broken", False: "Warnings"}
    tables = {}
    for broken, title in titles.items():
        rows: list[Row] = [
            (kind.words, (numbers[name, "train"], numbers[name, "val"]))
            for name, kind in FINDING_KINDS.items()
            if kind.broken == broken and (numbers[name, "train"] or numbers[name, "val"])
        ]
        tables[title] = Table("finding", ("train", "val"), rows)
    consequence = (
        "is left out of training and evaluation" if lenient else "stops later stages: correct it, or use the mode `lenient`"
    )
    consequence = (
        "stops later stages and must be corrected, because nothing would be left to learn from" if stopped else consequence
    )
    text = f"Broken data {consequence}. Data with warnings is used. The numbers are counts; findings.json lists every finding."
    return Section("findings", "Findings", [text if findings else "The check found no faults."], tables=tables)


def _worst(splits: Mapping[str, Split], findings: Sequence[Finding], pictures: int, folder: Path) -> list[Section]:
    sections = []
    unread = {(finding.split, finding.file) for finding in findings if finding.kind in ("image_link", "image_unreadable")}
    for name, kind in FINDING_KINDS.items():
        kind_findings = [finding for finding in findings if finding.kind == name and finding.file]
        images = Counter((finding.split, finding.file) for finding in kind_findings)
        files = [file for file, _ in images.most_common(pictures)]
        examples = []
        for number, (split, file) in enumerate(files):
            image_findings = [finding for finding in kind_findings if (finding.split, finding.file) == (split, file)]
            picture = save(
                _picture(None if (split, file) in unread else splits[split], image_findings), folder / f"{name}_{number}.jpg"
            )
            examples.append((jpeg(picture), f"{split}, {file}: {image_findings[0].detail}"))
        if examples:
            title = kind.words[0].upper() + kind.words[1:]
            verb = "is" if len(kind_findings) == 1 else "are"
            text = f"There {verb} {counted(len(kind_findings), 'such finding')} in {counted(len(images), 'image')}."
            if len(examples) < len(images):
                text += " The pictures show the images with the most of them."
            sections.append(Section(name, title, [], tables={}, pictures=examples, pictures_text=text))
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
    length, shortened = len(text), text
    while length and text_width(shortened, size) > width:
        length -= 1
        shortened = f"{text[: length - length // 2]}…{text[len(text) - length // 2 :]}"
    return shortened


def _with_margin(image: Image.Image, boxes: Sequence[tuple[float, float, float, float]]) -> tuple[Image.Image, int, int]:
    """Returns the image with a margin for boxes outside of it, and the margins at the left and at the top, pixels.

    Each margin is at most half of the image's size.
    """
    width, height = image.size

    def margin(excess: list[float], side: int) -> int:
        return round(min(side / 2, max([0.0, *excess])))

    left, right = margin([-x for x, _, _, _ in boxes], width), margin([x + w - width for x, _, w, _ in boxes], width)
    top, bottom = margin([-y for _, y, _, _ in boxes], height), margin([y + h - height for _, y, _, h in boxes], height)
    if not any((left, right, top, bottom)):
        return image, 0, 0
    canvas = Image.new("RGB", (left + width + right, top + height + bottom), _CARD)
    canvas.paste(image, (left, top))
    return canvas, left, top


def _opened(split: Split, name: str) -> Image.Image | None:
    try:
        file = below_root(split.images, name, "file_name")
        with Image.open(file) as image:
            converted = eight_bits(image, lambda: Image.open(file), split.value_ranges or {})
            return ImageOps.exif_transpose(converted).convert("RGB")
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError):
        return None


def _data(
    statistics: Mapping[str, Statistics], account: Mapping[str, tuple[int, int, int]], queries: int, folder: Path
) -> Section:
    names = tuple(statistics)
    classes = [(name, tuple(statistics[split].classes[name] for split in names)) for name in statistics["train"].classes]
    sizes = [by_size(counts.sides) for counts in statistics.values()]
    bounds = {"small": "below 32² px", "medium": "32² to 96² px", "large": "above 96² px"}
    tables = {
        "Images and objects": Table("entries", ("supplied", "used", "left out"), list(account.items())),
        "Objects by class": Table("class", names, classes),
        "Objects by size": Table("size", names, [(size, tuple(part[size] for part in sizes)) for size in bounds], notes=bounds),
    }
    largest_number = max(counts.most_objects for counts in statistics.values())
    limit = (
        f"An image has at most {counted(largest_number, 'object')}, and the detector has {counted(queries, 'query', 'queries')}."
    )
    text = f"{limit} Broken objects and all objects of broken images are left out of these numbers."
    if crowds := sum(counts.crowds for counts in statistics.values()):
        text += f" Classes and sizes do not count {counted(crowds, 'crowd')}, because a detector is not trained on crowds."
    plots = [_objects_plot(statistics, queries, folder), _sides_plot(statistics, folder)]
    return Section("data", "Statistics of the data", [text], [inline(path) for path in plots], tables)


def _objects_plot(statistics: Mapping[str, Statistics], queries: int, folder: Path) -> Path:
    with plot(folder, "objects") as axes:
        for color, (name, split_statistics) in zip(COLORS, statistics.items(), strict=False):
            share = 1 / max(1, sum(split_statistics.objects.values()))
            counts = [100 * share * split_statistics.objects[number] for number in range(split_statistics.most_objects + 1)]
            edges = [number - 0.5 for number in range(split_statistics.most_objects + 2)]
            axes.stairs(counts, edges, color=color, label=name, linewidth=1.9)
        axes.axvline(queries, color=INK, linestyle="--", linewidth=1, label=counted(queries, "query", "queries"))
        axes.set(title="Objects per image, % of images", xlabel="objects", ylim=(0, None))
        axes.legend()
    return folder / "objects.svg"


def _sides_plot(statistics: Mapping[str, Statistics], folder: Path) -> Path:
    largest = max((max(split_statistics.sides, default=1) for split_statistics in statistics.values()), default=1)
    edges = [largest * index / 40 for index in range(41)]
    with plot(folder, "sides") as axes:
        for color, (name, split_statistics) in zip(COLORS, statistics.items(), strict=False):
            total = max(1, sum(split_statistics.sides.values()))
            weights = [100 * count / total for count in split_statistics.sides.values()]
            axes.hist(
                list(split_statistics.sides), bins=edges, weights=weights, histtype="step", color=color, label=name, linewidth=1.9
            )
        axes.set(title="Object size, % of objects", xlabel="square root of a box's area, pixels", ylim=(0, None))
        axes.legend()
    return folder / "sides.svg"
