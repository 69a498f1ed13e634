"""Blocks of small records that are mixed in windows come through the page cache, a window ahead."""

from __future__ import annotations

import numpy as np
import pytest
from support import make_cold, random_bytes, write_file
from test_cache_filling import check_epoch

import torch_s3io as s3io
from torch_s3io.runtime import Runtime

SIZE = 24 << 20


@pytest.fixture
def path(disk, monkeypatch):
    monkeypatch.setattr(Runtime, "_fits", lambda self: False)
    path = write_file(disk / "x.bin", random_bytes(SIZE))
    make_cold(path)
    return path


def make(path, **options):
    options = {"shuffle": "block", "window_blocks": 16, **options}
    return s3io.RecordDataset(path, dtype="u1", shape=4096, batch_size=64, **options)


@pytest.mark.parametrize("engine", ["uring", "threads"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_block_is_asked_for_once_and_few_records_are_read_by_themselves(
    path, num_workers, engine
):
    dataset = make(path, engine=engine)
    loader = s3io.DataLoader(dataset, num_workers=num_workers)
    check_epoch(loader, path)
    stats = dataset.stats()
    assert SIZE * 9 // 10 <= stats["filled_bytes"] <= SIZE
    assert stats["direct_bytes"] <= SIZE // 4  # where one worker is ahead of the other's part
    if num_workers == 0:
        assert stats["direct_bytes"] == 0
    assert stats["cached_bytes"] + stats["buffered_bytes"] + stats["direct_bytes"] >= SIZE
    check_epoch(loader, path)
    assert dataset.stats()["filled_bytes"] < 2 * SIZE


def test_a_resumed_epoch_and_a_view_ask_only_for_what_they_read(path):
    whole = make(path, return_index=True)
    part = whole.subset(1000, 3000)
    state = part.state_dict()
    part.load_state_dict({**state, "consumed": 1500})
    numbers = [n for _, index in part for n in index.tolist()]
    assert len(set(numbers)) == 500
    assert all(1000 <= n < 3000 for n in numbers)
    # Whole windows of 16 blocks of 32 records, and what the kernel reads around them.
    assert 500 * 4096 <= part.stats()["filled_bytes"] <= 2 * 16 * 32 * 4096


@pytest.mark.parametrize(
    "options", [{"direct": "require"}, {"window_blocks": 1}, {"shuffle": True, "window_blocks": 1}]
)
def test_nothing_is_asked_for_elsewhere(path, options):
    dataset = make(path, **options)
    check_epoch(dataset, path)
    assert dataset.stats()["filled_bytes"] == 0


def test_large_records_and_splits_are_read_by_themselves(path):
    large = s3io.RecordDataset(
        path, dtype="u1", shape=1 << 16, batch_size=8, shuffle="block", window_blocks=4
    )
    for dataset in (large, make(path).split([0.5, 0.5])[1]):
        assert sum(len(batch) for batch in dataset) == dataset.num_records
        assert dataset.stats()["filled_bytes"] == 0


def test_a_window_shorter_than_a_step_of_all_ranks_is_asked_for_in_time(path):
    dataset = make(path, window_blocks=4, rank=1, world_size=3)
    seen = sum(len(batch) for batch in dataset)
    assert seen == SIZE // 4096 // 3
    assert dataset.stats()["direct_bytes"] == 0
    assert dataset.stats()["filled_bytes"] >= SIZE * 9 // 10


def test_windows_without_room_in_memory_are_read_by_themselves(path, monkeypatch):
    whole = make(path, window_blocks=10**12)
    check_epoch(whole, path)
    assert whole.stats()["filled_bytes"] == SIZE  # one window, of the whole set
    monkeypatch.setattr("torch_s3io.runtime._MOST_IN_WINDOW", 1000)
    make_cold(path)
    large = make(path, window_blocks=10**12)
    check_epoch(large, path)
    assert large.stats()["filled_bytes"] == 0
    assert large.stats()["direct_bytes"] >= SIZE * 9 // 10


def test_a_file_that_goes_away_is_the_readers_error(path):
    dataset = make(path)
    batches = iter(dataset)
    next(batches)
    path.write_bytes(b"short")
    with pytest.raises(s3io.FileChangedError):
        list(batches)


def test_several_files_with_headers(disk, monkeypatch):
    monkeypatch.setattr(Runtime, "_fits", lambda self: False)
    records = np.arange(3000 * 16).reshape(3000, 16)
    for number, part in enumerate(np.split(records, [700, 701, 1900])):
        path = disk / f"{number}.bin"
        path.write_bytes(b"h" * 100 + part.tobytes())
        make_cold(path)
    dataset = s3io.RecordDataset(
        str(disk / "*.bin"),
        dtype="i8",
        shape=16,
        header_bytes=100,
        batch_size=50,
        shuffle="block",
        block_records=40,
        window_blocks=8,
        return_index=True,
    )
    seen = []
    for rows, index in dataset:
        assert np.array_equal(rows.numpy(), records[index.numpy()])
        seen += index.tolist()
    assert sorted(seen) == list(range(3000))
    assert dataset.stats()["filled_bytes"] > 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"window_blocks": 0}, "window_blocks must be at least 1"),
        ({"window_blocks": 2.5}, "window_blocks"),
        ({"shuffle": True}, "window_blocks=16 needs shuffle='block'"),
        ({"shuffle": False}, "window_blocks=16 needs shuffle='block'"),
    ],
)
def test_windows_that_make_no_sense_are_refused(path, options, text):
    with pytest.raises(s3io.ConfigError, match=text):
        make(path, **options)
