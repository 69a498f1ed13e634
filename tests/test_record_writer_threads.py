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
    error_text,
    write_set,
)
from support import (
    HANGING_CALL,
    holds_soon,
)

from torch_s3io import (
    _C,
    AccessError,
    ConfigError,
    FileStore,
    FileSystemConfig,
    NoSpaceError,
    RangeEngineConfig,
    RecordWriter,
    WriteError,
)

SLOW_TO_GIVE_UP = FileSystemConfig(
    direct_io="off", range_engine=RangeEngineConfig(range_timeout=60)
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
    with RecordWriter(disk / "set", dtype="<i4", shape=2, **options, overwrite=True) as writer:

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
    writer = RecordWriter(disk / "set", dtype="u1", shape=1000, shard_bytes=300_000, overwrite=True)
    writer.write(np.ones((500, 1000), "u1"))
    with ThreadPoolExecutor(4) as threads:
        texts = list(threads.map(lambda _: error_text(writer.finish), range(4)))
    assert sorted("finished" in text for text in texts) == [False, True, True, True]
    check_set(disk / "set", 1)


def test_a_block_in_which_another_thread_failed_to_write_does_not_end_as_if_all_were_well(disk):
    write_set(disk / "set", 1)
    plan = _C.FaultPlan(by_number={0: (errno.EIO, False, False)})

    def write_in_a_thread() -> None:
        with RecordWriter(
            disk / "set", dtype="u1", shape=1 << 20, shard_bytes=1 << 20, overwrite=True
        ) as writer:
            writer._store = FileStore(writer._store.config)._with(faults=plan)
            with ThreadPoolExecutor(1) as threads:
                threads.submit(writer.write, np.ones((20, 1 << 20), "u1")).exception()

    with pytest.raises(WriteError, match=r"failed before, with WriteError: .*at byte 0"):
        write_in_a_thread()
    check_set(disk / "set", 1)


@pytest.mark.parametrize("how", ["write", "finish", "end of the block"])
@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, NoSpaceError), (errno.EACCES, AccessError)]
)
def test_who_comes_after_a_failure_hears_of_it_in_its_own_type(disk, how, code, kind):
    plan = _C.FaultPlan(by_number={0: (code, False, False)})
    writer = RecordWriter(
        disk / "set", dtype="u1", shape=1 << 20, shard_bytes=1 << 20, overwrite=True
    )
    writer._store = FileStore(writer._store.config)._with(faults=plan)
    records = np.ones((20, 1 << 20), "u1")
    with pytest.raises(kind):
        writer.write(records)
    attempts = {
        "write": lambda: writer.write(records),
        "finish": writer.finish,
        "end of the block": lambda: writer.__exit__(None),
    }
    with pytest.raises(kind, match=f"failed before, with {kind.__name__}: "):
        attempts[how]()
    writer.cancel()  # who cancels knows
    writer.__exit__(None)
    with pytest.raises(ConfigError, match="finished or cancelled"):
        writer.write(records)


def test_a_block_in_which_another_thread_failed_to_finish_ends_with_that_error(disk):
    def finish_in_a_thread() -> None:
        with (
            RecordWriter(disk / "set", dtype="u1", overwrite=True) as writer,
            ThreadPoolExecutor(1) as threads,
        ):
            assert "no records" in threads.submit(error_text, writer.finish).result()

    with pytest.raises(ConfigError, match=r"failed before, with ConfigError: .*no records"):
        finish_in_a_thread()


def test_cancel_ends_the_call_that_another_thread_is_in_and_is_no_failure_of_the_block(disk):
    write_set(disk / "set", 1)
    plan = _C.FaultPlan(by_call={4: HANGING_CALL})  # the sync of the first shard
    with RecordWriter(
        disk / "set", dtype="u1", shape=1024, shard_bytes=300 * 1024, overwrite=True
    ) as writer:
        writer._store = FileStore(SLOW_TO_GIVE_UP)._with(faults=plan)
        with ThreadPoolExecutor(1) as threads:
            written = threads.submit(error_text, lambda: writer.write(np.ones((900, 1024), "u1")))
            assert holds_soon(lambda: writer.num_records == 600)  # which are two shards
            writer.cancel()
            assert "cancelled" in written.result()
    plan.release()
    check_set(disk / "set", 1)


def test_a_block_that_is_cancelled_while_it_ends_is_cancelled_and_no_more(disk):
    write_set(disk / "set", 1)
    plan = _C.FaultPlan(by_call={4: HANGING_CALL})  # the sync of the only shard
    with ThreadPoolExecutor(1) as threads:
        with RecordWriter(disk / "set", dtype="u1", shape=1024, overwrite=True) as writer:
            writer._store = FileStore(SLOW_TO_GIVE_UP)._with(faults=plan)
            writer.write(np.ones((900, 1024), "u1"))

            def cancel_when_it_ends() -> None:
                assert holds_soon(lambda: writer._finishing is not None)
                writer.cancel()

            cancelled = threads.submit(cancel_when_it_ends)
        cancelled.result()
    plan.release()
    check_set(disk / "set", 1)


def test_what_comes_after_an_interrupt_in_the_last_step_leaves_open_which_set_is_there(
    disk, monkeypatch
):
    write_set(disk / "set", 1)
    writer = RecordWriter(disk / "set", dtype="u1", shape=1000, overwrite=True)
    writer.write(np.full((600, 1000), 2, "u1"))
    put = writer._manifest_store.put

    def put_and_interrupt(*arguments, **options) -> None:
        put(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(writer._manifest_store, "put", put_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        writer.finish()
    with pytest.raises(WriteError, match=r"with KeyboardInterrupt\(\); whether .* unknown"):
        writer.__exit__(None)
    check_set(disk / "set", 2)


def cancelling_before(call, writer, threads):
    """``call``, with a cancellation by another thread that has begun before it runs."""

    def called(*arguments, **options):
        threads.submit(writer.cancel)
        assert holds_soon(lambda: writer._is_cancelling)
        return call(*arguments, **options)

    return called


def test_a_shard_that_is_begun_while_the_writer_is_cancelled_gets_no_records(disk, monkeypatch):
    write_set(disk / "set", 1)
    writer = RecordWriter(
        disk / "set", dtype="u1", shape=1024, shard_bytes=300 * 1024, overwrite=True
    )
    with ThreadPoolExecutor(1) as threads:
        begin = cancelling_before(writer._store.writer, writer, threads)
        monkeypatch.setattr(writer._store, "writer", begin)
        assert "cancelled" in error_text(lambda: writer.write(np.ones((900, 1024), "u1")))
    assert writer.num_records == 0
    check_set(disk / "set", 1)


def test_a_writer_that_is_cancelled_before_its_manifest_leaves_the_old_one(disk, monkeypatch):
    write_set(disk / "set", 1)
    writer = RecordWriter(disk / "set", dtype="u1", shape=1024, overwrite=True)
    writer.write(np.ones((900, 1024), "u1"))
    with ThreadPoolExecutor(1) as threads:
        cancel = cancelling_before(lambda: None, writer, threads)
        wait, waits = writer._wait_for_shard, iter([lambda: None, cancel])

        def wait_and_cancel_after_the_last() -> None:
            wait()
            next(waits)()

        monkeypatch.setattr(writer, "_wait_for_shard", wait_and_cancel_after_the_last)
        assert "cancelled" in error_text(writer.finish)
    check_set(disk / "set", 1)
