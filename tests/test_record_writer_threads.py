"""A RecordWriter that several threads use."""

from __future__ import annotations

import errno
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from record_sets import (
    bytes_of,
    check_set,
    write_set,
)
from support import (
    HANGING_CALL,
    holds_soon,
)
from test_record_writer_faults import error_text

from torch_s3io import (
    _C,
    FileStore,
    FileSystemConfig,
    RangeEngineConfig,
    RecordWriter,
    WriteError,
)


@pytest.fixture
def hasty_threads():
    """Threads take turns as often as they can."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


@pytest.mark.parametrize("align", [None, 64])
def test_batches_of_several_threads_stay_whole_and_in_the_order_of_their_thread(
    disk, hasty_threads, align
):
    num_threads, num_batches, size = 4, 50, 10
    options = {"shard_bytes": 5_000, "align_records": align}
    with RecordWriter(disk / "set", dtype="<i4", shape=2, **options) as writer:

        def write(thread: int) -> None:
            for number in range(num_batches):
                writer.write(np.full((size, 2), (thread, number), "<i4"))

        with ThreadPoolExecutor(num_threads) as threads:
            list(threads.map(write, range(num_threads)))  # raises what a thread raised
        assert writer.num_records == num_threads * num_batches * size
    data = bytes_of(disk / "set", num_threads * num_batches * size, 8)
    batches = np.frombuffer(data, "<i4").reshape(-1, size, 2)
    assert (batches == batches[:, :1]).all()
    for thread in range(num_threads):
        of_thread = batches[batches[:, 0, 0] == thread, 0, 1]
        assert of_thread.tolist() == list(range(num_batches))


def test_of_threads_that_finish_one_does(disk, hasty_threads):
    writer = RecordWriter(disk / "set", dtype="u1", shape=1000, shard_bytes=300_000)
    writer.write(np.ones((500, 1000), "u1"))
    with ThreadPoolExecutor(4) as threads:
        texts = list(threads.map(lambda _: error_text(writer.finish), range(4)))
    assert sorted("finished" in text for text in texts) == [False, True, True, True]
    check_set(disk / "set", 1)


def test_cancel_ends_the_call_that_another_thread_is_in(disk):
    write_set(disk / "set", 1)
    ranges = RangeEngineConfig(range_timeout=60)
    config = FileSystemConfig(direct_io="off", range_engine=ranges)
    plan = _C.FaultPlan(by_call={4: HANGING_CALL})  # the sync of the first shard
    writer = RecordWriter(disk / "set", dtype="u1", shape=1024, shard_bytes=300 * 1024)
    writer._store = FileStore(config, _faults=plan)
    with ThreadPoolExecutor(1) as threads:
        written = threads.submit(error_text, lambda: writer.write(np.ones((900, 1024), "u1")))
        assert holds_soon(lambda: writer.num_records == 600)  # which are two shards
        writer.cancel()
        assert "cancelled" in written.result()
    plan.release()
    check_set(disk / "set", 1)


def test_a_block_in_which_another_thread_failed_to_write_does_not_end_as_if_all_were_well(disk):
    write_set(disk / "set", 1)
    plan = _C.FaultPlan(by_number={0: (errno.EIO, False, False)})

    def write_in_a_thread() -> None:
        with RecordWriter(disk / "set", dtype="u1", shape=1 << 20, shard_bytes=1 << 20) as writer:
            writer._store = FileStore(writer._store.config, _faults=plan)
            with ThreadPoolExecutor(1) as threads:
                threads.submit(writer.write, np.ones((20, 1 << 20), "u1")).exception()

    with pytest.raises(WriteError, match=r"a write failed, so .* WriteError: .*at byte 0"):
        write_in_a_thread()
    check_set(disk / "set", 1)
