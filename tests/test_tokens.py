"""RecordDataset.from_tokens against numpy's sliding windows."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from support import write_file

from torch_s3io import ConfigError, DataError, RecordDataset


def windows_of(tokens: np.ndarray, window: int, stride: int) -> np.ndarray:
    """The windows of one file, by numpy."""
    if len(tokens) < window:
        return np.empty((0, window), tokens.dtype)
    return np.lib.stride_tricks.sliding_window_view(tokens, window)[::stride]


def token_files(folder: Path, lengths: list[int], dtype: str) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    streams = [generator.integers(0, 250, length).astype(dtype) for length in lengths]
    for number, stream in enumerate(streams):
        write_file(folder / f"{number}.bin", stream.tobytes())
    return streams


@settings(max_examples=100)
@given(
    lengths=st.lists(st.integers(0, 6000), min_size=1, max_size=4),
    window=st.integers(1, 1200),
    stride=st.one_of(st.none(), st.integers(1, 2500)),
    dtype=st.sampled_from(["u1", "u2", "i4", "i8", ">u2"]),
    as_dtype=st.sampled_from([None, torch.int64]),
    batch_size=st.one_of(st.none(), st.integers(1, 9)),
    direct=st.sampled_from(["auto", "require", "off"]),
)
def test_the_windows_are_those_of_numpy(
    disk, lengths, window, stride, dtype, as_dtype, batch_size, direct
):
    step = window if stride is None else stride
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        streams = token_files(Path(folder), lengths, dtype)
        expected = np.concatenate([windows_of(stream, window, step) for stream in streams])
        expected = expected[:300]
        if not len(expected):
            with pytest.raises(DataError, match="no records"):
                RecordDataset.from_tokens(f"{folder}/*.bin", window=window, dtype=dtype)
            return
        dataset = RecordDataset.from_tokens(
            f"{folder}/*.bin",
            window=window,
            stride=stride,
            dtype=dtype,
            as_dtype=as_dtype,
            batch_size=batch_size,
            direct=direct,
        )
        position = 0
        for batch in dataset:
            rows = batch.unsqueeze(0) if batch_size is None else batch
            wanted = expected[position : position + len(rows)]
            np.testing.assert_array_equal(rows.numpy()[: len(wanted)], wanted)
            position += len(rows)
            if as_dtype is not None:
                assert batch.dtype == as_dtype
            if position >= len(expected):
                break
        assert position >= len(expected)


@pytest.mark.parametrize(("window", "stride"), [(100, 100), (100, 37), (100, 150), (1, 1)])
def test_records_and_unused_tail_are_counted_per_file(disk, window, stride):
    streams = token_files(disk, [1000, 99, 100, 0, 1234], "u2")
    expected = [windows_of(stream, window, stride) for stream in streams]
    unused = 0
    for stream, rows in zip(streams, expected, strict=True):
        covered = (len(rows) - 1) * stride + max(window, stride) if len(rows) else 0
        unused += max(0, len(stream) - covered) * 2
    dataset = RecordDataset.from_tokens(f"{disk}/*.bin", window=window, stride=stride)
    assert dataset.num_records == sum(map(len, expected))
    assert dataset.unused_tail_bytes == unused


def test_overlapping_windows_of_one_file_are_read_once_and_viewed(disk):
    token_files(disk, [20_000], "u2")
    dataset = RecordDataset.from_tokens(
        disk / "0.bin", window=1025, stride=1024, batch_size=4, direct="require"
    )
    first = next(iter(dataset))
    assert first.stride() == (1024, 1)
    assert first[0, 1024] == first[1, 0]
    assert first[0, 1024].data_ptr() == first[1, 0].data_ptr()
    stats = dataset.stats()
    assert stats["copied_bytes"] == 0


def test_uint16_tokens_become_int64_for_an_embedding(disk):
    (stream,) = token_files(disk, [5000], "u2")
    dataset = RecordDataset.from_tokens(
        disk / "0.bin", window=65, stride=64, as_dtype=torch.int64, batch_size=8
    )
    embedding = torch.nn.Embedding(256, 4)
    batch = next(iter(dataset))
    assert embedding(batch).shape == (8, 65, 4)
    np.testing.assert_array_equal(batch.numpy(), windows_of(stream, 65, 64)[:8].astype("i8"))


def test_bfloat16_streams_are_windows_too(disk):
    stream = torch.arange(300).to(torch.bfloat16)
    write_file(disk / "x.bin", stream.view(torch.uint8).numpy().tobytes())
    dataset = RecordDataset.from_tokens(
        disk / "x.bin", window=10, stride=7, dtype=torch.bfloat16, batch_size=100
    )
    (batch,) = dataset
    assert torch.equal(batch, stream.unfold(0, 10, 7))


@pytest.mark.parametrize(
    "options",
    [
        {"window": 0},
        {"window": -1},
        {"window": 2.5},
        {"window": 4, "stride": 0},
        {"window": 4, "stride": -1},
        {"window": 4, "dtype": np.dtype([("a", "u2")])},
        {"window": 4, "dtype": np.dtype(("u2", (2,)))},
        {"window": 4, "dtype": "S2"},
        {"window": 1 << 61},
    ],
)
def test_nonsense_is_refused(disk, options):
    token_files(disk, [100], "u2")
    with pytest.raises((ConfigError, DataError)):
        RecordDataset.from_tokens(disk / "0.bin", **options)


def test_a_window_that_fits_into_no_file_is_refused_by_name(disk):
    write_file(disk / "0.bin", bytes(6))
    write_file(disk / "1.bin", bytes(20))
    with pytest.raises(DataError, match=r"window of 1000000 tokens .*/1.bin, has 10: lower"):
        RecordDataset.from_tokens(f"{disk}/*.bin", window=10**6)


def test_half_a_token_at_the_end_is_refused(disk):
    write_file(disk / "x.bin", bytes(101))
    with pytest.raises(DataError, match=r"x\.bin.*101 bytes.*2 bytes"):
        RecordDataset.from_tokens(disk / "x.bin", window=10)
