"""Strictly from plain data to frozen dataclasses: an unknown key is an error that suggests one."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from ..errors import ConfigError
from ..wording import one_line, short

Config = TypeVar("Config")

_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip
_MOST = 1 << 62
_types_of: Callable[[Any], dict[str, Any]] = functools.cache(typing.get_type_hints)
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def from_mapping(
    kind: type[Config], values: Any, where: str = "", root: type[Any] | None = None
) -> Config:
    """An instance of a dataclass from a mapping of its fields, nested ones included.

    Args:
        kind: The dataclass.
        values: A mapping, as YAML or JSON gives it. Absent keys have their defaults.
        where: Names the place in errors, as in "storage".
        root: The dataclass that ``where`` begins in, whose keys are suggested; None: ``kind``.

    Raises:
        ConfigError: A key that does not exist, or a value of another type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{where or 'the configuration'} must hold keys and values: {short(values)}"
        )
    known = _types_of(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            suggestion = _suggestion(key, where, names, root or kind)
            raise ConfigError(f"{_join(where, key)} does not exist; {suggestion}")
    arguments = {
        name: _value(known[name], values[name], _join(where, name), root or kind)
        for name in names
        if name in values
    }
    return kind(**arguments)


def to_mapping(config: Any) -> dict[str, Any]:
    """The inverse of from_mapping."""
    return dataclasses.asdict(config)


def keys_with_values(values: Any, where: str = "") -> dict[str, Any]:
    """The values of all keys, those of nested mappings as "storage.depth"."""
    found = {}
    for key, value in values.items():
        name = _join(where, key)
        found.update(keys_with_values(value, name) if isinstance(value, Mapping) else {name: value})
    return found


def with_settings(
    values: Any, settings: list[str], parse: Callable[[str, str], Any]
) -> dict[str, Any]:
    """The mapping with "key.key=value" settings put in; ``parse(key, text)`` gives a value.

    Raises:
        ConfigError: A setting without "=", or below something that holds no keys.
    """
    changed: dict[str, Any] = _copied(values)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"--set {one_line(setting)}: must be KEY=VALUE, as in storage.depth=64"
            )
        key = key.strip()
        *parents, name = key.split(".")
        place = changed
        for parent in parents:
            inner = place.setdefault(parent, {})
            if inner is None or isinstance(inner, str):  # pool: auto, pool: null
                inner = place[parent] = {}
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {one_line(setting)}: {one_line(parent)} holds no keys")
            place = inner
        place[name] = parse(key, text)
    return changed


def takes_text(kind: Any, key: str) -> bool:
    """Whether ``key``, as in "data.folder", is that of a text in this dataclass."""
    for name in key.split("."):
        kind = _types_of(kind).get(name) if is_dataclass(kind) else None
    return kind is str


def _copied(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _copied(value) for key, value in values.items()}
    return values


def _join(where: str, key: Any) -> str:
    name = one_line(key) if isinstance(key, str) else short(key)
    return f"{where}.{name}" if where else name


def _suggestion(key: Any, where: str, names: list[str], root: type[Any]) -> str:
    """A key that is meant perhaps: one beside it, or one of this name elsewhere."""
    wrong = _join("", key)
    near = difflib.get_close_matches(wrong, names, n=1)
    if near:
        return f"did you mean {_join(where, near[0])}?"
    elsewhere = {found.rpartition(".")[2]: found for found in _keys_of(root)}
    near = difflib.get_close_matches(wrong.rpartition(".")[2], elsewhere, n=1)
    known = ", ".join(_join(where, name) for name in names)
    return f"did you mean {elsewhere[near[0]]}?" if near else f"there are: {known}"


def _keys_of(kind: Any, where: str = "") -> list[str]:
    """All keys of a dataclass and of those in it, as "storage.pool.capacity"."""
    if get_origin(kind) in (Union, types.UnionType):
        return [key for inner in get_args(kind) for key in _keys_of(inner, where)]
    if not is_dataclass(kind):
        return []
    keys = []
    for name, inner in _types_of(kind).items():
        keys += [_join(where, name), *_keys_of(inner, _join(where, name))]
    return keys


def _value(kind: Any, value: Any, where: str, root: type[Any]) -> Any:
    """The value if it is of this type (sizes may be texts such as "256 KiB"), else ConfigError."""
    if get_origin(kind) in (Union, types.UnionType):
        return _one_of(get_args(kind), value, where, root)
    if is_dataclass(kind) and isinstance(kind, type):
        return from_mapping(kind, value, where, root)
    if get_origin(kind) is Literal:
        return value  # the dataclass checks it, and names the choices
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= _MOST:
            raise ConfigError(f"{where} is too large, or too small")
        return float(value)
    if kind is int and isinstance(value, str):
        return _size(value, where)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
    raise ConfigError(f"{where} must be {names.get(kind, kind)}, not {short(value)}")


def _one_of(kinds: tuple[Any, ...], value: Any, where: str, root: type[Any]) -> Any:
    if value is None and type(None) in kinds:
        return None
    if isinstance(value, Mapping):
        for kind in kinds:
            if is_dataclass(kind) and isinstance(kind, type):
                return from_mapping(kind, value, where, root)
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if value in choices or (bool in kinds and isinstance(value, bool)):
        return value
    if int in kinds:
        return _value(int, value, where, root)
    allowed = [str(choice) for choice in choices]
    allowed += ["null"] if type(None) in kinds else []
    allowed += ["true", "false"] if bool in kinds else []
    allowed += ["keys and values"] if any(is_dataclass(kind) for kind in kinds) else []
    raise ConfigError(f"{where} must be one of: {', '.join(allowed)}; not {short(value)}")


def _size(text: str, where: str) -> int:
    match = _SIZE.fullmatch(text)
    factor = _UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ConfigError(
            f"{where} must be an integer, or a size such as 256 KiB, not {short(text)}"
        )
    size = float(match[1]) * factor
    if size >= _MOST:
        raise ConfigError(f"{where} is too large: {short(text, 40)}")
    if size != int(size):
        raise ConfigError(f"{where} must be a whole number of bytes, not {short(text)}")
    return int(size)
