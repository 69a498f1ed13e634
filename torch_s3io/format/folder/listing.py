"""Which files a data set of files has, in columns."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from ... import _C
from ...errors import ConfigError, NotFoundError
from ...store.file_columns import FileColumns, FilePattern, inspect_files
from ...store.stores import scheme_of, store_of
from ...wording import short
from ..files import inspect
from ..objects import Column, Objects, shard_of
from ..paths import Paths, find_files

Progress = Callable[[int], None]

_PATH = (str, bytes, os.PathLike)
_IS_SPECIAL = re.compile(rb"[*?[]|(?:\A|\0)~")  # a pattern, somebody's home


@dataclass(frozen=True, eq=False)
class Listing:
    """Files in the order of their samples.

    Attributes:
        objects: One record in each. Their names are what keys are: of a pattern, below its fixed
            part; of a list, below the folder that holds all of them.
        is_pattern: Or it was a list.
    """

    objects: Objects
    is_pattern: bool

    def labels(self) -> tuple[Column, tuple[str, ...]]:
        """Of each file the number of its class, int64 [n], and the classes, sorted. A class is the
        first folder of a file's name; of a list, the folder that the file lies in.

        Raises:
            DataError: There is no such folder.
        """
        return label_files(self.objects, is_parent=not self.is_pattern)


def label_files(objects: Objects, is_parent: bool) -> tuple[Column, tuple[str, ...]]:
    """By the first folders of names, or by the folders that files lie in: as ``Listing.labels``."""
    labels, classes = _C.folder_labels(
        paths=objects.paths.data,
        path_ends=objects.path_ends.data,
        name_bytes=objects.name_bytes,
        is_parent=is_parent,
    )
    return labels, tuple(map(os.fsdecode, classes))


def list_files(paths: Paths, progress: Progress | None = None) -> Listing:
    """The files that a pattern means, by the bytes of their names; those of a list in its order.

    Args:
        paths: A pattern; or a sequence of paths, patterns among them.
        progress: Is called now and then with the number of files so far.

    Raises:
        NotFoundError: A file is missing; a pattern matches nothing; there are no paths.
        AccessError: A folder cannot be listed, or a file may not be looked at.
        ConfigError: Something that is not a path or no file.
    """
    if isinstance(paths, _PATH):
        path = _text_of(paths)
        if scheme_of(path):
            return _list_elsewhere(path)
        pattern = FilePattern.of(path)
        if pattern is not None:
            return list_pattern(pattern, progress)
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
    names = list(paths)
    if not names:
        raise NotFoundError("there are no files: paths is empty; name files, or a pattern")
    encoded = _encoded(names)
    if scheme_of(os.fsdecode(encoded[0])):
        return _list_elsewhere(names)
    if _IS_SPECIAL.search(b"\0".join(encoded)):
        return _list_special(names, progress)
    return _listing_of(inspect_files(encoded, progress))


def list_pattern(pattern: FilePattern, progress: Progress | None = None) -> Listing:
    found, _ = pattern.scan(progress=progress and (lambda files, _: progress(files)))
    above = len(os.fsencode(os.path.join(pattern.folder, "")))
    return Listing(Objects.of_files(found, above), is_pattern=True)


def _listing_of(found: FileColumns) -> Listing:
    above = _C.common_folder_bytes(paths=found.paths.data, path_ends=found.path_ends.data)
    return Listing(Objects.of_files(found, above), is_pattern=False)


def _encoded(names: list[Any]) -> list[bytes]:
    try:
        encoded = list(map(os.fsencode, names))
    except TypeError:
        wrong = next(name for name in names if not isinstance(name, _PATH))
        raise ConfigError(f"{short(wrong)} is not a path") from None
    if b"" in encoded or b"\0".join(encoded).count(b"\0") >= len(encoded):
        wrong = next(name for name in encoded if not name or b"\0" in name)
        raise ConfigError(f"{short(wrong)} is not a path")
    return encoded


def _text_of(path: Any) -> str:
    return os.path.expanduser(os.fsdecode(_encoded([path])[0]))


def _list_special(names: list[Any], progress: Progress | None) -> Listing:
    """Of a list in which there may be patterns, or homes."""
    parts: list[FileColumns] = []
    for pattern, group in itertools.groupby(map(_text_of, names), FilePattern.of):
        if pattern is None:
            parts.append(inspect_files(list(map(os.fsencode, group)), progress))
        else:
            parts += [pattern.scan()[0] for _ in group]
    return _listing_of(FileColumns.joined(parts))


def _list_elsewhere(paths: Paths) -> Listing:
    """In a store that is not of files."""
    files = find_files(paths)
    shards = [shard_of(file, info, 0, 1) for file, info in zip(files, inspect(files), strict=True)]
    objects = Objects.of(shards)
    is_pattern = isinstance(paths, _PATH)
    if not is_pattern:
        above = _C.common_folder_bytes(paths=objects.paths.data, path_ends=objects.path_ends.data)
        objects = replace(objects, name_bytes=objects.path_bytes - above)
    return Listing(objects, is_pattern)
