"""Every way to hold on to batches and iterators ends well."""

from __future__ import annotations

import gc
import threading
import warnings

import numpy as np
import pytest
import torch
from support import lies_in_a_pool, pool_mappings, small_batches, small_pool, write_records
from torch.utils.data import DataLoader

from torch_s3io import BufferPoolConfig

SPILLS = "the batches that are still referenced"


@pytest.fixture
def files(disk):
    """One file of 200 records of 1000 bytes, and what numpy sees in it."""
    return disk / "x.bin", write_records(disk / "x.bin", 200, 1000)


@pytest.mark.parametrize("capacity", [1, 2, 3, 4, 8])
def test_every_batch_may_be_kept_counted_and_warned_of_once(files, capacity):
    path, array = files
    dataset = small_batches(path, pool=small_pool(capacity))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches = list(dataset)
    np.testing.assert_array_equal(torch.cat(batches).numpy(), array)
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 1
    assert SPILLS in texts[0]
    assert "BufferPoolConfig.capacity" in texts[0]
    assert caught[0].category is RuntimeWarning
    stats = dataset.stats()
    in_pool = sum(lies_in_a_pool(batch) for batch in batches)
    assert stats["spilled_batches"] == 20 - in_pool
    assert in_pool == stats["pool_in_use"] < capacity
    assert stats["copied_bytes"] >= stats["spilled_batches"] * 10 * 1000
    del batches
    assert dataset.stats()["pool_in_use"] == 0


def test_a_second_epoch_runs_while_all_batches_of_the_first_are_held(files):
    path, array = files
    dataset = small_batches(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", SPILLS)
        first = list(dataset)
        second = list(dataset)
    np.testing.assert_array_equal(torch.cat(first).numpy(), array)
    np.testing.assert_array_equal(torch.cat(second).numpy(), array)


def test_a_loader_without_workers_yields_the_same_tensors(files):
    path, array = files
    dataset = small_batches(path, pool=small_pool(64))
    batches = list(DataLoader(dataset, batch_size=None))
    assert all(lies_in_a_pool(batch) for batch in batches)
    np.testing.assert_array_equal(torch.cat(batches).numpy(), array)


def test_two_iterators_of_one_data_set_run_side_by_side(files, engine):
    path, array = files
    dataset = small_batches(path, engine=engine)
    left, right = [], []
    for one, other in zip(dataset, dataset, strict=True):
        assert one.data_ptr() != other.data_ptr()
        left.append(one.clone())
        right.append(other.clone())
    del one, other
    for copies in (left, right):
        np.testing.assert_array_equal(torch.cat(copies).numpy(), array)
    assert dataset.stats()["pool_in_use"] == 0


def test_iterators_may_nest(files):
    path, array = files
    dataset = small_batches(
        path, batch_size=50, pool=BufferPoolConfig(capacity=3, buffer_size=1 << 18)
    )
    outer = []
    for batch in dataset:
        inner = torch.cat([other.clone() for other in dataset])
        np.testing.assert_array_equal(inner.numpy(), array)
        outer.append(batch.clone())
    np.testing.assert_array_equal(torch.cat(outer).numpy(), array)


def test_two_data_sets_run_side_by_side(files, disk):
    path, array = files
    other_array = write_records(disk / "y.bin", 200, 1000, seed=1)
    other = small_batches(disk / "y.bin")
    pairs = [(a.clone(), b.clone()) for a, b in zip(small_batches(path), other, strict=True)]
    np.testing.assert_array_equal(torch.cat([a for a, _ in pairs]).numpy(), array)
    assert torch.cat([b for _, b in pairs]).numpy().tobytes() == other_array.tobytes()


@pytest.mark.parametrize("batch_size", [None, 10])
def test_after_a_break_the_next_iteration_begins_at_the_first_record(files, batch_size):
    path, array = files
    dataset = small_batches(path, batch_size=batch_size, pool="auto")
    for stop_at in (0, 1, 7, 19):
        for number, batch in enumerate(dataset):
            wanted = array[number] if batch_size is None else array[number * 10 : number * 10 + 10]
            np.testing.assert_array_equal(batch.numpy(), wanted)
            if number == stop_at:
                break
    del batch
    assert dataset.stats()["pool_in_use"] == 0


def test_a_closed_generator_gives_everything_back(files, engine):
    path, _ = files
    dataset = small_batches(path, engine=engine)
    threads = threading.active_count()
    iterator = iter(dataset)
    batch = next(iterator)
    iterator.close()
    assert list(iterator) == []
    assert dataset.stats()["pool_in_use"] == 1
    del batch
    assert dataset.stats()["pool_in_use"] == 0
    assert threading.active_count() == threads
    assert len(list(dataset)) == 20


def test_an_iterator_that_is_never_started_starts_nothing(files):
    path, _ = files
    dataset = small_batches(path)
    iterator = iter(dataset)
    assert pool_mappings() == []
    del iterator
    assert dataset.stats()["pool_taken"] == 0


def test_an_exception_in_transform_ends_the_iteration_cleanly(files):
    path, _ = files

    def fail(batch):
        raise ZeroDivisionError("of the user")

    dataset = small_batches(path, transform=fail)
    with pytest.raises(ZeroDivisionError, match="of the user"):
        next(iter(dataset))
    gc.collect()
    assert dataset.stats()["pool_in_use"] == 0


def test_batches_die_in_other_threads(files):
    path, array = files
    dataset = small_batches(path)
    held: list[torch.Tensor] = []
    failures = []

    def check(position: int) -> None:
        batch = held.pop()
        if not np.array_equal(batch.numpy(), array[position : position + 10]):
            failures.append(position)

    for number, batch in enumerate(dataset):
        held.append(batch)
        del batch
        thread = threading.Thread(target=check, args=(number * 10,))
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
    assert failures == []
    assert dataset.stats()["pool_in_use"] == 0
