"""What is left when FileStore.put and store.writer fail, hang, or die."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import stat
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from leaks import nothing_leaked
from programs import become_nobody, run_program, started
from support import (
    DEADLINE_S,
    ENGINES,
    HANGING_CALL,
    MIB,
    holds_soon,
    random_bytes,
    write_file,
)

from torch_s3io import (
    _C,
    AccessError,
    ConfigError,
    DirectIOError,
    Error,
    FileStore,
    FileSystemConfig,
    NoSpaceError,
    RangeEngineConfig,
    WriteError,
    WriteTimeoutError,
)


def write(store: FileStore, path, data: bytes) -> Error | None:
    """Writes in two chunks; the error, if that fails."""
    try:
        with store.writer(path) as writer:
            writer.write(data[: len(data) // 3])
            writer.write(data[len(data) // 3 :])
    except Error as error:
        error.__traceback__ = None
        return error
    return None


@pytest.mark.parametrize(
    "error_number", [errno.EIO, errno.EINTR, errno.ENOSPC, errno.EAGAIN], ids=errno.errorcode.get
)
def test_whatever_fails_the_old_file_stays_and_the_error_is_typed(disk, engine, error_number):
    old, new = b"old", random_bytes(3 * MIB + 5)
    plans = [_C.FaultPlan(by_number={n: (error_number, False, False)}) for n in range(5)]
    plans += [_C.FaultPlan(by_call={n: error_number}) for n in range(9)]
    failed = 0
    for plan in plans:
        path = write_file(disk / "x", old)
        with nothing_leaked():
            error = write(FileStore(engine=engine)._with(faults=plan), path, new)
        in_place = error is not None and "in place" in str(error)
        assert path.read_bytes() == (old if error and not in_place else new)
        assert os.listdir(disk) == ["x"]
        if error is not None:
            failed += 1
            assert isinstance(error, NoSpaceError if error_number == errno.ENOSPC else WriteError)
            assert str(path) in str(error)
            assert os.strerror(error_number) in str(error)
    if error_number == errno.EINTR:
        assert failed == 0
    elif error_number != errno.EAGAIN:  # of system calls, that one is an error; of writes it is not
        assert failed >= 8


def test_a_file_that_cannot_be_written_directly_is_warned_of_once(disk, engine):
    plan = _C.FaultPlan(by_number={0: (errno.EINVAL, False, False)})
    store = FileStore(engine=engine)._with(faults=plan)
    with pytest.warns(RuntimeWarning, match=r"/x: the file system refuses O_DIRECT") as caught:
        store.put(disk / "x", bytes(5000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put(disk / "y", bytes(5000))
    assert caught[0].filename == __file__
    assert store.stats()["direct_write_refused"] == 2
    assert (disk / "x").read_bytes() == bytes(5000)
    required = FileStore(FileSystemConfig(direct_io="require"), engine=engine)._with(faults=plan)
    with pytest.raises(DirectIOError, match="refused"):
        required.put(disk / "x", bytes(6000))
    assert (disk / "x").read_bytes() == bytes(5000)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    probability=st.sampled_from([0.05, 0.5]),
    faults=st.lists(
        st.sampled_from([(0, True, False), (errno.EINTR, False, False), (errno.EIO, False, False)]),
        min_size=1,
    ),
    engine=st.sampled_from(ENGINES),
    direct_io=st.sampled_from(["auto", "off"]),
)
def test_random_faults_never_give_a_wrong_file(disk, seed, probability, faults, engine, direct_io):
    plan = _C.FaultPlan(seed=seed, probability=probability, random=faults, reorder=True)
    config = FileSystemConfig(direct_io=direct_io, sync_writes=False)
    data = random_bytes(4 * MIB + 77, seed)
    path = write_file(disk / "x", b"old")
    error = write(FileStore(config, engine=engine)._with(faults=plan), path, data)
    assert path.read_bytes() == (b"old" if error else data)
    assert error is None or (errno.EIO, False, False) in faults
    assert os.listdir(disk) == ["x"]


def test_a_full_disk_is_an_error_that_says_so_and_leaves_the_old_file(small_disk, engine):
    path = write_file(small_disk / "x", b"old")
    store = FileStore(engine=engine)
    with pytest.raises(NoSpaceError, match=r"/x: cannot reserve 3145728 bytes: ENOSPC.*free some"):
        store.put(path, bytes(3 * MIB))
    assert isinstance(write(store, path, bytes(3 * MIB)), NoSpaceError)
    assert path.read_bytes() == b"old"
    assert os.listdir(small_disk) == ["x"]
    store.put(path, bytes(MIB))  # the space is free again
    assert path.stat().st_size == MIB


def test_a_device_is_never_replaced_by_a_file(disk):
    os.mkfifo(disk / "fifo")
    for path in ("/dev/full", disk / "fifo", disk):
        with pytest.raises(ConfigError, match="not a regular file"):
            FileStore().put(path, b"abc")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    assert os.listdir(disk) == ["fifo"]


def test_the_limit_of_file_sizes_is_an_error_that_says_so(disk, engine):
    path = write_file(disk / "x", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(NoSpaceError, match="ulimit -f"):
            FileStore(engine=engine).put(path, bytes(3 * MIB))
        assert isinstance(write(FileStore(engine=engine), path, bytes(3 * MIB)), NoSpaceError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert os.listdir(disk) == ["x"]


def test_a_folder_that_may_not_be_written_to_is_an_error(public_folder, needs_root):
    def forbidden() -> None:
        become_nobody()
        with pytest.raises(AccessError, match="cannot create"):
            FileStore().put(public_folder / "x", b"abc")

    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            forbidden()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Hanging calls ----------------------------------------------------------------------------------


def hanging_store(plan: _C.FaultPlan, timeout_s: float) -> FileStore:
    """Of a small file of known size the second system call is the sync, the third the rename."""
    ranges = RangeEngineConfig(range_timeout=timeout_s)
    config = FileSystemConfig(direct_io="off", checksum_writes=False, range_engine=ranges)
    return FileStore(config)._with(faults=plan)


def test_a_sync_that_hangs_is_a_timeout_after_which_the_old_file_stays(disk):
    path = write_file(disk / "x", b"old")
    plan = _C.FaultPlan(by_call={1: HANGING_CALL})
    with nothing_leaked():
        writer = hanging_store(plan, 0.2).writer(path, size_bytes=3)
        writer.write(b"new")
        with pytest.raises(WriteTimeoutError, match=r"/x: the sync of its bytes.*range_timeout"):
            writer.finish()
        writer.cancel()
        with pytest.raises(ConfigError, match="cancelled, or failed"):
            writer.finish()
        assert path.read_bytes() == b"old"
        plan.release()
        del writer
    assert path.read_bytes() == b"old"
    assert os.listdir(disk) == ["x"]


def test_a_rename_that_hangs_may_yet_happen_and_the_error_says_so(disk):
    path = write_file(disk / "x", b"old")
    plan = _C.FaultPlan(by_call={2: HANGING_CALL})
    with nothing_leaked():
        with pytest.raises(WriteTimeoutError, match=r"has taken its place is unknown"):
            hanging_store(plan, 0.2).put(path, b"new")
        assert path.read_bytes() == b"old"
        plan.release()
    assert path.read_bytes() == b"new"
    assert os.listdir(disk) == ["x"]


def failure_of(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def test_another_thread_can_cancel_a_writer_that_hangs(disk):
    path = write_file(disk / "x", b"old")
    plan = _C.FaultPlan(by_call={1: HANGING_CALL})
    with nothing_leaked():
        writer = hanging_store(plan, 3600).writer(path)
        writer.write(b"new")
        with ThreadPoolExecutor(1) as other:
            finishing = other.submit(failure_of, writer.finish)
            writer.cancel()
            failure = finishing.result(DEADLINE_S)
        assert isinstance(failure, ConfigError)
        assert "cancelled" in str(failure)
        plan.release()
        del writer, failure, finishing
    assert path.read_bytes() == b"old"
    assert os.listdir(disk) == ["x"]


# Dead writers -----------------------------------------------------------------------------------

WRITE_FOR_EVER = """
    import sys
    from torch_s3io import FileStore

    path, size = sys.argv[1], int(sys.argv[2])
    store = FileStore()
    number = 0
    while True:
        number += 1
        data = bytes([number % 256]) * size
        with store.writer(path) as writer:
            for begin in range(0, size, 300_000):
                writer.write(data[begin : begin + 300_000])
        if number == 1:
            print("ready", flush=True)
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_a_whole_file_and_nothing_else_after_the_next_start(disk):
    """Killed at random points: what the path names is always one version, whole."""
    random.seed(7)
    size = 2 * MIB + 5
    for _ in range(6):
        program, output = started(WRITE_FOR_EVER, disk / "x", size)
        with output:
            assert output.readline() == "ready\n"
            threading.Event().wait(random.uniform(0, 0.2))
            os.kill(program.pid, signal.SIGKILL)
            program.wait(DEADLINE_S)
        data = (disk / "x").read_bytes()
        assert len(data) == size
        assert set(data) == {data[0]}
        assert holds_soon(lambda: FileStore().put(disk / "y", b"") and len(os.listdir(disk)) == 2)


def test_a_live_writer_of_another_process_is_spared(disk):
    program = """
        import signal, sys
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # for all threads to come
        from torch_s3io import FileStore
        with FileStore().writer(sys.argv[1] + "/x") as writer:
            writer.write(b"abc")
            print("ready", flush=True)
            assert signal.sigtimedwait([signal.SIGUSR1], 100)
    """
    live, output = started(program, disk)
    assert output.readline() == "ready\n"
    FileStore().put(disk / "y", b"")
    assert len(os.listdir(disk)) == 2
    live.send_signal(signal.SIGUSR1)
    with output:
        assert live.wait(DEADLINE_S) == 0
    assert (disk / "x").read_bytes() == b"abc"
    assert sorted(os.listdir(disk)) == ["x", "y"]


def test_a_program_that_ends_without_finishing_leaves_nothing(disk):
    run_program(
        """
        import sys
        from torch_s3io import FileStore
        writer = FileStore().writer(sys.argv[1])
        writer.write(bytes(5_000_000))
        """,
        disk / "x",
    )
    assert os.listdir(disk) == []
