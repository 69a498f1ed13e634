"""Batches of records as the bytes that go to the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import ConfigError
from ..format.layout import Field, RecordLayout, is_torch_only, make_layout
from ..store.object_writer import refuse_masked


def rows_of(records: Any, layout: RecordLayout) -> tuple[memoryview, int]:
    """The bytes of a batch of records, one after the other, and how many records it has.

    Args:
        records: For a plain layout a tensor or an array ``[B, *shape]`` of its dtype; for a
            structured one an array ``[B]`` of its dtype, or a dict ``{field: tensor or array}``.
            A copy is made where the bytes do not lie together in this order, or of a dict.

    Raises:
        ConfigError: Something else; the text says what was expected.
    """
    if layout.is_plain:
        field = layout.fields[0]
        array = _field_array(records, field, "records")
        return _bytes_of(array), len(array)
    if isinstance(records, Mapping):
        return _from_columns(records, layout)
    return _from_structured(records, layout)


def _from_structured(records: Any, layout: RecordLayout) -> tuple[memoryview, int]:
    if not isinstance(records, np.ndarray) or records.dtype.names is None or records.ndim != 1:
        raise ConfigError(
            "records of a structured dtype are a structured array [B], or a dict of arrays and "
            f"tensors by field, not {describe(records)}"
        )
    refuse_masked(records, "records")
    given = make_layout(records.dtype)
    if (given.fields, given.record_bytes) != (layout.fields, layout.record_bytes):
        raise ConfigError(
            f"records of {records.dtype} are not of the dtype of this writer, {layout.describe()}; "
            "call records.astype(...), or give that dtype to the writer"
        )
    return _bytes_of(records), len(records)


def _from_columns(columns: Mapping[str, Any], layout: RecordLayout) -> tuple[memoryview, int]:
    names = [field.name for field in layout.fields]
    if set(columns) != set(names):
        raise ConfigError(f"the fields are {names}, not {list(columns)}; every write has all")
    arrays = [_field_array(columns[field.name], field, field.name) for field in layout.fields]
    count = len(arrays[0])
    for field, array in zip(layout.fields, arrays, strict=True):
        if len(array) != count:
            raise ConfigError(
                f"field {field.name!r} has {len(array)} records, {names[0]!r} has {count}; a "
                "write has as "
                "many of each"
            )
    if count == 0:
        return memoryview(b""), 0
    offsets = [field.offset for field in layout.fields]
    return _bytes_of(packed(arrays, offsets, layout.record_bytes)), count


def packed(
    columns: Sequence[np.ndarray[Any, Any]], offsets: Sequence[int], record_bytes: int
) -> np.ndarray[Any, Any]:
    """Columns ``[B, ...]`` as records, each field at its offset: uint8 [B, record_bytes]."""
    rows = np.zeros((len(columns[0]), record_bytes), np.uint8)
    for offset, column in zip(offsets, columns, strict=True):
        inner = np.empty(column.shape[1:], column.dtype).strides
        strides = (record_bytes, *inner)
        target = np.ndarray(column.shape, column.dtype, rows.data, offset, strides)
        target[...] = column
    return rows


def _field_array(values: Any, field: Field, what: str) -> np.ndarray[Any, Any]:
    """The values ``[B, *shape]``, as stored; of dtypes that numpy lacks, as integers."""

    def fits(given: tuple[int, ...]) -> bool:
        return len(given) > 0 and given[1:] == field.shape

    def expected() -> str:
        shape = f"[B{''.join(f', {extent}' for extent in field.shape)}]"
        given = f"{describe(values)}{_way_to(values, field)}"
        return f"{what}: {field.stored} {shape} is expected, not {given}"

    return stored_array(values, field, fits, expected, what)


class Element(Protocol):
    """What is stored: of a field of records, or of samples."""

    @property
    def stored(self) -> str: ...
    @property
    def swap_bytes(self) -> bool: ...


def stored_array(
    values: Any,
    element: Element,
    fits: Callable[[tuple[int, ...]], bool],
    expected: Callable[[], str],
    what: str,
) -> np.ndarray[Any, Any]:
    """The values of an array or tensor as they are stored; of dtypes that numpy lacks, as integers.

    Raises:
        ConfigError: ``expected()``, where dtype or shape are others; or what has to be done before.
    """
    torch_dtype: torch.dtype = getattr(torch, element.stored)
    if isinstance(values, torch.Tensor):
        if values.is_nested or values.layout != torch.strided:
            raise ConfigError(expected())
        if values.dtype != torch_dtype or not fits(tuple(values.shape)):
            raise ConfigError(expected())
        if values.device.type != "cpu":
            raise ConfigError(f"{expected()}; call .cpu()")
        tensor = values.detach().resolve_conj().resolve_neg().contiguous()
        if is_torch_only(torch_dtype):
            tensor = tensor.view(torch.int16 if tensor.itemsize == 2 else torch.uint8)
            as_integers: np.ndarray[Any, Any] = tensor.numpy()
            return as_integers
        values = tensor.numpy()
    elif not isinstance(values, np.ndarray):
        raise ConfigError(f"{expected()}; numpy.asarray and torch.as_tensor make one")
    refuse_masked(values, what)
    if not fits(values.shape):
        raise ConfigError(expected())
    if is_torch_only(torch_dtype):
        if values.dtype.name != element.stored:  # one of ml_dtypes
            raise ConfigError(expected())
        as_integers = np.ascontiguousarray(values).view(f"u{values.itemsize}")
        return as_integers.reshape(values.shape)
    dtype = np.dtype(element.stored)
    if values.dtype.newbyteorder("=") != dtype:
        raise ConfigError(expected())
    as_stored: np.ndarray[Any, Any] = values.astype(
        dtype.newbyteorder("S") if element.swap_bytes else dtype, copy=False
    )
    return as_stored


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    if array.size == 0:
        return memoryview(b"")
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _way_to(values: Any, field: Field) -> str:
    """What makes the expected array of values that are nearly it."""
    is_strided = isinstance(values, torch.Tensor) and values.layout == torch.strided
    is_tensor = is_strided and not values.is_nested
    if not (is_tensor or isinstance(values, np.ndarray)):
        return ""
    shape = tuple(values.shape)
    if shape == field.shape and shape:
        return "; of a single record, write values[None]"
    if shape[1:] != field.shape or not shape or is_torch_only(field.output_dtype):
        return ""
    if is_tensor:
        is_other = values.dtype != field.output_dtype
        return f"; values.to({field.output_dtype}) converts" if is_other else ""
    is_other = values.dtype.newbyteorder("=") != np.dtype(field.stored)
    return f"; values.astype({field.stored!r}) converts" if is_other else ""


def describe(values: Any) -> str:
    if isinstance(values, torch.Tensor) and (values.is_nested or values.layout != torch.strided):
        return "a nested tensor" if values.is_nested else "a sparse tensor"
    if isinstance(values, (torch.Tensor, np.ndarray)):
        return f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}"
    return type(values).__name__
