"""Configuration of the data stage and of what training does to images."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from detr_core.config import require


@dataclass(frozen=True)
class ScenesConfig:
    """Generated scenes: a COCO dataset of things and stuff that a small DETR learns in minutes.

    train, val: images of each split. size: side of the square image, pixels. objects: fewest and most an image.
    object_size: smallest and largest extent, pixels, drawn log-uniformly. beside: share of objects placed next to one of the
    same class, at `beside_size` of its size. visible: the part of every object that must stay unoccluded.
    color_noise: standard deviation of a class colour; random_color: share of objects with any colour at all.
    texture: smallest and largest amplitude. rotation: radians to either side. log_aspect: to either side.
    """

    train: int
    val: int
    size: int
    objects: tuple[int, int]
    object_size: tuple[float, float]
    beside: float
    beside_size: tuple[float, float]
    visible: float
    color_noise: float
    random_color: float
    texture: tuple[float, float]
    rotation: float
    log_aspect: float

    def __post_init__(self) -> None:
        require(self.train > 0, "train", "at least 1", self.train)
        require(self.val > 0, "val", "at least 1", self.val)
        require(self.size >= 32, "size", "at least 32 pixels", self.size)
        for name in ("objects", "object_size", "beside_size", "texture"):
            low, high = getattr(self, name)
            require(0 <= low <= high, name, "two values, the smaller first", [low, high])
        require(self.objects[0] >= 1, "objects", "at least 1 object an image", self.objects[0])
        require(self.object_size[0] >= 4, "object_size", "at least 4 pixels", self.object_size[0])
        require(self.object_size[1] <= self.size, "object_size", f"at most the image's {self.size} pixels", self.object_size[1])
        for name in ("beside", "visible", "random_color"):
            require(0 <= getattr(self, name) <= 1, name, "a share between 0 and 1", getattr(self, name))
        for name in ("color_noise", "rotation", "log_aspect"):
            require(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))


@dataclass(frozen=True)
class SplitConfig:
    """One split of a dataset folder, as paths below its root.

    images: folder of images. instances: `instances_*.json`, or null; of other formats what FolderConfig says.
    panoptic: `panoptic_*.json`, or null. panoptic_masks: folder of the panoptic PNGs, given exactly when `panoptic` is.
    """

    images: str
    instances: str | None
    panoptic: str | None
    panoptic_masks: str | None

    def __post_init__(self) -> None:
        require(
            self.instances is not None or self.panoptic is not None, "instances", "this or `panoptic` to be given", self.instances
        )
        require(
            (self.panoptic is None) == (self.panoptic_masks is None),
            "panoptic_masks",
            "to be given exactly when `panoptic` is",
            self.panoptic_masks,
        )


@dataclass(frozen=True)
class FolderConfig:
    """A dataset that is already on disk; its images are read in place.

    root: absolute, or relative to the project. format: of the annotations. `coco`: the files that the splits name. `yolo`:
    `instances` is a folder of label files, or the name of the set's description (`data.yaml`), whose entry for the split then
    says where its images are; the class names are in that description. `voc`: `instances` is a folder of XML files, such as
    `Annotations`, or a list of image names such as `ImageSets/Main/train.txt`.
    labels: how the rows of YOLO's label files are read: `boxes` (center and size, and at most a confidence and a track id, which
    are left out), `polygons` (boxes may stand among them) or `keypoints` (a box, and keypoints, which are left out). null, as
    where the key isn't given, decides it over the whole set, and refuses one of which it is not clear. null for other formats.
    val: null takes `val_share` of train's images for it, by class and by the section's seed; val_share is null otherwise.
    """

    root: str
    format: Literal["coco", "yolo", "voc"]
    train: SplitConfig
    val: SplitConfig | None
    val_share: float | None
    labels: Literal["boxes", "polygons", "keypoints"] | None = field(default=None, metadata={"optional": True})

    def __post_init__(self) -> None:
        require(self.labels is None or self.format == "yolo", "labels", f"null with format {self.format!r}", self.labels)
        require(
            (self.val is None) == (self.val_share is not None),
            "val_share",
            "a share where `val` is null, null where it is given",
            self.val_share,
        )
        require(self.val_share is None or 0 < self.val_share < 1, "val_share", "between 0 and 1", self.val_share)
        for name, split in (("train", self.train), ("val", self.val)):
            only_boxes = split is None or (split.instances is not None and split.panoptic is None)
            require(self.format == "coco" or only_boxes, name, f"`instances` alone with format {self.format!r}", "others")


@dataclass(frozen=True)
class ArchiveConfig:
    """A zip archive at an address. size: bytes. sha256: hexadecimal. null: not known, so not verified, which is said.

    inside: archives that it brings, as paths below the dataset's folder; each is unpacked where it lies and removed.
    """

    url: str
    size: int | None
    sha256: str | None
    inside: tuple[str, ...]

    def __post_init__(self) -> None:
        name = self.url.rpartition("/")[2]
        require("://" in self.url and re.fullmatch(r"[\w.-]+\.zip", name) is not None, "url", "the address of a .zip", self.url)
        require(self.size is None or self.size > 0, "size", "1 or more bytes, or null", self.size)
        hexadecimal = self.sha256 is None or re.fullmatch("[0-9a-f]{64}", self.sha256) is not None
        require(hexadecimal, "sha256", "64 lower-case hexadecimal digits, or null", self.sha256)

    @property
    def name(self) -> str:
        """Of the file: 'train2017.zip'."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class DownloadConfig:
    """What is downloaded and unpacked into the dataset's folder. connections: how many at once, over all archives.

    keep_archives: whether they stay, in `.archives` there, when all is unpacked.
    """

    connections: int
    keep_archives: bool
    archives: tuple[ArchiveConfig, ...]

    def __post_init__(self) -> None:
        require(1 <= self.connections <= 64, "connections", "between 1 and 64", self.connections)
        names = [archive.name for archive in self.archives]
        require(0 < len(names) == len(set(names)), "archives", "one or more, each of another file name", names)


@dataclass(frozen=True)
class DataConfig:
    """Where images come from: `scenes` are generated, a `folder` is read in place, or filled by a `download` first.

    The sections of what isn't the source are null.
    """

    source: Literal["scenes", "folder", "download"]
    seed: int
    scenes: ScenesConfig | None
    folder: FolderConfig | None
    download: DownloadConfig | None

    def __post_init__(self) -> None:
        for name, sources in (("scenes", ["scenes"]), ("folder", ["folder", "download"]), ("download", ["download"])):
            given, wanted = getattr(self, name) is not None, self.source in sources
            require(
                given == wanted,
                name,
                f"{'its settings' if wanted else 'null'} with source {self.source!r}",
                "settings" if given else None,
            )


@dataclass(frozen=True)
class ResizeConfig:
    """Resize the short side to one of `short` (drawn at random in training), the long side at most `longest`; pixels."""

    short: tuple[int, ...]
    longest: int

    def __post_init__(self) -> None:
        require(len(self.short) > 0 and min(self.short) > 0, "short", "one or more positive sizes", list(self.short))
        require(self.longest >= max(self.short, default=0), "longest", "at least the largest of `short`", self.longest)


@dataclass(frozen=True)
class CropConfig:
    """With `probability`: short side to one of `before`, then a random crop with sides between `smallest` and `largest`."""

    probability: float
    before: tuple[int, ...]
    smallest: int
    largest: int

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "probability", "between 0 and 1", self.probability)
        require(len(self.before) > 0 and min(self.before) > 0, "before", "one or more positive sizes", list(self.before))
        require(0 < self.smallest <= self.largest, "smallest", "between 1 and `largest`", self.smallest)


@dataclass(frozen=True)
class AugmentationConfig:
    """Training augmentation, in this order: flip, crop, resize (section A.4 of the paper). null leaves a step out.

    flip: probability of a horizontal flip.
    """

    flip: float
    crop: CropConfig | None
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        require(0 <= self.flip <= 1, "flip", "a probability between 0 and 1", self.flip)
