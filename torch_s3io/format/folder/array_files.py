"""Where arrays of numpy lie: one in each ``.npy`` file, or several in each ``.npz`` archive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import DataError
from ...index.showing import Show
from ...wording import printable, short
from ..objects import Column, Objects
from .array_heads import ArrayColumn, HeadColumns
from .heads import read_heads, reader_of
from .inflating import PackedMembers
from .packed_arrays import local_heads, packed_column, packed_numbers
from .zip_members import missing_member, refuse_unread, zip_members

_HEAD_BYTES = 256
_TAIL_BYTES = 4096  # of an archive, in which its directory is


def npy_column(name: str, objects: Objects, show: Show | None = None) -> ArrayColumn:
    """The arrays of ``.npy`` files, one in each.

    Raises:
        DataError: A header is damaged; a file has another size than it says; arrays differ in what
            they must have in common.
    """
    columns = HeadColumns(name, objects, "the file")
    sizes = objects.versions["size_bytes"]
    zeros = np.zeros(len(objects), np.int64)
    for heads in read_heads(objects, zeros, _HEAD_BYTES, show):
        columns.add(heads, zeros[heads.rows], zeros[heads.rows], sizes[heads.rows])
    column = columns.column()
    if not column.shapes.shape[1]:
        raise DataError(
            f"{printable(objects.path(0))}: the array {short(name)} is a single number, not an "
            "array; save one at least as an array, or give the numbers as columns={...}"
        )
    return column


def npz_columns(
    names: Sequence[str], objects: Objects, inflates: bool, show: Show | None = None
) -> list[ArrayColumn]:
    """The arrays of these names in ``.npz`` archives.

    Args:
        inflates: Whether they may be compressed.

    Raises:
        DataError: As for ``npy_column``; an archive has no such array, or has it compressed.
    """
    sizes = objects.versions["size_bytes"].astype(np.int64)
    members = [np.zeros((5, len(objects)), np.int64) for _ in names]
    for heads in read_heads(objects, (sizes - _TAIL_BYTES).clip(min=0), _TAIL_BYTES, show):
        for row in range(len(heads.data)):
            number = heads.first + row
            path = objects.path(number)
            tail = heads.bytes_of(row)
            found = zip_members(path, int(sizes[number]), reader_of(path), tail)
            for name, column in zip(names, members, strict=True):
                member = found.get(f"{name}.npy")
                if member is None:
                    missing_member(path, name, found)
                refuse_unread(path, f"{name}.npy", member, inflates)
                column[:, number] = (
                    *(member.offset, member.packed_bytes, member.size_bytes, member.crc32),
                    member.is_deflated,
                )
    return [_npz_column(name, objects, *some) for name, some in zip(names, members, strict=True)]


def _npz_column(
    name: str, objects: Objects, offsets: Column, packed: Column, sizes: Column, *others: Column
) -> ArrayColumn:
    crc32, is_deflated = others
    if is_deflated.any():
        starts = np.zeros(len(objects), np.int64)
        members = PackedMembers(
            starts, packed, sizes, crc32.astype(np.uint32), is_deflated.astype(bool)
        )
        return packed_column(name, objects, offsets, members)
    columns = HeadColumns(name, objects, f"the array {short(name)}")
    for heads, begins in local_heads(name, objects, offsets):
        columns.add(heads, offsets[heads.rows], begins, sizes[heads.rows])
    return columns.column()


def read_numbers(column: ArrayColumn, objects: Objects) -> Column:
    """The bytes of arrays that are single numbers, little-endian: uint8 [n, itemsize].

    Raises:
        DataError: A file ends before that.
    """
    if column.packed is not None:
        return packed_numbers(column, objects, column.packed)
    read = list(read_heads(objects, column.starts.astype(np.int64), column.dtype.itemsize))
    counts = np.concatenate([heads.counts for heads in read])
    short_ones = np.flatnonzero(counts != column.dtype.itemsize)
    if len(short_ones):
        path = objects.path(int(short_ones[0]))
        raise DataError(f"{printable(path)}: was cut off while it was read; copy it again")
    stored = np.concatenate([heads.data for heads in read]).view(column.dtype)
    return stored.astype(column.dtype.newbyteorder("<")).view(np.uint8)
