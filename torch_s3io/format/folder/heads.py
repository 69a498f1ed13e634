"""A few bytes of each of many objects, such as their headers: many objects at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from ... import _C
from ...store.stores import store_of
from ..objects import Column, Objects

_AT_ONCE = 4096
_THREADS = 16

Read = Callable[[int, int], bytes]  # bytes from one place to another; fewer at the end


class Head(NamedTuple):
    """Of one object.

    Attributes:
        number: Of the object.
        data: Fewer bytes than were asked for at its end.
        more: Reads others from it.
    """

    number: int
    data: bytes
    more: Read


def read_heads(objects: Objects, offsets: Column, length: int) -> Iterator[Head]:
    """``length`` bytes of each object from its offset on, in the order of the objects.

    Args:
        offsets: int64 [n].

    Raises:
        NotFoundError, AccessError, ReadError: One cannot be opened or read.
    """
    is_of_files = list(objects.by_scheme()) == [""]
    for first in range(0, len(objects), _AT_ONCE):
        last = min(first + _AT_ONCE, len(objects))
        if not is_of_files:
            for number in range(first, last):
                more = _reader(objects.path(number))
                begin = int(offsets[number])
                yield Head(number, more(begin, begin + length), more)
            continue
        data, counts = _C.read_heads(
            paths=objects.paths.data,
            path_ends=objects.path_ends.data,
            first=first,
            offsets=np.ascontiguousarray(offsets[first:last], np.int64),
            length=length,
            threads=_THREADS,
        )
        for row, count in enumerate(counts.tolist()):
            begin = row * length
            head = data[begin : begin + count].tobytes()
            yield Head(first + row, head, _reader(objects.path(first + row)))


def _reader(path: str) -> Read:
    return partial(_read, path)


def _read(path: str, begin: int, end: int) -> bytes:
    return bytes(store_of(path).read(path, begin, end))
