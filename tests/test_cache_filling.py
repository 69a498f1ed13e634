"""Sets that fit in memory: what is missing comes into the page cache in large blocks."""

from __future__ import annotations

import numpy as np
import pytest
from programs import run_program
from support import (
    cached_pages,
    holds_soon,
    make_cold,
    random_bytes,
    says_what_is_cached,
    write_file,
)

from torch_s3io import DataLoader, RecordDataset

SIZE = 24 << 20
MOST_PAGES = SIZE // 4096 * 9 // 10  # the kernel may leave some out, or take some back


@pytest.fixture
def path(disk):
    return cold_file(disk / "x.bin")


def cold_file(path):
    write_file(path, random_bytes(SIZE))
    make_cold(path)
    if cached_pages(path):
        pytest.skip("this file system keeps its files in memory")
    with open(path, "rb") as file:
        if not says_what_is_cached(file.fileno()):
            pytest.skip("this kernel does not say what is in the page cache (Linux 6.5)")
    return path


def make(path, **options):
    options = {"shuffle": True, **options}
    return RecordDataset(path, dtype="u1", shape=4096, batch_size=64, **options)


def check_epoch(batches, path):
    rows = np.concatenate([batch.numpy() for batch in batches])
    array = np.fromfile(path, np.uint8).reshape(-1, 4096)
    assert np.array_equal(rows[np.lexsort(rows.T[:8])], array[np.lexsort(array.T[:8])])


def test_the_first_epoch_brings_the_set_into_the_page_cache(path):
    dataset = make(path)
    check_epoch(dataset, path)
    assert holds_soon(lambda: cached_pages(path) >= MOST_PAGES)
    assert dataset.stats()["filled_bytes"] > 0


def test_workers_share_the_work(path):
    dataset = make(path)
    check_epoch(DataLoader(dataset, num_workers=2), path)
    assert holds_soon(lambda: cached_pages(path) >= MOST_PAGES)
    # What both miss at the same time, both ask for; it is read once.
    assert SIZE * 8 // 10 < dataset.stats()["filled_bytes"] <= SIZE * 12 // 10


@pytest.mark.parametrize(
    "options",
    [{"direct": "require"}, {"direct": "off"}, {"shuffle": False}, {"shuffle": "block"}],
    ids=str,
)
def test_nothing_is_filled_where_it_is_not_asked_for_or_no_help(path, options):
    dataset = make(path, **options)
    check_epoch(dataset, path)
    assert dataset.stats()["filled_bytes"] == 0


def test_records_that_are_read_fast_one_by_one_are_not_filled_in(path):
    dataset = RecordDataset(path, dtype="u1", shape=1 << 16, batch_size=8, shuffle=True)
    for _ in dataset:
        pass
    assert dataset.stats()["filled_bytes"] == 0


@pytest.mark.parametrize("shuffle", [False, True])
def test_larger_records_are_filled_in_by_the_epoch_after_which_they_stay(path, shuffle):
    dataset = RecordDataset(path, dtype="u1", shape=1 << 16, batch_size=8, shuffle=shuffle)
    assert sum(len(batch) for batch in dataset) == SIZE >> 16
    assert dataset.stats()["filled_bytes"] == 0
    assert dataset.stats()["direct_bytes"] == SIZE
    assert sum(len(batch) for batch in dataset) == SIZE >> 16
    assert SIZE * 9 // 10 <= dataset.stats()["filled_bytes"] <= SIZE
    assert dataset.stats()["direct_bytes"] == SIZE
    assert cached_pages(path) >= MOST_PAGES


def test_what_a_resumed_epoch_did_not_touch_is_filled_in_by_the_next_one(path):
    dataset = make(path)
    dataset.load_state_dict({**dataset.state_dict(), "consumed": (SIZE >> 12) - 64})
    assert sum(len(batch) for batch in dataset) == 64
    assert dataset.stats()["filled_bytes"] < SIZE // 2
    check_epoch(dataset, path)
    assert SIZE * 9 // 10 <= dataset.stats()["filled_bytes"] <= SIZE
    assert dataset.stats()["requests"] >= (SIZE >> 12) + 64


def test_where_the_kernel_does_not_say_what_is_cached_it_is_filled_all_the_same(path):
    source = """
    import sys
    from programs import forbid_system_call
    from test_cache_filling import make

    cachestat, not_implemented = 451, 38
    forbid_system_call(cachestat, not_implemented)
    dataset = make(sys.argv[1])
    for _ in range(2):
        assert sum(batch.nbytes for batch in dataset) == 24 << 20
    stats = dataset.stats()
    print(stats["filled_bytes"], stats["direct_bytes"], stats["buffered_bytes"])
    """
    filled, direct, buffered = map(int, run_program(source, path).split())
    assert (filled, direct) == (0, 0)
    assert buffered >= 2 * SIZE  # and the first batches of a third epoch
    assert cached_pages(path) >= MOST_PAGES


def test_an_epoch_that_is_broken_off_is_begun_again_and_fills_the_rest(path):
    dataset = make(path)
    for _ in dataset:
        break
    check_epoch(dataset, path)
    assert holds_soon(lambda: cached_pages(path) >= MOST_PAGES)
