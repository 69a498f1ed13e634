"""Samples as they are given, as the bytes that go to the file: checked, and not copied where they
lie together in memory."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from ..errors import ConfigError
from ..format.sample_layout import Lengths, SampleField, SampleLayout
from ..wording import listed, short
from .record_rows import describe, packed, stored_array
from .sample_numbers import stacked, stored_numbers
from .sample_pieces import Slices, one_array, piece_of, pieces_of

# The format of struct for a dtype, and the type of Python that it takes as it is.
_PACKED = {
    "bool": ("?", bool),
    **{f"int{8 * size}": (letter, int) for size, letter in zip((1, 2, 4, 8), "bhiq", strict=True)},
    **{f"uint{8 * size}": (letter, int) for size, letter in zip((1, 2, 4, 8), "BHIQ", strict=True)},
    "float16": ("e", float),
    "float32": ("f", float),
    "float64": ("d", float),
}
_MOST_PACKED = 4096  # bytes: fixed-size fields that take more are not gathered first


class Column(NamedTuple):
    """The bytes of one field in each of several samples, or those of their fixed-size fields.

    Attributes:
        begins: Where they begin, from the start of each sample.
        pieces: A buffer of each sample, or slices of one buffer.
    """

    begins: list[int]
    pieces: list[Any] | Slices

    def part(self, begin: int, end: int) -> Column:
        """Of the samples ``[begin, end)``."""
        pieces = self.pieces
        some = pieces.part(begin, end) if isinstance(pieces, Slices) else pieces[begin:end]
        return Column(self.begins[begin:end], some)


class Samples(NamedTuple):
    """Samples that are to be written.

    Attributes:
        columns: In the order in which their bytes lie in a sample.
        sizes: Bytes of each sample.
        lengths: Per ragged field, of its open axes: uint64 [n, k].
    """

    columns: tuple[Column, ...]
    sizes: list[int]
    lengths: tuple[Lengths, ...]

    def part(self, begin: int, end: int) -> Samples:
        """The samples ``[begin, end)``."""
        if end - begin == len(self.sizes):
            return self
        columns = tuple(column.part(begin, end) for column in self.columns)
        lengths = tuple(lengths[begin:end] for lengths in self.lengths)
        return Samples(columns, self.sizes[begin:end], lengths)


class SampleForm:
    """Makes ``Samples`` of what users give, for one layout.

    Args:
        texts: The names of the fields that take str.
    """

    def __init__(self, layout: SampleLayout, texts: frozenset[str]) -> None:
        self._layout = layout
        self._texts = texts
        self._names = [field.name for field in layout.fields]
        self._keys = set(self._names)
        self._numbers = [field.name for field in layout.fixed]
        self._types: list[type] = []
        self._packer = self._make_packer()

    def _make_packer(self) -> struct.Struct | None:
        """Packs the fixed-size fields of a sample, if they are numbers that Python has, too."""
        texts, end = ["="], 0
        for field in self._layout.fixed:
            letter, kind = _PACKED.get(field.stored, ("", int))
            if field.shape or not letter or field.swap_bytes:
                return None
            texts.append(f"{field.offset - end}x{letter}")
            self._types.append(kind)
            end = field.offset + field.element_bytes
        return struct.Struct("".join(texts)) if end else None

    def of_samples(self, samples: Sequence[Any]) -> Samples:
        """Of dicts, one a sample.

        Raises:
            ConfigError: Something else; the text names the sample and the field.
        """
        for number, sample in enumerate(samples):
            if type(sample) is not dict and not isinstance(sample, Mapping):
                raise ConfigError(
                    f"sample {number}: a dict {{field: value}} is expected, not {describe(sample)}"
                )
            if sample.keys() != self._keys:
                self._refuse_names(f"sample {number}: ", sample)
        columns = {name: [sample[name] for sample in samples] for name in self._names}
        return self._samples(columns, len(samples))

    def of_sample(self, sample: Any) -> Samples:
        """Of one dict: as ``of_samples``, but quicker."""
        if type(sample) is not dict or sample.keys() != self._keys:
            return self.of_samples([sample])
        layout, columns = self._layout, self._fast_record(sample)
        if columns is None:
            columns = self._fixed_columns({name: [value] for name, value in sample.items()}, 1)
        end, lengths = layout.record_bytes, []
        for field in layout.ragged:
            value = sample[field.name]
            extents: tuple[int, ...]
            if type(value) is bytes and field.takes_bytes and field.name not in self._texts:
                piece, extents = value, (len(value),)
            else:
                piece, extents = piece_of(value, field, field.name in self._texts)
            begin = -(-end // field.alignment) * field.alignment
            columns.append(Column([begin], [piece]))
            lengths.append(np.array([extents], np.uint64))
            end = begin + math.prod(extents) * field.item_bytes
        return Samples(tuple(columns), [end], tuple(lengths))

    def _fast_record(self, sample: Mapping[str, Any]) -> list[Column] | None:
        """The record of a sample whose fixed-size fields are all numbers of Python."""
        if self._packer is None:
            return None if self._layout.record_bytes else []
        values = [sample[name] for name in self._numbers]
        if list(map(type, values)) != self._types:
            return None
        try:
            return [Column([0], [self._packer.pack(*values)])]
        except (struct.error, OverflowError):
            return None  # what converts them says what is wrong

    def of_columns(self, columns: Mapping[str, Any]) -> Samples:
        """Of one dict, in which a field has the values of all samples.

        Raises:
            ConfigError: Something else; the text names the sample and the field.
        """
        if columns.keys() != self._keys:
            self._refuse_names("", columns)
        columns = {name: _unbound(values) for name, values in columns.items()}
        counts = {name: _count(name, columns[name]) for name in self._names}
        first = self._names[0]
        for name, count in counts.items():
            if count != counts[first]:
                raise ConfigError(
                    f"field {name!r} has {count} samples, {first!r} has {counts[first]}; a write "
                    "has as many of each"
                )
        return self._samples(columns, counts[first])

    def _samples(self, values: Mapping[str, Any], count: int) -> Samples:
        layout = self._layout
        if count == 0:
            return Samples((), [], tuple(np.empty((0, len(f.open_axes))) for f in layout.ragged))
        columns = self._fixed_columns(values, count)
        found = [
            pieces_of(values[field.name], field, field.name in self._texts)
            for field in layout.ragged
        ]
        lengths = tuple(pieces.lengths for pieces in found)
        begins, (sizes,) = layout.places(count, lengths)
        for begin, pieces in zip(begins, found, strict=True):
            columns.append(Column(begin.tolist(), pieces.buffers))
        return Samples(tuple(columns), sizes.tolist(), lengths)

    def _fixed_columns(self, values: Mapping[str, Any], count: int) -> list[Column]:
        """Small fixed-size fields are gathered; of others, the bytes of each sample are used from
        where they lie."""
        fields, size = self._layout.fixed, self._layout.record_bytes
        if size == 0:
            return []
        if size > _MOST_PACKED:
            in_order = sorted(fields, key=lambda field: field.offset)
            return [
                Column([field.offset] * count, _fixed_pieces(values[field.name], field))
                for field in in_order
            ]
        arrays = [_fixed_array(values[field.name], field) for field in fields]
        rows = packed(arrays, [field.offset for field in fields], size)
        return [Column([0] * count, Slices.of_rows(rows, count, size))]

    def _refuse_names(self, where: str, given: Mapping[str, Any]) -> NoReturn:
        missing = [short(name) for name in self._names if name not in given]
        others = [short(name) for name in given if name not in self._keys]
        wrong = [f"{listed(missing)} missing"] if missing else []
        wrong += [f"no field is named {listed(others)}"] if others else []
        names = listed(list(map(short, self._names)))
        raise ConfigError(
            f"{where}{' and '.join(wrong)}: the fields are {names}, and every sample has all"
        )


def _unbound(values: Any) -> Any:
    """A nested tensor as a list: some kinds have no length."""
    is_nested = isinstance(values, torch.Tensor) and values.is_nested
    return values.unbind() if is_nested else values


def _count(name: str, values: Any) -> int:
    """The samples for which a column has values."""
    is_single = isinstance(values, (str, bytes, bytearray, memoryview, Mapping))
    is_sized = hasattr(values, "__len__") and hasattr(values, "__getitem__")
    if is_single or not is_sized or getattr(values, "ndim", 1) == 0:
        raise ConfigError(
            f"field {name!r}: a list, array or Ragged with a value for every sample is expected, "
            f"not {describe(values)}; write(...) takes a single sample"
        )
    return len(values)


def _fixed_array(values: Any, field: SampleField) -> np.ndarray[Any, Any]:
    """As it is stored: [n, *shape]."""

    def fits(shape: tuple[int, ...]) -> bool:
        return len(shape) > 0 and field.fits(shape[1:])

    def expected() -> str:
        shape = ", ".join(["B", *map(str, field.shape)])
        return (
            f"field {field.name!r}: {field.stored} [{shape}] is expected, or a list with the value "
            f"of each sample, not {describe(values)}"
        )

    if isinstance(values, (np.ndarray, torch.Tensor)) and not _holds_objects(values):
        return stored_array(values, field, fits, expected, f"field {field.name!r}")
    if not field.shape:
        return stored_numbers(values, field)
    return stacked([one_array(value, field, number) for number, value in enumerate(values)])


def _fixed_pieces(values: Any, field: SampleField) -> list[Any] | Slices:
    if field.shape:
        return pieces_of(values, field, False).buffers
    array = _fixed_array(values, field)
    return Slices.of_rows(np.ascontiguousarray(array), len(array), field.item_bytes)


def _holds_objects(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.hasobject
