"""The words by which the names of files and folders tell the split that they are of."""

from __future__ import annotations

# A test set is validated on where there is no validation set, else kept for the end.
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
WORDS = tuple(word for words in SPLITS.values() for word in words)


def split_named(name: str) -> str:
    """The split that a name or a path says it is of: 'train', 'val' or 'test'; '' where it doesn't say."""
    words = name.lower().replace("-", "_").replace("/", "_").replace(".", "_").split("_")
    for split, names in SPLITS.items():
        if any(word.rstrip("0123456789") in names for word in words):
            return split
    return ""
