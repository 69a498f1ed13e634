"""FileStore against open().read()."""

from __future__ import annotations

import os
import pickle
import stat
import tempfile
import threading
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from support import (
    ENGINES,
    MIB,
    random_bytes,
    store_with,
    write_file,
)

from torch_s3io import (
    BufferPoolConfig,
    ConfigError,
    Error,
    FileChangedError,
    FileStore,
    FileSystemConfig,
    NotFoundError,
    RangeEngineConfig,
    RangeError,
    RecordWriter,
)

POOL = BufferPoolConfig(capacity=2, buffer_size=256 * 1024)


@settings(max_examples=80)
@given(
    size=st.one_of(st.integers(0, 3 * MIB), st.sampled_from([0, 1, 511, 512, 4096, MIB])),
    data=st.data(),
    engine=st.sampled_from(ENGINES),
    direct_io=st.sampled_from(["auto", "require", "off"]),
    splits=st.booleans(),
    pool=st.sampled_from([None, POOL, BufferPoolConfig(capacity=3, buffer_size=4 * MIB)]),
)
def test_any_range_has_the_bytes_of_the_file(disk, size, data, engine, direct_io, splits, pool):
    content = random_bytes(size)
    path = write_file(disk / "x.bin", content)
    ranges = RangeEngineConfig(chunk_size=65536, min_split_size=100_000, max_concurrent_ranges=5)
    store = store_with(
        engine,
        direct_io=direct_io,
        buffer_pool=pool,
        range_engine=ranges,
        enable_range_engine=splits,
    )
    whole = store.get(path)
    assert whole.dtype == torch.uint8
    assert whole.shape == (size,)
    assert whole.numpy().tobytes() == content
    del whole
    for _ in range(4):
        offset = data.draw(st.integers(0, size))
        length = data.draw(st.integers(0, size - offset))
        got = store.get_range(path, offset, length)
        assert got.shape == (length,)
        assert got.numpy().tobytes() == content[offset : offset + length]
        got.fill_(7)
        del got
    assert path.read_bytes() == content
    assert store.stats()["pool_in_use"] == 0


@pytest.mark.parametrize(
    ("offset", "length"),
    [(-1, 1), (0, -1), (0, 1001), (1001, 0), (1000, 1), (1 << 62, 1 << 62), (2**63 - 1, 2**63 - 1)],
)
def test_a_range_outside_of_the_file_is_a_range_error(disk, offset, length):
    path = write_file(disk / "x.bin", bytes(1000))
    with pytest.raises(RangeError, match=r"x\.bin") as caught:
        FileStore().get_range(path, offset, length)
    assert isinstance(caught.value, IndexError)


@pytest.mark.parametrize("offset", [1 << 63, 1 << 70, -(1 << 64), 0.5, "0", None])
def test_what_is_no_64_bit_offset_is_refused(disk, offset):
    path = write_file(disk / "x.bin", bytes(1000))
    with pytest.raises((RangeError, ConfigError, TypeError)):
        FileStore().get_range(path, offset, 1)


def test_the_empty_range_at_the_end_is_empty(disk):
    path = write_file(disk / "x.bin", bytes(1000))
    assert FileStore().get_range(path, 1000, 0).shape == (0,)


def test_a_missing_file_is_not_found_by_every_call(disk):
    store = FileStore()
    for attempt in (store.get, store.stat, lambda path: store.get_range(path, 0, 1)):
        with pytest.raises(NotFoundError, match=r"no\.bin"):
            attempt(disk / "no.bin")
    with pytest.raises(NotFoundError):
        store.list(disk / "no" / "x")


@pytest.mark.parametrize("name", ["get", "stat", "checksum", "kept_checksum", "writer"])
def test_an_empty_path_is_none(name):
    with pytest.raises(ConfigError, match=r"^'' is not a path"):
        getattr(FileStore(), name)("")


def test_an_empty_path_is_none_to_write_to_or_read_a_part_of():
    for attempt in (
        lambda: FileStore().put("", b"x"),
        lambda: FileStore().get_range("", 0, 1),
        lambda: RecordWriter("", dtype="u1"),
    ):
        with pytest.raises(ConfigError, match=r"^'' is not a path"):
            attempt()


def test_an_empty_prefix_is_the_current_folder_and_nothing_else_is_one(disk, monkeypatch):
    (disk / "x.bin").write_bytes(b"x")
    monkeypatch.chdir(disk)
    for empty in ("", b""):
        assert FileStore().list(empty) == ["x.bin"]
    for wrong in (None, 0, False, [], np.zeros(0)):
        with pytest.raises(ConfigError, match="is not a path"):
            FileStore().list(wrong)


def test_a_folder_is_no_object(disk):
    for attempt in (FileStore().get, FileStore().stat):
        with pytest.raises(ConfigError, match="directory"):
            attempt(disk)


def test_stat_says_what_the_system_says(disk):
    path = write_file(disk / "x.bin", bytes(12345))
    info = FileStore().stat(path)
    assert info.size_bytes == 12345
    assert info.modified_ns == path.stat().st_mtime_ns
    assert info.direct_alignment > 0
    assert "12345" in repr(info)


@pytest.fixture
def tree(disk):
    for name in ("a/x.bin", "a/y.bin", "a/b/z.bin", "ab.bin", "c.bin", ".hidden"):
        path = disk / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (disk / "link.bin").symlink_to(disk / "c.bin")
    (disk / "folder-link").symlink_to(disk / "a")
    (disk / "empty").mkdir()
    os.mkfifo(disk / "fifo")
    return disk


@pytest.mark.parametrize(
    "prefix", ["", "a", "a/", "a/b", "a/x", "ab", "c.bin", "nothing", "empty/"]
)
def test_list_names_the_files_that_begin_with_a_prefix(tree, prefix):
    every_file = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(tree)
        for name in names
        if os.path.isfile(os.path.join(folder, name))
    ]
    wanted = f"{tree}/{prefix}"
    assert FileStore().list(wanted) == sorted(p for p in every_file if p.startswith(wanted))


def test_list_takes_relative_prefixes(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert FileStore().list("a/") == ["a/b/z.bin", "a/x.bin", "a/y.bin"]
    assert FileStore().list("ab") == ["ab.bin"]
    assert FileStore().list("./ab") == ["./ab.bin"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        bytearray(b"abc"),
        memoryview(b"abcdef")[2:4],
        torch.arange(10),
        torch.arange(10, dtype=torch.bfloat16),
        torch.zeros(2, 3, 4),
        torch.tensor(1.5),
        torch.empty(0),
        torch.ones(4, requires_grad=True),
        np.arange(5, dtype="f4"),
    ],
    ids=lambda data: type(data).__name__,
)
def test_what_is_put_is_what_is_read(disk, data):
    path = disk / "x.bin"
    store = FileStore()
    store.put(path, data)
    if isinstance(data, torch.Tensor):
        expected = data.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        expected = bytes(data)
    assert path.read_bytes() == expected
    assert store.get(path).numpy().tobytes() == expected
    assert [entry.name for entry in disk.iterdir()] == ["x.bin"]


def test_put_replaces_and_open_readers_keep_the_old_bytes(disk):
    path = write_file(disk / "x.bin", b"old")
    store = FileStore()
    with open(path, "rb") as old:
        store.put(path, b"new and longer")
        assert old.read() == b"old"
    assert store.get(path).numpy().tobytes() == b"new and longer"


def test_put_gives_the_mode_that_open_would_give(disk):
    old = os.umask(0o027)
    try:
        FileStore().put(disk / "x.bin", b"abc")
    finally:
        os.umask(old)
    assert stat.S_IMODE((disk / "x.bin").stat().st_mode) == 0o640


def test_a_put_that_fails_leaves_nothing(disk):
    store = FileStore()
    with pytest.raises(NotFoundError, match=r"x\.bin"):
        store.put(disk / "no" / "x.bin", b"abc")
    (disk / "folder").mkdir()
    with pytest.raises(Error, match="folder"):
        store.put(disk / "folder", b"abc")
    for data in (torch.zeros(4, 4).T, torch.zeros(3, device="meta")):
        with pytest.raises(ConfigError, match="contiguous"):
            store.put(disk / "x.bin", data)
    for data in (3, None, "text", [1, 2]):
        with pytest.raises((ConfigError, TypeError)):
            store.put(disk / "x.bin", data)
    assert [entry.name for entry in disk.iterdir()] == ["folder"]


@pytest.fixture
def large(disk):
    return write_file(disk / "large.bin", random_bytes(2 * MIB))


def test_the_engine_is_the_one_asked_for(large):
    for engine in ENGINES:
        store = FileStore(engine=engine)
        assert store.stats()["engine"] == ""
        store.get(large)
        assert store.stats()["engine"] == engine


def test_a_wrong_config_or_engine_is_refused():
    for config in ("auto", 3, BufferPoolConfig()):
        with pytest.raises(ConfigError, match="FileSystemConfig"):
            FileStore(config)
    with pytest.raises(ConfigError, match="engine"):
        FileStore(engine="aio")


def test_a_store_survives_pickling_and_prints_its_config(large):
    store = FileStore(FileSystemConfig.high_performance(), engine="threads")
    store.get(large)
    other = pickle.loads(pickle.dumps(store))
    assert repr(other) == repr(store)
    assert "buffer_pool=BufferPoolConfig(" in repr(store)
    assert other.get(large).numpy().tobytes() == large.read_bytes()
    assert other.stats()["requests"] == store.stats()["requests"] > 0


def test_several_threads_read_at_once(large):
    content = large.read_bytes()
    store = store_with(buffer_pool=BufferPoolConfig(capacity=3, buffer_size=MIB))
    failures = []

    def read(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(40):
            offset = int(generator.integers(0, 2 * MIB - 70_000))
            got = store.get_range(large, offset, 70_000)
            if got.numpy().tobytes() != content[offset : offset + 70_000]:
                failures.append(offset)
            del got  # else every thread waits for the others

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failures == []
    assert store.stats()["pool_in_use"] == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_uses_its_copy_of_a_store(large):
    store = store_with(buffer_pool=BufferPoolConfig(capacity=1, buffer_size=4 * MIB))
    held = [store.get(large)]
    content = large.read_bytes()
    child = os.fork()
    if child == 0:
        right = store.get(large).numpy().tobytes() == content
        held.clear()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.stats()["pool_in_use"] == 1
    assert held[0].numpy().tobytes() == content


def test_paths_may_be_of_any_kind_and_name(disk):
    store = FileStore()
    for name in ("ünï cöde.bin", "with\nnewline", "-dash", "[x]*?"):
        with tempfile.TemporaryDirectory(dir=disk) as folder:
            path = Path(folder) / name
            store.put(path, name.encode())
            assert store.get(str(path)).numpy().tobytes() == name.encode()
            assert store.list(folder + "/") == [str(path)]


def test_a_range_of_another_version_is_an_error(disk: Path):
    path, store = disk / "x", FileStore()
    path.write_bytes(b"01234567")
    info = store.stat(path)
    assert bytes(store.get_range(path, 2, 3, version=info).numpy()) == b"234"
    for change in (lambda: os.utime(path, ns=(0, 5)), lambda: path.write_bytes(b"01")):
        change()
        with pytest.raises(FileChangedError, match="not 8 of"):
            store.get_range(path, 2, 3, version=info)
