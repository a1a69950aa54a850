"""Defines the configuration of the data stage: where the images and annotations of a profile come from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from detr_core.config import require
from detr_core.data.config import SplitConfig
from detr_core.sources.formats.spec import KNOWN


@dataclass(frozen=True)
class ScenesConfig:
    """Generated scenes: a COCO dataset of things and stuff that a small DETR learns in minutes.

    train, val: the number of images of each split. size: the side of the square images, pixels. objects: the smallest and
    largest number of objects per image. object_size: the smallest and largest extent, pixels, drawn log-uniformly. beside: the
    share of objects that are placed next to an object of the same class, with `beside_size` times its size. visible: the part
    of every object that must stay unoccluded. color_noise: the standard deviation of a class colour. random_color: the share of
    objects with a random colour. texture: the smallest and largest amplitude of its texture. rotation: the largest rotation in
    either direction, radians. log_aspect: the largest absolute logarithm of the aspect ratio.
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
        require(self.objects[0] >= 1, "objects", "at least 1 object per image", self.objects[0])
        require(self.object_size[0] >= 4, "object_size", "at least 4 pixels", self.object_size[0])
        require(self.object_size[1] <= self.size, "object_size", f"at most the image's {self.size} pixels", self.object_size[1])
        for name in ("beside", "visible", "random_color"):
            require(0 <= getattr(self, name) <= 1, name, "a share between 0 and 1", getattr(self, name))
        for name in ("color_noise", "rotation", "log_aspect"):
            require(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))


@dataclass(frozen=True)
class FolderConfig:
    """A dataset that is already on disk; its images are read in place.

    root: an absolute path, or a path relative to the project. format: the format of the annotations: `coco`, `yolo`, or a row of
    formats/spec.py. With `coco`, the splits name COCO's files. With `yolo`, `instances` is a folder of label files, or the name
    of the dataset's description (`data.yaml`), whose entry for the split names the images; that description has the class names.
    With `voc`, `instances` is a folder of XML files, such as `Annotations`, or a list of image names such as
    `ImageSets/Main/train.txt`.
    labels: how the rows of YOLO's label files are read: `boxes` (center and size; a confidence and a track id may follow, which
    are left out), `polygons` (boxes may occur among them) or `keypoints` (a box, and keypoints, which are left out). null, the
    value of profiles without the key, decides it from all rows, and refuses an ambiguous dataset. It is null for other formats.
    val: null takes `val_share` of train's images as validation split, by class and by the section's seed; otherwise val_share
    is null.
    """

    root: str
    format: str
    train: SplitConfig
    val: SplitConfig | None
    val_share: float | None
    labels: Literal["boxes", "polygons", "keypoints"] | None = field(default=None, metadata={"optional": True})

    def __post_init__(self) -> None:
        require(self.format in KNOWN, "format", f"one of {', '.join(map(repr, KNOWN))}", self.format)
        require(self.labels is None or self.format == "yolo", "labels", f"null with format {self.format!r}", self.labels)
        require(
            (self.val is None) == (self.val_share is not None),
            "val_share",
            "a share if `val` is null, and null if `val` is given",
            self.val_share,
        )
        require(self.val_share is None or 0 < self.val_share < 1, "val_share", "between 0 and 1", self.val_share)
        for name, split in (("train", self.train), ("val", self.val)):
            only_boxes = split is None or (split.instances is not None and split.panoptic is None)
            require(self.format == "coco" or only_boxes, name, f"only `instances` with format {self.format!r}", "other keys too")


@dataclass(frozen=True)
class ArchiveConfig:
    """A zip archive at an address.

    size: bytes. sha256: 64 hexadecimal digits. null means that a value is not known and not verified, which a message reports.
    inside: archives within this archive, as paths below the dataset's folder; each is unpacked in its folder and removed.
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
        """The name of the archive's file, such as 'train2017.zip'."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class DownloadConfig:
    """The archives that are downloaded and unpacked into the dataset's folder.

    connections: the number of simultaneous connections over all archives. keep_archives: whether the archives are kept in the
    subfolder `.archives` after they are unpacked.
    """

    connections: int
    keep_archives: bool
    archives: tuple[ArchiveConfig, ...]

    def __post_init__(self) -> None:
        require(1 <= self.connections <= 64, "connections", "between 1 and 64", self.connections)
        names = [archive.name for archive in self.archives]
        require(0 < len(names) == len(set(names)), "archives", "one or more archives with distinct file names", names)


@dataclass(frozen=True)
class DataConfig:
    """The source of the images: `scenes` are generated, a `folder` is read in place, a `download` fills the folder first.

    Sections that the source does not use are null.
    """

    source: Literal["scenes", "folder", "download"]
    seed: int
    scenes: ScenesConfig | None
    folder: FolderConfig | None
    download: DownloadConfig | None

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "seed", "0 or more, below 2^63", self.seed)
        for name, sources in (("scenes", ["scenes"]), ("folder", ["folder", "download"]), ("download", ["download"])):
            has_settings, needs_settings = getattr(self, name) is not None, self.source in sources
            require(
                has_settings == needs_settings,
                name,
                f"{'its settings' if needs_settings else 'null'} with source {self.source!r}",
                "settings" if has_settings else None,
            )
