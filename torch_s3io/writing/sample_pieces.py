"""The bytes of one field in each of several samples, from where they lie in memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import ConfigError
from ..format.sample_layout import Lengths, SampleField
from .record_rows import describe, stored_array

_BYTES = (bytes, bytearray, memoryview)


class Slices(NamedTuple):
    """What each sample has of one buffer: its bytes ``[begins[i], ends[i])``."""

    buffer: Any
    begins: list[int]
    ends: list[int]

    @classmethod
    def of_rows(cls, array: np.ndarray[Any, Any], count: int, row_bytes: int) -> Slices:
        """Of an array whose bytes lie together: as many for each sample."""
        begins = np.arange(count + 1) * row_bytes
        return cls(array, begins[:-1].tolist(), begins[1:].tolist())

    def part(self, begin: int, end: int) -> Slices:
        """Of the samples ``[begin, end)``."""
        return Slices(self.buffer, self.begins[begin:end], self.ends[begin:end])


class Pieces(NamedTuple):
    """
    Attributes:
        buffers: Of each sample: its bytes, which lie together; or slices of one buffer.
        lengths: Of the field's open axes: uint64 [n, k].
    """

    buffers: list[Any] | Slices
    lengths: Lengths


def pieces_of(values: Any, field: SampleField, is_text: bool) -> Pieces:
    """Of a list of values, an array or tensor [B, ...], or what is like a Ragged.

    Raises:
        ConfigError: Something else; the text names the sample and the field.
    """
    if is_text:
        values = _encoded(values, field)
    if isinstance(values, (np.ndarray, torch.Tensor)):
        if not (isinstance(values, np.ndarray) and values.dtype.hasobject):
            return _of_array(values, field)
    elif all(hasattr(values, name) for name in ("values", "starts", "lengths")):
        if field.open_axes == (0,):
            return _of_ragged(values, field)
        values = [values[number] for number in range(len(values))]
    if field.takes_bytes and set(map(type, values)) <= {bytes}:  # most often so: quickly
        count = np.fromiter(map(len, values), np.uint64, len(values))
        return Pieces(list(values), count[:, None])
    buffers = []
    lengths = np.empty((len(values), len(field.open_axes)), np.uint64)
    for number, value in enumerate(values):
        buffer, lengths[number] = _of_value(value, field, number)
        buffers.append(buffer)
    return Pieces(buffers, lengths)


def piece_of(value: Any, field: SampleField, is_text: bool) -> tuple[Any, tuple[int, ...]]:
    """The bytes of a single sample's field, and the lengths of its open axes."""
    if is_text:
        (value,) = _encoded([value], field)
    return _of_value(value, field, 0)


def _encoded(values: Any, field: SampleField) -> list[bytes]:
    encoded = []
    for number, value in enumerate(values):
        try:
            encoded.append(str.encode(value))
        except (TypeError, UnicodeEncodeError) as error:
            is_text = isinstance(error, UnicodeEncodeError)
            given = f"what UTF-8 cannot have ({error})" if is_text else describe(value)
            raise ConfigError(
                f"sample {number}, field {field.name!r}: a str is expected, not {given}"
            ) from None
    return encoded


def _of_value(value: Any, field: SampleField, number: int) -> tuple[Any, tuple[int, ...]]:
    if isinstance(value, _BYTES) and field.takes_bytes:
        if isinstance(value, memoryview):
            if not value.c_contiguous:
                value = value.tobytes()
            value = memoryview(value).cast("B") if memoryview(value).nbytes else b""
        return value, (len(value),)
    array = one_array(value, field, number)
    shape = array.shape
    return _flat(array), tuple(shape[axis] for axis in field.open_axes)


def one_array(value: Any, field: SampleField, number: int) -> np.ndarray[Any, Any]:
    """The array of one sample, as it is stored."""
    what = f"sample {number}, field {field.name!r}"

    def expected() -> str:
        kind = "bytes, or " if field.takes_bytes else ""
        return f"{what}: {kind}{field.described} is expected, not {describe(value)}"

    return stored_array(value, field, field.fits, expected, what)


def _of_array(values: Any, field: SampleField) -> Pieces:
    """Every row is a sample's."""

    def fits(shape: tuple[int, ...]) -> bool:
        return len(shape) > 0 and field.fits(shape[1:])

    def expected() -> str:
        inner = field.described.partition("[")[2]
        return (
            f"field {field.name!r}: {field.stored} [B, {inner} is expected, or a list with the "
            f"array of each sample, not {describe(values)}"
        )

    array = stored_array(values, field, fits, expected, f"field {field.name!r}")
    count, shape = len(array), array.shape[1:]
    lengths = np.tile(np.array([shape[axis] for axis in field.open_axes], np.uint64), (count, 1))
    row_bytes = array.nbytes // max(count, 1)
    return Pieces(Slices.of_rows(np.ascontiguousarray(array), count, row_bytes), lengths)


def _of_ragged(ragged: Any, field: SampleField) -> Pieces:
    """Of ``values`` [N, *item], of which sample i has those from ``starts[i]`` on, ``lengths[i]``
    of them."""

    def expected() -> str:
        return (
            f"field {field.name!r}: values of {field.described} are expected, not "
            f"{describe(ragged.values)}"
        )

    array = stored_array(ragged.values, field, field.fits, expected, f"field {field.name!r}")
    starts = np.asarray(ragged.starts).astype(np.int64)
    lengths = np.asarray(ragged.lengths).astype(np.int64)
    if starts.ndim != 1 or starts.shape != lengths.shape:
        raise ConfigError(
            f"field {field.name!r}: starts and lengths [B] are expected, not {describe(starts)} "
            f"and {describe(lengths)}"
        )
    wrong = (starts < 0) | (lengths < 0) | (starts > len(array)) | (lengths > len(array) - starts)
    for number in wrong.nonzero()[0][:1].tolist():
        raise ConfigError(
            f"sample {number}, field {field.name!r}: {lengths[number]} values from "
            f"{starts[number]} on are not within the {len(array)} values"
        )
    begins, ends = starts * field.item_bytes, (starts + lengths) * field.item_bytes
    slices = Slices(np.ascontiguousarray(array), begins.tolist(), ends.tolist())
    return Pieces(slices, lengths.astype(np.uint64)[:, None])


def _flat(array: np.ndarray[Any, Any]) -> memoryview:
    if array.size == 0:
        return memoryview(b"")
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
