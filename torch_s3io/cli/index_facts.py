"""What ``info`` and ``index`` say of an index."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..format.index_kinds import indexes_of, kind_of
from ..format.manifest import has_manifest
from ..index.column_file import ColumnFile, is_index, map_columns
from ..index.in_bucket import read_index
from ..index.place import ANY_INDEX, folder_of, is_index_name
from ..store.file_columns import FilePattern
from ..store.key_patterns import is_pattern
from ..store.stores import scheme_of, store_of
from ..wording import size_text

_MOST_BYTES = 1 << 40  # of an index in a bucket


@contextmanager
def indexes_at(path: str) -> Iterator[list[ColumnFile]]:
    """The index that the path is, or those of the data in a folder that nobody packed, or that of
    a pattern. Of those in a bucket there are copies, for so long."""
    if not scheme_of(path):
        yield _indexes_of_files(path)
        return
    with tempfile.TemporaryDirectory(prefix="torch_s3io-") as folder:
        yield [
            _copied(one, os.path.join(folder, str(number)))
            for number, one in enumerate(_objects_at(path))
        ]


def _objects_at(path: str) -> list[str]:
    """The indexes that are objects: this one, or those that lie in a folder, or beside the data of
    a pattern."""
    if is_index_name(os.path.basename(path)):
        return [path]
    if not is_pattern(path) and has_manifest(path):
        return []
    folder = folder_of([path]) if is_pattern(path) else path.rstrip("/")
    return store_of(path).matches(f"{glob.escape(folder)}/{ANY_INDEX}", "name")


def _copied(path: str, to: str) -> ColumnFile:
    with open(to, "wb") as file:
        read_index(path, file, _MOST_BYTES)
    return map_columns(to, called=path)


def _indexes_of_files(path: str) -> list[ColumnFile]:
    if os.path.isdir(path):
        return [] if has_manifest(path) else list(indexes_of(path))
    if is_index(path):
        return [map_columns(path)]
    pattern = None if os.path.exists(path) else FilePattern.of(path)
    if pattern is None:
        return []
    found = list(indexes_of(pattern.folder))
    exact = [file for file in found if _pattern_of(file) == (pattern.folder, pattern.names)]
    return exact or [file for file in found if _pattern_of(file) is None]


def _pattern_of(file: ColumnFile) -> tuple[Any, Any] | None:
    """None: its kind does not say, and it may be of any files in its folder."""
    recipe = file.head.get("recipe")
    if not isinstance(recipe, dict) or "pattern" not in recipe:
        return None
    return recipe.get("folder"), recipe["pattern"]


def index_as_json(file: ColumnFile) -> dict[str, Any]:
    """Raises DataError where it is damaged: all of it is read."""
    file.check()
    kind = kind_of(file)
    return {
        "path": file.path,
        "kind": kind.name,
        "size_bytes": file.size_bytes,
        "is_current": kind.is_current(file),
        **dict(kind.describe(file)),
    }


def index_as_text(file: ColumnFile) -> list[str]:
    """Raises as ``index_as_json``."""
    file.check()
    kind = kind_of(file)
    state = "as the data are" if kind.is_current(file) else "STALE: the data have changed"
    return [
        file.path,
        f"  index        of {kind.data}, {size_text(file.size_bytes)}; {state}",
        *(f"  {name:<12} {text}" for name, text in kind.describe(file)),
    ]
