"""Reads a profile with its comments, and writes the text of a new profile that is made from it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

_YAML = YAML()  # this library keeps the comments of the profile that is copied
_YAML.width = 160
_YAML.representer.add_representer(type(None), lambda yaml, _: yaml.represent_scalar("tag:yaml.org,2002:null", "null"))


def read_with_comments(file: Path) -> Any:
    """Returns the content of a YAML file in types of ruamel.yaml, which hold the comments of the file."""
    return _YAML.load(file.read_text(encoding="utf-8"))


def profile_text(content: Any, comment: str) -> str:
    """Returns the text of a profile under a comment, with new values in one line each and a blank line between sections.

    content: of `read_with_comments`, with new values of plain types. Comments that describe replaced values are left out.
    """
    content.yaml_set_start_comment(comment)
    for section in content.values():
        for key, value in section.items() if isinstance(section, dict) else ():
            if type(value) in (dict, list):  # the value is new; values that were read have ruamel's types
                section[key] = _in_lines(value) if key in ("folder", "augmentation") else _in_one_line(value)
    for study in content["ablations"].values():
        for key in ("resize", "fill"):
            if type(study.get(key)) in (dict, list):
                study[key] = _in_one_line(study[key])
        study.ca.items.pop("resize", None)  # the comment below it describes studies that are left out
    # These comments of the copied profile describe its own values.
    for section, keys in (
        (content["train_detection"], ("targets", "epochs")),
        (content["ablations"]["instance-count"], ("grid", "canvas", "fill")),
    ):
        for key in keys:
            section.ca.items.pop(key, None)
    text = io.StringIO()
    _YAML.dump(content, text)
    lines = [line for line in text.getvalue().splitlines() if line.strip()]
    return "\n".join(f"\n{line}" if place > 1 and line[0].isalpha() else line for place, line in enumerate(lines)) + "\n"


def _in_lines(value: dict[str, Any]) -> CommentedMap:
    return CommentedMap({key: _in_one_line(item) if isinstance(item, dict) else item for key, item in value.items()})


def _in_one_line(value: Any) -> Any:
    if not isinstance(value, (dict, list)):
        return value
    items = {key: _in_one_line(item) for key, item in value.items()} if isinstance(value, dict) else {}
    line = CommentedMap(items) if isinstance(value, dict) else CommentedSeq(value)
    line.fa.set_flow_style()
    return line
