"""Samples of any length in buffers of one size: few batches do not fit, and those that do not get
memory of their own, one at a time."""

from __future__ import annotations

import numpy as np
import pytest
from sample_sets import Lengths
from support import QUICK_CONTEXTS, lies_in_a_pool, pool_mappings

from torch_s3io import (
    BufferPoolConfig,
    ConfigError,
    DataLoader,
    RecordMapDataset,
    SampleDataset,
)

SLOT = 64 << 10
KIB = 1 << 10


def log_normal(count: int, sigma: float) -> np.ndarray:
    return np.random.default_rng(1).lognormal(6, sigma, count).astype(int)


SETS = {
    "one length": lambda: np.full(8000, 400),
    "log-normal, sigma 1": lambda: log_normal(8000, 1),
    "sorted": lambda: np.sort(log_normal(8000, 1)),
}
ORDERS = {
    "in order": {"shuffle": False},
    "shuffled": {"shuffle": True},
    "in blocks": {"shuffle": "block"},
    "in small blocks": {"shuffle": "block", "block_records": 24},
    "in windows": {"shuffle": "block", "block_records": 24, "window_blocks": 32},
}


@pytest.mark.parametrize("lengths", SETS)
def test_under_one_percent_of_the_batches_do_not_fit_in_a_buffer(disk, lengths):
    samples = Lengths(disk / "set", SETS[lengths](), shard_bytes=1 << 20)
    for name, order in ORDERS.items():
        for batch_size, direct in ((64, "off"), (64, "require"), (256, "off"), (256, "require")):
            options = {"batch_size": batch_size, "direct": direct, **order}
            dataset = SampleDataset(samples.folder, **options)
            epochs = 2 if order["shuffle"] else 1
            batches = sum(1 for _ in range(epochs) for _ in dataset)
            oversize = dataset.stats()["oversize_batches"]
            del dataset
            assert oversize <= max(2, 0.01 * batches), (name, batch_size, direct)


def test_a_buffer_is_not_much_larger_than_it_must_be(disk):
    """Of 64 samples whose lengths are log-normal: 1.5 of a mean batch, and what reads take
    beside."""
    for name, lengths, factor in (
        ("equal", np.full(8000, 4000), 1.2),
        ("differing", 10 * log_normal(8000, 1), 1.9),
    ):
        samples = Lengths(disk / name, lengths)
        dataset = SampleDataset(samples.folder, batch_size=64, direct="off", shuffle=True)
        batch = next(iter(dataset))
        assert len(batch["number"]) == 64
        [(begin, end)] = pool_mappings()
        mean = lengths.mean() * 64
        mapped = end - begin - (2 << 20)  # in whole pages of 2 MiB
        assert mapped / dataset.buffers_per_worker(1) < factor * mean
        del batch, dataset


@pytest.fixture
def large_ones(disk):
    """One of 31 samples is larger than all buffers of ``small`` together."""
    lengths = [100 * number for number in range(31)]
    lengths[17] = 4 * SLOT + 12_345
    return Lengths(disk / "set", lengths)


def small(samples: Lengths, **options) -> SampleDataset:
    options = {"pool": BufferPoolConfig(capacity=3, buffer_size=SLOT), "batch_size": 3, **options}
    return SampleDataset(samples.folder, **options)


BY_ONE = {"batch_size": None, "pool": BufferPoolConfig(capacity=3, buffer_size=400 * KIB)}


@pytest.mark.parametrize("options", [{}, BY_ONE, {"shuffle": True}, {"pool": None}])
def test_one_sample_may_be_larger_than_all_buffers_together(large_ones, engine, direct, options):
    dataset = small(large_ones, engine=engine, direct=direct, **options)._with(reads_on=False)
    for epoch in range(3):
        seen = []
        for batch in dataset:
            if dataset._options.batch_size is None:
                batch = {"data": [batch["data"]], "number": batch["number"].reshape(1)}
            seen += large_ones.check(batch)
        assert sorted(seen) == list(range(31))
        many = options.get("pool", 1) is not None and options.get("batch_size", 1) is not None
        assert dataset.stats()["oversize_batches"] == (epoch + 1) * many
    del batch
    assert dataset.stats()["pool_in_use"] == 0


@pytest.mark.filterwarnings("ignore:the batches that are still referenced")
def test_batches_that_do_not_fit_can_be_kept_like_all_others(large_ones):
    dataset = small(large_ones)
    assert sorted(large_ones.check_all(list(dataset))) == list(range(31))


def test_one_by_number_may_be_larger_than_all_buffers_together(large_ones):
    dataset = small(large_ones)
    assert large_ones.check(dataset.get_batch([17, 3, 17, 0])) == [17, 3, 17, 0]
    records = RecordMapDataset(dataset)
    assert records[17]["data"].numpy().tobytes() == large_ones.data[17]
    assert large_ones.check_all(dataset) == list(range(31))


@pytest.mark.parametrize("context", QUICK_CONTEXTS)
def test_one_from_a_worker_may_be_larger_than_all_buffers_together(large_ones, context):
    dataset = small(large_ones, pool=BufferPoolConfig(capacity=8, buffer_size=SLOT))
    loader = DataLoader(dataset, num_workers=2, multiprocessing_context=context)
    for epoch in range(2):
        numbers = []
        for batch in loader:
            numbers += large_ones.check(batch)
            # Where it was read, whatever it lies in: torch would have copied it into memory of its.
            assert lies_in_a_pool(batch["data"].values)
            del batch
        assert numbers == list(range(31))
        stats = dataset.stats()
        assert stats["oversize_batches"] == epoch + 1
        assert stats["batches"] == 11 * (epoch + 1)
        # Of each batch the numbers, the bytes, starts and lengths; but for the one that is larger.
        assert stats["received_tensors"] == 4 * 10 * (epoch + 1)
    assert stats["held_buffers"] == 0


def test_no_more_than_one_batch_that_does_not_fit_is_read_ahead(disk, engine):
    """So memory has a bound: that of the pool, and that of two batches."""
    lengths = [0] * 600 + [6 * SLOT] * 16 + [10] * 600
    samples = Lengths(disk / "set", lengths)
    dataset = small(samples, batch_size=1, engine=engine, direct="off")._with(reads_on=False)
    delivered = 0
    for number, batch in enumerate(dataset):
        assert samples.check(batch) == [number]
        delivered += lengths[number]
        stats = dataset.stats()
        read = stats["cached_bytes"] + stats["buffered_bytes"]
        assert read <= delivered + 6 * SLOT + 3 * SLOT + 16 * len(lengths), number
    assert dataset.stats()["oversize_batches"] == 16


def test_buffers_that_most_batches_do_not_fit_in_are_refused(disk):
    samples = Lengths(disk / "set", [100_000] * 50)
    with pytest.raises(ConfigError) as caught:
        small(samples, batch_size=4)
    text = str(caught.value)
    assert "BufferPoolConfig.buffer_size is 65536 bytes" in text
    assert "a batch of 4 samples needs 40" in text
    assert "raise it, to" in text
    assert "lower batch_size" in text
    needed = int(text.split("raise it, to ")[1].split()[0])
    pool = BufferPoolConfig(capacity=3, buffer_size=needed)
    dataset = small(samples, batch_size=4, pool=pool, shuffle=True)
    assert sorted(samples.check_all(dataset)) == list(range(50))
    assert dataset.stats()["oversize_batches"] == 0


def test_buffers_of_a_mean_batch_are_enough_whatever_does_not_fit(disk):
    samples = Lengths(disk / "set", [0, 200_000] * 40)
    pool = BufferPoolConfig(capacity=3, buffer_size=400 << 10)
    for direct in ("off", "require"):
        dataset = small(samples, batch_size=4, pool=pool, shuffle=True, direct=direct)
        assert sorted(samples.check_all(dataset)) == list(range(80))
        assert 0 < dataset.stats()["oversize_batches"] < 20
        del dataset


def test_one_sample_does_not_make_every_buffer_as_large_as_memory_allows(disk):
    """Buffers have room for nearly all batches, whatever the largest one needs."""
    samples = Lengths(disk / "set", [1000] * 2000 + [64 << 20])
    dataset = SampleDataset(samples.folder, batch_size=8, shuffle=True)
    assert sorted(samples.check_all(dataset)) == list(range(2001))
    assert 1 <= dataset.stats()["oversize_batches"] <= 2
    sizes = [end - begin for begin, end in pool_mappings()]
    buffer_bytes = sum(sizes) / dataset.buffers_per_worker(1)  # in whole pages of 2 MiB
    assert buffer_bytes < 17 * 8 * (33_000 + 2 * 4096) + (2 << 20)


@pytest.mark.parametrize("length", [0, 100, 9000])
def test_batches_of_most_of_the_data_set_fit(disk, length):
    """They are read with what lies between their samples."""
    samples = Lengths(disk / "set", [length] * 100)
    for batch_size in (30, 60, 90):
        for direct in ("off", "require"):
            options = {"shuffle": True, "drop_last": True, "direct": direct}
            dataset = SampleDataset(samples.folder, batch_size=batch_size, **options)
            assert len([number for _ in range(5) for number in samples.check_all(dataset)]) >= 300
            assert dataset.stats()["oversize_batches"] == 0, (batch_size, direct)
