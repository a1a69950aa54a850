"""Recognises the split that the name of a file or folder mentions."""

from __future__ import annotations

# A test set is used for validation only if there is no validation set.
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
WORDS = tuple(word for words in SPLITS.values() for word in words)


def split_named(name: str) -> str:
    """Returns the split that a name or a path mentions: 'train', 'val' or 'test'; '' if it mentions none."""
    words = name.lower().replace("-", "_").replace("/", "_").replace(".", "_").split("_")
    for split, names in SPLITS.items():
        if any(word.rstrip("0123456789") in names for word in words):
            return split
    return ""
