"""The kinds of indexes that the commands know: one line for each format that has one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ..errors import ConfigError, Error
from ..index.column_file import ColumnFile, map_columns
from ..index.kind import IndexKind
from ..index.place import cache_folder, is_index_name
from ..wording import listed, short
from .folder.folder_kind import ARRAY_KIND, FOLDER_KIND
from .tar.tar_kind import TAR_KIND
from .tokens.token_kind import TOKEN_KIND

_KINDS = {kind.name: kind for kind in (TAR_KIND, ARRAY_KIND, FOLDER_KIND, TOKEN_KIND)}


def kind_for(paths: Sequence[str]) -> IndexKind:
    """That of an index of these data.

    Raises:
        ConfigError: There is none.
    """
    for kind in _KINDS.values():
        if kind.takes(paths):
            return kind
    known = listed([kind.data for kind in _KINDS.values()])
    raise ConfigError(
        f"{short(paths[0])}: has no index; there are those of {known}. Other data need none"
    )


def kind_of(file: ColumnFile) -> IndexKind:
    """That of this index.

    Raises:
        ConfigError: This version knows no such kind.
    """
    recipe = file.head.get("recipe")
    name = recipe.get("kind") if isinstance(recipe, dict) else None
    if name not in _KINDS:
        raise ConfigError(f"{file.path}: is an index of {short(name)}; update torch_s3io")
    return _KINDS[name]


def indexes_of(folder: str) -> Iterator[ColumnFile]:
    """Those that lie in the folder, and those of data in it that lie beside it or in the cache
    folder; of which none is damaged."""
    folder = os.path.abspath(folder)
    for place in dict.fromkeys((folder, os.path.dirname(folder), cache_folder())):
        for path in _index_paths(place):
            try:
                file = map_columns(path)
            except Error:
                continue  # whoever needs it makes it again
            if place == folder or file.head.get("folder") == folder:
                yield file


def _index_paths(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if is_index_name(entry.name))
    except OSError:
        return []
