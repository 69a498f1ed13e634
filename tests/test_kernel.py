"""Direct reads and io_uring are in use when asked for: by what the kernel says."""

from __future__ import annotations

import os

import numpy as np
import pytest
from support import (
    cached_pages,
    device_bytes,
    is_direct,
    make_cold,
    make_warm,
    open_files,
    random_bytes,
    registered_buffers,
    ring_entries,
    rings,
    threads,
    write_file,
)

from torch_s3io import FileStore, FileSystemConfig, RecordDataset

SIZE = 8 << 20
RECORD_BYTES = 4096


@pytest.fixture
def path(disk):
    return write_file(disk / "x.bin", random_bytes(SIZE))


def make(path, **options):
    return RecordDataset(path, dtype="u1", shape=RECORD_BYTES, batch_size=16, **options)


def descriptors_of(path) -> list[int]:
    return [fd for fd, target in open_files().items() if target == str(path)]


def read_all(dataset, data: bytes) -> None:
    position = 0
    for batch in dataset:
        assert batch.numpy().tobytes() == data[position : position + batch.nbytes]
        position += batch.nbytes
    assert position == len(data)


def test_under_require_every_descriptor_of_the_file_has_o_direct(path, engine):
    iterator = iter(make(path, direct="require", engine=engine))
    next(iterator)
    assert descriptors_of(path)
    assert all(is_direct(fd) for fd in descriptors_of(path))


def test_under_off_no_descriptor_has_o_direct(path, engine):
    iterator = iter(make(path, direct="off", engine=engine))
    next(iterator)
    assert descriptors_of(path)
    assert not any(is_direct(fd) for fd in descriptors_of(path))


def test_under_auto_there_is_one_of_each(path, engine):
    iterator = iter(make(path, direct="auto", engine=engine))
    next(iterator)
    assert sorted(map(is_direct, descriptors_of(path))) == [False, True]


@pytest.mark.parametrize("direct", ["require", "auto"])
def test_a_cold_file_is_read_from_the_device_past_the_page_cache(path, engine, direct):
    data = path.read_bytes()
    make_cold(path)
    before = device_bytes()
    dataset = make(path, direct=direct, engine=engine)
    read_all(dataset, data)
    assert cached_pages(path) == 0
    # Workers of the kernel count the reads that they carry out as their own.
    assert device_bytes() - before >= SIZE // 2
    stats = dataset.stats()
    assert SIZE <= stats["direct_bytes"] <= SIZE + len(dataset) * 2 * 4096
    assert stats["buffered_bytes"] == stats["cached_bytes"] == 0


def test_off_fills_the_page_cache(path, engine):
    data = path.read_bytes()
    make_cold(path)
    dataset = make(path, direct="off", engine=engine)
    read_all(dataset, data)
    assert cached_pages(path) == SIZE // 4096
    stats = dataset.stats()
    assert (stats["direct_bytes"], stats["buffered_bytes"]) == (0, SIZE)


def test_auto_takes_a_warm_file_from_the_page_cache(path, engine):
    make_warm(path)
    data = path.read_bytes()
    before = device_bytes()
    dataset = make(path, direct="auto", engine=engine)
    read_all(dataset, data)
    assert device_bytes() == before
    stats = dataset.stats()
    assert stats["cached_bytes"] == SIZE
    assert stats["direct_bytes"] == stats["buffered_bytes"] == 0


def test_require_reads_from_the_device_even_what_is_cached(path, engine):
    make_warm(path)
    data = path.read_bytes()
    dataset = make(path, direct="require", engine=engine)
    read_all(dataset, data)
    assert dataset.stats()["direct_bytes"] >= SIZE
    assert dataset.stats()["cached_bytes"] == 0


def test_auto_takes_each_half_of_a_half_cached_file_from_where_it_is(path, engine):
    data = path.read_bytes()
    make_cold(path)
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert file.read(SIZE // 2) == data[: SIZE // 2]
    cached = cached_pages(path) * 4096
    assert SIZE // 2 <= cached < SIZE
    dataset = make(path, direct="auto", engine=engine)
    read_all(dataset, data)
    stats = dataset.stats()
    assert stats["buffered_bytes"] == 0
    assert stats["direct_bytes"] >= SIZE // 4
    assert stats["cached_bytes"] >= SIZE // 4
    assert cached_pages(path) * 4096 == cached


def test_io_uring_exists_while_iterating_and_only_with_that_engine(path, needs_uring):
    before = rings()
    iterator = iter(make(path, direct="require", engine="uring"))
    next(iterator)
    assert len(rings()) == len(before) + 1
    iterator.close()
    assert rings() == before
    threads_before = len(threads())
    iterator = iter(make(path, direct="require", engine="threads"))
    next(iterator)
    assert rings() == before
    assert len(threads()) > threads_before + 1
    iterator.close()


def test_auto_chooses_io_uring_where_it_works(path, needs_uring):
    dataset = make(path)
    iterator = iter(dataset)
    next(iterator)
    assert len(rings()) == 1
    iterator.close()
    assert dataset.stats()["engine"] == "uring"


def test_buffers_are_registered_with_the_ring(path, needs_uring):
    iterator = iter(make(path, direct="require", engine="uring"))
    next(iterator)
    (ring,) = rings()
    if registered_buffers(ring) == 0:
        pytest.skip("THE KERNEL LISTS NO REGISTERED BUFFERS: limits or an old kernel: not tested")
    assert registered_buffers(ring) >= 1


@pytest.mark.parametrize("depth", [1, 4, 64])
def test_the_ring_is_as_deep_as_asked_for(path, needs_uring, depth):
    iterator = iter(make(path, engine="uring", depth=depth))
    next(iterator)
    (ring,) = rings()
    assert ring_entries(ring) == depth


def test_a_store_reads_past_the_page_cache_when_asked_to(path, engine):
    data = path.read_bytes()
    make_cold(path)
    store = FileStore(FileSystemConfig(direct_io="require"), engine=engine)
    assert store.get(path).numpy().tobytes() == data
    assert all(is_direct(fd) for fd in descriptors_of(path))
    assert descriptors_of(path)
    assert cached_pages(path) == 0
    assert len(rings()) == (1 if engine == "uring" else 0)


def test_direct_reads_are_as_aligned_as_statx_asks_for(path):
    """The over-read of unaligned records stays below an alignment on either side."""
    alignment = FileStore().stat(path).direct_alignment
    assert alignment in {512, 1024, 2048, 4096, 8192, 16384, 32768, 65536}
    dataset = RecordDataset(
        path, dtype="u1", shape=1000, header_bytes=SIZE % 1000, batch_size=3, direct="require"
    )
    records = np.frombuffer(path.read_bytes(), np.uint8)[SIZE % 1000 :].reshape(-1, 1000)
    position = 0
    for batch in dataset:
        wanted = records[position : position + len(batch)]
        np.testing.assert_array_equal(batch.numpy(), wanted)
        assert batch.data_ptr() % alignment == (SIZE % 1000 + position * 1000) % alignment
        position += len(batch)
    assert dataset.stats()["direct_bytes"] <= records.nbytes + len(dataset) * 2 * alignment
