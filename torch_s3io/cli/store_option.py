"""``--store``: how the buckets that a command names are reached, where the environment does not say
so."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import ConfigError
from ..store.s3_config import S3Config
from ..store.stores import reach_buckets, scheme_of
from ..wording import did_you_mean, short

_FIELDS = {field.name: field for field in dataclasses.fields(S3Config)}
_KEYS = {name for name, field in _FIELDS.items() if not field.repr}  # nothing shows them
_BOOLS = {"true": True, "false": False}


def add_store_option(parser: argparse.ArgumentParser, dest: str = "store") -> None:
    """
    Args:
        dest: Another one where the command itself calls ``reach``: no argument names a path.
    """
    parser.add_argument(
        "--store",
        dest=dest,
        type=_config,
        metavar="NAME=VALUE,...",
        help="how buckets are reached: fields of S3Config, such as anonymous=true for public ones, "
        "or endpoint=http://localhost:9000,region=auto; keys come from the environment",
    )


def use_store(args: argparse.Namespace) -> None:
    """All buckets of this process are reached as ``--store`` says, if the command has it.

    Raises:
        ConfigError: No path is in a bucket.
    """
    reach(getattr(args, "store", None), _texts(args))


def reach(config: S3Config | None, paths: Iterable[str]) -> None:
    """All buckets of this process are reached like this, if ``--store`` is given.

    Raises:
        ConfigError: None of these paths is in a bucket.
    """
    if config is None:
        return
    if not any(scheme_of(path) == "s3" for path in paths):
        raise ConfigError("--store is for paths that begin with s3://: leave it out")
    reach_buckets(config)


def store_words(config: S3Config | None) -> list[str]:
    """The option as somebody may have given it."""
    if config is None:
        return []
    values = {name: getattr(config, name) for name in _FIELDS.keys() - _KEYS}
    given = [
        f"{name}={str(values[name]).lower() if isinstance(values[name], bool) else values[name]}"
        for name, field in _FIELDS.items()
        if name in values and values[name] != field.default
    ]
    return ["--store", ",".join(given)]


def _texts(args: argparse.Namespace) -> Iterator[str]:
    for value in vars(args).values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                yield one


def _config(text: str) -> S3Config:
    options: dict[str, Any] = {}
    for one in text.split(","):
        name, _, value = one.partition("=")
        if name in _KEYS:
            raise argparse.ArgumentTypeError(
                f"{name}: all users of a machine see the arguments of its programs: set "
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or give profile="
            )
        if name not in _FIELDS:
            known = [known for known in _FIELDS if known not in _KEYS]
            raise argparse.ArgumentTypeError(
                f"S3Config has no field {short(name)}: {did_you_mean(name, known)}"
            )
        if name in options:
            raise argparse.ArgumentTypeError(f"{name} comes twice")
        options[name] = _value(name, value)
    try:
        return S3Config(**options)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _value(name: str, text: str) -> Any:
    """Of the type that the field's default has."""
    kind: Any = type(_FIELDS[name].default)
    try:
        if kind is bool:
            return _BOOLS[text]
        return kind(text) if kind in (int, float) else text
    except (KeyError, ValueError):
        what = "true or false" if kind is bool else "a number"
        raise argparse.ArgumentTypeError(f"{name} is {what}, not {short(text)}") from None
