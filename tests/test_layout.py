"""Record layouts: every dtype that a file can hold as the tensors that numpy would make of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import random_bytes, write_file

from torch_s3io import ConfigError, RecordDataset

PLAIN = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", "c16"]
TORCH_ONLY = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]


def same_bits(tensor: torch.Tensor, array: np.ndarray) -> bool:
    """Equal bytes: NaNs compare equal, and dtypes that numpy lacks can be compared."""
    packed = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return tuple(tensor.shape) == array.shape and packed == array.tobytes()


def read_whole(dataset: RecordDataset):
    batches = list(dataset)
    if isinstance(batches[0], dict):
        return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    return torch.cat(batches)


@pytest.fixture
def records(disk):
    """Writes 50 random records of a dtype; returns their path and the array."""

    def make(dtype, shape=(), header_bytes=0):
        dtype = np.dtype(dtype)
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        raw = np.frombuffer(random_bytes(50 * size), np.uint8)
        if dtype == np.bool_:
            raw = raw % 2
        path = write_file(disk / "x.bin", b"h" * header_bytes + raw.tobytes())
        return path, raw.view(dtype).reshape(50, *shape) if dtype.itemsize else raw

    return make


@pytest.mark.parametrize("dtype", PLAIN)
@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_a_plain_dtype_is_viewed(records, dtype, shape):
    path, array = records(dtype, shape)
    dataset = RecordDataset(path, dtype=dtype, shape=shape, batch_size=7)
    tensor = read_whole(dataset)
    assert tensor.dtype == torch.from_numpy(np.empty(0, dtype)).dtype
    assert same_bits(tensor, array)
    assert dataset.stats()["copied_bytes"] == 0


@pytest.mark.parametrize("name", TORCH_ONLY)
def test_a_dtype_that_numpy_lacks_is_viewed(records, name):
    dtype = getattr(torch, name)
    stored = "u2" if dtype.itemsize == 2 else "u1"
    path, array = records(stored, (4,))
    dataset = RecordDataset(path, dtype=dtype, shape=4, batch_size=16)
    tensor = read_whole(dataset)
    assert tensor.dtype == dtype
    assert same_bits(tensor, array)
    assert dataset.stats()["copied_bytes"] == 0


def test_a_torch_dtype_is_as_good_as_a_numpy_one(records):
    path, array = records("f4", (3,))
    assert same_bits(read_whole(RecordDataset(path, dtype=torch.float32, shape=3)), array)


@pytest.mark.parametrize("dtype", [">u2", ">i4", ">f8", ">c8", ">c16"])
def test_the_other_byte_order_is_converted_and_counted(records, dtype):
    path, array = records(dtype, (3,))
    dataset = RecordDataset(path, dtype=dtype, shape=3, batch_size=8)
    tensor = read_whole(dataset)
    assert same_bits(tensor, array.astype(np.dtype(dtype).newbyteorder("=")))
    stats = dataset.stats()
    assert stats["converted_bytes"] == stats["copied_bytes"] == array.nbytes


def test_single_bytes_have_no_byte_order(records):
    path, array = records(np.dtype(">u1"), (3,))
    dataset = RecordDataset(path, dtype=">u1", shape=3)
    assert same_bits(read_whole(dataset), array)
    assert dataset.stats()["copied_bytes"] == 0


@pytest.mark.parametrize("header_bytes", [1, 2, 4, 6, 8, 4097])
def test_a_header_that_misaligns_elements_costs_one_copy(records, header_bytes, direct):
    path, array = records("f4", (3,), header_bytes)
    dataset = RecordDataset(
        path, dtype="f4", shape=3, header_bytes=header_bytes, batch_size=7, direct=direct
    )
    assert same_bits(read_whole(dataset), array)
    viewed = header_bytes % 4 == 0 or direct == "off"
    assert dataset.stats()["converted_bytes"] == (0 if viewed else array.nbytes)


STRUCTURES = {
    "packed bytes": np.dtype([("label", "u1"), ("image", "u1", (3, 4, 5))]),
    "unaligned": np.dtype([("label", "u1"), ("x", "f4", (5,)), ("y", "i8")]),
    "aligned": np.dtype([("label", "u1"), ("x", "f4", (5,)), ("y", "i8")], align=True),
    "padded": np.dtype(
        {"names": ["a", "b"], "formats": ["u2", "f4"], "offsets": [4, 12], "itemsize": 32}
    ),
    "out of order": np.dtype(
        {"names": ["b", "a"], "formats": ["f8", ("i2", (3,))], "offsets": [8, 0], "itemsize": 16}
    ),
    "overlapping": np.dtype(
        {"names": ["all", "low"], "formats": ["u4", "u1"], "offsets": [0, 0], "itemsize": 4}
    ),
    "big-endian": np.dtype([("a", ">i4"), ("b", "<i4"), ("c", ">f8", (2,))]),
    "one field": np.dtype([("only", "i2")]),
    "boolean": np.dtype([("flag", "u1"), ("z", "c8")]),
}


def converted(dtype: np.dtype) -> set[str]:
    """The fields that no strided tensor can view."""
    assert dtype.fields
    names = set()
    for name, (kind, offset, *_) in dtype.fields.items():
        item = kind.base.itemsize
        if offset % item or dtype.itemsize % item or not kind.base.isnative:
            names.add(name)
    return names


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_is_a_dict_and_only_what_cannot_be_viewed_is_copied(records, name, engine):
    dtype = STRUCTURES[name]
    path, array = records(dtype)
    dataset = RecordDataset(path, dtype=dtype, batch_size=9, engine=engine)
    tensors = read_whole(dataset)
    assert list(tensors) == list(dtype.names)
    for field in dtype.names:
        column = np.ascontiguousarray(array[field])
        assert same_bits(tensors[field], column.astype(column.dtype.newbyteorder("=")))
    stats = dataset.stats()
    assert stats["converted_bytes"] == sum(array[field].nbytes for field in converted(dtype))
    assert stats["copied_bytes"] == stats["converted_bytes"]


def test_nested_structures_have_dotted_names(records):
    inner = np.dtype([("x", "f4", (2,)), ("y", "u1", (4,))])
    dtype = np.dtype([("first", inner), ("id", "i4"), ("second", np.dtype([("in", inner)]))])
    path, array = records(dtype)
    tensors = read_whole(RecordDataset(path, dtype=dtype, batch_size=8))
    assert list(tensors) == ["first.x", "first.y", "id", "second.in.x", "second.in.y"]
    assert same_bits(tensors["first.y"], np.ascontiguousarray(array["first"]["y"]))
    assert same_bits(tensors["second.in.x"], np.ascontiguousarray(array["second"]["in"]["x"]))


def test_single_samples_of_a_structure_are_dicts_without_the_batch_dimension(records):
    dtype = STRUCTURES["unaligned"]
    path, array = records(dtype)
    samples = list(RecordDataset(path, dtype=dtype, batch_size=None, return_index=True))
    assert len(samples) == 50
    for number, (sample, index) in enumerate(samples):
        assert index.item() == number
        assert index.shape == ()
        for field in dtype.names:
            assert same_bits(sample[field], np.asarray(array[number][field]))


@pytest.mark.parametrize(
    ("stored", "output"),
    [
        ("u2", "i8"),
        ("u1", "f4"),
        (">i4", "f8"),
        ("i4", "i8"),
        ("i8", "f4"),
        ("f4", "f8"),
        ("f8", "f4"),
        ("?", "u1"),
    ],
)
def test_as_dtype_converts_as_numpy_does_and_counts(disk, stored, output):
    array = np.random.default_rng(0).integers(0, 2, (40, 6)).astype(stored)
    if stored not in ("?", "u1"):
        array = (array * 37 + np.arange(6)).astype(stored)
    path = write_file(disk / "x.bin", array.tobytes())
    dataset = RecordDataset(path, dtype=stored, shape=6, as_dtype=output, batch_size=7)
    expected = array.astype(output)
    assert same_bits(read_whole(dataset), expected)
    assert dataset.stats()["converted_bytes"] == expected.nbytes


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("stored", [torch.int8, torch.uint8, torch.int64, torch.bool, *FLOATS])
@pytest.mark.parametrize("output", FLOATS)
def test_as_dtype_rounds_to_floats_as_torch_does(disk, stored, output):
    bits = torch.arange(1 << 16).to(torch.int32)
    numbers = torch.cat([(bits << 16).view(torch.float32), (bits << 13).view(torch.float32)])
    numbers = torch.cat([numbers, (bits * 77773).view(torch.float32)])
    numbers = torch.cat([numbers, bits.to(torch.float32) + 0.5, torch.tensor([65519.0, 65520.0])])
    if not stored.is_floating_point:
        numbers = bits * 77773 if stored == torch.int64 else bits % 128
    numbers = numbers.to(stored)
    path = write_file(disk / "x.bin", numbers.view(torch.uint8).numpy().tobytes())
    dataset = RecordDataset(path, dtype=stored, as_dtype=output, batch_size=4096, pool=None)
    got, expected = torch.cat(list(dataset)), numbers.to(output)
    assert got.dtype == output
    is_nan = expected.isnan()
    assert torch.equal(got.isnan(), is_nan)
    assert torch.equal(got[~is_nan], expected[~is_nan])
    assert torch.equal(got[~is_nan].signbit(), expected[~is_nan].signbit())


@pytest.mark.parametrize(
    ("stored", "output"), [("i8", "i4"), ("f4", "u1"), ("u4", "i2"), ("u1", "?"), ("c8", "f4")]
)
def test_as_dtype_refuses_what_may_change_values(disk, stored, output):
    path = write_file(disk / "x.bin", bytes(64))
    with pytest.raises(ConfigError, match="may change values"):
        RecordDataset(path, dtype=stored, as_dtype=output)


def test_nested_names_that_collide_are_refused(disk):
    path = write_file(disk / "x.bin", bytes(64))
    with pytest.raises(ConfigError, match="same name"):
        RecordDataset(path, dtype=[("a.b", "u1"), ("a", [("b", "u1")]), ("c", "u2")])


def test_as_dtype_of_a_structure_is_a_dict_by_field(records):
    dtype = np.dtype([("label", "u2"), ("image", "u1", (6,))])
    path, array = records(dtype)
    dataset = RecordDataset(path, dtype=dtype, as_dtype={"label": torch.int64})
    tensors = read_whole(dataset)
    assert same_bits(tensors["label"], array["label"].astype("i8"))
    assert same_bits(tensors["image"], np.ascontiguousarray(array["image"]))
    assert dataset.stats()["converted_bytes"] == 50 * 8


@pytest.mark.parametrize(
    ("dtype", "shape", "as_dtype", "what"),
    [
        (None, (), None, "dtype= is missing"),
        ("no such dtype", (), None, "not a dtype"),
        ("S5", (), None, "np.uint8 with shape"),
        ("U5", (), None, "np.uint32"),
        ("M8[ns]", (), None, "np.int64"),
        ("O", (), None, "Python objects"),
        (np.longdouble, (), None, "no tensors"),
        (torch.complex32, (), None, "complex32"),
        (torch.quint8, (), None, "quint8"),
        (np.dtype([]), (), None, "no bytes"),
        (np.dtype([("a", "u1")]), (3,), None, "shape="),
        (np.dtype([("a", np.dtype([("b", "u1")]), (3,))]), (), None, "arrays of structures"),
        (np.dtype([("a", "O")]), (), None, "'a'"),
        ("u1", (0,), None, "shape"),
        ("u1", (-1,), None, "shape"),
        ("u1", 1.5, None, "shape"),
        ("u1", "3", None, "shape"),
        ("u1", (3, None), None, "shape"),
        ("u1", (), "S3", "as_dtype"),
        ("u1", (), ">i4", "as_dtype"),
        ("u1", (), torch.float8_e5m2, "float8_e5m2"),
        ("c8", (), "f4", "complex64"),
        (np.dtype([("a", "u1")]), (), "i8", "as_dtype"),
        (np.dtype([("a", "u1")]), (), {"b": "i8"}, "'b'"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(disk, dtype, shape, as_dtype, what):
    path = write_file(disk / "x.bin", bytes(240))
    with pytest.raises(ConfigError, match=what):
        RecordDataset(path, dtype=dtype, shape=shape, as_dtype=as_dtype)
