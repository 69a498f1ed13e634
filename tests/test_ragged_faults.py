"""Ragged batches refuse what cannot be, and say what to do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ragged_batches import as_int64, batches, make, with_shapes

import torch_s3io as s3io

ONE = as_int64([1])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([1, 2], ONE, ONE), r"^values must be a tensor \[N, \*item\].*not \[1, 2\]"),
        ((torch.tensor(3), ONE, ONE), r"^values must be .*not int64 \[\]"),
        ((torch.eye(2).to_sparse(), ONE, ONE), r"^values must be a tensor"),
        ((torch.ones(3), [1], ONE), r"^starts must be an int64 tensor \[B\], not \[1\]"),
        ((torch.ones(3), ONE.int(), ONE), r"^starts must be an int64 .*not int32 \[1\]"),
        ((torch.ones(3), ONE, ONE[None]), r"^lengths must be .*not int64 \[1, 1\]"),
        ((torch.ones(3), ONE, as_int64([1, 1])), r"^lengths is of 2 samples and starts of 1"),
        ((torch.ones(3), ONE, ONE, ONE), r"^shapes must be an int64 tensor \[B, ndim\]"),
        ((torch.ones(3, 1), ONE, ONE, ONE[None]), r"^values must be a tensor \[N\].*flatten"),
        ((torch.ones(3), ONE, ONE, as_int64([[1, 2]])), r"^sample 0 has 1 items.*\[1, 2\]"),
        ((torch.ones(3), ONE, ONE, as_int64([[-1, -1]])), r"^sample 0 .*shapes.prod\(1\)"),
        ((torch.ones(3), ONE, 0 * ONE, as_int64([[1 << 32, 1 << 32]])), "^sample 0 has 0 items"),
        ((torch.ones(3), ONE.to("meta"), ONE), r"^starts is on meta and values on cpu: move all"),
    ],
)
def test_parts_that_do_not_fit_are_refused(arguments, text):
    with pytest.raises(s3io.ConfigError, match=text):
        s3io.Ragged(*arguments)


@given(batches(), st.data())
def test_a_sample_outside_of_the_values_is_refused_by_its_number(batch, data):
    ragged, samples = batch
    if not samples:
        return
    number = data.draw(st.integers(0, len(samples) - 1))
    count = len(ragged.values)
    starts, lengths = ragged.starts.clone(), ragged.lengths.clone()
    largest = (1 << 63) - 1
    starts[number], lengths[number] = data.draw(
        st.sampled_from(
            [
                *((-1, 0), (0, -1), (0, count + 1), (count + 1, 0), (count, 1), (1, count)),
                *((largest, largest), (largest, 1), (0, -largest - 1), (-largest - 1, largest)),
                *((-largest - 1, -largest - 1), (1, largest)),
            ]
        )
    )
    with pytest.raises(s3io.RangeError, match=f"^sample {number} begins at item .* {count} of val"):
        s3io.Ragged(ragged.values, starts, lengths)


@pytest.mark.parametrize("number", [2, -3, 1 << 70])
def test_a_sample_that_is_not_there_is_an_index_error(number):
    with pytest.raises(IndexError, match=f"sample {number} does not exist: the batch has 2"):
        make([1], [2])[number]


@pytest.mark.parametrize("index", [slice(1), "x", None, 1.0, [1, 2]])
def test_an_index_that_is_no_number_is_refused(index):
    with pytest.raises(s3io.ConfigError, match="by the number of one sample, not by"):
        make([1], [2])[index]


def test_offsets_of_what_is_not_packed_name_packed():
    ragged = make([1], [2])
    with pytest.raises(s3io.ConfigError, match=r"ragged\.packed\(\)\.offsets"):
        _ = ragged.offsets
    with pytest.raises(s3io.ConfigError, match=r"call packed\(\) first"):
        ragged.cu_seqlens()


def test_more_items_than_32_bits_count_have_no_cu_seqlens():
    values = torch.zeros(1, dtype=torch.uint8).expand(1 << 31)
    ragged = s3io.Ragged(values, as_int64([0]), as_int64([1 << 31]))
    with pytest.raises(s3io.RangeError, match="cannot count 2147483648 items"):
        ragged.cu_seqlens()
    assert ragged.offsets.tolist() == [0, 1 << 31]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *((torch.uint8, -1), (torch.uint8, 256), (torch.uint16, -100), (torch.int64, 0.5)),
        *((torch.int64, 1 << 64), (torch.bool, 2), (torch.float32, "x"), (torch.int64, None)),
        *((torch.int32, float("nan")), (torch.float32, [1.0]), (torch.float32, 1j)),
    ],
)
def test_a_filling_that_the_dtype_cannot_hold_is_refused(dtype, value):
    with pytest.raises(s3io.ConfigError, match=r"^padded\(value=.*cannot hold it: give another"):
        make([1], [1, 1], dtype=dtype).padded(value)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *((torch.int64, -(1 << 63)), (torch.int64, (1 << 53) + 1), (torch.uint16, 65535)),
        *(
            (torch.float16, float("-inf")),
            (torch.bool, True),
            (torch.complex64, 1j),
            (torch.float64, 0.1),
        ),
    ],
)
def test_a_filling_is_exact(dtype, value):
    assert make([1], [1, 1], dtype=dtype).padded(value)[0, 1].item() == value


@pytest.mark.parametrize("length", [-1, 1.5, "x", True])
def test_a_length_that_is_none_is_refused(length):
    with pytest.raises(s3io.ConfigError, match=r"^length must be"):
        make([1], [1, 1]).padded(length=length)


def test_padding_that_has_no_memory_says_what_it_would_take():
    values = torch.zeros(1, dtype=torch.uint8).expand(1 << 50)
    ragged = s3io.Ragged(values, as_int64([0, 0]), as_int64([1, 1 << 50]))
    with pytest.raises(s3io.OutOfMemoryError, match=r"2251\.80 TB.*length= and truncate=True"):
        ragged.padded()


def test_an_option_that_is_misspelt_is_told_the_right_one():
    with pytest.raises(TypeError, match="did you mean 'starts'"):
        s3io.Ragged(torch.ones(1), start=ONE, lengths=ONE)


@pytest.mark.parametrize(
    ("ragged", "text"),
    [
        (make([1, 2], []), "Ragged(2 samples of 0 to 2 items of int64, is_packed=False)"),
        (with_shapes(), "Ragged(2 samples in 2 axes of 4 to 6 items of int64, is_packed=False)"),
        (
            s3io.Ragged(torch.ones(4, 3), as_int64([0]), as_int64([4])),
            "Ragged(1 samples of 4 to 4 items of float32 [3], is_packed=True)",
        ),
    ],
)
def test_its_text_is_short(ragged, text):
    assert repr(ragged) == text
