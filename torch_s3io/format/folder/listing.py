"""Which files a data set of files has, in columns."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ... import _C
from ...config import PATH_TYPES, path_text
from ...errors import ConfigError, NotFoundError
from ...index.column_file import ColumnFile
from ...index.place import Where, check_where
from ...store.file_columns import FileColumns, FilePattern, inspect_files
from ...store.stores import scheme_of, store_of
from ...wording import short
from ..files import inspect
from ..keys import Keys, Numbers
from ..objects import Column, Objects, shard_of
from ..paths import Paths, find_files
from .folder_index import NOTHING, Contents, IndexColumn, folder_index, labels_in, objects_in
from .labels import label_files

_IS_SPECIAL = re.compile(rb"[*?[]|(?:\A|\0)~")  # a pattern, somebody's home


class FileKeys(Keys):
    """The names of files."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def of(self, numbers: Numbers) -> list[str]:
        return [self._objects.name(number) for number in numbers.tolist()]


@dataclass(frozen=True, eq=False)
class Listing:
    """Files in the order of their samples.

    Attributes:
        objects: One record in each. Their names are what keys are: of a pattern, below its fixed
            part; of a list, below the folder that holds all of them.
        is_pattern: Or it was a list.
        index: Which has them.
    """

    objects: Objects
    is_pattern: bool
    index: ColumnFile | None = None

    @property
    def keys(self) -> Keys:
        return FileKeys(self.objects)

    def sizes(self) -> Column | IndexColumn:
        """Of the files, in bytes: uint64 [n]."""
        if self.index is not None:
            return IndexColumn(self.index, "sizes")
        return np.ascontiguousarray(self.objects.versions["size_bytes"]).view(np.uint64)

    def labels(self) -> tuple[Column | IndexColumn, tuple[str, ...]]:
        """Of each file the number of its class, int64 [n], and the classes, sorted. A class is the
        first folder of a file's name; of a list, the folder that the file lies in.

        Raises:
            DataError: There is no such folder.
        """
        known = None if self.index is None else labels_in(self.index)
        return known or label_files(self.objects, is_parent=not self.is_pattern)


def list_files(paths: Paths, where: Where = False, contents: Contents = NOTHING) -> Listing:
    """The files that a pattern means, by the bytes of their names; those of a list in its order.

    Args:
        paths: A pattern; or a sequence of paths, patterns among them.
        where: The index of a pattern lies, which is made if it is not there; see
            ``folder_index``.
        contents: Of that index.

    Raises:
        NotFoundError: A file is missing; a pattern matches nothing; there are no paths.
        AccessError: A folder cannot be listed, or a file may not be looked at.
        ConfigError: Something that is not a path or no file.
    """
    check_where(where)
    if isinstance(paths, PATH_TYPES):
        path = _text_of(paths)
        if scheme_of(path):
            return _list_elsewhere(path)
        pattern = FilePattern.of(path)
        if pattern is not None:
            return _list_pattern(pattern, where, contents)
        if store_of(path).is_folder(path):
            everything = os.path.join(path, "**", "*.jpg")
            raise ConfigError(
                f"{path}: is a folder; name its files by a pattern, such as {everything!r}"
            )
        paths = [path]
    if not isinstance(paths, Iterable) or isinstance(paths, (set, frozenset)):
        raise ConfigError(
            f"paths must be a pattern or a sequence of paths, not {short(paths)}; of a set or an "
            "iterator, make a list"
        )
    if not isinstance(where, bool):
        raise ConfigError("index= names a place for the index of a pattern, and a list has none")
    names = list(paths)
    if not names:
        raise NotFoundError("there are no files: paths is empty; name files, or a pattern")
    encoded = _encoded(names)
    if scheme_of(os.fsdecode(encoded[0])):
        return _list_elsewhere(names)
    if _IS_SPECIAL.search(b"\0".join(encoded)):
        return _list_special(names)
    return _listing_of(inspect_files(encoded))


def _list_pattern(pattern: FilePattern, where: Where, contents: Contents) -> Listing:
    found = folder_index(pattern, where, contents)
    if isinstance(found, ColumnFile):
        return Listing(objects_in(found), is_pattern=True, index=found)
    above = len(os.fsencode(os.path.join(pattern.folder, "")))
    return Listing(Objects.of_files(found, above), is_pattern=True)


def _listing_of(found: FileColumns) -> Listing:
    above = _C.common_folder_bytes(paths=found.paths.data, path_ends=found.path_ends.data)
    return Listing(Objects.of_files(found, above), is_pattern=False)


def _encoded(names: list[Any]) -> list[bytes]:
    encoded: list[bytes] = []
    with contextlib.suppress(TypeError, UnicodeEncodeError):
        encoded = list(map(os.fsencode, names))  # there may be millions
    is_well = b"" not in encoded and b"\0".join(encoded).count(b"\0") == len(encoded) - 1
    return encoded if is_well else [os.fsencode(path_text(name)) for name in names]


def _text_of(path: Any) -> str:
    return os.path.expanduser(path_text(path))


def _list_special(names: list[Any]) -> Listing:
    """Of a list in which there may be patterns, or homes."""
    parts: list[FileColumns] = []
    for pattern, group in itertools.groupby(map(_text_of, names), FilePattern.of):
        if pattern is None:
            parts.append(inspect_files(list(map(os.fsencode, group))))
        else:
            parts += [pattern.scan()[0] for _ in group]
    return _listing_of(FileColumns.joined(parts))


def _list_elsewhere(paths: Paths) -> Listing:
    """In a store that is not of files."""
    files = find_files(paths)
    shards = [shard_of(file, info, 0, 1) for file, info in zip(files, inspect(files), strict=True)]
    objects = Objects.of(shards)
    is_pattern = isinstance(paths, PATH_TYPES)
    if not is_pattern:
        above = _C.common_folder_bytes(paths=objects.paths.data, path_ends=objects.path_ends.data)
        objects = replace(objects, name_bytes=objects.path_bytes - above)
    return Listing(objects, is_pattern)
