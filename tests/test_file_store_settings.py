"""Every setting of a FileStore has the effect that it promises."""

from __future__ import annotations

import gc

import pytest
from support import (
    MIB,
    cached_pages,
    holds_soon,
    is_direct,
    make_cold,
    open_files,
    pool_mappings,
    random_bytes,
    store_with,
    threads,
    write_file,
)

from torch_s3io import (
    BufferPoolConfig,
    ConfigError,
    PoolTimeoutError,
    RangeEngineConfig,
)

POOL = BufferPoolConfig(capacity=2, buffer_size=256 * 1024)


@pytest.fixture
def large(disk):
    return write_file(disk / "large.bin", random_bytes(2 * MIB))


def test_direct_io_decides_how_the_file_is_opened_and_read(large):
    for direct_io, flags in (("require", [True]), ("off", [False]), ("auto", [False, True])):
        store = store_with(direct_io=direct_io)
        make_cold(large)
        store.get(large)
        fds = [fd for fd, target in open_files().items() if target == str(large)]
        assert sorted(map(is_direct, fds)) == flags
        stats = store.stats()
        assert (stats["direct_bytes"] > 0) == (direct_io != "off")
        assert (stats["buffered_bytes"] > 0) == (direct_io == "off")
        if direct_io != "auto":
            assert (cached_pages(large) > 0) == (direct_io == "off")
        del store


def test_alignment_raises_that_of_direct_reads(large):
    store = store_with(direct_io="require", alignment=65536)
    got = store.get_range(large, 70_000, 10)
    assert got.numpy().tobytes() == large.read_bytes()[70_000:70_010]
    assert got.data_ptr() % 65536 == 70_000 % 65536
    assert store.stats()["direct_bytes"] == 65536
    plain = store_with(direct_io="require")
    plain.get_range(large, 70_000, 10)
    assert plain.stats()["direct_bytes"] == plain.stat(large).direct_alignment


def test_a_pool_must_be_aligned_enough(large):
    pool = BufferPoolConfig(capacity=2, buffer_size=MIB, alignment=4096)
    store = store_with(direct_io="require", alignment=65536, buffer_pool=pool)
    with pytest.raises(ConfigError, match=r"BufferPoolConfig\.alignment"):
        store.get_range(large, 0, 10)


def test_min_io_size_sends_short_reads_through_the_page_cache(large):
    make_cold(large)
    store = store_with(min_io_size=10_000)
    store.get_range(large, 0, 9_999)
    assert store.stats()["direct_bytes"] == 0
    assert store.stats()["buffered_bytes"] == 9_999
    make_cold(large)
    store.get_range(large, 0, 10_000)
    assert store.stats()["buffered_bytes"] == 9_999
    assert store.stats()["direct_bytes"] >= 10_000


def test_the_range_engine_splits_large_reads_into_chunks(large):
    def requests(length: int, **fields) -> int:
        store = store_with(direct_io="require", **fields)
        assert store.get_range(large, 0, length).numpy().tobytes() == large.read_bytes()[:length]
        return store.stats()["requests"]

    ranges = RangeEngineConfig(chunk_size=65536, min_split_size=MIB)
    assert requests(2 * MIB, range_engine=ranges) == 32
    assert requests(MIB, range_engine=ranges) == 16
    assert requests(MIB - 1, range_engine=ranges) == 1
    assert requests(2 * MIB, range_engine=ranges, enable_range_engine=False) == 1
    wide = RangeEngineConfig(chunk_size=MIB, min_split_size=0)
    assert requests(2 * MIB, range_engine=wide) == 2
    assert requests(2 * MIB) == 1


@pytest.mark.parametrize("concurrent", [1, 3, 7])
def test_max_concurrent_ranges_bounds_the_reading_threads(large, concurrent):
    before = len(threads())
    ranges = RangeEngineConfig(chunk_size=65536, min_split_size=0, max_concurrent_ranges=concurrent)
    store = store_with("threads", direct_io="require", range_engine=ranges)
    assert store.get(large).numpy().tobytes() == large.read_bytes()
    assert len(threads()) - before == concurrent
    del store
    gc.collect()
    assert holds_soon(lambda: len(threads()) == before)


def test_range_timeout_bounds_the_wait_for_a_buffer(large):
    ranges = RangeEngineConfig(range_timeout=0.05)
    pool = BufferPoolConfig(capacity=1, buffer_size=4 * MIB)
    store = store_with(buffer_pool=pool, range_engine=ranges)
    held = store.get(large)
    with pytest.raises(PoolTimeoutError, match=r"0\.05 s.*BufferPoolConfig\.capacity") as caught:
        store.get(large)
    assert isinstance(caught.value, TimeoutError)
    del held
    assert len(store.get(large)) == 2 * MIB


def test_buffers_of_the_pool_are_viewed_and_go_back(large):
    pool = BufferPoolConfig(capacity=2, buffer_size=4 * MIB)
    store = store_with(buffer_pool=pool)
    first, second = store.get(large), store.get_range(large, 5, 100)
    for tensor in (first, second):
        assert any(low <= tensor.data_ptr() < high for low, high in pool_mappings())
    del tensor
    assert store.stats()["pool_in_use"] == 2
    view = first[100:200]
    del first
    assert store.stats()["pool_in_use"] == 2
    del view, second
    stats = store.stats()
    assert (stats["pool_in_use"], stats["pool_peak"], stats["pool_taken"]) == (0, 2, 2)


def test_an_object_larger_than_a_buffer_gets_an_allocation_that_is_counted(large):
    store = store_with(buffer_pool=BufferPoolConfig(capacity=2, buffer_size=MIB))
    got = store.get(large)
    assert got.numpy().tobytes() == large.read_bytes()
    assert store.stats()["pool_oversize"] == 1
    assert not any(low <= got.data_ptr() < high for low, high in pool_mappings())
