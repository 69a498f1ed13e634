"""Ragged batches, against lists of tensors."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ragged_batches import as_int64, batches, numbered, same

import torch_s3io as s3io


@given(batches())
def test_samples_are_views_by_number_in_a_loop_and_unbound(batch):
    ragged, samples = batch
    assert len(ragged) == len(samples)
    assert ragged.max_length == max(map(len, samples), default=0)
    assert ragged.min_length == min(map(len, samples), default=0)
    for number, sample in enumerate(samples):
        for one in (ragged[number], ragged[number - len(samples)], ragged[np.int64(number)]):
            assert same(one, sample)
            assert one.untyped_storage().data_ptr() == ragged.values.untyped_storage().data_ptr()
            assert not one.numel() or one.data_ptr() == sample.data_ptr()
    for found in (list(ragged), ragged.unbind()):
        assert len(found) == len(samples)
        for one, sample in zip(found, samples, strict=True):
            assert same(one, sample)
            assert not one.numel() or one.data_ptr() == sample.data_ptr()


@given(batches())
def test_packed_samples_follow_each_other_and_have_offsets(batch):
    ragged, samples = batch
    packed = ragged.packed()
    ends = list(itertools.accumulate(map(len, samples), initial=0))
    follows = ragged.starts.tolist() == ends[:-1] and len(ragged.values) == ends[-1]
    assert ragged.is_packed == follows
    assert (packed is ragged) == follows
    assert packed.is_packed
    assert packed.packed() is packed
    assert same(packed.values, torch.cat([*samples, ragged.values[:0]]))
    assert same(packed.offsets, as_int64(ends))
    assert same(packed.cu_seqlens(), torch.tensor(ends, dtype=torch.int32))
    assert (packed.min_length, packed.max_length) == (ragged.min_length, ragged.max_length)
    again = s3io.Ragged(packed.values, packed.starts, packed.lengths)
    assert again.is_packed
    assert all(map(same, again, samples))


@given(batches(), st.sampled_from([None, 0, 1, 5, 12, 600, 800]), st.sampled_from([0, 1]))
def test_padded_is_what_a_loop_over_rows_makes(batch, length, value):
    ragged, samples = batch
    width = ragged.max_length if length is None else length
    rows = torch.empty(len(samples), width, *ragged.values.shape[1:], dtype=ragged.values.dtype)
    mask = torch.zeros(len(samples), width, dtype=torch.bool)
    rows[:] = value
    for row, row_mask, sample in zip(rows, mask, samples, strict=True):
        row[: len(sample)] = sample[:width]
        row_mask[: len(sample)] = True
    assert same(ragged.padded(value, length, truncate=True), rows)
    assert same(ragged.mask(length), mask)
    if width < ragged.max_length:
        with pytest.raises(s3io.ConfigError, match=rf"more than length={width}: .*truncate=True"):
            ragged.padded(value, length)
    else:
        assert same(ragged.padded(value, length), rows)


@given(batches())
def test_nested_is_a_view_of_the_same_samples(batch):
    ragged, samples = batch
    nested = ragged.nested()
    assert nested.layout is torch.jagged
    assert nested.values().data_ptr() == ragged.values.data_ptr()
    found = nested.unbind()
    assert len(found) == len(samples)
    assert all(map(same, found, samples))
    packed = ragged.packed()
    if torch.__version__.startswith("2.4."):  # which cannot pad what is jagged
        return
    if samples and packed.values.dtype is torch.float32 and packed.values.numel():
        assert same(packed.nested().to_padded_tensor(7.0), packed.padded(7))


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=5), st.integers(0, 2))
def test_samples_ragged_in_several_axes_have_their_shapes(shapes, gap):
    lengths = as_int64([math.prod(shape) for shape in shapes])
    starts = lengths.cumsum(0) - lengths + gap * torch.arange(1, len(shapes) + 1)
    values = numbered(int(lengths.sum()) + gap * len(shapes), (), torch.uint8)
    table = as_int64(shapes).view(len(shapes), 3)
    ragged = s3io.Ragged(values, starts, lengths, table)
    for one in (ragged, ragged.packed(), pickle.loads(pickle.dumps(ragged))):
        found = [one[number] for number in range(len(one))]
        assert all(map(same, found, one.unbind()))
        for sample, start, shape in zip(found, starts, shapes, strict=True):
            assert same(sample, values[start : start + math.prod(shape)].view(shape))
    for method in ("padded", "nested", "mask"):
        with pytest.raises(s3io.ConfigError, match=rf"^{method}\(\) is .*unbind"):
            getattr(ragged, method)()


def test_samples_may_lie_over_each_other():
    ragged = s3io.Ragged(torch.arange(5), as_int64([1, 1, 0]), as_int64([3, 3, 5]))
    assert [sample.tolist() for sample in ragged] == [[1, 2, 3], [1, 2, 3], [0, 1, 2, 3, 4]]
    assert ragged.packed().values.tolist() == [1, 2, 3, 1, 2, 3, 0, 1, 2, 3, 4]
    assert not ragged.is_packed


def test_gradients_reach_the_values_through_padding_and_packing():
    for length in (3, 1000):
        values = torch.ones(length + 4, requires_grad=True)
        ragged = s3io.Ragged(values, as_int64([1, length + 2]), as_int64([length, 2]))
        wanted = [0.0, *[2.0] * length, 0.0, 2.0, 2.0]
        (ragged.padded(5).sum() + ragged.packed().values.sum()).backward()
        assert values.grad is not None
        assert values.grad.tolist() == wanted
    assert torch.equal(ragged.padded(5)[1, 2:], torch.full((length - 2,), 5.0))
