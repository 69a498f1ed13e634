"""Arrays that numpy.savez_compressed wrote: refused, or inflated where they are read."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from record_sets import random_array
from support import write_file

from torch_s3io import ConfigError, DataError, DataLoader, Error, Mix, SampleDataset
from torch_s3io.index.column_file import map_columns
from torch_s3io.index.column_writer import write_columns

KINDS = ["u1", "?", "<i2", ">u2", "<f4", ">f8", "<c8", ">c16", "f2"]
SHAPES = [(None,), (None, 3), (None, None), (4, None)]


def archive(save=np.savez_compressed, **arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def read(paths, fields=("x", "y"), **options) -> SampleDataset:
    options = {"compressed": "read", "batch_size": 100, **options}
    return SampleDataset.from_npz(paths, fields=fields, **options)


def check(batch, arrays: list[np.ndarray]) -> None:
    for tensor, array in zip(batch.unbind(), arrays, strict=True):
        native = array.astype(array.dtype.newbyteorder("="))
        assert (tensor.numpy().dtype, tensor.numpy().shape) == (native.dtype, native.shape)
        assert tensor.numpy().tobytes() == native.tobytes()


@settings(max_examples=30)
@given(st.data())
def test_compressed_arrays_are_what_numpy_loads(disk, data):
    kind, shape = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(SHAPES))
    paths, saved = [], []
    for seed in range(data.draw(st.integers(1, 5))):
        extents = tuple(data.draw(st.integers(0, 30)) if one is None else one for one in shape)
        arrays = {
            "x": random_array(kind, 1, extents, seed)[0],
            "y": np.zeros(3000 * seed, "<f4"),
            "n": np.array(seed, ">i4"),
        }
        save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
        paths.append(write_file(Path(disk) / f"{seed}.npz", archive(save, **arrays)))
        saved.append(arrays)
    (batch,) = read(paths, ("x", "n", "y"))
    check(batch["x"], [arrays["x"] for arrays in saved])
    check(batch["y"], [arrays["y"] for arrays in saved])
    assert batch["n"].tolist() == list(range(len(saved)))


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    folder = tmp_path / "volumes"
    folder.mkdir()
    for number in range(30):
        x, y = np.arange(number), np.full((number, 2), number, "u1")
        write_file(folder / f"{number:02}.npz", archive(x=x, y=y, n=np.array(number)))
    return folder


def test_they_are_shuffled_padded_resumed_and_read_by_workers_as_others(volumes, tmp_path):
    index = tmp_path / "x.idx"
    for _ in range(2):
        dataset = read(
            f"{volumes}/*.npz", index=index, shuffle=True, return_key=True, batch_size=7,
            ragged={"y": "padded"},
        )  # fmt: skip
        assert dataset.shape == {"x": (None,), "y": (None, 2)}
        found = list(DataLoader(dataset, num_workers=1))
        keys = [key for batch in found for key in batch["key"]]
        assert sorted(keys) == [f"{number:02}.npz" for number in range(30)]
        for batch in found:
            numbers = [int(key[:2]) for key in batch["key"]]
            check(batch["x"], [np.arange(number) for number in numbers])
            assert batch["y"].shape == (len(numbers), max(numbers), 2)
            assert batch["y"].sum(dim=(1, 2)).tolist() == [2 * one * one for one in numbers]
    with pytest.raises(DataError, match=r"00\.npz.*is compressed.*compressed='read'"):
        read(f"{volumes}/*.npz", index=index, compressed="error")
    with pytest.raises(ConfigError, match="compressed= is 'error' or 'read'"):
        read(f"{volumes}/*.npz", compressed=True)
    halves = dataset.split([0.5, 0.5])
    assert sum(len(batch["key"]) for half in halves for batch in half) == 30
    with pytest.raises(ConfigError, match="cannot be parts"):
        Mix(halves)


def outcome(path: Path):
    """The text of an error, or a batch."""
    try:
        return "", next(iter(read(path)))
    except Error as error:
        return str(error), None


@pytest.mark.parametrize("change", ["cut", "flip"])
def test_one_that_is_cut_or_changed_at_any_byte_is_refused_or_read_right(disk, change):
    x, y = np.arange(200, dtype="<f4"), np.arange(5, dtype="u1")
    path = disk / "a.npz"
    data = archive(x=x, y=y)
    for place in range(0, len(data), 3):
        wrong = data[:place] if change == "cut" else bytearray(data)
        if change == "flip":
            wrong[place] ^= 0xFF
        write_file(path, bytes(wrong))
        text, batch = outcome(path)
        if batch is None:
            assert "a.npz" in text, place
            continue
        assert change == "flip", place
        check(batch["x"], [x])
        check(batch["y"], [y])


def with_size(data: bytes, size: int) -> bytes:
    """The archive, whose directory says another size of its first member."""
    wrong, at = bytearray(data), data.index(b"PK\x01\x02")
    struct.pack_into("<I", wrong, at + 24, size)
    return bytes(wrong)


def test_a_member_of_another_size_than_it_says_takes_no_more_memory_than_that(disk):
    path = disk / "a.npz"
    bomb = archive(x=np.zeros(10_000_000, "u1"), y=np.zeros(1))
    small = archive(x=np.zeros(1000, "u1"), y=np.zeros(1))
    for data, text in (
        (
            with_size(bomb, 1128),
            "a.npz: the array 'x' has 1128 bytes, but its header describes 10000128",
        ),
        (with_size(bomb, 0xFFFFFFF0), "more than deflate makes of them"),
        (with_size(small, 1129), "its header describes 1128"),
    ):
        write_file(path, data)
        with pytest.raises(DataError, match=text):
            read(path)
    # The header is as the directory says, and there is more behind it.
    head = np.lib.format.magic(1, 0) + struct.pack("<H", 118)
    head += b"{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", head + bytes(10_000_000))
    write_file(path, with_size(path.read_bytes(), len(head) + 3))
    with pytest.raises(DataError, match=r"a\.npz: sample 0.*has not the 131 bytes"):
        next(iter(read(path, ["x"])))


LIES = {
    "another checksum": {"crc32_0": np.zeros(30, "<u4")},
    "no checksums": {"crc32_0": None},
    "checksums with a sign": {"crc32_0": np.zeros(30, "<i4")},
    "headers without end": {"headers_0": np.full(30, (1 << 32) - 1, "<u4")},
    "no headers": {"headers_0": np.zeros(30, "<u4")},
    "few headers": {"headers_0": np.zeros(3, "<u4")},
    "nothing is compressed": {"is_deflated_0": np.zeros(30, bool)},
    "numbers for flags": {"is_deflated_0": np.ones(30, "<u4")},
    "members beyond": {"packed_0": np.full((30, 1), 1 << 30, "<u4")},
    "empty members": {"packed_0": np.zeros((30, 1), "<u4")},
    "large arrays": {"lengths_0": np.full((30, 1), 1 << 29, "<u4")},
}


@pytest.mark.parametrize("name", LIES)
def test_an_index_that_lies_of_compressed_arrays_is_made_anew_or_an_error(volumes, tmp_path, name):
    index = tmp_path / "x.idx"
    read(f"{volumes}/*.npz", ["x"], index=index)
    file = map_columns(str(index))
    columns = {key: np.array(column) for key, column in file.columns.items()} | LIES[name]
    columns = {key: column for key, column in columns.items() if column is not None}
    write_columns(str(index), file.head, columns)
    try:
        (batch,) = read(f"{volumes}/*.npz", ["x"], index=index)
    except DataError as error:
        text = str(error)
    else:
        check(batch["x"], [np.arange(number) for number in range(30)])
        return
    assert re.search(r"\d\d\.npz: sample \d+: its member 'x\.npy' has", text), text
