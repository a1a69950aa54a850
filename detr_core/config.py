"""Builds frozen dataclasses from the mappings of a parameters file, and refuses keys and values that the dataclasses don't allow.

Each dataclass is defined beside the code that it configures; this module only builds instances. The type hints are the schema:
bool, int, float, str, Literal, `X | None`, `tuple[X, ...]`, `tuple[X, Y]`, `dict[str, X]`, nested dataclasses, and Any, which
accepts every YAML value. In a union `A | B` of dataclasses each one has a field `kind`, a Literal of one value, which selects the
dataclass. `Annotated[dict[str, X], choose]` is a mapping whose values have different types: each value is built as the dataclass
that `choose(key, value)` returns, which raises ConfigError for an unknown key. Every field must be given, because only
the parameters file holds values. The exception is a field with the metadata `optional`, which older profiles do not have.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from detr_core.errors import ExpectedError

T = TypeVar("T")


class ConfigError(ExpectedError, ValueError):
    """A parameters file can't be used. The message names the file, the key, what was expected and what was found."""


def require(condition: bool, field: str, expected: str, value: object) -> None:
    """Raises ConfigError 'FIELD: expected EXPECTED, found VALUE' unless `condition` is true.

    The method `__post_init__` of a configuration calls this function.
    """
    if not condition:
        raise ConfigError(f"{field}: expected {expected}, found {value!r}")


def require_between(low: int, high: int, field: str, value: int) -> None:
    """Raises ConfigError unless `value` is from `low` to `high`. The upper bound refuses a mistyped large number
    before it fills the memory."""
    require(low <= value <= high, field, f"{low:,} to {high:,}", value)


def build(kind: type[T], value: object, where: str) -> T:
    """Returns an instance of the dataclass `kind`, built from the mapping `value`.

    where: the prefix of error messages, which is the file's name, such as 'params/demo.yaml'.
    Raises ConfigError for a missing or unknown key, a value of the wrong type, or a value that `kind` refuses.
    """
    return typing.cast(T, _convert(kind, value, where))


def as_dict(config: Any) -> dict[str, Any]:
    """Returns the plain mapping from which `build` makes this dataclass. Tuples become lists, as in YAML and JSON."""
    return typing.cast(dict[str, Any], _plain(dataclasses.asdict(config)))


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the mapping with nested keys joined by dots: {'a': {'b': 1}} becomes {'a.b': 1}. Lists are not split."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast(type, kind), value, where)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        kinds = [argument for argument in arguments if argument is not type(None)]
        if len(kinds) > 1 and all(dataclasses.is_dataclass(kind) for kind in kinds):
            return _dataclass(_kind_of_value(kinds, value, where), value, where)
        kind = next((kind for kind in kinds if type(value) is kind), kinds[0])
        return _convert(kind, value, where)
    if kind is Any:
        return value
    if origin is Annotated:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a mapping, found {value!r}")
        choose = arguments[1]
        kinds_of = {str(key): _chosen(choose, str(key), item, where) for key, item in value.items()}
        return {str(key): _convert(kinds_of[str(key)], item, f"{where}.{key}") for key, item in value.items()}
    if origin is Literal:
        if value not in arguments or type(value) not in {type(argument) for argument in arguments}:
            raise ConfigError(f"{where}: expected one of {', '.join(map(repr, arguments))}, found {value!r}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a mapping, found {value!r}")
        return {str(key): _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _scalar(kind, value, where)


def _chosen(choose: Callable[[str, Any], Any], key: str, value: Any, where: str) -> Any:
    try:
        return choose(key, value)
    except ConfigError as error:
        raise ConfigError(_under(where, error)) from None


def _kind_of_value(kinds: list[type], value: Any, where: str) -> type:
    known = {typing.get_args(typing.get_type_hints(kind)["kind"])[0]: kind for kind in kinds}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping with `kind` and the keys of that kind, found {value!r}")
    name = value.get("kind")
    if not isinstance(name, str) or name not in known:
        problem = f"found {name!r}" if "kind" in value else "found none"
        raise ConfigError(f"{_under(where, 'kind')}: expected one of {', '.join(map(repr, known))}, {problem}")
    return known[name]


def _dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping with {', '.join(_names(kind))}, found {value!r}")
    names, hints = _names(kind), typing.get_type_hints(kind, include_extras=True)
    for key in value:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names)}"
            raise ConfigError(f"{_under(where, key)}: unknown key; {hint}")
    optional = {field.name for field in dataclasses.fields(kind) if field.metadata.get("optional")}
    for name in names:
        if name not in value and name not in optional:
            raise ConfigError(f"{_under(where, name)}: missing; expected {_describe(hints[name])}")
    fields = {name: _convert(hints[name], value[name], _under(where, name)) for name in names if name in value}
    try:
        return kind(**fields)
    except ConfigError as error:
        raise ConfigError(_under(where, error)) from None


def _tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where}: expected a list, found {value!r}")
    kinds = (arguments[0],) * len(value) if len(arguments) == 2 and arguments[1] is Ellipsis else arguments
    if len(kinds) != len(value):
        raise ConfigError(f"{where}: expected {len(kinds)} values, found {len(value)}: {value!r}")
    return tuple(_convert(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _scalar(kind: Any, value: Any, where: str) -> Any:
    # An int is accepted where a float is expected. A bool is not, although bool is a subclass of int in Python.
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:  # a number with hundreds of digits
            raise ConfigError(f"{where}: expected {_describe(kind)}, found a whole number above 1e308") from None
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        quotes = "; write it in quotes" if kind is str and isinstance(value, (int, float)) else ""
        raise ConfigError(f"{where}: expected {_describe(kind)}, found {value!r}{quotes}")
    return value


def _under(where: str, key: object) -> str:
    # 'params/demo.yaml' + 'data' -> 'params/demo.yaml: data'; 'params/demo.yaml: data' + 'seed' -> 'params/demo.yaml: data.seed'
    return f"{where}.{key}" if ": " in where else f"{where}: {key}"


def _names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _describe(kind: Any) -> str:
    if dataclasses.is_dataclass(kind):
        return f"a mapping with {', '.join(_names(typing.cast(type, kind)))}"
    if typing.get_origin(kind) is tuple:
        return "a list"
    return {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}.get(kind, str(kind))
