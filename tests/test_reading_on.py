"""From one epoch into the next one: its first batches are read before it begins."""

from __future__ import annotations

import numpy as np
import pytest
from support import holds_soon, random_bytes, write_file

from torch_s3io import BufferPoolConfig, DataLoader, RecordDataset

RECORDS = 100
BATCH = 10


@pytest.fixture
def path(disk):
    return write_file(disk / "x.bin", random_bytes(RECORDS * 1000))


def make(path, **options):
    options = {"shuffle": True, "direct": "off", **options}
    return RecordDataset(path, dtype="u1", shape=1000, batch_size=BATCH, **options)


def read(dataset):
    return np.concatenate([batch.numpy() for batch in dataset])


def expected(path, epoch, **options):
    dataset = make(path, **options)
    dataset.set_epoch(epoch)
    return read(dataset)


@pytest.mark.parametrize("pool", ["auto", None, BufferPoolConfig(capacity=3, buffer_size=20_000)])
def test_from_the_second_epoch_on_the_next_ones_batches_are_there_before_it_begins(path, pool):
    dataset = make(path, pool=pool)
    read(dataset)
    size = RECORDS * 1000
    assert dataset.stats()["buffered_bytes"] == size  # who reads one epoch may not want another
    read(dataset)
    assert holds_soon(lambda: dataset.stats()["buffered_bytes"] > 2 * size)
    assert dataset.stats()["batches"] == 20
    for epoch in range(2, 6):
        assert np.array_equal(read(dataset), expected(path, epoch))


def test_a_benchmark_can_have_every_epoch_read_after_it_began(path):
    dataset = make(path)._with(reads_on=False)
    for epoch in range(3):
        assert np.array_equal(read(dataset), expected(path, epoch))
        assert dataset.stats()["buffered_bytes"] == (epoch + 1) * RECORDS * 1000


def test_another_epoch_than_the_next_one_is_right_too(path):
    dataset = make(path)
    read(dataset)
    read(dataset)
    dataset.set_epoch(7)
    assert np.array_equal(read(dataset), expected(path, 7))
    state = dataset.state_dict()
    assert np.array_equal(read(dataset), expected(path, 8))
    dataset.load_state_dict(state)
    assert np.array_equal(read(dataset), expected(path, 8))
    dataset.set_epoch(8)
    assert np.array_equal(read(dataset), expected(path, 8))


def test_breaking_off_and_two_iterators_at_a_time_are_right(path):
    dataset = make(path)
    for _ in range(3):
        read(dataset)
    for batch in dataset:
        assert np.array_equal(batch.numpy(), expected(path, 3)[:BATCH])
        break
    one, other = iter(dataset), iter(dataset)
    pairs = [(next(one).numpy().copy(), next(other).numpy().copy()) for _ in range(10)]
    assert np.array_equal(np.concatenate([pair[0] for pair in pairs]), expected(path, 4))
    assert np.array_equal(np.concatenate([pair[1] for pair in pairs]), expected(path, 5))
    assert next(one, None) is None
    assert next(other, None) is None
    assert np.array_equal(read(dataset), expected(path, 6))


def test_persistent_workers_read_on_and_keep_the_order(path):
    dataset = make(path)
    loader = DataLoader(dataset, num_workers=2)
    for epoch in range(5):
        assert np.array_equal(read(loader), expected(path, epoch))
    assert dataset.stats()["buffered_bytes"] > 5 * RECORDS * 1000
    assert dataset.stats()["batches"] == 50
    del loader
