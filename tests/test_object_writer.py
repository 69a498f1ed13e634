"""FileStore.put and store.writer against open().read(), and what is left when they fail."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import resource
import signal
import stat
import subprocess
import threading
import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from support import (
    become_nobody,
    holds_soon,
    nothing_leaked,
    program_command,
    program_env,
    random_bytes,
    run_program,
    write_file,
)

from torch_s3io import (
    _C,
    AccessError,
    BufferPool,
    BufferPoolConfig,
    ConfigError,
    DirectIOError,
    Error,
    FileStore,
    FileSystemConfig,
    NoSpaceError,
    WriteError,
)

MIB = 1 << 20
ENGINES = ["threads"] if _C.uring_unavailable_reason() else ["uring", "threads"]
POOLS = [None, BufferPoolConfig(capacity=2, buffer_size=100_000)]


def crc32c(data: bytes) -> int:
    """The checksum by its definition, a byte at a time."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    state = 0xFFFFFFFF
    for byte in data:
        state = (state >> 8) ^ table[(state ^ byte) & 0xFF]
    return state ^ 0xFFFFFFFF


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


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 2 * MIB), max_size=6),
    engine=st.sampled_from(ENGINES),
    direct_io=st.sampled_from(["auto", "require", "off"]),
    pool=st.sampled_from(POOLS),
    known=st.booleans(),
)
def test_chunks_of_any_size_are_the_file(disk, sizes, engine, direct_io, pool, known):
    data = random_bytes(sum(sizes))
    config = FileSystemConfig(direct_io=direct_io, buffer_pool=pool, sync_writes=False)
    store = FileStore(config, engine=engine)
    rest = memoryview(data)
    with store.writer(disk / "x", size_bytes=len(data) if known else None) as writer:
        for size in sizes:
            writer.write(rest[:size])
            rest = rest[size:]
        assert writer.size_bytes == len(data)
    assert (disk / "x").read_bytes() == data
    assert writer.finish().size_bytes == len(data)
    assert store.put(disk / "x", data) == writer.finish()
    assert (disk / "x").read_bytes() == data
    assert os.listdir(disk) == ["x"]
    assert store.stats()["pool_in_use"] == 0


@settings(max_examples=60)
@given(
    alignment=st.sampled_from([1 << power for power in range(9, 22)]),
    blocks=st.integers(0, 3),
    offset=st.integers(-4097, 4097),
    chunk=st.sampled_from([4096, 300_001, 2 * MIB, 8 * MIB]),
    engine=st.sampled_from(ENGINES),
    pooled=st.booleans(),
)
def test_whatever_alignment_is_asked_for_the_file_is_right(
    disk, alignment, blocks, offset, chunk, engine, pooled
):
    data = random_bytes(max(0, blocks * max(MIB, alignment) + offset))
    pool = BufferPoolConfig(capacity=2, buffer_size=3 * MIB, alignment=max(alignment, 4096))
    config = FileSystemConfig(
        alignment=alignment, buffer_pool=pool if pooled else None, sync_writes=False
    )
    store = FileStore(config, engine=engine)
    with store.writer(disk / "x") as writer:
        for begin in range(0, len(data), chunk):
            writer.write(data[begin : begin + chunk])
    assert (disk / "x").read_bytes() == data
    assert store.checksum(disk / "x") == _C.crc32c(data)
    assert bytes(store.get(disk / "x").numpy()) == data


@settings(max_examples=100)
@given(data=st.binary(max_size=5000), cut=st.integers(0, 5000), repeats=st.sampled_from([1, 5]))
def test_checksums_are_those_of_the_definition(data, cut, repeats):
    data *= repeats
    assert _C.crc32c(data) == crc32c(data)
    assert _C.crc32c(data[cut:], _C.crc32c(data[:cut])) == crc32c(data)


def test_the_checksum_is_returned_kept_and_read_again(disk):
    data = random_bytes(70_001)
    store = FileStore()
    written = store.put(disk / "x", data)
    assert written.crc32c == store.checksum(disk / "x") == crc32c(data)
    if written.checksum_kept:
        assert store.kept_checksum(disk / "x") == crc32c(data)
        assert os.getxattr(disk / "x", "user.torch_s3io.crc32c") == b"%08x 70001" % crc32c(data)
        for damaged in (b"", b"12345678", b"12345678 70001 ", b"1234567 70001", b"x2345678 70001"):
            os.setxattr(disk / "x", "user.torch_s3io.crc32c", damaged)
            assert store.kept_checksum(disk / "x") is None
    with open(disk / "x", "ab") as file:
        file.write(b"more")
    assert store.kept_checksum(disk / "x") is None
    without = FileStore(FileSystemConfig(checksum_writes=False))
    assert without.put(disk / "y", data) == (70_001, None, False)
    assert store.kept_checksum(disk / "y") is None


def test_a_large_file_has_the_checksum_of_its_pieces(disk, engine, direct):
    data = random_bytes(20 * MIB + 123)
    path = write_file(disk / "x", data)
    store = FileStore(FileSystemConfig(direct_io=direct), engine=engine)
    assert store.checksum(path) == _C.crc32c(data)
    assert store.checksum(write_file(disk / "empty", b"")) == 0


def test_aligned_memory_is_not_copied(disk):
    buffer = BufferPool(BufferPoolConfig(capacity=1, buffer_size=4 * MIB)).take().tensor()
    buffer.numpy()[:] = np.frombuffer(random_bytes(4 * MIB), np.uint8)
    store = FileStore(FileSystemConfig(direct_io="require"))
    store.put(disk / "x", buffer)
    assert store.stats()["write_copied_bytes"] == 0
    assert store.stats()["direct_written_bytes"] == 4 * MIB
    assert (disk / "x").read_bytes() == buffer.numpy().tobytes()


def test_a_writer_takes_what_has_bytes_and_refuses_the_rest(disk):
    store = FileStore()
    with store.writer(disk / "x") as writer:
        writer.write(b"ab")
        writer.write(bytearray(b"cd"))
        writer.write(np.arange(3, dtype=">u2"))
        writer.write(torch.tensor([1.5, 2.5], dtype=torch.bfloat16))
        writer.write_rows(np.array([[1, 2], [3, 4]], np.uint8), 2, 5)
        writer.write(b"")
        for wrong in ("text", 3, None, [1], np.ones((4, 4))[:, 1], np.array([None])):
            with pytest.raises(ConfigError):
                writer.write(wrong)
        with pytest.raises(ConfigError, match="rows of 4 bytes"):
            writer.write_rows(b"abcde", 4, 8)
    assert (disk / "x").read_bytes() == (b"abcd\0\0\0\1\0\2\xc0\x3f\x20\x40\1\2\0\0\0\3\4\0\0\0")
    with pytest.raises(ConfigError, match="finished"):
        writer.write(b"more")
    with pytest.raises(ConfigError, match="size_bytes"):
        store.writer(disk / "y", size_bytes=-1)


def test_the_extension_itself_takes_no_bytes_that_lie_apart(disk):
    """Sizes alone would let it read other bytes, or none of the array's at all."""
    store = FileStore()
    array = np.arange(24, dtype=np.uint16).reshape(4, 6)
    apart = [array[::-1], array[:, ::2], array.T, array[::2], np.broadcast_to(array[:1], (9, 6))]
    apart.append(memoryview(b"abcdef")[::-1])
    with store.writer(disk / "x") as writer:
        for data in apart:
            for take in (
                _C.crc32c,
                writer._writer.write,
                lambda rows: writer._writer.write_rows(rows, 2, 4),
            ):
                with pytest.raises(ConfigError, match="lie together"):
                    take(data)
        with pytest.raises(ConfigError, match="no rows of 0 bytes"):
            writer._writer.write_rows(array, 0, 8)
        writer._writer.write(array)
        writer._writer.write(np.array(7, np.uint8))
        writer._writer.write(memoryview(b"")[::-1])
    assert (disk / "x").read_bytes() == array.tobytes() + b"\7"
    assert _C.crc32c(array) == crc32c(array.tobytes())


def test_a_link_and_the_permissions_of_the_old_file_stay(disk):
    (disk / "folder").mkdir()
    target = write_file(disk / "folder" / "x", b"old")
    target.chmod(0o600)
    (disk / "link").symlink_to("folder/x")
    FileStore().put(disk / "link", b"new")
    assert (disk / "link").is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert os.listdir(disk / "folder") == ["x"]


def test_an_exception_in_the_block_cancels(disk):
    write_file(disk / "x", b"old")
    writer = FileStore().writer(disk / "x")
    with contextlib.suppress(KeyError), writer:
        writer.write(random_bytes(3 * MIB))
        assert len(os.listdir(disk)) == 2
        raise KeyError
    assert (disk / "x").read_bytes() == b"old"
    with pytest.raises(ConfigError, match="cancelled"):
        writer.finish()
    assert os.listdir(disk) == ["x"]


def test_threads_may_take_turns_with_one_writer(disk):
    with FileStore().writer(disk / "x") as writer:
        chunks = [bytes([number]) * 300_000 for number in range(8)]
        threads = [threading.Thread(target=writer.write, args=[chunk]) for chunk in chunks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    data = (disk / "x").read_bytes()
    runs = [data[begin : begin + 300_000] for begin in range(0, len(data), 300_000)]
    assert sorted(runs) == chunks


# Faults -----------------------------------------------------------------------------------------


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
            error = write(FileStore(engine=engine, _faults=plan), path, new)
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
    store = FileStore(engine=engine, _faults=plan)
    with pytest.warns(RuntimeWarning, match=r"/x: the file system refuses O_DIRECT") as caught:
        store.put(disk / "x", bytes(5000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put(disk / "y", bytes(5000))
    assert caught[0].filename == __file__
    assert store.stats()["direct_write_refused"] == 2
    assert (disk / "x").read_bytes() == bytes(5000)
    required = FileStore(FileSystemConfig(direct_io="require"), engine=engine, _faults=plan)
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
    error = write(FileStore(config, engine=engine, _faults=plan), path, data)
    assert path.read_bytes() == (b"old" if error else data)
    assert error is None or (errno.EIO, False, False) in faults
    assert os.listdir(disk) == ["x"]


@pytest.fixture
def small_disk(disk, needs_root):
    """A file system with room for 2 MB."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder = disk / "small"
    folder.mkdir()
    arguments = (b"none", os.fsencode(folder), b"tmpfs", 0, b"size=2m")
    if libc.mount(*arguments) != 0:
        pytest.skip(f"NO MOUNTS HERE: {os.strerror(ctypes.get_errno())}")
    yield folder
    assert libc.umount2(os.fsencode(folder), 0) == 0, "files are left open there"


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
        command = program_command(WRITE_FOR_EVER, disk / "x", size)
        process = subprocess.Popen(command, env=program_env(), stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        threading.Event().wait(random.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        data = (disk / "x").read_bytes()
        assert len(data) == size
        assert set(data) == {data[0]}
        assert holds_soon(lambda: FileStore().put(disk / "y", b"") and len(os.listdir(disk)) == 2)


def test_a_live_writer_of_another_process_is_spared(disk):
    program = """
        import sys
        from torch_s3io import FileStore
        with FileStore().writer(sys.argv[1] + "/x") as writer:
            writer.write(b"abc")
            print("ready", flush=True)
            sys.stdin.readline()
    """
    command = program_command(program, disk)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, env=program_env(), text=True, **pipes)
    assert process.stdout.readline() == "ready\n"
    FileStore().put(disk / "y", b"")
    assert len(os.listdir(disk)) == 2
    process.communicate("go on\n")
    assert process.returncode == 0
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
