"""Arrays in .npy files and .npz archives as samples: what numpy.load gives."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from record_sets import random_array
from support import ENGINES, write_file

from torch_s3io import ConfigError, DataError, Error, FileChangedError, SampleDataset

KINDS = ["u1", "?", "<i2", ">u2", "<f4", ">f8", "<c8", ">c16", "f2", "<i8"]
SHAPES = [(None,), (None, 3), (None, None), (None, 2, None)]


def npy(array: np.ndarray, padding: int = 0) -> bytes:
    """A file of version 1, whose header has so many blanks more than it needs."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=(1, 0))
    data = stream.getvalue()
    end = 10 + int.from_bytes(data[8:10], "little")
    header = data[10:end].rstrip() + b" " * padding + b"\n"
    return data[:8] + len(header).to_bytes(2, "little") + header + data[end:]


def check(batch, arrays: list[np.ndarray]) -> None:
    got = batch.unbind()
    assert len(got) == len(arrays)
    for tensor, array in zip(got, arrays, strict=True):
        native = array.astype(array.dtype.newbyteorder("="))
        assert tensor.numpy().dtype == native.dtype
        assert tuple(tensor.shape) == array.shape
        assert tensor.numpy().tobytes() == native.tobytes()


@st.composite
def array_lists(draw):
    kind, shape = draw(st.sampled_from(KINDS)), draw(st.sampled_from(SHAPES))
    arrays = []
    for seed in range(draw(st.integers(1, 8))):
        length = st.integers(0, 40 if shape.count(None) == 1 else 6)
        extents = tuple(draw(length) if one is None else one for one in shape)
        arrays.append(random_array(kind, 1, extents, seed)[0])
    return arrays


@settings(max_examples=60)
@given(array_lists(), st.integers(0, 70), st.booleans())
def test_npy_files_are_what_numpy_loads_wherever_the_elements_begin(disk, arrays, padding, repeats):
    folder = Path(disk)
    paths = []
    for number, array in enumerate(arrays):
        paths.append(write_file(folder / f"{number}.npy", npy(array, padding * number % 71)))
    dataset = SampleDataset.from_npy_files(paths, batch_size=len(paths))
    (batch,) = dataset
    check(batch["data"], [np.load(path) for path in paths])
    numbers = [0, len(paths) - 1, 0] if repeats else [0]
    check(dataset.get_batch(numbers)["data"], [arrays[number] for number in numbers])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("direct", ["off", "require"])
def test_npz_archives_are_what_numpy_loads(disk, engine, direct):
    random = np.random.default_rng(0)
    for number in range(20):
        np.savez(
            disk / f"{number:02}.npz",
            image=random.integers(0, 255, (number + 1, 7, 3), dtype=np.uint8),
            wave=random.random(number * 3).astype(">f8"),
            box=random.random(4).astype(np.float32),
            label=np.int64(number),
        )
    dataset = SampleDataset.from_npz(
        f"{disk}/*.npz", fields=("wave", "label", "image", "box"), batch_size=6, shuffle=True,
        engine=engine, direct=direct, return_index=True, columns={"y": np.arange(20)},
    )  # fmt: skip
    assert dataset.shape == {
        "wave": (None,), "label": (), "image": (None, 7, 3), "box": (None,), "y": ()
    }  # fmt: skip
    for batch, index in dataset:
        loaded = [np.load(disk / f"{number:02}.npz") for number in index]
        for name in ("wave", "image", "box"):
            check(batch[name], [archive[name] for archive in loaded])
        assert batch["label"].tolist() == batch["y"].tolist() == index.tolist()
    assert dataset.stats()["converted_bytes"] > 0


def test_axes_are_open_where_arrays_differ_or_as_somebody_says(disk):
    for number in range(3):
        np.save(disk / f"{number}.npy", np.zeros((number, 5, 2), np.float32))
    pattern = f"{disk}/*.npy"
    assert SampleDataset.from_npy_files(pattern).shape == {"data": (None, 5, 2)}
    dataset = SampleDataset.from_npy_files(pattern, shape=(None, None, 2))
    assert dataset.shape == {"data": (None, None, 2)}
    padded = SampleDataset.from_npy_files(pattern, ragged="padded", labels=[3, 4, 5])
    (batch,) = padded
    assert batch["data"].shape == (3, 2, 5, 2)
    with pytest.raises(DataError, match=r"0\.npy: the array 'data' has the shape \(0, 5, 2\)"):
        SampleDataset.from_npy_files(pattern, shape=(None, 5, 3))
    with pytest.raises(ConfigError, match=r"one at least.*records='files'"):
        SampleDataset.from_npy_files(pattern, shape=(3, 5, 2))
    np.save(disk / "bf16.npy", torch.ones(3, dtype=torch.bfloat16).view(torch.int16).numpy())
    (batch,) = SampleDataset.from_npy_files([disk / "bf16.npy"], dtype=torch.bfloat16)
    assert batch["data"][0].tolist() == [1.0] * 3


WRONG_NPY = {
    "no array": (b"no array", "is not a .npy file"),
    "cut": (npy(np.arange(9))[:-1], "it was cut off or appended to"),
    "appended": (npy(np.arange(9)) + b"x", "it was cut off or appended to"),
    "another dtype": (npy(np.zeros(3, "f4")), r"is float32 with 1 axes, but .*0\.npy has"),
    "another rank": (npy(np.zeros((3, 3), int)), "is int64 with 2 axes"),
    "Fortran": (npy(np.asfortranarray(np.zeros((3, 2), int))), "Fortran order"),
    "a number": (npy(np.array(3)), "axes"),
    "objects": (npy(np.zeros(3, "u1")).replace(b"'|u1'", b"'|O' "), "Python objects"),
}


@pytest.mark.parametrize("name", WRONG_NPY)
def test_a_wrong_npy_file_is_named(disk, name):
    data, text = WRONG_NPY[name]
    write_file(disk / "0.npy", npy(np.arange(3)))
    write_file(disk / "1.npy", data)
    with pytest.raises(DataError, match=text) as caught:
        SampleDataset.from_npy_files(f"{disk}/*.npy")
    assert "1.npy" in str(caught.value)


@pytest.mark.parametrize("change", ["cut", "flip"])
def test_an_npy_file_that_is_cut_or_changed_at_any_byte_is_refused_or_read_as_numpy_reads(
    disk, change
):
    path, data = disk / "a.npy", npy(np.arange(3, dtype="<f4"))
    for place in range(len(data)):
        wrong = data[:place] if change == "cut" else bytearray(data)
        if change == "flip":
            wrong[place] ^= 0x11
        write_file(path, bytes(wrong))
        try:
            (batch,) = SampleDataset.from_npy_files([path])
        except Error as error:
            text = str(error)
        else:
            check(batch["data"], [np.load(path)])
            continue
        assert "a.npy" in text, place
        # Bytes of the array may be any.
        assert change == "cut" or place < len(data) - 12


def test_structures_and_single_numbers_are_refused_with_advice(disk):
    np.save(disk / "0.npy", np.zeros(3, [("a", "f4")]))
    with pytest.raises(DataError, match=r"RecordDataset\.from_npy"):
        SampleDataset.from_npy_files(f"{disk}/*.npy")
    np.save(disk / "0.npy", np.float32(3))
    with pytest.raises(DataError, match=r"single number.*columns="):
        SampleDataset.from_npy_files(f"{disk}/*.npy")


# ---- Archives that are no good.


def archive(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def read_npz(path: Path, data: bytes, **options):
    write_file(path, data)
    (batch,) = SampleDataset.from_npz(path, fields=("x", "y"), **options)
    return batch


def test_compressed_missing_and_encrypted_arrays_are_refused_with_advice(disk):
    path = disk / "a.npz"
    np.savez_compressed(path, x=np.zeros(100), y=np.zeros(3))
    with pytest.raises(DataError, match=r"'x\.npy' is compressed.*numpy\.savez"):
        SampleDataset.from_npz(path, fields=("x", "y"))
    np.savez(path, x=np.zeros(100), z=np.zeros(3))
    with pytest.raises(DataError, match="has no array 'y', only 'x', 'z'"):
        SampleDataset.from_npz(path, fields=("x", "y"))
    for fields, text in (
        ((), "fields="),
        (("x", "x"), "twice"),
        ((3,), "fields="),
        (None, "fields="),
        (3, "fields="),
    ):
        with pytest.raises(ConfigError, match=text):
            SampleDataset.from_npz(path, fields=fields)


def test_an_archive_with_a_comment_and_large_ends_is_read(disk):
    x, y = np.arange(10.0), np.arange(3)
    path = disk / "a.npz"
    data = archive(x=x, y=y)
    write_file(path, data)
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"PK\x05\x06 of nothing" * 1000
    batch = read_npz(path, path.read_bytes())
    check(batch["x"], [x])
    check(batch["y"], [y])


def outcome(path: Path, data: bytes):
    """The text of an error, or a batch."""
    try:
        return "", read_npz(path, data)
    except Error as error:
        return str(error), None


def large(data: bytes) -> bytes:
    """The archive with the ends and entries of one that is larger than 4 GiB (zip64)."""
    at = data.rindex(b"PK\x05\x06")
    count, _, begin = struct.unpack_from("<HII", data, at + 10)
    entries, place = b"", begin
    for _ in range(count):
        entry = bytearray(data[place : place + 46])
        name_bytes, extra_bytes, comment_bytes = struct.unpack_from("<HHH", entry, 28)
        packed, whole = struct.unpack_from("<II", entry, 20)
        (offset,) = struct.unpack_from("<I", entry, 42)
        name = data[place + 46 : place + 46 + name_bytes]
        place += 46 + name_bytes + extra_bytes + comment_bytes
        struct.pack_into("<II", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
        struct.pack_into("<I", entry, 42, 0xFFFFFFFF)
        extra = b"\x99\x99\x02\x00zz" + struct.pack("<HHQQQ", 1, 24, whole, packed, offset)
        struct.pack_into("<HHH", entry, 28, name_bytes, len(extra), 0)
        entries += bytes(entry) + name + extra
    end = begin + len(entries)
    end64 = struct.pack(
        "<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(entries), begin
    )
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    last = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:begin] + entries + end64 + locator + last


def test_an_archive_with_the_ends_of_a_large_one_is_read(disk):
    x, y = np.arange(10.0), np.arange(3)
    data = large(archive(x=x, y=y))
    batch = read_npz(disk / "a.npz", data)
    check(batch["x"], [x])
    check(batch["y"], [y])
    with np.load(disk / "a.npz") as loaded:  # what we made is such an archive
        assert loaded["x"].tolist() == x.tolist()
    for place in (data.rindex(b"PK\x06\x06"), data.rindex(b"PK\x06\x07") + 15):
        wrong = bytearray(data)
        wrong[place] ^= 0xFF
        assert "a.npz: its " in outcome(disk / "a.npz", bytes(wrong))[0]


@pytest.mark.parametrize("change", ["cut", "flip"])
def test_an_archive_that_is_cut_or_changed_at_any_byte_is_refused_or_read_right(disk, change):
    x, y = np.arange(3, dtype="<f4"), np.arange(5, dtype="u1")
    data = archive(x=x, y=y)
    path = disk / "a.npz"
    for place in range(len(data)):
        wrong = data[:place] if change == "cut" else bytearray(data)
        if change == "flip":
            wrong[place] ^= 0xFF
        text, batch = outcome(path, bytes(wrong))
        if batch is None:
            assert "a.npz" in text, place
            continue
        assert change == "flip", place
        loaded = {name: batch[name][0].numpy() for name in ("x", "y")}
        # Names, times and checksums say nothing of where arrays are, nor do their own bytes.
        for name, array in (("x", x), ("y", y)):
            if place not in range(
                data.find(array.tobytes()), data.find(array.tobytes()) + array.nbytes
            ):
                assert loaded[name].tobytes() == array.tobytes(), place


def test_an_archive_that_changes_is_named(disk):
    path = disk / "a.npz"
    write_file(path, archive(x=np.zeros(3), y=np.zeros(2)))
    dataset = SampleDataset.from_npz(path, fields=["x"])
    write_file(path, archive(x=np.ones(3), y=np.zeros(2)), age_s=50)
    with pytest.raises(FileChangedError, match=r"a\.npz"):
        next(iter(dataset))
