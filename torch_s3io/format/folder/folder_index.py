"""The index of the files that a pattern means: a listing that all processes map.

It is current where no folder has another time of change. So a file that was written anew in its
place is not noticed here, but when it is read: then the index is removed. It has no inodes, which
are others in a copy of the files that keeps their times.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ... import _C
from ...errors import ConfigError, DataError
from ...index.builder import Made, indexed
from ...index.column_file import ColumnFile, fail
from ...index.place import Where, index_places
from ...index.showing import showing
from ...store.file_columns import Column, FileColumns, FilePattern, changed_folder
from ...wording import printable
from ..objects import Objects
from .labels import label_files

KIND = "folder"
_LABELS, _CLASSES = "labels", "classes"
# Fewer are listed anew each time, which takes no longer than looking at an index.
FEWEST_FILES = 10_000

Check = Callable[[ColumnFile], None]

# What there is of n files in m folders: type, and shape where it is not [n].
_COLUMNS = {
    "path_ends": "<u8",
    "versions": "<u8",
    "direct_alignments": "<i8",
    "sizes": "<u8",
}
_FOLDER_COLUMNS = {"folder_path_ends": "<u8", "folder_times": "<i8"}


class IndexColumn(NamedTuple):
    """A column of an index. A pickle of it is small.

    Attributes:
        dtype: The rows of the column are bytes of one element of it each. Empty: they are not.
    """

    file: ColumnFile
    name: str
    dtype: str = ""

    @property
    def array(self) -> Column:
        column = self.file.columns[self.name]
        return column.view(self.dtype)[:, 0] if self.dtype else column


@dataclass(frozen=True)
class Contents:
    """What an index has beside the listing.

    Attributes:
        recipe: As for ``indexed``.
        read: Reads it from the files.
        check: Raises DataError where it does not fit together.
    """

    recipe: Mapping[str, Any]
    read: Callable[[Objects], Made]
    check: Check


NOTHING = Contents({"kind": KIND, "version": 2}, lambda _: ({}, {}), lambda _: None)


def folder_index(
    pattern: FilePattern,
    where: Where,
    contents: Contents = NOTHING,
    fewest: int = FEWEST_FILES,
) -> ColumnFile | FileColumns:
    """The index that is there, if it is current; else a new one. Or the files alone, where there is
    to be none.

    Args:
        where: True: beside the folder, else in the cache folder; but not of few files. False:
            nowhere. A path.
        fewest: What is not few.

    Raises:
        ConfigError: ``where`` is in the folder.
        As ``FilePattern.scan`` and ``indexed``.
    """
    sources = [pattern.folder]
    # The folder as well: several names of it, by links, have an index each.
    recipe = {**contents.recipe, "pattern": pattern.names, "folder": pattern.folder}
    places = index_places(sources, recipe, where).paths
    if not isinstance(where, bool):
        _refuse_within(pattern.folder, places[0])
    is_there = any(map(os.path.exists, places))
    if where is False:
        return pattern.scan()[0]
    if where is True and not is_there:
        few = _scan_fewer(pattern, fewest)
        if few is not None:
            return few
    # It lies beside the folder: in it, it would change the folder's time of change.
    return indexed(
        sources,
        recipe,
        lambda file: is_current(file, contents.check),
        lambda _: _made(pattern, contents),
        where,
        passing=("folder_paths", *_FOLDER_COLUMNS),
    )


def _refuse_within(folder: str, path: str) -> None:
    top, place = os.path.realpath(folder), os.path.realpath(os.path.dirname(path))
    if os.path.commonpath([top, place]) == top:
        raise ConfigError(
            f"index={printable(path)!r}: lies in the folder that the pattern lists, "
            f"{printable(folder)}, of which each new index changes the time of change: no index "
            "would hold. Name a place outside of it"
        )


class _Many(Exception):
    """There are many files."""


def _scan_fewer(pattern: FilePattern, many: int) -> FileColumns | None:
    """The files; None: there are as many."""

    def count(files: int, _: int) -> None:
        if files >= many:
            raise _Many

    try:
        return pattern.scan(progress=count)[0]
    except _Many:
        return None


def _made(pattern: FilePattern, contents: Contents) -> Made:
    with showing(f"listing {pattern.folder}", "file") as show:
        files, folders = pattern.scan(settles=True, progress=lambda found, _: show(found, 0))
    above = len(os.fsencode(os.path.join(pattern.folder, "")))
    without_inodes = files.versions * np.array([1, 0, 1, 1], np.uint64)
    head: dict[str, Any] = {"folder": pattern.folder, "above": above}
    columns = {
        "paths": files.paths,
        "path_ends": files.path_ends,
        "versions": without_inodes,
        "direct_alignments": files.direct_alignments,
        "sizes": np.ascontiguousarray(files.versions[:, 2]),
        "folder_paths": folders.paths,
        "folder_path_ends": folders.path_ends,
        "folder_times": np.ascontiguousarray(folders.versions[:, 3]).view(np.int64),
    }
    objects = Objects.of_files(files, above)
    # Where a file lies in no folder, whoever asks for labels hears of it.
    with contextlib.suppress(DataError):
        labels, classes = label_files(objects, is_parent=False)
        head, columns = {**head, _CLASSES: list(classes)}, {**columns, _LABELS: labels}
    more, more_columns = contents.read(objects)
    return {**head, **more}, {**columns, **more_columns}


def is_current(file: ColumnFile, check: Check = lambda _: None) -> bool:
    """Whether no folder of an index has changed.

    Args:
        check: As of ``Contents``.

    Raises:
        DataError: It is damaged.
    """
    file.check()
    _check(file)
    check(file)
    columns = file.columns
    number = changed_folder(
        columns["folder_paths"], columns["folder_path_ends"], columns["folder_times"]
    )
    return number < 0


def _check(file: ColumnFile) -> None:
    """Raises DataError where it does not fit together."""
    columns, head = file.columns, file.head
    for wanted in (_COLUMNS, _FOLDER_COLUMNS):
        for name, dtype in wanted.items():
            column = columns.get(name)
            axes = 2 if name == "versions" else 1
            if column is None or column.dtype.str != dtype or column.ndim != axes:
                fail(file.path, f"its column {name!r} is of another type, or missing")
        if len({len(columns[name]) for name in wanted}) != 1:
            fail(file.path, "its columns differ in length")
    count = len(columns["sizes"])
    has_folders = len(columns["folder_times"]) > 0
    texts = [columns.get(name) for name in ("paths", "folder_paths")]
    has_texts = all(one is not None and one.dtype == np.uint8 and one.ndim == 1 for one in texts)
    if not has_texts or columns["versions"].shape != (count, 4) or not (count and has_folders):
        fail(file.path, "its columns do not fit together")
    above = head.get("above")
    if type(above) is not int or above < 1:
        fail(file.path, "it has no folder")
    least = {"": above + 1, "folder_": 1}
    for of, shortest in least.items():
        ends = columns[f"{of}path_ends"].astype(np.int64)
        if int(np.diff(ends, prepend=0).min()) < shortest or ends[-1] != len(columns[f"{of}paths"]):
            fail(file.path, "its paths do not follow each other, below its folder")
    if not _lie_below(columns["paths"], columns["path_ends"], head.get("folder"), above):
        fail(file.path, "a path in it does not lie below its folder")
    labels, classes = columns.get(_LABELS), head.get(_CLASSES, [])
    if not isinstance(classes, list) or not all(isinstance(one, str) for one in classes):
        fail(file.path, "its classes are no names")
    if labels is not None and (
        labels.dtype != np.int64
        or labels.shape != (count,)
        or not 0 <= int(labels.min()) <= int(labels.max()) < len(classes)
    ):
        fail(file.path, "its labels have no classes")


def _lie_below(paths: Column, path_ends: Column, folder: Any, above: int) -> bool:
    top = os.fsencode(os.path.join(folder, "")) if isinstance(folder, str) else b""
    return (
        len(top) == above
        and paths[:above].tobytes() == top
        and _C.common_folder_bytes(paths=paths.data, path_ends=path_ends.data) >= above
        and re.search(rb"/\.\.(?:/|\Z)", paths.data) is None
    )


def objects_in(file: ColumnFile) -> Objects:
    columns = file.columns
    found = FileColumns(
        columns["paths"], columns["path_ends"], columns["versions"], columns["direct_alignments"]
    )
    recipe = partial(objects_in, file) if file.path else None
    return Objects.of_files(found, file.head["above"], recipe, (file,))


def labels_in(file: ColumnFile) -> tuple[IndexColumn, tuple[str, ...]] | None:
    """The label of each file, and the classes; None: a file lies in no folder."""
    if _LABELS not in file.columns:
        return None
    return IndexColumn(file, _LABELS), tuple(file.head[_CLASSES])
