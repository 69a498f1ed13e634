"""Fields of samples of any length, and where the bytes of each lie within a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..config import check_int
from ..errors import ConfigError
from ..wording import is_text, listed, short
from .checked_json import MOST_RECORD_BYTES
from .layout import Field, make_layout

Lengths = np.ndarray[Any, Any]  # of unsigned integers

MOST_ALIGNMENT = 16  # of a field; each sample begins at a multiple of it
MOST_FIELDS = 4096
TABLE_ALIGNMENT = 4096  # of a shard's table in its file
_COLUMN_ALIGNMENT = 8
MOST_OPEN_AXES = 8


@dataclass(frozen=True)
class SampleField:
    """One field of a sample.

    Attributes:
        name: Key in the batch's dict; not empty.
        stored: Element type in the file, by torch's name.
        swap_bytes: Stored in the byte order that is not this machine's.
        shape: Of one sample's field, row-major; None for an axis that may have any length.
        offset: Bytes from the start of the sample; -1 where the shape has open axes.
        piece: Of the sample, that it lies in: 0 where its shape has no open axes.
        is_in_table: It is not read: the table has its values.
    """

    name: str
    stored: str
    swap_bytes: bool
    shape: tuple[int | None, ...]
    offset: int
    piece: int = 0
    is_in_table: bool = False

    @cached_property
    def open_axes(self) -> tuple[int, ...]:
        """The axes that may have any length, in order."""
        return tuple(axis for axis, extent in enumerate(self.shape) if extent is None)

    @cached_property
    def is_ragged(self) -> bool:
        return bool(self.open_axes)

    @cached_property
    def element_bytes(self) -> int:
        size: int = getattr(torch, self.stored).itemsize
        return size

    @cached_property
    def item_bytes(self) -> int:
        """The bytes of a sample's field whose open axes all have the length 1."""
        return self.element_bytes * math.prod(extent for extent in self.shape if extent is not None)

    @cached_property
    def alignment(self) -> int:
        """What its offset within a sample is a multiple of."""
        return min(self.element_bytes, MOST_ALIGNMENT)

    @cached_property
    def takes_bytes(self) -> bool:
        """Whether it is nothing but bytes, of any number."""
        return self.stored == "uint8" and self.shape == (None,)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape may be the field of a sample."""
        return len(shape) == len(self.shape) and all(
            extent in (None, given) for extent, given in zip(self.shape, shape, strict=True)
        )

    @property
    def open_shape(self) -> list[int]:
        """The shape as C++ takes it: -1 for an open axis."""
        return [-1 if extent is None else extent for extent in self.shape]

    @property
    def described(self) -> str:
        """``uint8 [n, n, 3]``, for people."""
        extents = ["n" if extent is None else str(extent) for extent in self.shape]
        return f"{self.stored} [{', '.join(extents)}]"


@dataclass(frozen=True)
class SampleLayout:
    """What every sample of a data set has. It is one piece of an object, or several; the fields of
    a piece follow each other. The first piece begins with those of fixed size.

    Attributes:
        fields: In the order of the user; at least one.
        record_bytes: Of the fixed-size fields together; 0 if there are none.
        realigns: Pieces may begin at any byte of their objects: a copy then makes views of them.
    """

    fields: tuple[SampleField, ...]
    record_bytes: int
    realigns: bool = False

    @cached_property
    def ragged(self) -> tuple[SampleField, ...]:
        return tuple(field for field in self.fields if field.is_ragged)

    @cached_property
    def fixed(self) -> tuple[SampleField, ...]:
        return tuple(one for one in self.fields if not (one.is_ragged or one.is_in_table))

    @cached_property
    def in_table(self) -> tuple[SampleField, ...]:
        return tuple(field for field in self.fields if field.is_in_table)

    @cached_property
    def num_pieces(self) -> int:
        return 1 + max(field.piece for field in self.fields)

    def column_bytes(self, num_samples: int, length_bytes: int) -> list[int]:
        """Of each column of a table, without padding: starts, lengths per ragged field, CRCs."""
        lengths = [num_samples * len(field.open_axes) * length_bytes for field in self.ragged]
        return [num_samples * 8, *lengths, num_samples * 4]

    def table_bytes(self, num_samples: int, length_bytes: int) -> int:
        return sum(map(padded_column, self.column_bytes(num_samples, length_bytes)))

    def index_bytes(self, length_bytes: int) -> int:
        """Of the table, for one sample."""
        return sum(self.column_bytes(1, length_bytes))

    def places(self, count: int, lengths: Sequence[Lengths]) -> tuple[list[Lengths], list[Lengths]]:
        """Where each ragged field begins within its piece, and how many bytes the pieces have.

        Args:
            count: Of the samples.
            lengths: Per ragged field, of its open axes: [count, k]; such that nothing overflows.

        Returns:
            Per ragged field uint64 [count]; and per piece uint64 [count].
        """
        sizes = [np.zeros(count, np.uint64) for _ in range(self.num_pieces)]
        sizes[0] += np.uint64(self.record_bytes)
        begins = []
        for field, extents in zip(self.ragged, lengths, strict=True):
            mask = np.uint64(field.alignment - 1)
            begins.append((sizes[field.piece] + mask) & ~mask)
            items = extents.prod(axis=1, dtype=np.uint64)
            sizes[field.piece] = begins[-1] + items * np.uint64(field.item_bytes)
        return begins, sizes


def padded_column(size_bytes: int) -> int:
    return -(-size_bytes // _COLUMN_ALIGNMENT) * _COLUMN_ALIGNMENT


def make_sample_layout(fields: Any) -> SampleLayout:
    """The layout of ``fields`` as SampleWriter documents them.

    Raises:
        ConfigError: Something else; the text says which field, and what was expected.
    """
    if not isinstance(fields, Mapping) or not fields:
        raise ConfigError(
            "fields= is a dict of the fields of a sample, such as {'image': bytes, 'label': "
            f"np.int64}}, not {short(fields)}"
        )
    if len(fields) > MOST_FIELDS:
        raise ConfigError(f"fields= has {len(fields)} fields, more than {MOST_FIELDS}")
    made: list[SampleField] = []
    end = 0
    for name, kind in fields.items():
        if not is_text(name) or not name:
            raise ConfigError(f"fields=: {short(name)} is no name of a field: give it a text")
        element, shape = _element_and_shape(name, kind)
        field = SampleField(name, element.stored, element.swap_bytes, shape, -1)
        if not field.is_ragged:
            offset = -(-end // field.element_bytes) * field.element_bytes
            end = offset + field.item_bytes
            field = SampleField(name, element.stored, element.swap_bytes, shape, offset)
        if max(end, field.item_bytes) > MOST_RECORD_BYTES:
            raise ConfigError(f"fields=: {short(name)}: {field.described} is too large: lower it")
        made.append(field)
    return SampleLayout(tuple(made), end)


def _element_and_shape(name: str, kind: Any) -> tuple[Field, tuple[int | None, ...]]:
    if kind is bytes or kind is str:
        return make_layout("u1").fields[0], (None,)
    dtype, shape = kind if isinstance(kind, tuple) and len(kind) == 2 else (kind, ())
    if dtype is bytes or dtype is str:
        raise ConfigError(f"fields=: {short(name)}: bytes and str have no shape; leave it out")
    shape = _check_shape(name, shape)
    try:
        layout = make_layout(dtype)
    except ConfigError as error:
        raise ConfigError(
            f"fields=: {short(name)}: {error}. A field is a dtype (one number a sample), (dtype, "
            "shape) with None for axes of any length, or bytes"
        ) from None
    if not layout.is_plain:
        names = listed([short(field.name) for field in layout.fields])
        raise ConfigError(f"fields=: {short(name)} is a structure; make {names} fields instead")
    return layout.fields[0], (*shape, *layout.fields[0].shape)


def _check_shape(name: str, shape: Any) -> tuple[int | None, ...]:
    items = shape if isinstance(shape, (tuple, list)) else (shape,)
    what = f"fields=: {short(name)}: every entry of its shape"
    checked = tuple(None if item is None else check_int(what, item, 1) for item in items)
    if len(checked) > 16 or checked.count(None) > MOST_OPEN_AXES:
        raise ConfigError(
            f"fields=: {short(name)}: a shape has at most 16 axes, and {MOST_OPEN_AXES} of them "
            "may be None"
        )
    return checked
