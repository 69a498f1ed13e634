"""A few bytes of each of many objects, such as their headers: many objects at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from ... import _C
from ...index.showing import Show
from ...store.stores import store_of
from ..objects import Column, Objects

_AT_ONCE = 4096
_THREADS = 16

Read = Callable[[int, int], bytes]  # bytes from one place to another; fewer at the end


class Heads(NamedTuple):
    """Of objects that follow one another.

    Attributes:
        first: The number of the first one.
        data: Of each: uint8 [m, length].
        counts: How many of these bytes there are, fewer at the end of an object: int64 [m].
    """

    first: int
    data: Column
    counts: Column

    @property
    def rows(self) -> slice:
        """These objects among all."""
        return slice(self.first, self.first + len(self.data))

    def bytes_of(self, row: int, begin: int = 0) -> bytes:
        return self.data[row, begin : self.counts[row]].tobytes()


def read_heads(
    objects: Objects, offsets: Column, length: int, show: Show | None = None
) -> Iterator[Heads]:
    """``length`` bytes of each object from its offset on, in the order of the objects.

    Args:
        offsets: int64 [n].
        show: Gets how many are read, and how many there are.

    Raises:
        NotFoundError, AccessError, ReadError: One cannot be opened or read.
    """
    read = _heads_of_files if list(objects.by_scheme()) == [""] else _heads_elsewhere
    for first in range(0, len(objects), _AT_ONCE):
        last = min(first + _AT_ONCE, len(objects))
        yield Heads(first, *read(objects, slice(first, last), offsets[first:last], length))
        if show is not None:
            show(last, len(objects))


def _heads_of_files(
    objects: Objects, part: slice, offsets: Column, length: int
) -> tuple[Column, Column]:
    ends = objects.path_ends[part]
    begin = objects.path_ends[part.start - 1] if part.start else np.uint64(0)
    return _C.read_heads(
        paths=objects.paths[begin : ends[-1]].data,
        path_ends=(ends - begin).data,
        offsets=np.ascontiguousarray(offsets, np.int64),
        length=length,
        threads=_THREADS,
    )


def _heads_elsewhere(
    objects: Objects, part: slice, offsets: Column, length: int
) -> tuple[Column, Column]:
    data = np.zeros((len(offsets), length), np.uint8)
    counts = np.zeros(len(offsets), np.int64)
    for row, begin in enumerate(offsets.tolist()):
        found = reader_of(objects.path(part.start + row))(begin, begin + length)
        data[row, : len(found)] = np.frombuffer(found, np.uint8)
        counts[row] = len(found)
    return data, counts


def reader_of(path: str) -> Read:
    return partial(_read, path)


def _read(path: str, begin: int, end: int) -> bytes:
    return bytes(store_of(path).read(path, begin, end))
