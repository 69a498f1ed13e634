"""Settings that cannot work: refused at once, by their names."""

import os

import numpy as np
import pytest
import torch
from support import dataset_of_100_bytes, random_bytes, write_file

from torch_s3io import (
    BufferPoolConfig,
    ConfigError,
    DataError,
    RecordDataset,
    RecordWriter,
)


@pytest.fixture
def path(disk):
    return write_file(disk / "x.bin", random_bytes(1000))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("batch_size", 0),
        ("batch_size", -4),
        ("batch_size", 2.0),
        ("batch_size", "4"),
        ("batch_size", True),
        ("batch_size", 1 << 70),
        ("header_bytes", -1),
        ("header_bytes", 0.5),
        ("header_bytes", None),
        ("direct", "yes"),
        ("direct", True),
        ("direct", None),
        ("engine", "aio"),
        ("engine", 3),
        ("pool", "none"),
        ("pool", 64),
        ("pool", (4, 4096)),
        ("transform", "resize"),
        ("depth", 0),
        ("depth", 4097),
        ("depth", 8.0),
        ("depth", "deep"),
        ("read_timeout_s", 0),
        ("read_timeout_s", -1),
        ("read_timeout_s", float("nan")),
        ("read_timeout_s", None),
        ("read_timeout_s", b"1"),
        ("read_timeout_s", np.True_),
        ("shape", torch.tensor(2.0)),
        ("shape", {100}),
        ("drop_last", "no"),
        ("return_index", "yes"),
    ],
)
def test_a_nonsensical_setting_is_refused_by_its_name_and_at_once(path, setting, value):
    with pytest.raises(ConfigError, match=setting):
        dataset_of_100_bytes(path, **{setting: value})


@pytest.mark.parametrize("batch_size", [10**12, 1 << 46, 1 << 61])
@pytest.mark.parametrize("pool", ["auto", None, BufferPoolConfig()])
def test_a_batch_beyond_all_memory_is_refused(disk, batch_size, pool):
    sparse = disk / "sparse.bin"
    sparse.touch()
    os.truncate(sparse, 8 * 10**12)  # takes no space
    with pytest.raises((ConfigError, MemoryError), match=r"batch|buffer"):
        list(dataset_of_100_bytes(sparse, batch_size=batch_size, pool=pool))


@pytest.mark.parametrize("pool", ["auto", None])
def test_a_batch_size_beyond_the_number_of_records_is_one_batch(path, pool):
    (batch,) = list(dataset_of_100_bytes(path, batch_size=1 << 40, pool=pool))
    assert len(batch) == dataset_of_100_bytes(path).num_records


def test_an_unknown_setting_is_a_type_error(path):
    with pytest.raises(TypeError, match="batchsize"):
        dataset_of_100_bytes(path, batchsize=4)
    with pytest.raises(TypeError):
        RecordDataset(path, "u1")


def test_a_record_larger_than_the_file_is_refused(path):
    with pytest.raises((DataError, ConfigError), match=r"x\.bin|record"):
        dataset_of_100_bytes(path, shape=(1 << 40, 1 << 40))


def test_a_pool_smaller_than_a_batch_says_how_much_a_batch_needs(path):
    with pytest.raises(ConfigError, match=r"BufferPoolConfig.buffer_size is 512 .*10 records") as e:
        dataset_of_100_bytes(
            path, batch_size=10, pool=BufferPoolConfig(capacity=4, buffer_size=512)
        )
    needed = int(str(e.value).split("needs ")[1].split()[0])
    assert 1000 <= needed <= 1000 + 3 * 65536
    too_small = BufferPoolConfig(capacity=4, buffer_size=needed - 1)
    with pytest.raises(ConfigError, match=str(needed)):
        dataset_of_100_bytes(path, batch_size=10, pool=too_small)
    pool = BufferPoolConfig(capacity=4, buffer_size=needed)
    (batch,) = dataset_of_100_bytes(path, batch_size=10, pool=pool)
    assert batch.numpy().tobytes() == path.read_bytes()


def test_a_pool_larger_than_the_memory_is_refused_with_the_numbers(path):
    pool = BufferPoolConfig(capacity=1 << 14, buffer_size=1 << 31)
    with pytest.raises(ConfigError, match=rf"{1 << 45} bytes.*available.*capacity"):
        dataset_of_100_bytes(path, pool=pool)


def test_a_pool_that_is_not_aligned_enough_is_refused_by_its_name(path):
    pool = BufferPoolConfig(capacity=4, buffer_size=1 << 20, alignment=8)
    with pytest.raises(ConfigError, match=r"BufferPoolConfig\.alignment is 8"):
        list(dataset_of_100_bytes(path, direct="require", pool=pool))
    (batch,) = dataset_of_100_bytes(path, direct="off", pool=pool)
    assert batch.numpy().tobytes() == path.read_bytes()


@pytest.mark.parametrize("folder", ["a\0b", None, 3])
def test_a_writer_without_a_folder_is_refused(folder):
    with pytest.raises(ConfigError, match="is not a path"):
        RecordWriter(folder, dtype="u1")


def test_a_field_is_not_named_by_half_a_character(disk, path):
    dtype = np.dtype([("\ud800", "u1")])
    with pytest.raises(ConfigError, match="cannot name a field"):
        RecordWriter(disk / "set", dtype=dtype)
    with pytest.raises(ConfigError, match="cannot name a field"):
        RecordDataset(path, dtype=dtype)
