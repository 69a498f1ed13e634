"""Where an index lies."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..wording import short

Where = bool | str | os.PathLike[str]

_START, _END = ".torch_s3io-", ".idx"


class Places(NamedTuple):
    """Of one index.

    Attributes:
        paths: Of the files that it may be in, the best one first.
        name: Tells the index from others, also where its data are copied to another place.
    """

    paths: list[str]
    name: str


def index_places(sources: Sequence[str], recipe: Mapping[str, Any], where: Where) -> Places:
    """The files that the index of these sources may be in.

    Args:
        sources: Absolute paths or patterns, in any order.
        recipe: For JSON; "kind" is a word.
        where: True: beside the data, else in the cache folder. False: nowhere. A path: that file,
            or in that folder, if it is one, or ends as one, in a slash.
    """
    check_where(where)
    folder = folder_of(sources)
    relative = [os.path.relpath(one, folder) for one in sources] if folder else sources
    name, name_in_cache = _name(recipe, relative), _name(recipe, sources)
    if where is False:
        return Places([], name)
    if where is not True:
        path = os.path.abspath(os.path.expanduser(where))
        is_folder = os.path.isdir(path) or os.fspath(where).endswith(os.sep)
        return Places([os.path.join(path, name_in_cache) if is_folder else path], name)
    cached = os.path.join(cache_folder(), name_in_cache)
    return Places([os.path.join(folder, name), cached] if folder else [cached], name)


def check_where(where: Any) -> None:
    """Raises ConfigError for what says no place."""
    is_path = isinstance(where, (str, os.PathLike))
    path = os.fspath(where) if is_path else None
    if not (isinstance(where, bool) or (isinstance(path, str) and path and "\0" not in path)):
        raise ConfigError(
            f"index= is True, False, or the path of a file or folder for the index, not "
            f"{short(where)}"
        )
    if path is not None and os.path.expanduser(path).startswith("~"):
        raise ConfigError(
            f"index={short(path)}: there is no such user; a file of this name is './~...'"
        )


def is_index_name(name: str) -> bool:
    return name.startswith(_START) and name.endswith(_END)


def folder_of(sources: Sequence[str]) -> str:
    """The folder that has all of them, of patterns up to their wildcards; empty: none has."""
    if not sources or any("://" in source for source in sources):
        return ""
    folders = {os.path.dirname(_fixed_part(source)) for source in sources}
    folder = os.path.commonpath(list(folders))
    return "" if folder == os.sep else folder


def _fixed_part(source: str) -> str:
    ends = [source.index(one) for one in "*?[" if one in source]
    return source[: min(ends, default=len(source))]


def cache_folder() -> str:
    """Of this user."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    top = home if os.path.isabs(home) else os.path.expanduser("~/.cache")
    return os.path.join(top, "torch_s3io")


def _name(recipe: Mapping[str, Any], sources: Sequence[str]) -> str:
    """A leading dot hides it from patterns."""
    text = json.dumps([dict(recipe), sorted(sources)], sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{_START}{recipe['kind']}-{digest}{_END}"
