"""What ``info`` and ``index`` say of an index."""

from __future__ import annotations

import os
from typing import Any

from ..format.index_kinds import indexes_of, kind_of
from ..format.manifest import has_manifest
from ..index.column_file import ColumnFile, is_index, map_columns
from ..store.file_columns import FilePattern
from ..store.stores import scheme_of
from ..wording import size_text


def indexes_at(path: str) -> list[ColumnFile]:
    """The index that the path is, or those of the data in a folder that nobody packed, or that of
    a pattern."""
    if scheme_of(path):  # `index` shows those
        return []
    if os.path.isdir(path):
        return [] if has_manifest(path) else list(indexes_of(path))
    if is_index(path):
        return [map_columns(path)]
    pattern = None if os.path.exists(path) else FilePattern.of(path)
    if pattern is None:
        return []
    return [file for file in indexes_of(pattern.folder) if _is_of(file, pattern)]


def _is_of(file: ColumnFile, pattern: FilePattern) -> bool:
    recipe = file.head.get("recipe")
    return (
        isinstance(recipe, dict)
        and recipe.get("folder") == pattern.folder
        and recipe.get("pattern") == pattern.names
    )


def index_as_json(file: ColumnFile) -> dict[str, Any]:
    """Raises DataError where it is damaged: all of it is read."""
    file.check()
    kind = kind_of(file)
    return {
        "path": file.path,
        "kind": kind.name,
        "size_bytes": os.path.getsize(file.path),
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
        f"  index        of {kind.data}, {size_text(os.path.getsize(file.path))}; {state}",
        *(f"  {name:<12} {text}" for name, text in kind.describe(file)),
    ]
