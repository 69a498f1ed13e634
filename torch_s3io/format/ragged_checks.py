"""Whether the parts of a ``Ragged`` fit each other."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import ConfigError, RangeError
from ..wording import short


def check_kinds(values: Any, starts: Any, lengths: Any, shapes: Any) -> None:
    is_tensor = isinstance(values, torch.Tensor) and values.layout is torch.strided
    if not is_tensor or values.dim() == 0:
        raise ConfigError(
            f"values must be a tensor [N, *item], such as torch.cat(samples), not {_kind(values)}"
        )
    if shapes is not None and values.dim() != 1:
        raise ConfigError(
            f"values must be a tensor [N] where shapes are given, not {_kind(values)}: call "
            "values.flatten(), and count starts and lengths in its items"
        )
    numbers = {"starts": (starts, 1), "lengths": (lengths, 1)}
    if shapes is not None:
        numbers["shapes"] = (shapes, 2)
    for name, (tensor, axes) in numbers.items():
        is_tensor = isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided
        if not is_tensor or tensor.dtype != torch.int64 or tensor.dim() != axes:
            wanted = "[B]" if axes == 1 else "[B, ndim]"
            raise ConfigError(f"{name} must be an int64 tensor {wanted}, not {_kind(tensor)}")
        if tensor.device != values.device:
            raise ConfigError(
                f"{name} is on {tensor.device} and values on {values.device}: move all to one "
                "device, or make the Ragged first and call its to()"
            )
        if len(tensor) != len(starts):
            raise ConfigError(
                f"{name} is of {len(tensor)} samples and starts of {len(starts)}: give one number "
                "a sample in both"
            )


def _kind(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return short(value)
    return f"{str(value.dtype).removeprefix('torch.')} {[*value.shape]}"


def facts_of(
    values: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor
) -> tuple[int, int, bool]:
    """The shortest, the longest, and whether samples are packed. All must lie within ``values``."""
    count = len(values)
    if len(starts) == 0:
        return 0, 0, count == 0
    is_outside = (starts < 0) | (lengths < 0) | (lengths > count) | (starts > count - lengths)
    sums = lengths.cumsum(0)
    follow = (sums - lengths == starts).all() & (sums[-1] == count)
    looked_at = [lengths.min(), lengths.max(), follow.long(), is_outside.any().long()]
    shortest, longest, is_packed, any_outside = torch.stack(looked_at).tolist()
    if any_outside:
        number = int(is_outside.nonzero()[0])
        raise RangeError(
            f"sample {number} begins at item {int(starts[number])} and has "
            f"{int(lengths[number])} items, which is not within the {count} of values: give "
            "starts and lengths in items of values, not in bytes or of another tensor"
        )
    return shortest, longest, bool(is_packed)


def check_shapes(shapes: torch.Tensor, lengths: torch.Tensor) -> None:
    # In float64 as well: products of integers wrap around.
    wrong = (shapes < 0).any(1) | (shapes.prod(1) != lengths)
    wrong |= shapes.double().prod(1) != lengths.double()
    if bool(wrong.any()):
        number = int(wrong.nonzero()[0])
        raise ConfigError(
            f"sample {number} has {int(lengths[number])} items, and its shape is "
            f"{shapes[number].tolist()}: lengths must be shapes.prod(1)"
        )
