"""Where an index lies."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..config import path_text, refuse_address
from ..errors import ConfigError
from ..store.stores import scheme_of
from ..wording import short

Where = bool | str | os.PathLike[str]

_START, _END = ".torch_s3io-", ".idx"
ANY_INDEX = f"{_START}*{_END}"  # a pattern of their names
_BUCKET_PARTS = 3  # of "s3://bucket".split("/")


class Places(NamedTuple):
    """Of one index.

    Attributes:
        paths: Of the files that it may be in, the best one first.
        name: Tells the index from others, also where its data are copied to another place.
        in_bucket: The object that a file in the cache folder is a copy of; empty: there is none.
    """

    paths: list[str]
    name: str
    in_bucket: str = ""


def index_places(sources: Sequence[str], recipe: Mapping[str, Any], where: Where) -> Places:
    """The files that the index of these sources may be in.

    Args:
        sources: Absolute paths or patterns, in any order.
        recipe: For JSON; "kind" is a word.
        where: True: beside the data, else in the cache folder. False: nowhere. A path: that file,
            or in that folder, if it is one, or ends as one, in a slash. In a bucket it is always
            that of a folder.
    """
    check_where(where)
    folder = folder_of(sources)
    name, name_in_cache = _name(recipe, names_below(folder, sources)), _name(recipe, sources)
    if where is False:
        return Places([], name)
    if where is not True and _is_in_bucket(os.fspath(where)):
        path = f"{os.fspath(where).removesuffix('/')}/{name_in_cache}"
        return Places([_in_cache(_name(recipe, [path]))], name, path)
    if where is not True:
        path = os.path.abspath(os.path.expanduser(where))
        is_folder = os.path.isdir(path) or os.fspath(where).endswith(os.sep)
        return Places([os.path.join(path, name_in_cache) if is_folder else path], name)
    cached = _in_cache(name_in_cache)
    if _is_in_bucket(folder):
        return Places([cached], name, path_below(folder, name))
    return Places([path_below(folder, name), cached] if folder else [cached], name)


def check_where(where: Any) -> None:
    """Raises ConfigError for what says no place."""
    if isinstance(where, bool):
        return
    what = "index= is True, False, or the path of a file or folder for the index"
    path = os.fspath(where) if isinstance(where, (str, os.PathLike)) else None
    if not isinstance(path, str):
        raise ConfigError(f"{what}, not {short(where)}")
    try:
        path_text(path)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
    if os.path.expanduser(path).startswith("~"):
        raise ConfigError(
            f"index={short(path)}: there is no such user; a file of this name is './~...'"
        )
    if not _is_in_bucket(path):
        refuse_address(path)
    elif not path.split("/")[2]:
        raise ConfigError(f"index={short(path)}: name a bucket, as in 's3://bucket/index/'")


def _is_in_bucket(path: str) -> bool:
    return scheme_of(path) == "s3"


def is_index_name(name: str) -> bool:
    return name.startswith(_START) and name.endswith(_END)


def folder_of(sources: Sequence[str]) -> str:
    """The folder that has all of them, of patterns up to their wildcards; empty: none has."""
    schemes = set(map(scheme_of, sources))
    fixed = map(_fixed_part, sources)
    if schemes == {"s3"}:
        parts = [part.split("/")[:-1] for part in fixed]
        common = os.path.commonprefix(parts)  # noqa: RUF071  (of lists)
        return "/".join(common) if len(common) >= _BUCKET_PARTS else ""
    if schemes != {""}:
        return ""
    folder = os.path.commonpath(set(map(os.path.dirname, fixed)))
    return "" if folder == os.sep else folder


def names_below(folder: str, paths: Sequence[str]) -> list[str]:
    """What ``path_below`` makes these paths of; themselves where there is no folder."""
    if _is_in_bucket(folder):
        return [path[len(folder) + 1 :] for path in paths]
    return [os.path.relpath(path, folder) for path in paths] if folder else list(paths)


def path_below(folder: str, name: str) -> str:
    """A key may have any characters, slashes among them, where they would end a path."""
    return f"{folder}/{name}" if _is_in_bucket(folder) else os.path.join(folder, name)


def _fixed_part(source: str) -> str:
    ends = [source.index(one) for one in "*?[" if one in source]
    return source[: min(ends, default=len(source))]


def cache_folder() -> str:
    """Of this user."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    top = home if os.path.isabs(home) else os.path.expanduser("~/.cache")
    return os.path.join(top, "torch_s3io")


def _in_cache(name: str) -> str:
    return os.path.join(cache_folder(), name)


def _name(recipe: Mapping[str, Any], sources: Sequence[str]) -> str:
    """A leading dot hides it from patterns."""
    text = json.dumps([dict(recipe), sorted(sources)], sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{_START}{recipe['kind']}-{digest}{_END}"
