"""RecordWriter: what is written comes back through RecordDataset, and old data sets survive."""

from __future__ import annotations

import contextlib
import os

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from record_sets import (
    all_records,
    bytes_of,
    check_set,
    random_array,
    values_in,
    write_set,
)

from torch_s3io import (
    BufferPoolConfig,
    ConfigError,
    FileStore,
    RecordDataset,
    RecordWriter,
    WriteError,
)
from torch_s3io.writing.record_writer import stride_for

DTYPES = ["u1", "?", "<i2", ">u2", "<f4", ">f8", "<c8", "f2"]
STRUCTURES = [
    [("label", "u1"), ("image", "u1", (3, 4))],
    [("x", "<f4", 5), ("y", ">i8"), ("z", [("a", "u1"), ("b", "<u2", (2, 2))])],
]


@settings(max_examples=60)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(1, 5), max_size=3).map(tuple),
    counts=st.lists(st.integers(0, 15), min_size=1, max_size=4).filter(any),
    shard_bytes=st.sampled_from([1, 100, 5000, 1 << 20]),
    align=st.sampled_from(["auto", None, 64, 512, 4096]),
    as_tensor=st.booleans(),
)
def test_plain_records_come_back(disk, dtype, shape, counts, shard_bytes, align, as_tensor):
    array = random_array(dtype, sum(counts), shape, 1)
    with RecordWriter(
        disk / "set",
        dtype=dtype,
        shape=shape,
        shard_bytes=shard_bytes,
        align_records=align,
        overwrite=True,
    ) as writer:
        begin = 0
        for count in counts:
            part = array[begin : begin + count]
            native = part.astype(part.dtype.newbyteorder("="))
            writer.write(torch.from_numpy(native) if as_tensor else part)
            begin += count
        assert writer.num_records == len(array)
    assert bytes_of(disk / "set", len(array), array[0].nbytes) == array.tobytes()
    got = torch.cat(all_records(disk / "set")).numpy()
    assert got.tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()
    assert got.shape == array.shape


@settings(max_examples=40)
@given(
    dtype=st.sampled_from(STRUCTURES),
    count=st.integers(1, 100),
    as_columns=st.booleans(),
    align=st.sampled_from(["auto", 512]),
)
def test_structured_records_come_back(disk, dtype, count, as_columns, align):
    dtype = np.dtype(dtype)
    array = random_array(dtype, count, (), 2)
    columns = {name: array[name] for name in dtype.names if dtype[name].names is None}
    for name in set(dtype.names) - set(columns):
        columns |= {f"{name}.{inner}": array[name][inner] for inner in dtype[name].names}
    options = {"shard_bytes": 1000, "align_records": align, "overwrite": True}
    with RecordWriter(disk / "set", dtype=dtype, **options) as writer:
        writer.write(columns if as_columns else array)
    assert bytes_of(disk / "set", count, dtype.itemsize) == array.tobytes()
    for name, column in columns.items():
        got = torch.cat([batch[name] for batch in all_records(disk / "set")]).numpy()
        assert got.tobytes() == column.astype(column.dtype.newbyteorder("=")).tobytes()


def test_dtypes_that_only_torch_has_come_back(disk):
    values = torch.randn(100, 6).to(torch.bfloat16)
    with RecordWriter(disk / "set", dtype=torch.bfloat16, shape=6) as writer:
        writer.write(values)
    assert torch.equal(torch.cat(all_records(disk / "set")), values)


@pytest.mark.parametrize(
    ("record_bytes", "stride"),
    [
        (114_660, 114_688),
        (4096, 4096),
        (4000, 4096),
        (3976, 3976),
        (3073, 3073),
        (500, 512),
        (8, 8),
    ],
)
def test_auto_pads_to_blocks_where_that_costs_under_three_percent(record_bytes, stride):
    assert stride_for(record_bytes, "auto") == stride


def test_random_reads_of_padded_records_need_no_copy(disk):
    array = random_array("u1", 300, (114_660,), 3)
    with RecordWriter(disk / "set", dtype="u1", shape=114_660, shard_bytes=8 << 20) as writer:
        writer.write(array)
        assert writer.stride_bytes == 114_688
    dataset = RecordDataset(disk / "set", direct="require")
    numbers = [299, 3, 150, 7]
    np.testing.assert_array_equal(dataset.get_batch(numbers).numpy(), array[numbers])
    assert dataset.stats()["copied_bytes"] == 0


@pytest.mark.parametrize("align", [None, "auto", 4096])
def test_padding_is_no_unused_tail(disk, align):
    with RecordWriter(disk / "set", dtype="u1", shape=1000, align_records=align) as writer:
        writer.write(random_array("u1", 10, (1000,), 0))
    assert RecordDataset(disk / "set", batch_size=2).unused_tail_bytes == 0


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_what_is_not_the_dtype_is_refused_and_harms_nothing(disk):
    with RecordWriter(disk / "set", dtype="f4", shape=(2, 3)) as writer:
        for wrong in (
            np.zeros((4, 2, 3)),
            np.zeros((4, 3, 2), "f4"),
            np.zeros(6, "f4"),
            np.float32(3),
            torch.zeros(4, 2, 3, dtype=torch.float16),
            torch.zeros(4, 2, 3, device="meta"),
            torch.zeros(4, 2, 3).to_sparse(),
            torch.nested.nested_tensor([torch.zeros(2, 3)] * 4),
            np.ma.masked_equal(np.zeros((4, 2, 3), "f4"), 0),
            {"x": np.zeros((4, 2, 3), "f4")},
            [[1, 2, 3], [4, 5, 6]],
            None,
        ):
            with pytest.raises(ConfigError):
                writer.write(wrong)
        with pytest.raises(ConfigError):
            FileStore().put(disk / "x", torch.zeros(3).to_sparse())
        with pytest.raises(ConfigError):
            FileStore().put(disk / "x", torch.nested.nested_tensor([torch.zeros(3)]))
        with pytest.raises(ConfigError, match="masked"):
            FileStore().put(disk / "x", np.ma.masked_equal(np.zeros(3), 0))
        writer.write(torch.ones(3, 4, 2).permute(1, 2, 0))
    assert torch.equal(torch.cat(all_records(disk / "set")), torch.ones(4, 2, 3))
    with pytest.raises(ConfigError, match="finished"):
        writer.write(np.zeros((1, 2, 3), "f4"))
    structured = [("x", "u1"), ("y", "u1")]
    with RecordWriter(disk / "set", dtype=structured, overwrite=True) as writer:
        for wrong in (
            np.zeros(3, "u1"),
            np.zeros(3, [("x", "u1"), ("z", "u1")]),
            {"x": np.zeros(3, "u1")},
            {"x": np.zeros(3, "u1"), "y": np.zeros(4, "u1")},
            {"x": np.zeros(3, "u1"), "y": np.zeros(3, "i1")},
            {"x": np.zeros(3, "u1"), "y": np.ma.masked_equal(np.zeros(3, "u1"), 0)},
            np.ma.array(np.zeros(3, structured), mask=[False, True, False]),
        ):
            with pytest.raises(ConfigError):
                writer.write(wrong)
        writer.write(np.zeros(3, structured))
    for config in (5, {}, 0, "", BufferPoolConfig()):
        with pytest.raises(ConfigError, match="config must be a FileSystemConfig"):
            RecordWriter(disk / "set", dtype="u1", config=config)
    for options in ({"shard_bytes": 0}, {"align_records": 3}, {"align_records": "yes"}):
        with pytest.raises(ConfigError):
            RecordWriter(disk / "set", dtype="u1", **options)


# Threads ----------------------------------------------------------------------------------------


def test_a_shard_that_is_not_of_its_size_gets_no_manifest(disk):
    write_set(disk / "set", 1)
    options = {"dtype": "u1", "shape": 1000, "align_records": None, "overwrite": True}
    writer = RecordWriter(disk / "set", **options)
    writer.write(np.ones((10, 1000), "u1"))
    writer._shard.write(b"not a record")
    with pytest.raises(WriteError, match="has 10012 bytes, but its 10 records take 10000"):
        writer.finish()
    check_set(disk / "set", 1)


# Old and new ------------------------------------------------------------------------------------


def test_a_new_data_set_takes_the_place_of_the_old_one_and_leaves_other_files(disk):
    write_set(disk / "set", 1)
    (disk / "set" / "notes.txt").write_text("mine")
    (disk / "set" / "records-of-mine.bin").write_text("mine")
    write_set(disk / "set", 2)
    for name in ("notes.txt", "records-of-mine.bin"):
        assert (disk / "set" / name).read_text() == "mine"
        (disk / "set" / name).unlink()
    check_set(disk / "set", 2)


def test_an_exception_leaves_the_old_data_set(disk):
    write_set(disk / "set", 1)
    options = {"dtype": "u1", "shape": 1000, "shard_bytes": 300_000, "overwrite": True}
    writer = RecordWriter(disk / "set", **options)
    with contextlib.suppress(KeyError), writer:
        writer.write(np.zeros((500, 1000), "u1"))
        raise KeyError
    check_set(disk / "set", 1)
    with pytest.raises(ConfigError, match="no records"):
        RecordWriter(disk / "set", dtype="u1", overwrite=True).finish()
    check_set(disk / "set", 1)
    RecordWriter(disk / "set", dtype="u1", overwrite=True)  # dropped without finishing
    check_set(disk / "set", 1)


def test_a_folder_that_holds_a_data_set_is_refused_unless_it_is_to_be_replaced(disk):
    write_set(disk / "set", 1)
    for _ in range(2):  # a refusal leaves the folder free
        with pytest.raises(ConfigError, match=r"/set: holds a data set of 1000 records in 4 shards "
                                              r"already; overwrite=True replaces it"):  # fmt: skip
            RecordWriter(disk / "set", dtype="f4", shape=3)
    check_set(disk / "set", 1)
    with RecordWriter(disk / "set", dtype="u1", shape=1000, overwrite=True) as writer:
        writer.write(np.full((30, 1000), 2, "u1"))
        assert writer.replaced_records == 1000
        assert values_in(disk / "set") == {1}  # until the new one is whole
    check_set(disk / "set", 2)
    manifest = disk / "set" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    with pytest.raises(ConfigError, match="whose manifest cannot be read already; overwrite=True"):
        RecordWriter(disk / "set", dtype="u1")
    with pytest.raises(ConfigError, match="overwrite must be True or False"):
        RecordWriter(disk / "set", dtype="u1", overwrite="yes")


def test_a_folder_without_a_data_set_needs_no_leave(disk):
    (disk / "set").mkdir()
    (disk / "set" / "notes.txt").write_text("mine")
    RecordWriter(disk / "set", dtype="u1", shape=1000).cancel()
    with RecordWriter(disk / "set", dtype="u1", shape=1000) as writer:
        writer.write(np.full((30, 1000), 1, "u1"))
        assert writer.replaced_records == 0
    assert (disk / "set" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "nothing",
    [
        {"x": np.zeros((0, 4), "f4"), "y": np.zeros(0, "i8")},
        {"x": torch.zeros(0, 4), "y": torch.zeros(0, dtype=torch.int64)},
        np.zeros(0, [("x", "f4", 4), ("y", "i8")]),
    ],
)
def test_a_batch_of_no_records_writes_nothing(disk, nothing):
    record = np.dtype([("x", "f4", 4), ("y", "i8")])
    with RecordWriter(disk / "set", dtype=record) as writer:
        writer.write(nothing)
        writer.write(np.ones(3, record))
        writer.write(nothing)
    assert RecordDataset(disk / "set").num_records == 3
    with RecordWriter(disk / "plain", dtype="f4", shape=(2, 3)) as writer:
        for empty in (np.zeros((0, 2, 3), "f4"), torch.zeros(0, 2, 3)):
            writer.write(empty)
        writer.write(np.ones((1, 2, 3), "f4"))
    assert RecordDataset(disk / "plain").num_records == 1
    store = FileStore()
    with store.writer(disk / "file") as file:
        for empty in (b"", np.zeros((0, 3)), torch.zeros(0, 3), torch.zeros(0)):
            file.write(empty)
            store.put(disk / "empty", empty)
            assert (disk / "empty").read_bytes() == b""
    assert (disk / "file").read_bytes() == b""


def test_what_is_no_array_is_told_what_makes_one(disk):
    writer = RecordWriter(disk / "set", dtype="f4", shape=3)
    for wrong in ([], [[1.0, 2.0, 3.0]], None, 7):
        with pytest.raises(
            ConfigError, match=r"f?loat32 \[B, 3\] is expected, not .*numpy\.asarray"
        ):
            writer.write(wrong)
    with pytest.raises(ConfigError, match=r"no records were written.*cancel\(\)"):
        writer.finish()


def test_two_writers_in_one_folder_are_one_too_many(disk):
    first = RecordWriter(disk / "set", dtype="u1")
    with pytest.raises(ConfigError, match="another writer"):
        RecordWriter(disk / "set", dtype="u1")
    first.cancel()
    write_set(disk / "set", 1)
    check_set(disk / "set", 1)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_leaves_its_parents_writer_alone(disk):
    writer = RecordWriter(disk / "set", dtype="u1", shape=1000, shard_bytes=300_000)
    writer.write(np.ones((500, 1000), "u1"))
    child = os.fork()
    if child == 0:
        try:
            writer.write(np.ones((1, 1000), "u1"))
        except ConfigError:
            writer.cancel()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.finish()
    check_set(disk / "set", 1)
