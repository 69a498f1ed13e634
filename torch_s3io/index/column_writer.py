"""Writes files of named arrays, each as a whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import math
import os
import secrets
from collections.abc import Container, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from .. import _C
from .column_file import ALIGNMENT, MAGIC, START, VERSION, Column, ColumnFile, Mapped, bytes_of

_TEMPORARY = ".tmp-"


def columns_in_memory(head: Mapping[str, Any], columns: Mapping[str, Column]) -> ColumnFile:
    """As of a file, but in none."""
    views = {name: _as_stored(column) for name, column in columns.items()}
    return ColumnFile("", secrets.token_hex(8), Mapped(dict(head), views, {}))


def write_columns(
    path: str, head: Mapping[str, Any], columns: Mapping[str, Column], passing: Container[str] = ()
) -> None:
    """Writes the file, which takes the place of another one when it is whole.

    Args:
        head: For JSON.
        columns: Of booleans, integers or floats of up to 8 bytes.
        passing: Columns that the uid does not depend on.

    Raises:
        OSError: It cannot be written.
    """
    stored = {name: _as_stored(column) for name, column in columns.items()}
    entries = [
        {
            "name": name,
            "dtype": column.dtype.str,
            "shape": list(column.shape),
            "crc32c": _C.crc32c(bytes_of(column)),
        }
        for name, column in stored.items()
    ]
    uid = _uid_of(head, [entry for entry in entries if entry["name"] not in passing])
    text, offsets = _head_text(uid, head, entries)
    with new_file(path) as file:
        file.write(START.pack(MAGIC, VERSION, _C.crc32c(text), len(text)))
        file.write(text)
        for offset, column in zip(offsets, stored.values(), strict=True):
            file.write(bytes(offset - file.tell()))
            file.write(bytes_of(column))


def _uid_of(head: Mapping[str, Any], entries: list[dict[str, Any]]) -> str:
    text = json.dumps([dict(head), entries], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _head_text(
    uid: str, head: Mapping[str, Any], entries: list[dict[str, Any]]
) -> tuple[bytes, list[int]]:
    """The head and the offsets of the columns. It lies before them and names their offsets, so room
    for it is made until it fits."""
    room = 0
    while True:
        end = START.size + room
        placed = []
        for entry in entries:
            begin = -(-end // ALIGNMENT) * ALIGNMENT
            placed.append({**entry, "offset": begin})
            end = begin + np.dtype(entry["dtype"]).itemsize * math.prod(entry["shape"])
        whole = {"uid": uid, "size_bytes": end, "head": dict(head), "columns": placed}
        text = json.dumps(whole).encode()
        if len(text) <= room:
            return text.ljust(room), [entry["offset"] for entry in placed]
        room = len(text) + ALIGNMENT


def _as_stored(column: Column) -> Column:
    """Little-endian, row-major, and nobody may write to it."""
    assert column.dtype.kind in "biuf", column.dtype
    stored = np.ascontiguousarray(column, column.dtype.newbyteorder("<")).reshape(column.shape)
    view = stored.view()
    view.flags.writeable = False
    return view


@contextlib.contextmanager
def new_file(path: str) -> Iterator[BinaryIO]:
    """A file beside ``path``, which gets its name at the end. Those of writers that died are
    removed: nobody else is at work, where there are locks (``file_lock``).

    Raises:
        OSError: It cannot be written.
    """
    start = f"{path}{_TEMPORARY}"
    for left in glob.glob(f"{glob.escape(start)}*"):
        with contextlib.suppress(OSError):
            os.unlink(left)
    temporary = f"{start}{secrets.token_hex(8)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(temporary, "wb", opener=lambda *_: fd) as file:
            yield file
            file.flush()
            os.fsync(fd)
            os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
