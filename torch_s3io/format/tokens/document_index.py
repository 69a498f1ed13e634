"""Documents that are found by reading much: where they are is kept in an index.

A file that has changed since is looked through anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError
from ...index.builder import indexed
from ...index.column_file import ColumnFile
from ...index.place import Where, folder_of, names_below
from ...index.showing import Show, showing
from ...store.store import Found, Identity, Inspected
from ...wording import printable
from ..objects import Column, shard_of
from .document_table import DocumentTable, TokenFile

_VERSION = 2  # of the columns
_OF_FILES = ("sizes", "modified_ns", "counts", "ends")  # columns
_TYPES = {**dict.fromkeys(_OF_FILES, ("<i8",)), "starts": ("<u8",), "lengths": ("<u4", "<u8")}
_MOST_DOCUMENT_BYTES = 16  # of the columns


class Sought(NamedTuple):
    """A file of tokens whose documents are not known yet; the tokens go to its end.

    Attributes:
        source: The file that says where documents are: it, or a list beside it.
        version: Of that.
    """

    file: Found
    info: Inspected
    dtype: Any
    header_bytes: int
    source: str
    version: Identity

    @property
    def num_tokens(self) -> int:
        return (self.info.size_bytes - self.header_bytes) // int(self.dtype.itemsize)


# Its documents, and how often something says where one is; it is told how many bytes are read.
Look = Callable[[Sought, Callable[[int], object]], tuple[DocumentTable, int]]


def find_documents(
    files: Sequence[Sought], recipe: Mapping[str, Any], look: Look, where: Where
) -> tuple[list[TokenFile], int]:
    """The documents of files with tokens of one type, and how often something said where one is.

    Args:
        recipe: What decides which documents there are, but for the files.
        where: The index is.

    Raises:
        ConfigError, AccessError, ReadTimeoutError: As for ``indexed``.
    """
    # In whatever order a program names them: all share one index.
    ordered = sorted(files, key=lambda one: one.file.path)
    index = indexed(
        [one.source for one in ordered],
        {**recipe, "kind": "tokens", "version": _VERSION, "dtype": files[0].dtype.str},
        partial(_is_current, ordered),
        partial(_build, ordered, look),
        where,
        most_bytes=_MOST_DOCUMENT_BYTES * sum(one.num_tokens for one in files),
    )
    found = {one.file.path: _file_of(one, index, row) for row, one in enumerate(ordered)}
    return [found[one.file.path] for one in files], int(index.columns["ends"].sum())


def _file_of(one: Sought, index: ColumnFile, number: int) -> TokenFile:
    load = partial(_table_of, index, number)
    table = load()
    shard = shard_of(one.file, one.info, one.header_bytes, len(table.starts))
    return table.file(shard, one.dtype, load)


def _table_of(index: ColumnFile, number: int) -> DocumentTable:
    counts = index.columns["counts"]
    begin = int(counts[:number].sum())
    part = slice(begin, begin + int(counts[number]))
    return DocumentTable(index.columns["starts"][part], index.columns["lengths"][part])


def _is_current(files: Sequence[Sought], index: ColumnFile) -> bool:
    check_columns(index)
    return index.head["names"] == _names(files) and all(
        np.array_equal(index.columns[name], column) for name, column in _versions(files).items()
    )


def check_columns(index: ColumnFile) -> None:
    """Reads all of it. Raises DataError where something is damaged, or does not fit."""
    index.check()
    names, columns = index.head.get("names"), index.columns
    if set(columns) != set(_TYPES) or not _are_names(names):
        raise DataError(f"{printable(index.path)}: is no index of documents of tokens")
    counts, starts = columns["counts"], columns["starts"]
    if (
        any(one.ndim != 1 or one.dtype.str not in _TYPES[name] for name, one in columns.items())
        or len(starts) != len(columns["lengths"])
        or len(counts) != len(index.head["names"])
        or bool(((counts < 0) | (counts > len(starts))).any())
        or int(counts.sum()) != len(starts)
        or any(len(columns[name]) != len(counts) for name in _OF_FILES)
    ):
        raise DataError(f"{printable(index.path)}: its columns do not fit each other")


def _are_names(names: Any) -> bool:
    return isinstance(names, list) and all(
        isinstance(one, list) and list(map(type, one)) == [str, int, int] for one in names
    )


def _names(files: Sequence[Sought]) -> list[list[Any]]:
    """Relative to their folder, so that they may lie elsewhere; with what is before the tokens, and
    how many there are."""
    sources = [one.source for one in files]
    names = names_below(folder_of(sources), sources)
    return [
        [name, one.header_bytes, one.num_tokens] for name, one in zip(names, files, strict=True)
    ]


def _versions(files: Sequence[Sought]) -> dict[str, Column]:
    return {
        "sizes": np.array([one.version.size_bytes for one in files], np.int64),
        "modified_ns": np.array([one.version.modified_ns for one in files], np.int64),
    }


def _build(
    files: Sequence[Sought], look: Look, old: ColumnFile | None
) -> tuple[dict[str, Any], dict[str, Column]]:
    kept = {} if old is None else _kept(old)
    names = _names(files)
    total, tables, done = sum(one.version.size_bytes for one in files), [], 0
    with showing(f"looking for documents in {files[0].source}, ...", "B") as show:
        for one, name in zip(files, names, strict=True):
            key = (*name, one.version.size_bytes, one.version.modified_ns)
            tables.append(kept.get(key) or look(one, partial(_show, show, done, total)))
            done += one.version.size_bytes
    lengths = np.concatenate([table.lengths for table, _ in tables])
    is_long = len(lengths) > 0 and int(lengths.max()) >> 32
    return {"names": names, "folder": folder_of([one.source for one in files])}, {
        **_versions(files),
        "counts": np.array([len(table.starts) for table, _ in tables], np.int64),
        "ends": np.array([ends for _, ends in tables], np.int64),
        "starts": np.concatenate([table.starts for table, _ in tables]),
        "lengths": lengths.astype(np.uint64 if is_long else np.uint32),
    }


def _kept(old: ColumnFile) -> dict[tuple[Any, ...], tuple[DocumentTable, int]]:
    """By file, what an index knows of which some may still hold."""
    try:
        check_columns(old)
    except DataError:
        return {}
    sizes, times = old.columns["sizes"].tolist(), old.columns["modified_ns"].tolist()
    ends = old.columns["ends"].tolist()
    return {
        (*name, size, time): (_table_of(old, number), ends[number])
        for number, (name, size, time) in enumerate(
            zip(old.head["names"], sizes, times, strict=True)
        )
    }


def _show(show: Show, done: int, total: int, begun: int) -> None:
    show(done + begun, total)
