"""Documents that end, or begin, with a token of their own: found by looking at all tokens, once.

Where they are is kept in an index. A file that has changed since is looked through anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...errors import ConfigError, DataError, FileChangedError
from ...index.builder import indexed
from ...index.column_file import ColumnFile
from ...index.place import Where, folder_of
from ...index.showing import Show, showing
from ...store.store import Found, Inspected
from ...store.stores import store_of
from ...warning import warn
from ...wording import count_of, printable
from ..objects import Column, shard_of
from .document_table import DocumentTable, TokenFile

_VERSION = 1  # of the columns
_READ_BYTES = 4 << 20
_OF_FILES = ("sizes", "modified_ns", "counts", "ends")  # columns


class EndedFile(NamedTuple):
    """A file of tokens whose documents are not known yet; the tokens go to its end."""

    file: Found
    info: Inspected
    dtype: Any
    header_bytes: int


def find_ended(files: Sequence[EndedFile], eos: int, begins: bool, where: Where) -> list[TokenFile]:
    """The documents of files with tokens of one type, each up to and with ``eos``; what remains
    behind the last one is one, too.

    Args:
        begins: The token begins documents; what precedes the first one is one, too.
        where: The index is.

    Raises:
        FileChangedError: One is cut off meanwhile.
        ConfigError, AccessError, ReadTimeoutError: As for ``indexed``.
    """
    option = f"{'bos' if begins else 'eos'}={eos}"
    _refuse_no_token(option, eos, files[0].dtype)
    # In whatever order a program names them: all share one index.
    ordered = sorted(files, key=lambda one: one.file.path)
    index = indexed(
        [one.file.path for one in ordered],
        {
            "kind": "tokens",
            "version": _VERSION,
            "token": eos,
            "begins": begins,
            "dtype": files[0].dtype.str,
        },
        partial(_is_current, ordered),
        partial(_build, ordered, eos, begins),
        where,
    )
    if not index.columns["ends"].any():
        warn(
            f"{option} is in none of {count_of(len(files), 'file')}, the first being "
            f"{printable(files[0].file.path)}: each is one document. Where it is another "
            "token, say which"
        )
    found = {one.file.path: _file_of(one, index, row) for row, one in enumerate(ordered)}
    return [found[one.file.path] for one in files]


def _refuse_no_token(option: str, eos: int, dtype: np.dtype[Any]) -> None:
    most = np.iinfo(dtype).max
    if eos > most:
        raise ConfigError(f"{option} is no {dtype.name}, which ends at {most}: give another token")


def _file_of(one: EndedFile, index: ColumnFile, number: int) -> TokenFile:
    load = partial(_table_of, index, number)
    table = load()
    shard = shard_of(one.file, one.info, one.header_bytes, len(table.starts))
    return table.file(shard, one.dtype, load)


def _table_of(index: ColumnFile, number: int) -> DocumentTable:
    counts = index.columns["counts"]
    begin = int(counts[:number].sum())
    part = slice(begin, begin + int(counts[number]))
    return DocumentTable(index.columns["starts"][part], index.columns["lengths"][part])


def _is_current(files: Sequence[EndedFile], index: ColumnFile) -> bool:
    check_columns(index)
    return index.head["names"] == _names(files) and all(
        np.array_equal(index.columns[name], column) for name, column in _versions(files).items()
    )


def check_columns(index: ColumnFile) -> None:
    """Reads all of it. Raises DataError where something is damaged, or does not fit."""
    index.check()
    names, columns = index.head.get("names"), {*_OF_FILES, "starts", "lengths"}
    if set(index.columns) != columns or not _are_names(names):
        raise DataError(f"{printable(index.path)}: is no index of documents of tokens")
    counts, starts = index.columns["counts"], index.columns["starts"]
    lengths, kinds = index.columns["lengths"], (np.uint32, np.uint64)
    if (
        len(starts) != len(lengths)
        or starts.dtype != np.uint64
        or lengths.dtype not in kinds
        or len(counts) != len(index.head["names"])
        or int(counts.sum()) != len(starts)
        or bool((counts < 0).any())
        or any(len(index.columns[name]) != len(counts) for name in _OF_FILES)
    ):
        raise DataError(f"{printable(index.path)}: its columns do not fit each other")


def _are_names(names: Any) -> bool:
    return isinstance(names, list) and all(
        isinstance(one, list) and list(map(type, one)) == [str, int] for one in names
    )


def _names(files: Sequence[EndedFile]) -> list[list[Any]]:
    """Relative to their folder, so that they may lie elsewhere; with what precedes the tokens."""
    folder = folder_of([one.file.path for one in files])
    paths = [os.path.relpath(one.file.path, folder) if folder else one.file.path for one in files]
    return [[path, one.header_bytes] for path, one in zip(paths, files, strict=True)]


def _versions(files: Sequence[EndedFile]) -> dict[str, Column]:
    found = [one.info.identity for one in files]
    return {
        "sizes": np.array([one.size_bytes for one in found], np.int64),
        "modified_ns": np.array([one.modified_ns for one in found], np.int64),
    }


def _build(
    files: Sequence[EndedFile], eos: int, begins: bool, old: ColumnFile | None
) -> tuple[dict[str, Any], dict[str, Column]]:
    kept = {} if old is None else _kept(old)
    names = _names(files)
    total, tables, done = sum(one.info.size_bytes for one in files), [], 0
    with showing(f"looking for documents in {files[0].file.path}, ...", "B") as show:
        for one, name in zip(files, names, strict=True):
            version = one.info.identity
            key = (*name, version.size_bytes, version.modified_ns)
            table = kept.get(key) or _look_through(
                one, eos, begins, partial(_show, show, done, total)
            )
            tables.append(table)
            done += one.info.size_bytes
    lengths = np.concatenate([table.lengths for table, _ in tables])
    is_long = len(lengths) > 0 and int(lengths.max()) >> 32
    return {"names": names, "folder": folder_of([one.file.path for one in files])}, {
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


def _look_through(
    one: EndedFile, eos: int, begins: bool, on_bytes: Callable[[int], object]
) -> tuple[DocumentTable, int]:
    """Its documents, and how often the token is there."""
    path, size, item = one.file.path, one.info.size_bytes, one.dtype.itemsize
    store, found = store_of(path), [np.zeros(1, np.uint64)]
    for begin in range(one.header_bytes, size, _READ_BYTES):
        end = min(begin + _READ_BYTES, size)
        part = store.read(path, begin, end)
        if len(part) != end - begin:
            raise FileChangedError(
                f"{printable(path)}: was cut off while it was read: make the data set anew"
            )
        ends = np.flatnonzero(np.frombuffer(part, one.dtype) == eos).astype(np.uint64)
        found.append(ends + np.uint64((begin - one.header_bytes) // item + (not begins)))
        on_bytes(end)
    bounds = np.concatenate(found)
    if len(bounds) > 1 and bounds[1] == 0:  # the first document begins as it should
        bounds = bounds[1:]
    count = (size - one.header_bytes) // item
    if int(bounds[-1]) < count:
        bounds = np.append(bounds, np.uint64(count))
    starts = bounds[:-1] * np.uint64(item) + np.uint64(one.header_bytes)
    return DocumentTable(starts, np.diff(bounds)), sum(map(len, found)) - 1
