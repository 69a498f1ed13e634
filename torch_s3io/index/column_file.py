"""Files of named arrays, which are mapped: opening one takes no longer the larger it is.

::

    file    := start head padding (column padding)*
    start   := "s3io\\x89idx" uint32 version, uint32 CRC-32C of the head, uint64 bytes of the head
    head    := JSON in UTF-8: {"uid": text, "size_bytes": integer, "head": object, "columns": [
               {"name": text, "dtype": text, "shape": [integer*], "offset": integer,
                "crc32c": integer}*]}
    column  := elements, row-major, little-endian; begins at a multiple of 64

A file is never changed: another one takes its place. So what is mapped stays as it is.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .. import _C
from ..errors import AccessError, DataError, Error, FileChangedError, NotFoundError, ReadError
from ..wording import printable, short

Column = np.ndarray[Any, Any]

MAGIC = b"s3io\x89idx"
VERSION = 1
START = struct.Struct("<8sIIQ")
ALIGNMENT = 64
_MOST_HEAD_BYTES = 256 << 20
_MOST_EXTENT = 1 << 62
_MOST_AXES = 8
_DTYPE = re.compile(r"[|<][biuf][1248]")


class Mapped(NamedTuple):
    """What is in a file of so many bytes (0: of none): its head, and by name its columns and their
    checksums."""

    head: dict[str, Any]
    columns: dict[str, Column]
    checksums: dict[str, int]
    size_bytes: int = 0


class ColumnFile:
    """Named arrays, and what is said of them.

    A pickle holds the path of the file alone. Who gets it maps the file at first use, and finds out
    whether it is the same one. Arrays that are in no file are pickled as they are.

    Attributes:
        path: Absolute; empty: there is no file.
        uid: Of what is in it, but for columns that its writer left out.
        in_bucket: The object that the file is a copy of, or may be put as; empty: there is none.
    """

    def __init__(self, path: str, uid: str, mapped: Mapped) -> None:
        self.path = path
        self.uid = uid
        self.in_bucket = ""
        self._mapped: Mapped | None = mapped

    @property
    def head(self) -> dict[str, Any]:
        """What the writer was given; raises as ``columns``."""
        return self._map().head

    @property
    def size_bytes(self) -> int:
        """Of the file; raises as ``columns``."""
        return self._map().size_bytes

    @property
    def columns(self) -> Mapping[str, Column]:
        """Read-only views.

        Raises:
            FileChangedError: Of a pickle: another file has taken its place.
            NotFoundError, AccessError, ReadError, DataError: It cannot be mapped any more.
        """
        return self._map().columns

    def check(self, *names: str) -> None:
        """Reads these columns and compares their checksums; none are named: all.

        Raises:
            DataError: One is another one, or there is none of that name.
        """
        mapped = self._map()
        for name in names or mapped.columns:
            if name not in mapped.columns:
                fail(self.path, f"there is no column {short(name)} in it")
            found = _C.crc32c(bytes_of(mapped.columns[name]))
            if mapped.checksums.get(name, found) != found:
                fail(self.path, f"the checksum of column {short(name)} is another one")

    def remove(self) -> bool:
        """So that it is made again. A file that has taken its place stays. Whether none is left of
        this one."""
        try:
            if map_columns(self.path).uid == self.uid:
                os.unlink(self.path)
        except NotFoundError:
            return True
        except (Error, OSError):
            return False
        return True

    def _map(self) -> Mapped:
        if self._mapped is None:
            again = map_columns(self.path)
            if again.uid != self.uid:
                raise FileChangedError(
                    f"{printable(self.path)}: the index was made anew since the data set was made: "
                    "make the data set again"
                )
            self._mapped = again._mapped
        assert self._mapped is not None
        return self._mapped

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None} if self.path else self.__dict__


def bytes_of(column: Column) -> memoryview:
    return column.reshape(-1).view(np.uint8).data


def map_columns(path: str, called: str = "") -> ColumnFile:
    """Maps the file. What it says of itself is checked; the columns are not read.

    Args:
        called: What errors call it; empty: by its path.

    Raises:
        DataError: It is no such file, of another version, damaged, or cut off.
        NotFoundError, AccessError, ReadError: It cannot be mapped.
    """
    path = os.path.abspath(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if size < START.size:
                fail(called or path, f"it has {size} bytes, fewer than any index")
            memory = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{printable(path)}: the index is not there") from None
    except PermissionError as error:
        raise AccessError(f"{printable(path)}: cannot open the index: {error.strerror}") from None
    except OSError as error:
        raise ReadError(f"{printable(path)}: cannot map the index: {error.strerror}") from None
    return _parsed(called or path, memory)


def is_index(path: str) -> bool:
    """Whether it is a file that begins as one, be it damaged."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(fd, len(MAGIC)) == MAGIC
    except OSError:  # a folder
        return False
    finally:
        os.close(fd)


def _parsed(path: str, memory: mmap.mmap) -> ColumnFile:
    """Believes nothing that the bytes say."""
    magic, version, checksum, head_bytes = START.unpack_from(memory)
    if magic != MAGIC:
        raise DataError(
            f"{printable(path)}: is no index of torch_s3io: it begins with other bytes; name "
            "another file"
        )
    if version != VERSION:
        fail(path, f"it has version {version}, and only {VERSION} is known")
    size = len(memory)
    if head_bytes > min(size - START.size, _MOST_HEAD_BYTES):
        fail(path, f"its head has {head_bytes} bytes, and the file {size}")
    end = START.size + head_bytes
    text = memory[START.size : end]
    if _C.crc32c(text) != checksum:
        fail(path, "the checksum of its head is another one")
    try:
        root = json.loads(text)
        size_then = root["size_bytes"]
    except (KeyError, TypeError, ValueError, RecursionError):
        fail(path, "its head is not what one is")
    if size != size_then:
        fail(path, f"it has {size} bytes, not {short(size_then)}: it was cut off")
    try:
        columns = {str(one["name"]): _column(memory, end, one) for one in root["columns"]}
        checksums = {str(one["name"]): int(one["crc32c"]) for one in root["columns"]}
        uid, head = str(root["uid"]), dict(root["head"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        fail(path, f"its head does not fit its {size} bytes")
    return ColumnFile(path, uid, Mapped(head, columns, checksums, size))


def _column(memory: mmap.mmap, head_end: int, entry: dict[str, Any]) -> Column:
    """Raises ValueError for one that cannot be."""
    shape, offset = tuple(map(int, entry["shape"])), int(entry["offset"])
    is_shape = len(shape) <= _MOST_AXES and all(0 <= extent < _MOST_EXTENT for extent in shape)
    if not is_shape or _DTYPE.fullmatch(entry["dtype"]) is None:
        raise ValueError(entry)
    dtype = np.dtype(entry["dtype"])
    end = offset + math.prod(shape) * dtype.itemsize
    if offset < head_end or offset % ALIGNMENT or end > len(memory):
        raise ValueError(entry)
    return np.ndarray(shape, dtype, memory, offset)


def fail(path: str, text: str) -> NoReturn:
    raise DataError(
        f"{printable(path) or 'an index in memory'}: {text}; remove this file, and the index is "
        "made again"
    )
