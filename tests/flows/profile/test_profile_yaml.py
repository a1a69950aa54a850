"""The YAML of a profile has each key once, and its numbers and dates are read as a user means them."""

from __future__ import annotations

import pytest
import yaml

from flows.profile.profile_yaml import parsed


def test_a_key_that_is_given_twice_is_refused_with_its_line() -> None:
    with pytest.raises(yaml.YAMLError, match="the key 'queries' is given twice") as raised:
        parsed("detector:\n  queries: 12\n  width: 8\n  queries: 30\n")
    assert raised.value.problem_mark.line == 3  # type: ignore[attr-defined]


def test_the_same_key_in_other_mappings_an_anchor_and_a_merge_are_allowed() -> None:
    assert parsed("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: *a\n") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize(
    ("text", "value"), [("1e-5", 1e-5), ("1E+3", 1e3), ("2020-13-45", "2020-13-45"), ("2021-01-02", "2021-01-02")]
)
def test_numbers_in_scientific_notation_are_numbers_and_dates_are_text(text: str, value: object) -> None:
    assert parsed(f"key: {text}") == {"key": value}
