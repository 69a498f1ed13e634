"""Batches out of the page cache: several threads copy them, as many as are this process's share."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support import MIB, holds_soon, random_bytes, says_what_is_cached, threads, write_file

import torch_s3io as s3io

RECORDS = 8192  # 32 MiB: a reader that begins with 8 MiB of buffers does not end at once
SHARED, ALONE = 1, 0  # threads besides the one that reads, on two processors


@pytest.fixture
def path(disk: Path, needs_uring: None) -> Path:
    path = write_file(disk / "warm.bin", random_bytes(RECORDS * 4096, 5))
    with open(path, "rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(4096)], 0, os.RWF_NOWAIT)
        except OSError as error:
            pytest.skip(f"THIS FILE SYSTEM CANNOT READ WITHOUT A WAIT: {error}")
        if not says_what_is_cached(file.fileno()):
            pytest.skip("THIS KERNEL DOES NOT SAY WHAT IS IN THE PAGE CACHE (Linux 6.5)")
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
    options = {"batch_size": 256, **options}
    return s3io.RecordDataset(path, dtype=np.uint8, shape=4096, **options)


def count_threads(batch: torch.Tensor) -> tuple[torch.Tensor, int]:
    return batch, len(threads())


def check(batches, path: Path) -> None:
    array = np.concatenate([batch.numpy().copy() for batch in batches])
    np.testing.assert_array_equal(array.ravel(), np.fromfile(path, np.uint8)[: array.size])


def threads_of_an_epoch(path: Path, **options) -> int:
    """That help the one that reads."""
    before = len(threads())
    counts = []

    def batches() -> Iterator[torch.Tensor]:
        for batch, count in make(path, transform=count_threads, **options):
            counts.append(count)
            yield batch

    check(batches(), path)
    return max(counts) - before - 1


@pytest.mark.parametrize("direct", ["auto", "off"])
def test_a_process_alone_copies_with_several_threads(path, processors, direct):
    assert threads_of_an_epoch(path, direct=direct) == SHARED


@pytest.mark.parametrize("processors", [1], indirect=True)
def test_on_one_processor_it_copies_by_itself(path, processors):
    assert threads_of_an_epoch(path) == ALONE


def test_short_copies_are_not_shared(path, processors):
    assert threads_of_an_epoch(path, batch_size=1) == ALONE


def test_direct_reads_have_no_copies(path, processors):
    # Threads of the test's own machinery come and go.
    assert holds_soon(lambda: threads_of_an_epoch(path, direct="require") == ALONE)


def test_workers_and_who_waits_for_them_share_the_processors(path, processors):
    """One worker and its main process have one of two each, so no thread more than on one."""

    def threads_of_a_worker() -> int:
        loader = s3io.DataLoader(
            make(path, transform=count_threads),
            num_workers=1,
            multiprocessing_context=multiprocessing.get_context("fork"),
        )
        return max(count for _, count in loader)

    on_two = threads_of_a_worker()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    assert on_two == threads_of_a_worker()


def test_the_ranks_of_a_machine_share_them(path, processors, monkeypatch):
    ranks = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    for name, value in ranks.items():
        monkeypatch.setenv(name, str(value))
    assert threads_of_an_epoch(path, rank=0, world_size=1) == ALONE


def test_batches_by_number_are_copied_by_several_threads(path, processors):
    dataset = make(path)
    before = len(threads())
    check([dataset.get_batch(range(RECORDS))], path)
    assert len(threads()) - before == SHARED


@pytest.mark.parametrize(
    ("splits", "min_split_size", "expected"),
    [(True, 0, SHARED), (True, 64 * MIB, ALONE), (False, 0, ALONE)],
)
def test_a_store_shares_what_it_may_split(path, processors, splits, min_split_size, expected):
    ranges = s3io.RangeEngineConfig(min_split_size=min_split_size)
    config = s3io.FileSystemConfig(enable_range_engine=splits, range_engine=ranges)
    store = s3io.FileStore(config)
    before = len(threads())
    assert bytes(store.get(path).numpy()) == path.read_bytes()
    assert store.stats()["cached_bytes"] == path.stat().st_size
    assert len(threads()) - before == expected
