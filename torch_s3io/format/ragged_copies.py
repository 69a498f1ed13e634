"""Copies of samples that differ in length: side by side, or one after the other."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..errors import ConfigError, OutOfMemoryError
from ..wording import short, size_text

# Up to this length samples are gathered by the numbers of their items, longer ones copied one by
# one: an item's number costs about 5 ns, a copy of its own about 4 us.
_GATHERED_LENGTH = 512
# What torch can gather and fill, by the size of an item: it has few functions for unsigned
# integers and float8.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def joined(
    values: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, longest: int
) -> torch.Tensor:
    """The samples one after the other."""
    if longest > _GATHERED_LENGTH:
        places = zip(starts.tolist(), lengths.tolist(), strict=True)
        return torch.cat([values[start : start + length] for start, length in places])
    moved = torch.repeat_interleave(starts - (lengths.cumsum(0) - lengths), lengths)
    numbers = moved.add_(torch.arange(len(moved), device=moved.device))
    return _of_dtype(values.dtype, _as_bits(values).index_select(0, numbers))


def side_by_side(
    values: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, width: int, filling: Any
) -> torch.Tensor:
    """[B, width, *item]: the samples, cut at ``width``, and ``filling`` behind them."""
    bits = _as_bits(values)
    fill = _as_bits(_tensor_of(filling, values.dtype)).item()
    gathers = width <= _GATHERED_LENGTH and len(values) > 0
    copies = (_gathered if gathers else _copied)(bits, starts, lengths, width, fill)
    return _of_dtype(values.dtype, copies)


def _gathered(
    values: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, width: int, fill: Any
) -> torch.Tensor:
    items = torch.arange(width, device=values.device)
    numbers = (starts[:, None] + items).clamp_(max=len(values) - 1)
    rows = values.index_select(0, numbers.flatten()).view(*numbers.shape, *values.shape[1:])
    is_behind = items >= lengths[:, None]
    rows.masked_fill_(is_behind.view(*numbers.shape, *[1] * (values.dim() - 1)), fill)
    return rows


def _copied(
    values: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, width: int, fill: Any
) -> torch.Tensor:
    shape = (len(starts), width, *values.shape[1:])
    try:
        rows = values.new_empty(shape)
    except RuntimeError as error:
        raise OutOfMemoryError(
            f"{len(starts)} samples padded to {width} items need "
            f"{size_text(math.prod(shape) * values.itemsize)}, which are not to be had ({error}): "
            "give padded() a length= and truncate=True, or make smaller batches"
        ) from error
    places = zip(starts.tolist(), lengths.clamp(max=width).tolist(), strict=True)
    for number, (start, length) in enumerate(places):
        rows[number, :length] = values[start : start + length]
        rows[number, length:] = fill
    return rows


def _tensor_of(value: Any, dtype: torch.dtype) -> torch.Tensor:
    """The value as a tensor []; raises ConfigError where the dtype cannot hold it."""
    try:
        tensor = torch.tensor(value, dtype=dtype)
        fits = dtype.is_floating_point or dtype.is_complex or tensor.item() == value
        if fits and tensor.dim() == 0:
            return tensor
    except (RuntimeError, TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(
        f"padded(value={short(value)}): {str(dtype).removeprefix('torch.')} cannot hold it: give "
        "another value, or pad a Ragged of values of another dtype"
    )


def _as_bits(tensor: torch.Tensor) -> torch.Tensor:
    """A view of a dtype that torch can gather and fill. Floats stay, for their gradients."""
    if tensor.itemsize > 1 and (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    return tensor.view(_BITS[tensor.itemsize])


def _of_dtype(dtype: torch.dtype, bits: torch.Tensor) -> torch.Tensor:
    # Through a view of its own dtype no gradient comes, either.
    return bits if bits.dtype == dtype else bits.view(dtype)
