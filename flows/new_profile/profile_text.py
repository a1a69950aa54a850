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
    for section in content.values():
        if isinstance(section, dict):
            _shorten_new_values(section)
    _drop_comments(content["train_detection"], ("targets", "epochs"))
    return _text(content, comment)


def studies_text(studies: Any, comment: str) -> str:
    """Returns the text of a profile's studies under a comment, in the form of `profile_text`.

    The section `training` of `studies` must be empty.
    """
    for study in studies["evaluating"].values():
        _shorten_new_values(study)
        _drop_comments(study, ("grid", "canvas", "fill"))
    _drop_comments(studies, ("training",))
    studies.yaml_add_eol_comment("docs/studies.md says how to write a study of your own", "training", column=0)
    return _text(studies, comment)


def _shorten_new_values(section: Any) -> None:
    """Gives new values of a section one line each; values that were read have the types of ruamel.yaml."""
    for key, value in section.items():
        if type(value) in (dict, list):
            section[key] = _in_lines(value) if key in ("folder", "augmentation") else _in_one_line(value)


def _drop_comments(section: Any, keys: tuple[str, ...]) -> None:
    """Removes the comments on these keys, because they describe the values of the copied profile."""
    for key in keys:
        section.ca.items.pop(key, None)


def _text(content: Any, comment: str) -> str:
    content.yaml_set_start_comment(comment)
    text = io.StringIO()
    _YAML.dump(content, text)
    lines = [line for line in text.getvalue().splitlines() if line.strip()]
    return "\n".join(f"\n{line}" if index > 1 and line[0].isalpha() else line for index, line in enumerate(lines)) + "\n"


def _in_lines(value: dict[str, Any]) -> CommentedMap:
    return CommentedMap({key: _in_one_line(item) if isinstance(item, dict) else item for key, item in value.items()})


def _in_one_line(value: Any) -> Any:
    if not isinstance(value, (dict, list)):
        return value
    items = {key: _in_one_line(item) for key, item in value.items()} if isinstance(value, dict) else {}
    line = CommentedMap(items) if isinstance(value, dict) else CommentedSeq(value)
    line.fa.set_flow_style()
    return line
