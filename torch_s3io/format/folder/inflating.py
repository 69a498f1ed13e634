"""Members of archives that are compressed: how each is read, and what it must be."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...errors import DataError
from ...wording import short
from ..delivery import NameOf
from ..objects import Column
from ..ragged import Ragged, unchecked_ragged
from ..sample_layout import SampleField

if TYPE_CHECKING:
    from .array_index import StoredArray

MOST_BYTES = 1 << 32  # of a member
_MOST_RATIO, _SLACK = 1032, 64  # of deflate: a match of 258 bytes takes two bits


@dataclass(frozen=True)
class PackedMembers:
    """Members of one name, one of each archive.

    Attributes:
        starts: Where the bytes of each begin in its archive: int64 [n].
        packed_bytes: How many there are: int64 [n].
        size_bytes: Of the member, with the header of its array: int64 [n].
        crc32: Of these: uint32 [n].
        is_deflated: Or it is stored as it is: bool [n].
    """

    starts: Column
    packed_bytes: Column
    size_bytes: Column
    crc32: Column
    is_deflated: Column

    @property
    def is_too_large(self) -> Column:
        """Which say that they are larger than they can be, or than is read: bool [n]."""
        return too_large(self.packed_bytes, self.size_bytes)


def too_large(packed_bytes: Column, size_bytes: Column) -> Column:
    return (size_bytes > MOST_BYTES) | (size_bytes > packed_bytes * _MOST_RATIO + _SLACK)


def beginning(data: bytes, most: int, is_deflated: bool) -> bytes:
    """Up to so many of the first bytes of a member, of which the first ones are at hand. Raises
    zlib.error."""
    if not is_deflated:
        return data[:most]
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most)


def inflated(data: bytes | memoryview, size_bytes: int, is_deflated: bool, crc32: int) -> bytes:
    """A member as a whole. It takes no more memory than its size.

    Raises:
        ValueError: It has another size or checksum, or is damaged.
    """
    whole = bytes(data)
    if is_deflated:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            whole = stream.decompress(whole, max(1, size_bytes))  # 0 is no bound
            rest = stream.decompress(stream.unconsumed_tail, 1)
        except zlib.error as error:
            raise ValueError(f"cannot be inflated: {error}") from None
        if rest or not stream.eof:
            raise ValueError(f"has not the {size_bytes} bytes that the archive's directory says")
    if len(whole) != size_bytes:
        raise ValueError(f"has {len(whole)} bytes, not {size_bytes}, as the directory says")
    found = zlib.crc32(whole)
    if found != crc32:
        raise ValueError(f"has the checksum {found:08x}, not {crc32:08x}")
    return whole


@dataclass(frozen=True)
class Inflation:
    """Makes arrays of compressed members, where they are read. This is Python, for each sample.

    Attributes:
        array: Of the members.
        field: As it is delivered.
    """

    array: StoredArray
    field: SampleField

    def __call__(self, packed: Ragged, numbers: torch.Tensor, name_of: NameOf) -> Ragged:
        """The arrays of a batch, one after the other.

        Args:
            packed: Bytes of members.
            numbers: Of the samples: int64 [B].

        Raises:
            DataError: A member is damaged.
        """
        rows = numbers.numpy()
        shapes = self.array.shapes_of(rows)
        counts = shapes.prod(axis=1)
        ends = np.cumsum(counts)
        item = self.array.dtype.itemsize
        values = torch.empty(int(counts.sum()) * item, dtype=torch.uint8)
        memory = values.numpy()
        columns = [column[rows].tolist() for column in self.array.packing()]
        samples = zip(packed.unbind(), ends.tolist(), counts.tolist(), *columns, strict=True)
        for place, (sample, end, count, header_bytes, crc32, is_deflated) in enumerate(samples):
            size = header_bytes + count * item
            try:
                whole = inflated(sample.numpy().data, size, is_deflated, crc32)
            except ValueError as error:
                raise DataError(
                    f"{name_of(place)}: its member {short(f'{self.array.name}.npy')} {error}: save "
                    "or copy it again"
                ) from None
            array = np.frombuffer(whole, np.uint8)[header_bytes:]
            memory[(end - count) * item : end * item] = array
        if self.field.swap_bytes:
            memory.view(self.array.dtype).byteswap(inplace=True)
        lengths = torch.from_numpy(counts)
        facts = (int(counts.min()), int(counts.max()), True)
        return unchecked_ragged(
            values.view(getattr(torch, self.field.stored)),
            torch.from_numpy(ends - counts),
            lengths,
            torch.from_numpy(shapes) if shapes.shape[1] > 1 else None,
            facts,
        )
