"""What an index of arrays has of each file, beside the listing.

Of array ``i`` of a sample, of n files:

    starts_i      where the elements begin: uint64 [n]
    lengths_i     of the k axes that are open: uint32 [n, k], or of all arrays uint64
    packed_i      of members that may be compressed, whose bytes these starts are of: how many there
                  are, uint32 or uint64 [n, 1]
    headers_i     of these: the bytes of the header, uint32 [n]
    crc32_i       of these: the checksum of what is in them, uint32 [n]
    is_deflated_i of these: or they are stored as they are, bool [n]
    numbers_i     in place of all but the last, of single numbers: their bytes, little-endian,
                  uint8 [n, size]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DataError
from ...index.builder import Made
from ...index.column_file import ColumnFile, fail
from ...index.showing import showing
from ...wording import printable, short
from ..layout import make_layout
from ..npy import NpyHeader, npy_dtype
from ..objects import Column, Objects
from ..sample_layout import MOST_OPEN_AXES, SampleField
from ..sample_table import needed_length_bytes
from .array_files import npy_column, npz_columns, read_numbers
from .array_heads import ArrayColumn
from .folder_index import Contents, IndexColumn
from .inflating import too_large
from .zip_members import refuse_compressed

KIND = "arrays"
_ARRAYS = "arrays"  # of the head
_DTYPE = re.compile(r"[|<>][biufcV][0-9]{1,3}")
_NPY, _NPZ = "npy", "npz"
_MOST_BYTES = 1 << 53  # of a file; doubles hold all integers up to there

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class StoredArray:
    """Arrays of one name, one of each file, in an index.

    Attributes:
        dtype: As it is stored.
        shape: None for an axis in which they differ, and for the first one. (): single numbers.
        number: In the index.
        is_packed: They are members of archives that may be compressed.
    """

    file: ColumnFile
    name: str
    dtype: np.dtype[Any]
    shape: Shape
    number: int
    is_packed: bool

    @property
    def packed(self) -> IndexColumn:
        return IndexColumn(self.file, f"packed_{self.number}")

    @property
    def is_deflated(self) -> Column:
        return self.file.columns[f"is_deflated_{self.number}"]

    def packing(self) -> list[Column]:
        """Bytes of headers, checksums, whether they are deflated: [n] each."""
        columns = [self.file.columns[f"{name}_{self.number}"] for name in ("headers", "crc32")]
        return [*columns, self.is_deflated]

    def refuse_compressed(self, objects: Objects) -> None:
        """Raises DataError for the first one that is compressed."""
        if self.is_packed and self.is_deflated.any():
            path = objects.path(int(self.is_deflated.argmax()))
            refuse_compressed(path, f"{self.name}.npy", "is compressed")

    def shapes_of(self, rows: Column) -> Column:
        """int64 [B, axes]."""
        shapes = np.zeros((len(rows), len(self.shape)), np.int64)
        columns = iter(self._lengths[rows].T)
        for axis, extent in enumerate(self.shape):
            shapes[:, axis] = next(columns) if extent is None else extent
        return shapes

    @property
    def starts(self) -> IndexColumn:
        return IndexColumn(self.file, f"starts_{self.number}")

    @property
    def numbers(self) -> IndexColumn:
        """Of single numbers: [n]."""
        native = self.dtype.newbyteorder("=").str
        return IndexColumn(self.file, f"numbers_{self.number}", native)

    def as_field(
        self, objects: Objects, dtype: Any, shape: Shape | None, piece: int
    ) -> SampleField:
        """What the arrays have in common.

        Args:
            dtype: Of the elements, where headers cannot say it.
            shape: None: axes that differ are open, and the first one.

        Raises:
            DataError: They have not this shape.
            ConfigError: ``dtype`` is needed, or is not what the headers say.
        """
        wanted = self.shape if shape is None else shape
        is_other = self._is_other(wanted)
        if is_other.any():
            number = int(is_other.argmax())
            open_axes = iter(self._lengths[number].tolist())
            found = tuple(next(open_axes) if one is None else one for one in self.shape)
            made = SampleField(self.name, "uint8", False, wanted, -1)
            described = made.described.removeprefix("uint8 ")
            raise DataError(
                f"{printable(objects.path(number))}: the array {short(self.name)} has the shape "
                f"{found}, which is not {described}: give shape= with None for axes of any length"
            )
        header = NpyHeader(self.dtype, (), 0)
        element = make_layout(npy_dtype(objects.path(0), header, dtype)).fields[0]
        return SampleField(self.name, element.stored, element.swap_bytes, wanted, -1, piece)

    def lengths(self, field: SampleField) -> Column | IndexColumn:
        """Of the open axes of the field: [n, k]."""
        if field.shape == self.shape:
            return IndexColumn(self.file, f"lengths_{self.number}")
        columns = iter(self._lengths.T)
        every = [next(columns) if one is None else one for one in self.shape]
        count = len(self._lengths)
        made = [np.broadcast_to(np.uint64(every[axis]), count) for axis in field.open_axes]
        return np.stack(made, axis=1)

    @property
    def _lengths(self) -> Column:
        return self.file.columns[f"lengths_{self.number}"]

    def _is_other(self, wanted: Shape) -> Column:
        """Whose shapes these are not: bool [n]."""
        lengths = self._lengths
        if len(wanted) != len(self.shape):
            return np.ones(len(lengths), bool)
        wrong = np.zeros(len(lengths), bool)
        columns = iter(lengths.T)
        for mine, extent in zip(self.shape, wanted, strict=True):
            found = next(columns) if mine is None else mine
            if extent is not None:
                wrong |= np.asarray(found != extent)
        return wrong


def npy_contents(name: str) -> Contents:
    """Of ``.npy`` files."""
    return _contents(_NPY, [name], lambda objects, show: [npy_column(name, objects, show)])


def npz_contents(names: Sequence[str], inflates: bool) -> Contents:
    """Of these arrays in ``.npz`` archives, which may be compressed."""
    names = sorted(names)
    return _contents(_NPZ, names, lambda objects, show: npz_columns(names, objects, inflates, show))


def _contents(ending: str, names: list[str], columns_of: Any) -> Contents:
    def read(objects: Objects) -> Made:
        with showing("reading headers", "file") as show:
            columns: list[ArrayColumn] = columns_of(objects, show)
        return _as_made(columns, objects)

    recipe = {"kind": KIND, "version": 1, "of": ending, "fields": names}
    return Contents(recipe, read, check_arrays)


def _as_made(arrays: Sequence[ArrayColumn], objects: Objects) -> Made:
    head: list[dict[str, Any]] = []
    columns: dict[str, Column] = {}
    lengths: dict[str, Column] = {}
    for number, array in enumerate(arrays):
        shape = _open_shape(array)
        head.append(
            {
                "name": array.name,
                "dtype": array.dtype.str,
                "shape": list(shape),
                "is_packed": array.packed is not None,
            }
        )
        if array.packed is not None:
            columns[f"is_deflated_{number}"] = array.packed.is_deflated
        if not shape:
            columns[f"numbers_{number}"] = read_numbers(array, objects)
            continue
        columns[f"starts_{number}"] = array.starts
        if array.packed is not None:
            columns[f"starts_{number}"] = array.packed.starts.astype(np.uint64)
            columns[f"headers_{number}"] = array.starts.astype(np.uint32)
            columns[f"crc32_{number}"] = array.packed.crc32
            lengths[f"packed_{number}"] = array.packed.packed_bytes[:, np.newaxis]
        is_open = [extent is None for extent in shape]
        lengths[f"lengths_{number}"] = array.shapes[:, is_open]
    kind = f"<u{needed_length_bytes(list(lengths.values()))}"
    columns |= {name: np.ascontiguousarray(column, kind) for name, column in lengths.items()}
    return {_ARRAYS: head}, columns


def _open_shape(array: ArrayColumn) -> Shape:
    first = array.shapes[0].tolist()
    is_open = (array.shapes != array.shapes[0]).any(axis=0)
    is_open[:1] = True
    if int(is_open.sum()) > MOST_OPEN_AXES:
        raise DataError(
            f"the arrays {short(array.name)} differ in more than {MOST_OPEN_AXES} axes, which "
            "cannot be read: flatten them"
        )
    return tuple(None if one else extent for one, extent in zip(is_open, first, strict=True))


def arrays_in(file: ColumnFile) -> dict[str, StoredArray]:
    """By their names."""
    return {
        entry["name"]: StoredArray(
            file,
            entry["name"],
            _dtype(entry["dtype"]),
            tuple(entry["shape"]),
            number,
            bool(entry["is_packed"]),
        )
        for number, entry in enumerate(file.head[_ARRAYS])
    }


def _dtype(text: str) -> np.dtype[Any]:
    """Raises ValueError for another one than arrays of numbers have."""
    if _DTYPE.fullmatch(text) is None:
        raise ValueError(text)
    return np.dtype(text)


def check_arrays(file: ColumnFile) -> None:
    """Raises DataError where what an index says of arrays does not fit together."""
    try:
        arrays = arrays_in(file)
        recipe = file.head["recipe"]
        kinds = {
            _checked_lengths(array, file.columns, is_npy=recipe["of"] == _NPY)
            for array in arrays.values()
        }
        is_fitting = len(kinds - {""}) <= 1 and sorted(arrays) == recipe["fields"]
    except (KeyError, TypeError, ValueError, SyntaxError, AttributeError):
        fail(file.path, "its arrays are not described as they must be")
    if not is_fitting:
        fail(file.path, "its arrays do not fit together")


def _checked_lengths(array: StoredArray, columns: Any, is_npy: bool) -> str:
    """The type of the lengths; empty: there are none. Raises ValueError for columns that do not
    fit, KeyError for one that is missing.

    Args:
        is_npy: Each file ends with its array.
    """
    sizes = columns["sizes"]
    items = array.dtype.itemsize
    if array.dtype.hasobject or array.dtype.names or not all(map(_is_extent, array.shape)):
        raise ValueError(array.shape)
    if array.is_packed and (
        array.is_deflated.dtype != np.bool_ or array.is_deflated.shape != sizes.shape
    ):
        raise ValueError(array.is_deflated.dtype)
    if not array.shape:
        numbers = columns[f"numbers_{array.number}"]
        if numbers.dtype != np.uint8 or numbers.shape != (len(sizes), items):
            raise ValueError(numbers.shape)
        return ""
    starts, lengths = array.starts.array, columns[f"lengths_{array.number}"]
    expected = (len(sizes), array.shape.count(None))
    is_right = starts.dtype.str == "<u8" and lengths.dtype.str in ("<u4", "<u8")
    if not is_right or starts.shape != sizes.shape or lengths.shape != expected:
        raise ValueError(lengths.shape)
    fixed = float(items)
    for extent in array.shape:
        fixed *= 1 if extent is None else extent
    array_bytes = lengths.astype(np.float64).prod(axis=1) * fixed
    ends = starts.astype(np.float64) + array_bytes
    if array.is_packed:
        ends = starts.astype(np.float64) + _checked_packing(array, array_bytes)
    is_wrong = ends != sizes if is_npy else ends > sizes
    if is_wrong.any() or float(ends.max()) > _MOST_BYTES:
        raise ValueError("not as long as the file")
    return str(lengths.dtype.str)


def _checked_packing(array: StoredArray, array_bytes: Column) -> Column:
    """The bytes of members as they are stored: float64 [n]."""
    headers, crc32, _ = array.packing()
    packed = array.packed.array
    lengths = array.file.columns[f"lengths_{array.number}"]
    is_right = headers.dtype == crc32.dtype == np.uint32
    shapes = {headers.shape, crc32.shape}
    count = len(array_bytes)
    if not is_right or shapes != {(count,)} or packed.shape != (count, 1):
        raise ValueError(shapes)
    packed_bytes = packed[:, 0].astype(np.float64)
    if packed.dtype != lengths.dtype or too_large(packed_bytes, headers + array_bytes).any():
        raise ValueError(packed.dtype)
    return packed_bytes


def _is_extent(extent: Any) -> bool:
    return extent is None or (type(extent) is int and 0 <= extent < 1 << 62)
