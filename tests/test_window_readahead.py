"""Blocks of small records that are mixed in windows come through the page cache, a window ahead."""

from __future__ import annotations

import numpy as np
import pytest
from programs import run_program
from support import make_cold
from test_cache_filling import SIZE, check_epoch, cold_file

import torch_s3io as s3io
from torch_s3io.store.file_access import FileAccess


@pytest.fixture
def path(disk, monkeypatch):
    monkeypatch.setattr(FileAccess, "_fits", lambda self: False)
    return cold_file(disk / "x.bin")


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
    # What the first of the workers reads before the last one has begun depends on the machine: half
    # of so small a set has been seen.
    assert stats["direct_bytes"] <= SIZE * 3 // 4  # before both workers have begun
    if num_workers == 0:
        assert stats["direct_bytes"] <= SIZE // 20
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


def test_where_the_kernel_does_not_say_what_is_cached_nothing_is_read_twice(path):
    source = """
    import sys
    from programs import forbid_system_call
    from test_window_readahead import FileAccess, make

    cachestat, not_implemented = 451, 38
    forbid_system_call(cachestat, not_implemented)
    FileAccess._fits = lambda self: False
    for direct in ("auto", "off"):
        dataset = make(sys.argv[1], direct=direct)
        assert sum(batch.nbytes for batch in dataset) == 24 << 20
        print(dataset.stats()["filled_bytes"], dataset.stats()["direct_bytes"])
    """
    automatic, buffered = run_program(source, path).strip().splitlines()
    assert automatic == f"0 {SIZE}"
    assert buffered == f"{SIZE} 0"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("window_blocks", [2, 4, 64])
@pytest.mark.parametrize("batch_size", [None, 64])
def test_workers_that_jump_over_windows_find_their_records(path, window_blocks, batch_size):
    for _ in range(3):  # what is read before all workers have begun depends on the machine
        make_cold(path)
        dataset = make(path, window_blocks=window_blocks).with_options(batch_size=batch_size)
        loader = s3io.DataLoader(dataset, num_workers=4)
        assert sum(batch.nbytes for batch in loader) == SIZE
        stats = dataset.stats()
        assert stats["filled_bytes"] <= SIZE
        if stats["filled_bytes"] >= SIZE * 8 // 10 and stats["direct_bytes"] <= SIZE // 2:
            return
    pytest.fail(f"three times in a row: {stats}")


def test_a_rank_that_reads_alone_asks_for_everything(path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    dataset = make(path, rank=0, world_size=1)
    check_epoch(dataset, path)
    assert dataset.stats()["filled_bytes"] >= SIZE * 9 // 10
    assert dataset.stats()["direct_bytes"] <= SIZE // 20
    make_cold(path)
    with_others = make(path, rank=1, world_size=4)
    assert sum(len(batch) for batch in with_others) == SIZE // 4096 // 4
    assert SIZE // 5 <= with_others.stats()["filled_bytes"] <= SIZE // 3


def test_overlapping_windows_of_tokens_are_asked_for_to_their_ends(path):
    dataset = s3io.RecordDataset.from_tokens(
        path, window=2049, stride=512, batch_size=16, shuffle="block", window_blocks=16
    )
    for _ in dataset:
        pass
    assert dataset.stats()["direct_bytes"] <= SIZE // 20


def test_a_window_shorter_than_a_step_of_all_ranks_is_asked_for_in_time(path):
    dataset = make(path, window_blocks=4, rank=1, world_size=3)
    seen = sum(len(batch) for batch in dataset)
    assert seen == SIZE // 4096 // 3
    assert dataset.stats()["direct_bytes"] <= SIZE // 20
    assert dataset.stats()["filled_bytes"] >= SIZE * 9 // 10


def test_windows_without_room_in_memory_are_read_by_themselves(path, monkeypatch):
    whole = make(path, window_blocks=10**12)
    check_epoch(whole, path)
    assert whole.stats()["filled_bytes"] == SIZE  # one window, of the whole set
    monkeypatch.setattr("torch_s3io.store.file_access._MOST_IN_WINDOW", 1000)
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
    monkeypatch.setattr(FileAccess, "_fits", lambda self: False)
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
        block_records=200,
        window_blocks=4,
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
