"""Ragged batches, and what they are made of, for tests."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import strategies as st

import torch_s3io as s3io

DTYPES = [
    *(torch.bool, torch.uint8, torch.int64, torch.uint16, torch.uint32, torch.float16),
    *(torch.bfloat16, torch.float32, torch.float64, torch.complex64),
]


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bits(one) == bits(other)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def numbered(count: int, item: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    numbers = torch.arange(1, count * math.prod(item) + 1).view(count, *item)
    return numbers % 2 == 1 if dtype is torch.bool else (numbers % 251).to(dtype)


@st.composite
def places(draw: Any) -> tuple[list[int], list[int], int]:
    """Starts, lengths and the number of items: with gaps, in any order."""
    long = draw(st.booleans())
    lengths = draw(st.lists(st.integers(0, 700 if long else 9), max_size=7))
    gap = st.integers(0, 3) if draw(st.booleans()) else st.just(0)
    order = draw(st.permutations(range(len(lengths))))
    starts, end = [0] * len(lengths), 0
    for number in order if draw(st.booleans()) else range(len(lengths)):
        starts[number] = end = end + draw(gap)
        end += lengths[number]
    return starts, lengths, end + draw(gap)


@st.composite
def batches(draw: Any) -> tuple[s3io.Ragged, list[torch.Tensor]]:
    starts, lengths, count = draw(places())
    item = draw(st.sampled_from([(), (3,), (2, 2), (0,)]))
    values = numbered(count, item, draw(st.sampled_from(DTYPES)))
    ragged = s3io.Ragged(values, as_int64(starts), as_int64(lengths))
    ends = map(sum, zip(starts, lengths, strict=True))
    return ragged, [values[begin:end] for begin, end in zip(starts, ends, strict=True)]


def as_int64(numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def make(*samples: Any, gap: int = 1, dtype: torch.dtype = torch.int64) -> s3io.Ragged:
    """Of lists of numbers, with zeros in between."""
    joined = [number for sample in samples for number in [*sample, *[0] * gap]]
    lengths = as_int64([len(sample) for sample in samples])
    steps = lengths + gap
    return s3io.Ragged(torch.tensor(joined, dtype=dtype), steps.cumsum(0) - steps, lengths)


# ---- Against lists of tensors.


def with_shapes() -> s3io.Ragged:
    return s3io.Ragged(
        torch.arange(10), as_int64([6, 0]), as_int64([4, 6]), as_int64([[2, 2], [1, 6]])
    )
