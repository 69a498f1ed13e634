"""Tensors view the pooled buffers, which go back when the last view dies."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from support import (
    holds_soon,
    lies_in_a_pool,
    pool_mappings,
    random_bytes,
    small_batches,
    write_file,
    write_records,
)

from torch_s3io import BufferPoolConfig, RecordDataset

SPILLS = "the batches that are still referenced"


@pytest.fixture
def files(disk):
    """One file of 200 records of 1000 bytes, and what numpy sees in it."""
    return disk / "x.bin", write_records(disk / "x.bin", 200, 1000)


def test_a_batch_lies_in_the_mapping_of_the_pool(files, engine, direct):
    path, array = files
    dataset = small_batches(path, engine=engine, direct=direct)
    count = 0
    for batch in dataset:
        assert lies_in_a_pool(batch)
        count += len(batch)
    assert count == len(array)
    assert dataset.stats()["copied_bytes"] == 0


def test_without_a_pool_a_batch_has_memory_of_its_own(files):
    path, array = files
    dataset = small_batches(path, pool=None)
    batches = list(dataset)
    assert pool_mappings() == []
    np.testing.assert_array_equal(torch.cat(batches).numpy(), array)
    assert dataset.stats()["copied_bytes"] == 0


def test_all_fields_of_a_structure_share_the_buffer(disk):
    dtype = np.dtype([("label", "u1"), ("image", "u1", (3, 11, 31))])
    array = np.frombuffer(random_bytes(50 * dtype.itemsize), dtype)
    write_file(disk / "x.bin", array.tobytes())
    dataset = RecordDataset(disk / "x.bin", dtype=dtype, batch_size=5, return_index=True)
    iterator = iter(dataset)
    batch, index = next(iterator)
    storages = {tensor.untyped_storage().data_ptr() for tensor in (*batch.values(), index)}
    assert len(storages) == 1
    assert batch["image"].data_ptr() - batch["label"].data_ptr() == 1
    assert batch["image"].stride() == (dtype.itemsize, 11 * 31, 31, 1)
    assert dataset.stats()["copied_bytes"] == 0


def test_a_batch_across_files_is_copied_only_when_their_ends_are_unaligned(disk):
    def read(record_bytes: int) -> int:
        paths = [
            write_file(disk / f"{record_bytes}-{i}.bin", random_bytes(10 * record_bytes, i))
            for i in range(3)
        ]
        dataset = RecordDataset(
            paths, dtype="u1", shape=record_bytes, batch_size=4, direct="require"
        )
        got = b"".join(batch.numpy().tobytes() for batch in dataset)
        assert got == b"".join(path.read_bytes() for path in paths)
        return dataset.stats()["copied_bytes"]

    assert read(8192) == 0
    assert read(1000) > 0


def test_one_record_per_file_is_read_without_a_copy(disk):
    paths = [write_file(disk / f"{i}.bin", random_bytes(1000, i)) for i in range(20)]
    dataset = RecordDataset(paths, dtype="u1", shape=1000, batch_size=6, direct="require")
    got = b"".join(batch.numpy().tobytes() for batch in dataset)
    assert got == b"".join(path.read_bytes() for path in paths)
    assert dataset.stats()["copied_bytes"] == 0


def test_the_buffer_goes_back_when_the_last_view_dies(files):
    path, array = files
    dataset = small_batches(
        path, batch_size=100, pool=BufferPoolConfig(capacity=4, buffer_size=1 << 18)
    )
    iterator = iter(dataset)
    batch = next(iterator)
    view = batch[7:9, 10:20].T
    first, rest = batch[0], list(iterator)
    del rest, iterator, first
    assert dataset.stats()["pool_in_use"] == 1
    del batch
    assert dataset.stats()["pool_in_use"] == 1
    np.testing.assert_array_equal(view.numpy(), array[7:9, 10:20].T)
    alias = view.numpy()
    del view
    assert dataset.stats()["pool_in_use"] == 1
    del alias
    assert dataset.stats()["pool_in_use"] == 0


def test_samples_share_a_buffer_that_goes_back_with_the_last_of_them(files):
    path, array = files
    dataset = small_batches(path, batch_size=None, pool="auto")
    samples = list(dataset)
    assert all(lies_in_a_pool(sample.unsqueeze(0)) for sample in samples)
    last = samples[-1]
    del samples
    assert dataset.stats()["pool_in_use"] == 1
    np.testing.assert_array_equal(last.numpy(), array[-1])
    del last
    assert dataset.stats()["pool_in_use"] == 0


def test_the_memory_outlives_the_data_set(files):
    path, array = files
    dataset = small_batches(path)
    batch = next(iter(dataset))
    del dataset
    gc.collect()
    assert lies_in_a_pool(batch)
    np.testing.assert_array_equal(batch.numpy(), array[:10])
    del batch
    assert holds_soon(lambda: pool_mappings() == [])


def test_a_batch_may_be_written_to_and_the_file_keeps_its_bytes(files):
    path, array = files
    for _ in range(2):
        position = 0
        for batch in small_batches(path):
            batch.add_(1)
            wanted = array[position : position + len(batch)] + 1
            np.testing.assert_array_equal(batch.numpy(), wanted)
            position += len(batch)
    assert path.read_bytes() == array.tobytes()


@pytest.mark.needs_cuda
def test_a_batch_moves_to_the_device(files):
    path, array = files
    moved = [batch.to("cuda") for batch in small_batches(path)]
    np.testing.assert_array_equal(torch.cat(moved).cpu().numpy(), array)
