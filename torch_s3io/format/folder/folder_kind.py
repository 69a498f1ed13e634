"""The index of the files that a pattern means, for the commands."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import ConfigError
from ...index.column_file import ColumnFile
from ...index.kind import IndexKind
from ...index.place import Where
from ...store.file_columns import FilePattern
from ...store.stores import scheme_of
from ...wording import short, size_text
from .folder_index import KIND, folder_index, is_current, labels_in


def _pattern_of(path: str) -> FilePattern | None:
    return None if scheme_of(path) else FilePattern.of(path)


def _takes(paths: Sequence[str]) -> bool:
    return any(_pattern_of(path) is not None for path in paths)


def _make(paths: Sequence[str], where: Where) -> ColumnFile:
    pattern = _pattern_of(paths[0])
    if len(paths) > 1 or pattern is None:
        raise ConfigError(
            f"{short(paths[0])}, ...: each pattern has an index of its own: give one, in quotes"
        )
    index = folder_index(pattern, where, fewest=1)
    assert index is not None
    return index


def _describe(file: ColumnFile) -> list[tuple[str, str]]:
    sizes, recipe = file.columns["sizes"], file.head["recipe"]
    labels = labels_in(file)
    classes = "none: a file lies in no folder" if labels is None else str(len(labels[1]))
    return [
        ("pattern", f"{recipe.get('pattern')} in {file.head.get('folder')}"),
        ("files", f"{len(sizes)}, {size_text(int(sizes.sum()))}"),
        ("folders", str(len(file.columns["folder_times"]))),
        ("classes", classes),
    ]


FOLDER_KIND = IndexKind(
    KIND,
    "files of a pattern",
    takes=_takes,
    make=_make,
    is_current=is_current,
    describe=_describe,
)
