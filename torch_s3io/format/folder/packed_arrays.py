"""What the headers of arrays say that are members of archives, and may be compressed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from ...errors import DataError
from ...wording import printable, short
from ..objects import Column, Objects
from .array_heads import ArrayColumn, HeadColumns
from .heads import Heads, Read, read_heads, reader_of
from .inflating import PackedMembers, beginning, inflated
from .zip_members import local_header_bytes, no_local_header

_HEAD_BYTES = 256
_LOCAL_BYTES = 512  # of a member's local header and its array's


def local_heads(name: str, objects: Objects, offsets: Column) -> Iterator[tuple[Heads, Column]]:
    """The first bytes of members, and where in these the bytes behind the local headers begin.

    Raises:
        DataError: There is no local header.
    """
    for heads in read_heads(objects, offsets, _LOCAL_BYTES):
        begins = local_header_bytes(heads.data, heads.counts)
        if not begins.all():
            number = heads.first + int((begins == 0).argmax())
            no_local_header(objects.path(number), f"{name}.npy")
        yield heads, begins


def packed_column(
    name: str, objects: Objects, offsets: Column, members: PackedMembers
) -> ArrayColumn:
    """Arrays of which some are compressed.

    Args:
        offsets: Of the local headers: int64 [n].
        members: Of which the starts are not known yet.

    Raises:
        DataError: As for ``HeadColumns``; a member is larger than is read.
    """
    if members.is_too_large.any():
        number = int(members.is_too_large.argmax())
        raise DataError(
            f"{printable(objects.path(number))}: its member {short(f'{name}.npy')} has "
            f"{members.packed_bytes[number]} bytes, which are {members.size_bytes[number]} "
            "inflated: more than deflate makes of them, or than the 4 GiB that are read. Save it "
            "by numpy.savez, which does not compress"
        )

    def read_of(number: int, _: int) -> Read:
        begin = int(members.starts[number])
        read, end = reader_of(objects.path(number)), begin + int(members.packed_bytes[number])
        is_deflated = bool(members.is_deflated[number])
        return lambda first, last: _beginning(read(begin, end), last, is_deflated)[first:]

    columns = HeadColumns(name, objects, f"the array {short(name)}", read_of)
    for heads, begins in local_heads(name, objects, offsets):
        members.starts[heads.rows] = offsets[heads.rows] + begins
        data = np.zeros((len(begins), _HEAD_BYTES), np.uint8)
        counts = np.zeros(len(begins), np.int64)
        for row, begin in enumerate(begins.tolist()):
            is_deflated = bool(members.is_deflated[heads.first + row])
            found = _beginning(heads.bytes_of(row, begin), _HEAD_BYTES, is_deflated)
            data[row, : len(found)] = np.frombuffer(found, np.uint8)
            counts[row] = len(found)
        zeros = np.zeros(len(begins), np.int64)
        sizes = members.size_bytes[heads.rows]
        columns.add(Heads(heads.first, data, counts), zeros, zeros, sizes)
    column = columns.column()
    return ArrayColumn(name, column.dtype, column.starts, column.shapes, members)


def _beginning(data: bytes, most: int, is_deflated: bool) -> bytes:
    """Nothing of what is damaged: its header is then."""
    try:
        return beginning(data, most, is_deflated)
    except zlib.error:
        return b""


def packed_numbers(column: ArrayColumn, objects: Objects, members: PackedMembers) -> Column:
    """As ``read_numbers``."""
    numbers = np.zeros(len(objects), column.dtype)
    for number in range(len(objects)):
        path, begin = objects.path(number), int(members.starts[number])
        data = reader_of(path)(begin, begin + int(members.packed_bytes[number]))
        try:
            whole = inflated(
                data,
                int(members.size_bytes[number]),
                bool(members.is_deflated[number]),
                int(members.crc32[number]),
            )
        except ValueError as error:
            raise DataError(
                f"{printable(path)}: its member {short(f'{column.name}.npy')} {error}; save or "
                "copy it again"
            ) from None
        numbers[number] = np.frombuffer(whole, column.dtype, 1, int(column.starts[number]))[0]
    little = numbers.astype(column.dtype.newbyteorder("<"))
    return little[:, np.newaxis].view(np.uint8)
