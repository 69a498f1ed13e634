"""What the headers of many arrays say, in columns. Those as numpy writes them are read natively."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ... import _C
from ...errors import DataError
from ...wording import printable, short
from ..npy import NPY_START_BYTES, NpyHeader, npy_header_of
from ..objects import Column, Objects
from .heads import Heads, Read, reader_of
from .inflating import PackedMembers

ReadOf = Callable[[int, int], Read]

_MOST_BYTES = 1 << 53  # of an array; doubles hold all integers up to there


@dataclass(frozen=True)
class ArrayColumn:
    """Arrays of one name, one of each file: of one dtype and number of axes.

    Attributes:
        dtype: As it is stored.
        starts: Where the elements begin in each file, or member that is compressed: uint64 [n].
        shapes: int64 [n, axes].
        packed: Where they may be compressed.
    """

    name: str
    dtype: np.dtype[np.generic]
    starts: Column
    shapes: Column
    packed: PackedMembers | None = None


class HeadColumns:
    """Reads heads of arrays of one name, those of the first files first."""

    def __init__(
        self, name: str, objects: Objects, what: str, read_of: ReadOf | None = None
    ) -> None:
        """
        Args:
            what: Of a file, that has one array, for errors.
            read_of: How the array of an object is read, that begins at a place in it. None: as it
                lies.
        """
        self._read_of = read_of or self._read_in_place
        self._name = name
        self._objects = objects
        self._what = what
        self._dtypes: list[np.dtype[np.generic]] = []
        self._parts: list[tuple[Column, Column, Column, Column]] = []

    def add(self, heads: Heads, offsets: Column, begins: Column, sizes: Column) -> None:
        """The next ones.

        Args:
            offsets: Of the heads in their files: int64 [m].
            begins: Of the arrays in these heads: int64 [m].
            sizes: Of the arrays with their headers, in bytes: int64 [m].

        Raises:
            DataError: A header is damaged, or says another size.
        """
        found = _C.parse_npy_heads(data=heads.data, begins=begins, ends=heads.counts)
        numbers, header_bytes, axes, shapes = (
            column.copy() for column in (found.types, found.header_bytes, found.axes, found.shapes)
        )
        places = offsets + begins
        of_type = [
            self._header_of(heads, int((found.types == number).argmax()), begins, places).dtype
            for number in range(len(found.type_names))
        ]
        numbers[found.types >= 0] = np.array([self._number_of(one) for one in of_type], np.int64)[
            found.types[found.types >= 0]
        ]
        for row in np.flatnonzero(found.types < 0).tolist():
            header = self._header_of(heads, row, begins, places)
            numbers[row], header_bytes[row] = self._number_of(header.dtype), header.header_bytes
            axes[row] = len(header.shape)
            shapes[row, : len(header.shape)] = header.shape
        shapes = shapes[:, : max(1, int(axes.max()))]
        self._check_sizes(heads.first, numbers, header_bytes, shapes, sizes)
        kept = int(self._parts[0][2][0] if self._parts else axes[0])
        shapes = np.pad(shapes, ((0, 0), (0, max(0, kept - shapes.shape[1]))))[:, :kept]
        self._parts.append((places + header_bytes, numbers, axes, shapes))

    def column(self) -> ArrayColumn:
        """Of all that were read.

        Raises:
            DataError: They have different dtypes or numbers of axes; or are of structures.
        """
        starts, numbers, axes, shapes = map(np.concatenate, zip(*self._parts, strict=True))
        self._parts.clear()
        others = np.flatnonzero((numbers != numbers[0]) | (axes != axes[0]))
        first, dtype = self._objects.path(0), self._dtypes[int(numbers[0])]
        if len(others):
            number = int(others[0])
            other = self._dtypes[int(numbers[number])]
            raise DataError(
                f"{printable(self._objects.path(number))}: {self._of(other, int(axes[number]))}, "
                f"but {printable(first)} has {self._of(dtype, int(axes[0]))}. The arrays of a data "
                "set have one dtype and one number of axes: save them so"
            )
        if dtype.names or dtype.subdtype:
            raise DataError(
                f"{printable(first)}: the array {short(self._name)} is of structures, which only "
                "RecordDataset.from_npy reads; save its fields as arrays of their own"
            )
        return ArrayColumn(self._name, dtype, starts.astype(np.uint64), shapes)

    def _header_of(self, heads: Heads, row: int, begins: Column, places: Column) -> NpyHeader:
        path = self._objects.path(heads.first + row)
        read = self._read_of(heads.first + row, int(places[row]))
        data = heads.bytes_of(row, int(begins[row]))
        return npy_header_of(path, data if len(data) >= NPY_START_BYTES else read(0, 256), read)

    def _read_in_place(self, number: int, place: int) -> Read:
        read = reader_of(self._objects.path(number))
        return lambda begin, end: read(place + begin, place + end)

    def _number_of(self, dtype: np.dtype[np.generic]) -> int:
        if dtype not in self._dtypes:
            self._dtypes.append(dtype)
        return self._dtypes.index(dtype)

    def _check_sizes(
        self, first: int, numbers: Column, header_bytes: Column, shapes: Column, sizes: Column
    ) -> None:
        items = np.array([dtype.itemsize for dtype in self._dtypes], np.int64)[numbers]
        is_large = shapes.astype(np.float64).prod(axis=1) * items > _MOST_BYTES
        expected = header_bytes + np.where(is_large[:, None], 0, shapes).prod(axis=1) * items
        wrong = np.flatnonzero(is_large | (expected != sizes))
        if len(wrong):
            row = int(wrong[0])
            described = "more than files have" if is_large[row] else str(expected[row])
            raise DataError(
                f"{printable(self._objects.path(first + row))}: {self._what} has {sizes[row]} "
                f"bytes, but its header describes {described}: it was cut off or appended to; "
                "save or copy it again"
            )

    def _of(self, dtype: np.dtype[np.generic], axes: int) -> str:
        return f"the array {short(self._name)} is {dtype} with {axes} axes"
