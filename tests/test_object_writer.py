"""FileStore.put and store.writer against open().read()."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from support import ENGINES, MIB, random_bytes, write_file

from torch_s3io import (
    _C,
    BufferPool,
    BufferPoolConfig,
    ConfigError,
    FileStore,
    FileSystemConfig,
)

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


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 2 * MIB), max_size=6),
    engine=st.sampled_from(ENGINES),
    direct_io=st.sampled_from(["auto", "require", "off"]),
    pool=st.sampled_from(POOLS),
    known=st.booleans(),
    copy=st.booleans(),
)
def test_chunks_of_any_size_are_the_file(disk, sizes, engine, direct_io, pool, known, copy):
    data = random_bytes(sum(sizes))
    config = FileSystemConfig(direct_io=direct_io, buffer_pool=pool, sync_writes=False)
    store = FileStore(config, engine=engine)
    rest = memoryview(data)
    with store.writer(disk / "x", size_bytes=len(data) if known else None) as writer:
        for size in sizes:
            writer.write(rest[:size], copy=copy)
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


@pytest.mark.parametrize("engine", ENGINES)
def test_buffers_of_a_pool_are_written_without_a_copy_and_go_back(disk, engine):
    """Nine buffers are enough: eight in flight and one being filled."""
    pool = BufferPool(BufferPoolConfig(capacity=9, buffer_size=MIB))
    store = FileStore(FileSystemConfig(direct_io="require"), engine=engine)
    data = random_bytes(40 * MIB)
    with store.writer(disk / "x") as writer:
        for begin in range(0, len(data), MIB):
            buffer = pool.take(MIB, timeout_s=30).tensor()
            buffer.numpy()[:] = np.frombuffer(data, np.uint8, MIB, begin)
            writer.write(buffer, copy=False)
            del buffer
        assert pool.stats()["in_use"] <= 8
    assert pool.stats()["in_use"] == 0
    assert pool.stats()["waited"] == 0
    assert store.stats()["write_copied_bytes"] == 0
    assert (disk / "x").read_bytes() == data


def test_what_was_not_copied_is_let_go_of_once_the_file_is_finished_or_cancelled(disk):
    store = FileStore()
    buffer = BufferPool(BufferPoolConfig(capacity=1, buffer_size=MIB)).take().tensor()
    unaligned = bytearray(b"abc")
    with store.writer(disk / "x") as writer:
        writer.write(unaligned, copy=False)
        unaligned += b"more"  # it was copied, so it can grow
    for end in ("finish", "cancel"):
        writer = store.writer(disk / "y")
        counted = sys.getrefcount(buffer)
        array = buffer.numpy()
        views = sys.getrefcount(array)
        writer.write(array, copy=False)
        getattr(writer, end)()
        assert sys.getrefcount(array) == views
        del array
        assert sys.getrefcount(buffer) == counted
    writer = store.writer(disk / "z")
    writer.write(buffer, copy=False)
    with pytest.raises(ConfigError):
        writer.write(3, copy=False)
    with pytest.raises(ConfigError, match="copy"):
        writer.write(b"abc", copy=None)
    assert writer.finish().size_bytes == MIB


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
                lambda data: writer._writer.write(data, True),
                lambda data: writer._writer.write(data, False),
                lambda rows: writer._writer.write_rows(rows, 2, 4),
            ):
                with pytest.raises(ConfigError, match="lie together"):
                    take(data)
        with pytest.raises(ConfigError, match="no rows of 0 bytes"):
            writer._writer.write_rows(array, 0, 8)
        writer._writer.write(array, True)
        writer._writer.write(np.array(7, np.uint8), False)
        writer._writer.write(memoryview(b"")[::-1], False)
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


def test_tensors_that_torch_has_still_to_conjugate_or_negate_are_written_as_they_read(disk):
    conjugated = torch.tensor([1 + 2j, 3 - 4j]).conj()
    assert conjugated.is_conj()
    FileStore().put(disk / "x", conjugated)
    assert np.fromfile(disk / "x", np.complex64).tolist() == [1 - 2j, 3 + 4j]
    negated = torch._neg_view(torch.arange(3.0))
    assert negated.is_neg()
    FileStore().put(disk / "x", negated)
    assert np.fromfile(disk / "x", np.float32).tolist() == [0, -1, -2]
