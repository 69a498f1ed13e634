"""Ctrl-C while a call waits for data, or for a buffer."""

from __future__ import annotations

import os
import tempfile
import textwrap
from pathlib import Path

import pytest
from programs import printed_by, run_file, run_program
from support import random_bytes, write_file

from torch_s3io import FileStore, RecordWriter

# A thread of the program waits until the main thread is inside of the blocking call, then sends
# itself the signal, as the terminal does.
PRELUDE = """
    import os, signal, sys, threading, traceback
    import torch
    import torch_s3io
    from torch_s3io import BufferPool, BufferPoolConfig, FileStore, FileSystemConfig
    from torch_s3io import RangeEngineConfig, RecordDataset, RecordWriter, _C

    signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.get_ident()
    LOST = _C.FaultPlan(probability=1.0, random=[(0, False, True)])

    def interrupt(*words):
        def watch():
            seen = 0
            while seen < 1000:  # the main thread stays in the call that blocks
                lines = traceback.extract_stack(sys._current_frames()[main])
                seen = seen + 1 if any(word in (lines[-1].line or "") for word in words) else 0
                os.sched_yield()
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=watch, daemon=True).start()

    def make(**options):
        return RecordDataset(sys.argv[1], dtype="u1", shape=1000, batch_size=4, direct="require",
                             read_timeout_s=3600, **options)._with(faults=LOST)
"""

CALLS = {
    "next": """
        iterator = iter(make(engine=sys.argv[2]))
        interrupt("yield from")
        call = lambda: next(iterator)
    """,
    "get_batch": """
        dataset = make(engine=sys.argv[2])
        interrupt(".fetch(")
        call = lambda: dataset.get_batch([1])
    """,
    "finish": """
        config = FileSystemConfig(direct_io="off", checksum_writes=False,
                                  range_engine=RangeEngineConfig(range_timeout=3600))
        hung_sync = _C.FaultPlan(by_call={1: -2})
        store = FileStore(config, engine=sys.argv[2])._with(faults=hung_sync)
        writer = store.writer(sys.argv[1], size_bytes=3)
        writer.write(b"new")
        interrupt("._writer.finish(")
        call = writer.finish
    """,
    "finish_records": """
        writer = RecordWriter(sys.argv[1], dtype="u1", engine=sys.argv[2])
        hung_sync = _C.FaultPlan(by_call={4: -2})  # of the shard
        config = FileSystemConfig(direct_io="off",
                                  range_engine=RangeEngineConfig(range_timeout=3600))
        writer._store = FileStore(config, engine=sys.argv[2])._with(faults=hung_sync)
        writer.write(torch.zeros(100, dtype=torch.uint8))
        interrupt("waiter.acquire()")
        call = writer.finish
    """,
    "take": """
        pool = BufferPool(BufferPoolConfig(capacity=1, buffer_size=4096))
        held = pool.take()
        interrupt("WAITS HERE")
        def call():
            pool.take(timeout_s=3600)  # WAITS HERE
    """,
}

FINISH = """
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        os._exit(0)  # lost reads are waited for at exit; that is another test's subject
    print("not interrupted")
"""


@pytest.mark.parametrize("call", ["next", "get_batch"])
def test_ctrl_c_ends_a_wait_for_data(disk, engine, call):
    path = write_file(disk / "x.bin", random_bytes(100_000))
    assert run_interrupted(call, path, engine) == "interrupted\n"


def test_ctrl_c_ends_a_wait_for_a_buffer():
    assert run_interrupted("take") == "interrupted\n"


def test_ctrl_c_ends_a_sync_that_hangs_and_the_old_file_stays(disk, engine):
    path = write_file(disk / "x", b"old")
    assert run_interrupted("finish", path, engine) == "interrupted\n"
    assert path.read_bytes() == b"old"
    FileStore().put(disk / "y", b"")  # removes what the process left
    assert sorted(os.listdir(disk)) == ["x", "y"]


def test_ctrl_c_ends_a_record_writer_whose_shard_hangs(disk, engine):
    assert run_interrupted("finish_records", disk / "set", engine) == "interrupted\n"
    RecordWriter(disk / "set", dtype="u1").cancel()
    assert os.listdir(disk / "set") == []


def run_interrupted(call: str, *arguments: object) -> str:
    """What the program prints. It ends within the deadline, though its own waits last an hour."""
    source = "".join(textwrap.dedent(part) for part in (PRELUDE, CALLS[call], FINISH))
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(source)
        file.flush()
        return printed_by(run_file(Path(file.name), *arguments))  # whose lines can be looked up


@pytest.mark.parametrize("handled", ["raises", "returns"])
def test_another_signals_handler_runs_while_next_waits(disk, handled):
    path = write_file(disk / "x.bin", random_bytes(100_000))
    source = """
        import os, signal, sys, threading
        from torch_s3io import ReadTimeoutError, RecordDataset, _C
        plan = _C.FaultPlan(probability=1.0, random=[(0, False, True)])
        dataset = RecordDataset(sys.argv[1], dtype="u1", shape=1000, direct="require",
                                read_timeout_s=1.0)._with(faults=plan)
        handled = []

        def handler(number, frame):
            handled.append(number)
            if sys.argv[2] == "raises":
                raise LookupError("from the handler")

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            next(iter(dataset))
        except LookupError:
            print("raised", len(handled), flush=True)
        except ReadTimeoutError:
            print("timed out", len(handled), flush=True)
        os._exit(0)
    """
    expected = "raised 1\n" if handled == "raises" else "timed out 1\n"
    assert run_program(source, path, handled) == expected
