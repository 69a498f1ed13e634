"""Arrays of numpy as samples: one in each ``.npy`` file, or several in each ``.npz`` archive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import DataError
from ...wording import printable, short
from ..layout import make_layout
from ..npy import NpyHeader, npy_dtype, npy_header_of
from ..objects import Column, Objects
from ..sample_layout import MOST_OPEN_AXES, SampleField
from .heads import Read, read_heads
from .listing import Listing
from .zip_members import ZipMember, member_data, missing_member, zip_members

_USUAL_HEADER_BYTES = 128  # as numpy writes one
_HEAD_BYTES = 256
_LOCAL_BYTES = 512  # of a member's local header and its array's
_TAIL_BYTES = 4096  # of an archive, in which its directory is

Shape = tuple[int | None, ...]


@dataclass
class ArrayColumn:
    """Arrays of one name, one of each file.

    Attributes:
        starts: Where the elements begin in each file.
        headers: Of each.
        numbers: The bytes of those that are single numbers.
    """

    name: str
    starts: list[int] = field(default_factory=list)
    headers: list[NpyHeader] = field(default_factory=list)
    numbers: list[bytes] = field(default_factory=list)

    def add(self, header: NpyHeader, start: int) -> None:
        self.headers.append(header)
        self.starts.append(start)

    def as_field(
        self, objects: Objects, dtype: Any, shape: Shape | None, piece: int
    ) -> SampleField:
        """What the arrays have in common.

        Args:
            dtype: Of the elements, where headers cannot say it.
            shape: None: axes that differ are open, and the first one.

        Raises:
            DataError: They have not enough in common.
            ConfigError: ``dtype`` is needed, or is not what the headers say.
        """
        self._refuse_others(objects)
        path, first = objects.path(0), self.headers[0]
        if not first.shape:
            raise DataError(
                f"{printable(path)}: {self._what} is a single number, not an array; save one at "
                "least as an array, or give the numbers as columns={...}"
            )
        layout = make_layout(npy_dtype(path, first, dtype))
        if not layout.is_plain or layout.fields[0].shape:
            raise DataError(
                f"{printable(path)}: {self._what} is of structures, which only "
                "RecordDataset.from_npy reads; save its fields as arrays of their own"
            )
        element, extents = layout.fields[0], _open_shape(self.shapes) if shape is None else shape
        made = SampleField(self.name, element.stored, element.swap_bytes, extents, -1, piece)
        for number, header in enumerate(self.headers):
            if not made.fits(header.shape):
                raise DataError(
                    f"{printable(objects.path(number))}: {self._what} has the shape "
                    f"{header.shape}, which is not {made.described}: give shape= with None for "
                    "axes of any length"
                )
        return made

    @property
    def is_of_numbers(self) -> bool:
        """Whether each is a single number."""
        return len(self.numbers) == len(self.headers)

    def as_numbers(self, objects: Objects) -> Column:
        """Their values, in this machine's byte order: [n].

        Raises:
            DataError: They have different dtypes.
        """
        self._refuse_others(objects)
        stored = self.headers[0].dtype
        numbers = np.frombuffer(b"".join(self.numbers), stored)
        return numbers.astype(stored.newbyteorder("="))

    @property
    def shapes(self) -> Column:
        """int64 [n, axes]."""
        return np.array([header.shape for header in self.headers], np.int64)

    def lengths(self, field: SampleField) -> Column:
        """Of the open axes: uint64 [n, k]."""
        return self.shapes[:, list(field.open_axes)].astype(np.uint64)

    def _refuse_others(self, objects: Objects) -> None:
        first = self.headers[0]
        for number, header in enumerate(self.headers):
            if header.dtype != first.dtype or len(header.shape) != len(first.shape):
                raise DataError(
                    f"{printable(objects.path(number))}: {self._of(header)}, but "
                    f"{printable(objects.path(0))} has {self._of(first)}. The arrays of a data set "
                    "have one dtype and one number of axes: save them so"
                )

    @property
    def _what(self) -> str:
        return f"the array {short(self.name)}"

    def _of(self, header: NpyHeader) -> str:
        return f"{self._what} is {header.dtype} with {len(header.shape)} axes"


def _open_shape(shapes: Column) -> Shape:
    is_open = (shapes != shapes[0]).any(axis=0)
    is_open[0] = True
    if int(is_open.sum()) > MOST_OPEN_AXES:
        raise DataError(f"arrays that differ in more than {MOST_OPEN_AXES} axes cannot be read")
    return tuple(
        None if differs else int(extent) for differs, extent in zip(is_open, shapes[0], strict=True)
    )


def npy_column(name: str, listing: Listing) -> ArrayColumn:
    """The arrays of ``.npy`` files, one in each.

    Raises:
        DataError: A header is damaged, or a file has another size than it says.
    """
    objects, parse = listing.objects, _Headers()
    column = ArrayColumn(name)
    sizes = objects.versions["size_bytes"]
    for head in read_heads(objects, np.zeros(len(objects), np.int64), _HEAD_BYTES):
        path = objects.path(head.number)
        header = parse(path, head.data, head.more)
        _check_size(path, header, int(sizes[head.number]), "the file")
        column.add(header, header.header_bytes)
    return column


def npz_columns(names: Sequence[str], listing: Listing) -> list[ArrayColumn]:
    """The arrays of these names in ``.npz`` archives.

    Raises:
        DataError: An archive is damaged, has no such array, or has it compressed.
    """
    objects = listing.objects
    sizes = objects.versions["size_bytes"].astype(np.int64)
    members: list[list[ZipMember]] = []
    for head in read_heads(objects, (sizes - _TAIL_BYTES).clip(min=0), _TAIL_BYTES):
        path = objects.path(head.number)
        found = zip_members(path, int(sizes[head.number]), head.more, head.data)
        wanted = [found.get(f"{name}.npy") for name in names]
        for name, member in zip(names, wanted, strict=True):
            if member is None:
                missing_member(path, name, found)
        members.append([member for member in wanted if member is not None])
    return [
        _npz_column(name, listing, [some[number] for some in members])
        for number, name in enumerate(names)
    ]


def _npz_column(name: str, listing: Listing, members: Sequence[ZipMember]) -> ArrayColumn:
    objects, parse = listing.objects, _Headers()
    column = ArrayColumn(name)
    offsets = np.array([member.offset for member in members], np.int64)
    for head, member in zip(read_heads(objects, offsets, _LOCAL_BYTES), members, strict=True):
        path = objects.path(head.number)
        begin = member_data(path, f"{name}.npy", member, head.data)
        data = head.data[begin - member.offset :]
        header = parse(path, data, _shifted(head.more, begin))
        _check_size(path, header, member.size_bytes, f"the array {short(name)}")
        start = begin + header.header_bytes
        column.add(header, start)
        if not header.shape:
            column.numbers.append(head.more(start, start + header.dtype.itemsize))
    return column


def _shifted(read: Read, by: int) -> Read:
    return lambda begin, end: read(by + begin, by + end)


def _check_size(path: str, header: NpyHeader, size_bytes: int, what: str) -> None:
    expected = header.header_bytes + math.prod(header.shape) * header.dtype.itemsize
    if size_bytes != expected:
        raise DataError(
            f"{printable(path)}: {what} has {size_bytes} bytes, but its header describes "
            f"{expected}: it was cut off or appended to; save or copy it again"
        )


class _Headers:
    """Most headers are alike, and parsed once."""

    def __init__(self) -> None:
        self._known: dict[bytes, NpyHeader] = {}

    def __call__(self, path: str, head: bytes, more: Read) -> NpyHeader:
        key = head[:_USUAL_HEADER_BYTES]
        known = self._known.get(key)
        if known is not None:
            return known
        header = npy_header_of(path, head, more)
        if header.header_bytes <= len(key):
            self._known[key] = header
        return header
