"""RecordDataset.from_npy against numpy.load, and headers that are damaged by hand."""

from __future__ import annotations

import io
import struct

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from npy_files import by_hand, read_whole

from torch_s3io import ConfigError, DataError, NotFoundError, RecordDataset
from torch_s3io.cli import main


def npy_bytes(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("dtype", ["u1", "f4", "i8", ">f4", "?"])
def test_every_version_is_read(disk, engine, version, dtype):
    array = (np.random.default_rng(0).random((40, 3, 5)) * 100).astype(dtype)
    path = disk / "x.npy"
    path.write_bytes(npy_bytes(array, version))
    got = read_whole(path, batch_size=7, engine=engine)
    np.testing.assert_array_equal(got.numpy(), np.load(path))


@pytest.mark.parametrize("major", [1, 2, 3])
def test_a_header_written_by_hand_is_read(disk, major):
    array = np.arange(24, dtype="<u2").reshape(4, 6)
    path = disk / "x.npy"
    path.write_bytes(by_hand("'<u2'", "(4, 6)", array.tobytes(), major=major))
    np.testing.assert_array_equal(np.load(path), array)
    np.testing.assert_array_equal(read_whole(path).numpy(), array)


@settings(max_examples=60)
@given(
    array=hnp.arrays(
        st.sampled_from([np.dtype(name) for name in ("u1", "i2", ">i4", "f4", "f8", "c8")]),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=9),
        elements={"allow_nan": False, "allow_infinity": False},
    ),
    batch_size=st.integers(1, 10),
    direct=st.sampled_from(["auto", "require", "off"]),
)
def test_any_array_is_what_numpy_loads(disk, array, batch_size, direct):
    np.save(disk / "x.npy", array)
    got = read_whole(disk / "x.npy", batch_size=batch_size, direct=direct)
    np.testing.assert_array_equal(got.numpy(), array)


def test_several_arrays_are_one_data_set_even_with_headers_of_different_sizes(disk):
    arrays = [np.arange(5 * 4, dtype="f4").reshape(5, 4), np.zeros((0, 4), "f4")]
    arrays.append(100 + arrays[0])
    for number, version in enumerate([(1, 0), (2, 0), (3, 0)]):
        (disk / f"{number}.npy").write_bytes(npy_bytes(arrays[number], version))
    long_header = by_hand("'<f4'" + " " * 300, "(5, 4)", arrays[0].tobytes())
    (disk / "3.npy").write_bytes(long_header)
    dataset = RecordDataset.from_npy(f"{disk}/*.npy", batch_size=4)
    assert dataset.num_records == 15
    got = torch.cat(list(dataset)).numpy()
    np.testing.assert_array_equal(got, np.concatenate([*arrays, arrays[0]]))


def test_structured_arrays_are_dicts(disk):
    array = np.zeros(9, np.dtype([("a", "i4"), ("b", "f4", (2,))]))
    array["a"] = np.arange(9)
    array["b"] = np.arange(18).reshape(9, 2)
    np.save(disk / "x.npy", array)
    (batch,) = RecordDataset.from_npy(disk / "x.npy", batch_size=9)
    np.testing.assert_array_equal(batch["a"].numpy(), array["a"])
    np.testing.assert_array_equal(batch["b"].numpy(), array["b"])


def test_as_dtype_return_index_and_transform_work_as_elsewhere(disk):
    np.save(disk / "x.npy", np.arange(12, dtype="u2").reshape(6, 2))
    dataset = RecordDataset.from_npy(
        disk / "x.npy",
        batch_size=4,
        as_dtype=torch.int64,
        return_index=True,
        transform=lambda rows: rows * 2,
    )
    (first, first_index), (second, second_index) = dataset
    assert torch.cat([first, second]).tolist() == (np.arange(12).reshape(6, 2) * 2).tolist()
    assert first_index.tolist() + second_index.tolist() == list(range(6))
    assert first.dtype == torch.int64


def test_an_array_in_fortran_order_is_refused(disk):
    np.save(disk / "x.npy", np.asfortranarray(np.zeros((4, 6))))
    with pytest.raises(DataError, match=r"x\.npy.*Fortran.*ascontiguousarray"):
        RecordDataset.from_npy(disk / "x.npy")


def test_one_dimension_has_no_order(disk):
    path = disk / "x.npy"
    path.write_bytes(by_hand("'|u1'", "(3,)", b"abc", fortran="True"))
    assert read_whole(path).tolist() == list(b"abc")


def test_python_objects_are_refused_and_never_unpickled(disk):
    np.save(disk / "x.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"x\.npy.*Python objects"):
        RecordDataset.from_npy(disk / "x.npy")


DAMAGED = {
    "empty file": b"",
    "not an array": b"PK\x03\x04 something else entirely",
    "magic alone": b"\x93NUMPY",
    "unknown version": b"\x93NUMPY\x04\x00" + bytes(100),
    "unknown minor version": b"\x93NUMPY\x01\x01" + bytes(100),
    "cut in the length": b"\x93NUMPY\x01\x00\x10",
    "cut in the header": by_hand("'<f4'", "(2, 2)", b"")[:40],
    "endless header": b"\x93NUMPY\x02\x00" + struct.pack("<I", 0xFFFFFFFF) + bytes(100),
    "no dict": b"\x93NUMPY\x01\x00" + struct.pack("<H", 4) + b"[1]\n",
    "code": by_hand("__import__('os').system('false')", "(1,)", b"a"),
    "deep nesting": by_hand("(" * 5000, "(1,)", b"a"),
    "no dtype for numpy's parser either": by_hand("',f4'", "(1,)", b"a"),
    "an odd number of bytes": by_hand("'<04'", "(1,)", b"a"),
    "no dtype": by_hand("'no such'", "(1,)", b"a"),
    "dtype is a number": by_hand("7", "(1,)", b"a"),
    "shape is a list": by_hand("'|u1'", "[1]", b"a"),
    "negative shape": by_hand("'|u1'", "(-1,)", b"a"),
    "boolean shape": by_hand("'|u1'", "(True,)", b"a"),
    "huge shape": by_hand("'|u1'", f"({1 << 70},)", b"a"),
    "shape of floats": by_hand("'|u1'", "(1.0,)", b"a"),
    "order is a word": by_hand("'|u1'", "(1,)", b"a", fortran="'no'"),
    "no text": b"\x93NUMPY\x03\x00" + struct.pack("<I", 4) + b"\xff\xfe\xff\n",
    "a single number": npy_bytes(np.array(3.0)),
    "empty records": npy_bytes(np.zeros((3, 0))),
    "too short": npy_bytes(np.zeros((3, 2)))[:-1],
    "too long": npy_bytes(np.zeros((3, 2))) + b"x",
    "no records": npy_bytes(np.zeros((0, 2))),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_a_data_error_that_names_it(disk, what):
    path = disk / "damaged.npy"
    path.write_bytes(DAMAGED[what])
    with pytest.raises(DataError, match=r"damaged\.npy"):
        RecordDataset.from_npy(path)


@settings(max_examples=150)
@given(data=st.data())
def test_no_damage_to_a_header_is_anything_but_a_typed_error_or_right(disk, data):
    array = np.arange(60, dtype="<i4").reshape(10, 6)
    raw = bytearray(npy_bytes(array))
    header_bytes = len(raw) - array.nbytes
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, header_bytes - 1))] = data.draw(st.integers(0, 255))
    path = disk / "x.npy"
    path.write_bytes(bytes(raw))
    try:
        expected = np.load(path)
    except Exception:
        expected = None
    try:
        got = read_whole(path)
    except (DataError, ConfigError):
        return
    if expected is None:  # numpy is stricter about white space: then nothing but that may differ
        expected = array
    assert got.numpy().tobytes() == expected.astype(expected.dtype.newbyteorder("=")).tobytes()


def test_arrays_that_do_not_match_are_refused_with_both_names(disk):
    np.save(disk / "a.npy", np.zeros((2, 3), "f4"))
    np.save(disk / "b.npy", np.zeros((2, 4), "f4"))
    np.save(disk / "c.npy", np.zeros((2, 3), "f8"))
    for other in "bc":
        with pytest.raises(DataError, match=rf"{other}\.npy.*a\.npy"):
            RecordDataset.from_npy([disk / "a.npy", disk / f"{other}.npy"])


def test_a_dtype_without_tensors_is_refused(disk):
    np.save(disk / "x.npy", np.array([b"abc"]))
    with pytest.raises(ConfigError, match=r"np\.uint8"):
        RecordDataset.from_npy(disk / "x.npy")


def test_a_missing_file_is_not_found(disk):
    with pytest.raises(NotFoundError, match=r"no\.npy"):
        RecordDataset.from_npy(disk / "no.npy")


def test_an_unknown_option_is_refused(disk):
    np.save(disk / "x.npy", np.zeros((2, 3)))
    with pytest.raises(TypeError, match="batchsize"):
        RecordDataset.from_npy(disk / "x.npy", batchsize=3)


# ---- An array per sample.


def save_samples(folder, count: int, shape: tuple[int, ...]) -> np.ndarray:
    folder.mkdir()
    samples = np.random.default_rng(0).random((count, *shape), np.float32)
    for number, sample in enumerate(samples):
        np.save(folder / f"{number:05d}.npy", sample)
    return samples


@pytest.mark.parametrize("shape", [(48, 64), (5,), (), (2, 3, 4)])
def test_every_file_can_be_a_record(disk, shape):
    samples = save_samples(disk / "set", 20, shape)
    dataset = RecordDataset.from_npy(disk / "set", records="files", batch_size=64, shuffle=True)
    assert dataset.num_records == 20
    assert dataset.shape == shape
    assert {file.num_records for file in dataset.files} == {1}
    np.testing.assert_array_equal(dataset.get_batch(range(20)).numpy(), samples)
    packed = ["pack", f"{disk}/set", "--format", "npy-files", "-o", f"{disk}/packed"]
    assert main(packed) == 0
    (batch,) = RecordDataset(disk / "packed")
    np.testing.assert_array_equal(batch.numpy(), samples)


def test_files_that_look_like_a_sample_each_are_warned_of_unless_rows_are_asked_for(
    disk, recwarn, capsys
):
    samples = save_samples(disk / "set", 20, (48, 64))
    with pytest.warns(RuntimeWarning, match=r'20 arrays of the same 48 rows.*records="files"') as w:
        dataset = RecordDataset.from_npy(disk / "set")
    assert [warning.filename for warning in w] == [__file__]
    assert dataset.num_records == 20 * 48  # as before
    with pytest.warns(RuntimeWarning, match="--format npy-files"):
        main(["pack", f"{disk}/set", "-o", f"{disk}/packed"])
    recwarn.clear()
    rows = RecordDataset.from_npy(disk / "set", records="rows", batch_size=10_000)
    np.testing.assert_array_equal(next(iter(rows)).numpy(), samples.reshape(-1, 64))
    RecordDataset.from_npy(disk / "set", records="files")
    assert main(["pack", f"{disk}/set", "-o", f"{disk}/rows", "--format", "npy"]) == 0
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    "shapes",
    [
        [(1000, 16)] * 20,  # many rows
        [(48, 64)] * 8,  # few files
        [(48, 64)] * 19 + [(13, 64)],  # a last one that is shorter
        [(16,)] * 40,  # labels
        [(16, 64, 64, 64)] * 16,  # 16 MiB each
    ],
)
def test_files_of_many_records_are_not_warned_of(disk, shapes, recwarn):
    for number, shape in enumerate(shapes):
        with open(disk / f"{number:03d}.npy", "wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 4 * int(np.prod(shape)))
    dataset = RecordDataset.from_npy(f"{disk}/*.npy")
    assert dataset.num_records == sum(shape[0] for shape in shapes)
    assert [str(warning.message) for warning in recwarn] == []


def test_arrays_of_several_shapes_say_what_to_do(disk):
    np.save(disk / "a.npy", np.zeros((48, 64)))
    np.save(disk / "b.npy", np.zeros((48, 70)))
    for records in ("rows", "files"):
        with pytest.raises(DataError, match=r"b\.npy.*a\.npy.*pad or crop.*numpy\.load"):
            RecordDataset.from_npy(f"{disk}/*.npy", records=records)


def test_a_single_number_a_file_says_how_it_is_a_record(disk):
    np.save(disk / "a.npy", np.array(3.0))
    with pytest.raises(DataError, match=r'a\.npy: holds a single number.*records="files"'):
        RecordDataset.from_npy(disk / "a.npy")


def test_records_that_are_neither_rows_nor_files_are_refused(disk):
    np.save(disk / "a.npy", np.zeros((3, 2)))
    with pytest.raises(ConfigError, match="records must be one of 'rows', 'files', not 'columns'"):
        RecordDataset.from_npy(disk / "a.npy", records="columns")
