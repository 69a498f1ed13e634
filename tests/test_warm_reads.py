"""Batches out of the page cache: several threads copy them, as many as are this process's share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import MIB, random_bytes, write_file

import torch_s3io as s3io

RECORDS = 1024
WHOLE, CUT = 1, 2  # requests per MiB: by one thread, by several


@pytest.fixture
def path(disk: Path, needs_uring: None) -> Path:
    path = disk / "warm.bin"
    write_file(path, random_bytes(RECORDS * 4096, 5))
    return path


@pytest.fixture(params=[2])
def processors(request: pytest.FixtureRequest) -> Iterator[int]:
    """This thread, and all that it starts, run on so many."""
    here = os.sched_getaffinity(0)
    if len(here) < request.param:
        pytest.skip("ONE PROCESSOR HERE: copies by several threads are not tested")
    os.sched_setaffinity(0, sorted(here)[: request.param])
    yield request.param
    os.sched_setaffinity(0, here)


def make(path: Path, **options) -> s3io.RecordDataset:
    options = {"batch_size": RECORDS, **options}
    return s3io.RecordDataset(path, dtype=np.uint8, shape=4096, **options)


def requests_per_mib(dataset: s3io.RecordDataset, path: Path, batches) -> float:
    array = np.concatenate([batch.numpy() for batch in batches])
    np.testing.assert_array_equal(array.ravel(), np.fromfile(path, np.uint8)[: array.size])
    stats = dataset.stats()
    assert stats["cached_bytes"] + stats["buffered_bytes"] == array.size
    return stats["requests"] * MIB / array.size


@pytest.mark.parametrize("direct", ["auto", "off"])
def test_a_process_alone_copies_with_several_threads(path, processors, direct):
    dataset = make(path, direct=direct)
    assert requests_per_mib(dataset, path, dataset) == CUT


@pytest.mark.parametrize("processors", [1], indirect=True)
def test_on_one_processor_it_copies_by_itself(path, processors):
    dataset = make(path)
    assert requests_per_mib(dataset, path, dataset) == WHOLE


def test_workers_and_who_waits_for_them_share_the_processors(path, processors):
    dataset = make(path)
    batches = s3io.DataLoader(dataset, num_workers=1)
    assert requests_per_mib(dataset, path, batches) == WHOLE


def test_the_ranks_of_a_machine_share_them(path, processors, monkeypatch):
    ranks = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    for name, value in ranks.items():
        monkeypatch.setenv(name, str(value))
    dataset = make(path, batch_size=RECORDS // 2)
    assert requests_per_mib(dataset, path, dataset) == WHOLE
    dataset = make(path)
    assert requests_per_mib(dataset, path, [dataset.get_batch(range(RECORDS))]) == WHOLE


def test_batches_by_number_are_copied_by_several_threads(path, processors):
    dataset = make(path)
    assert requests_per_mib(dataset, path, [dataset.get_batch(range(RECORDS))]) == CUT


@pytest.mark.parametrize(("concurrent", "expected"), [(1, WHOLE), (8, CUT)])
def test_a_store_copies_with_as_many_threads_as_ranges_at_once(
    path, processors, concurrent, expected
):
    ranges = s3io.RangeEngineConfig(chunk_size=MIB, max_concurrent_ranges=concurrent)
    store = s3io.FileStore(s3io.FileSystemConfig(range_engine=ranges))
    assert bytes(store.get(path).numpy()) == path.read_bytes()
    stats = store.stats()
    assert stats["cached_bytes"] == path.stat().st_size
    assert stats["requests"] == expected * path.stat().st_size / MIB
