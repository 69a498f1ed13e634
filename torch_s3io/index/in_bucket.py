"""An index as an object of a bucket: put there once, and read once by each machine, into its cache
folder."""

from __future__ import annotations

import mmap
from typing import BinaryIO

from .. import _C
from ..errors import (
    AccessError,
    DataError,
    Error,
    NotFoundError,
    ObjectChangedError,
    ReadError,
    ReadTimeoutError,
)
from ..store.object_writer import Bytes
from ..store.open import open_store
from ..store.stores import store_of
from ..warning import warn
from ..wording import printable, size_text
from .column_file import ColumnFile, map_columns
from .column_writer import new_file
from .showing import showing

_PIECE_BYTES = 64 << 20
_ALWAYS_READ_BYTES = 64 << 20


class StaleIndexWarning(RuntimeWarning):
    """The index in a bucket is of other data than are there now."""


def copy_index(path_in_bucket: str, path: str, most_bytes: int) -> bool:
    """Copies an index to a file, if there is one that is whole; whether there is. What is wrong
    with one is warned of.

    Args:
        most_bytes: A longer one is not read, unless it has at most 64 MiB.

    Raises:
        OSError: The file cannot be written.
    """
    try:
        with new_file(path) as file:
            read_index(path_in_bucket, file, max(most_bytes, _ALWAYS_READ_BYTES))
            map_columns(file.name, called=path_in_bucket).check()
    except (NotFoundError, AccessError):  # who may not list objects is told so of a missing one
        return False
    except (ReadError, ReadTimeoutError, DataError) as error:
        warn(f"the index is made anew on this machine: the one in the bucket is of no use: {error}")
        return False
    return True


def read_index(path: str, file: BinaryIO, most_bytes: int) -> None:
    """Writes the bytes of an index to a file. They are not looked at.

    Raises:
        NotFoundError, AccessError, ReadError, ReadTimeoutError: It cannot be read.
        DataError: It is longer than that.
        OSError: The file cannot be written.
    """
    store = store_of(path)
    [info] = store.inspect([path])
    size = info.size_bytes
    if size > most_bytes:
        raise DataError(
            f"{printable(path)}: has {size_text(size)}, more than any index of these data; remove "
            "this object, and the index is made again"
        )
    with showing(f"reading {path}", "B") as show:
        for begin in range(0, size, _PIECE_BYTES):
            end = min(begin + _PIECE_BYTES, size)
            file.write(store.read(path, begin, end))
            show(end, size)
    file.flush()


def put_index(file: ColumnFile) -> None:
    """Puts the file into its bucket, unless the object there is the same.

    Raises:
        AccessError: It may not be written there.
        WriteError, WriteTimeoutError, ReadError, ReadTimeoutError: The server is not reached, or
            fails.
    """
    with open(file.path, "rb") as opened:
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    if not _is_there(file.in_bucket, data):
        open_store(file.in_bucket).put(file.in_bucket, data)


def is_missing(path: str) -> bool:
    """Whether there is no index in the bucket, by one request. True as well where that may not be
    asked, as of a missing object by who may not list any; False where the server fails."""
    try:
        open_store(path).stat(path)
    except (NotFoundError, AccessError):
        return True
    except Error:
        return False
    return False


def _is_there(path: str, data: Bytes) -> bool:
    store = open_store(path)
    try:
        is_as_long = store.stat(path).size_bytes == len(data)
        return is_as_long and store.checksum(path) == _C.crc32c(data)
    except (NotFoundError, AccessError, ObjectChangedError, DataError):
        return False
