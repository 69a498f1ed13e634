"""pack loses nothing: whatever the sources, shards and padding, numpy sees the same bytes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings
from record_sets import all_records, bytes_of, random_array
from support import random_bytes

from torch_s3io.cli import main

DTYPES = st.sampled_from(["u1", "?", "<i2", ">u2", "<f4", ">f8", "<c8", "f2"])
SHAPES = st.lists(st.integers(1, 5), max_size=3).map(tuple)
COUNTS = st.lists(st.integers(0, 12), min_size=1, max_size=3).filter(any)
SHARD_BYTES = st.sampled_from([1, 1000, 10_000, 1 << 20])
ALIGN = st.sampled_from(["auto", "none", "64", "4096"])
packing = settings(max_examples=25)


def native(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="))


def read_packed(folder: Path, sources: list, shard_bytes: int, align: str, *options: object):
    """Packs the files; the batches of what comes back."""
    arguments = ["--shard-mib", shard_bytes / 2**20, "--align", align, "--processes", 1, *options]
    assert main([*map(str, ["pack", *sources, "-o", folder / "out", *arguments])]) == 0
    return all_records(folder / "out")


def check_packed(
    folder: Path, sources: list, shard_bytes: int, align: str, expected: np.ndarray, *options
) -> None:
    """The files, packed, are the expected records: as stored, and as they are read."""
    batches = read_packed(folder, sources, shard_bytes, align, *options)
    assert bytes_of(folder / "out", len(expected), expected[0].nbytes) == expected.tobytes()
    got = torch.cat(batches).numpy()
    assert got.tobytes() == native(expected).tobytes()
    assert got.shape == expected.shape


@packing
@given(dtype=DTYPES, shape=SHAPES, counts=COUNTS, shard_bytes=SHARD_BYTES, align=ALIGN)
def test_arrays(disk, dtype, shape, counts, shard_bytes, align):
    folder = Path(tempfile.mkdtemp(dir=disk))
    arrays = [random_array(dtype, count, shape, 1) for count in counts]
    paths = [folder / f"{number}.npy" for number in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    expected = np.concatenate(arrays).astype(dtype)  # concatenate loses the byte order
    check_packed(folder, paths, shard_bytes, align, expected)


@packing
@given(
    names=st.sets(st.text("aB1-\u00e9", min_size=1, max_size=3), min_size=1, max_size=12),
    size=st.integers(1, 5000),
    shard_bytes=SHARD_BYTES,
    align=ALIGN,
)
def test_files_of_one_size(disk, names, size, shard_bytes, align):
    folder = Path(tempfile.mkdtemp(dir=disk))
    (folder / "in").mkdir()
    contents = {name: random_bytes(size, number) for number, name in enumerate(names)}
    for name, content in contents.items():
        (folder / "in" / name).write_bytes(content)
    expected = np.frombuffer(b"".join(contents[name] for name in sorted(contents)), np.uint8)
    records = expected.reshape(len(names), size)
    check_packed(folder, [folder / "in"], shard_bytes, align, records)


@packing
@given(counts=COUNTS, shard_bytes=SHARD_BYTES, align=ALIGN)
def test_cifar10_binaries(disk, counts, shard_bytes, align):
    folder = Path(tempfile.mkdtemp(dir=disk))
    rows = random_array("u1", sum(counts), (3073,), 2)
    paths = [folder / f"data_batch_{number}.bin" for number in range(len(counts))]
    for path, part in zip(paths, np.split(rows, np.cumsum(counts)[:-1]), strict=True):
        path.write_bytes(part.tobytes())
    batches = read_packed(folder, paths, shard_bytes, align)
    assert bytes_of(folder / "out", len(rows), 3073) == rows.tobytes()
    for name, expected in (("label", rows[:, 0]), ("image", rows[:, 1:].reshape(-1, 3, 32, 32))):
        got = torch.cat([batch[name] for batch in batches]).numpy()
        np.testing.assert_array_equal(got, expected)


@packing
@given(
    dtype=st.sampled_from(["u1", "<u2", ">u2", "<i4"]),
    counts=st.lists(st.integers(0, 50), min_size=1, max_size=3),
    window=st.integers(2, 40),
    stride=st.none() | st.integers(4, 50),
    shard_bytes=SHARD_BYTES,
    align=ALIGN,
)
def test_windows_of_tokens(disk, dtype, counts, window, stride, shard_bytes, align):
    counts[0] += window  # at least one window
    folder = Path(tempfile.mkdtemp(dir=disk))
    streams = [random_array(dtype, count, (), 3) for count in counts]
    paths = [folder / f"{number}.bin" for number in range(len(streams))]
    for path, stream in zip(paths, streams, strict=True):
        stream.tofile(path)
    expected = np.concatenate(
        [
            np.lib.stride_tricks.sliding_window_view(stream, window)[:: stride or window]
            for stream in streams
            if len(stream) >= window
        ]
    ).astype(dtype)  # concatenate loses the byte order
    options = ["--format", "tokens", "--dtype", dtype, "--window", window]
    options += [] if stride is None else ["--stride", stride]
    check_packed(folder, paths, shard_bytes, align, expected, *options)


@packing
@given(
    dtype=DTYPES,
    shape=SHAPES,
    counts=COUNTS,
    header=st.binary(max_size=40),
    shard_bytes=SHARD_BYTES,
    align=ALIGN,
)
def test_raw_records_after_a_header(disk, dtype, shape, counts, header, shard_bytes, align):
    folder = Path(tempfile.mkdtemp(dir=disk))
    records = random_array(dtype, sum(counts), shape, 4)
    paths = [folder / f"{number}.bin" for number in range(len(counts))]
    for path, part in zip(paths, np.split(records, np.cumsum(counts)[:-1]), strict=True):
        path.write_bytes(header + part.tobytes())
    options = ["--format", "records", "--dtype", dtype, "--header-bytes", len(header)]
    options += ["--shape", ",".join(map(str, shape))] if shape else []
    check_packed(folder, paths, shard_bytes, align, records, *options)
