"""Who makes an index file: one process, for all."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torch_s3io.errors import (
    AccessError,
    ConfigError,
    DataError,
    NotFoundError,
)
from torch_s3io.index.builder import indexed
from torch_s3io.index.column_file import ColumnFile

RECIPE = {"kind": "test", "version": 1}


class Source:
    """A file that an index is made of, and how often one was made."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / "data.bin"
        self.path.write_bytes(b"first")
        self.built: list[str | None] = []

    def is_current(self, file: ColumnFile) -> bool:
        return file.columns["data"].tobytes() == self.path.read_bytes()

    def build(self, old: ColumnFile | None) -> Any:
        self.built.append(None if old is None else old.columns["data"].tobytes().decode())
        return {"more": 1}, {"data": np.frombuffer(self.path.read_bytes(), np.uint8)}

    def index(self, **changed: Any) -> ColumnFile:
        options = {"build": self.build, "is_current": self.is_current, **changed}
        return indexed([str(self.path)], RECIPE, **options)


@pytest.fixture
def source(tmp_path, monkeypatch) -> Source:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Source(tmp_path / "data")


def indexes_in(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name != "data.bin")


def test_it_is_made_once_and_again_where_it_does_not_hold(source):
    first = source.index()
    assert first.head["more"] == 1
    assert first.head["recipe"] == RECIPE
    assert source.index().uid == first.uid
    assert source.built == [None]
    assert indexes_in(source.path.parent) == [os.path.basename(first.path)]
    source.path.write_bytes(b"second")
    second = source.index()
    assert (second.path, source.built) == (first.path, [None, "first"])
    assert first.columns["data"].tobytes() == b"first"  # what is mapped stays
    assert second.columns["data"].tobytes() == b"second"


def test_one_that_is_damaged_is_made_again(source):
    path = Path(source.index().path)
    for content in (b"", b"x", path.read_bytes()[:-1], bytes(1000)):
        path.write_bytes(content)
        assert source.index().columns["data"].tobytes() == b"first"

    def is_current(_file: ColumnFile) -> bool:
        raise DataError("damaged")

    source.built.clear()
    source.index(is_current=is_current)
    assert source.built == [None]


def read_only(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Nothing can be made in these folders."""
    make, make_folder = os.open, os.mkdir

    def refuse(path: Any) -> None:
        if any(str(path).startswith(str(folder)) for folder in folders):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def opened(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            refuse(path)
        return make(path, flags, *more, **options)

    def made(path: Any, *more: Any, **options: Any) -> None:
        refuse(path)
        make_folder(path, *more, **options)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "mkdir", made)


def test_where_the_data_may_not_be_written_to_it_lies_in_the_cache_folder(
    source, tmp_path, monkeypatch
):
    read_only(monkeypatch, source.path.parent)
    file = source.index()
    assert Path(file.path).parent == tmp_path / "cache" / "torch_s3io"
    assert indexes_in(source.path.parent) == []
    assert source.index().uid == file.uid
    assert source.built == [None]


def test_where_nothing_can_be_written_it_is_in_memory_with_one_warning(
    source, tmp_path, monkeypatch
):
    read_only(monkeypatch, tmp_path)
    with pytest.warns(RuntimeWarning, match=r"Read-only file system.*index= names a pl") as caught:
        file = source.index()
    assert len(caught) == 1
    assert (file.path, file.columns["data"].tobytes()) == ("", b"first")
    assert source.built == [None]
    with pytest.raises(AccessError, match=r"x\.idx .*Read-only"):
        source.index(where=tmp_path / "x.idx")


def test_a_full_disk_is_no_error_either(source, tmp_path, monkeypatch):
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.warns(RuntimeWarning, match="No space left"):
            assert source.index().path == ""
    assert source.built == [None]
    assert indexes_in(source.path.parent) == []
    assert indexes_in(tmp_path / "cache" / "torch_s3io") == []


def test_without_an_index_nothing_is_read_or_written(source):
    assert source.index(where=False).path == ""
    assert source.index(where=False).path == ""
    assert source.built == [None, None]
    assert indexes_in(source.path.parent) == []


def test_a_path_that_is_named_by_mistake_is_not_overwritten(source, tmp_path):
    own = tmp_path / "own.idx"
    assert source.index(where=own).path == str(own)
    assert source.index(where=str(own)).path == str(own)
    assert source.built == [None]
    with pytest.raises(ConfigError, match=r"data\.bin.*is no index"):
        source.index(where=source.path)
    assert source.path.read_bytes() == b"first"
    other = Source(tmp_path / "other")
    other.path = other.path.rename(tmp_path / "other" / "another.bin")
    with pytest.raises(ConfigError, match="the index of other data"):
        other.index(where=own)
    assert Path(source.index(where=tmp_path).path).parent == tmp_path


def test_of_builders_at_once_one_builds_and_the_others_map_what_it_wrote(source):
    begins, found = threading.Barrier(5), []

    def work() -> None:
        begins.wait()
        found.append(source.index())

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.built == [None]
    assert len({file.uid for file in found}) == 1
    assert indexes_in(source.path.parent) == [os.path.basename(found[0].path)]


def stopped_in(source: Source, stop: Callable[[], None], where: str) -> int:
    """A child that calls ``stop`` while it builds, or while it writes what it has built."""
    pid = os.fork()
    if pid == 0:
        try:
            if where == "writing":
                os.fsync = lambda _fd: stop()
                source.index()
            else:
                source.index(build=lambda _old: stop())
        finally:
            os._exit(1)
    return pid


@pytest.mark.parametrize("where", ["building", "writing"])
def test_a_builder_that_is_killed_leaves_the_work_to_the_next_one(source, where):
    ready, say = os.pipe()
    ends, end = os.pipe()

    def stop() -> None:
        if where == "building" and os.fork() == 0:  # a child that lives on
            os.close(end)
            os.read(ends, 1)
            os._exit(0)
        os.write(say, b"x")
        signal.pause()

    pid = stopped_in(source, stop, where)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    os.close(say)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    left = indexes_in(source.path.parent)
    assert len(left) == (2 if where == "writing" else 1)
    file = source.index()
    assert file.columns["data"].tobytes() == b"first"
    assert indexes_in(source.path.parent) == [os.path.basename(file.path)]
    os.close(ends)
    os.close(end)


def test_a_child_that_is_forked_while_an_index_is_made_leaves_its_lock_alone(source):
    def build(old: ColumnFile | None) -> Any:
        child = os.fork()
        if child == 0:
            raise InterruptedError
        assert os.waitpid(child, 0)[1] == 0
        assert [name for name in indexes_in(source.path.parent) if name.endswith(".lock")]
        return source.build(old)

    builder = os.getpid()
    try:
        source.index(build=build)
    except InterruptedError:
        os._exit(0)
    finally:
        if os.getpid() != builder:
            os._exit(1)
    assert source.built == [None]


def test_who_waits_for_another_builder_hears_of_it(source, monkeypatch):
    from torch_s3io.index import file_lock

    monkeypatch.setattr(file_lock, "_SAID_AFTER_S", 0.0)
    begun, ends = threading.Event(), threading.Event()

    def build(old: ColumnFile | None) -> Any:
        begun.set()
        ends.wait()
        return source.build(old)

    thread = threading.Thread(target=lambda: source.index(build=build))
    thread.start()
    begun.wait()
    waited = []

    def sleep(_seconds: float) -> None:
        waited.append(1)
        ends.set()
        thread.join()

    monkeypatch.setattr(file_lock.time, "sleep", sleep)
    with pytest.warns(RuntimeWarning, match="another process builds the index .*waiting"):
        file = source.index()
    assert file.columns["data"].tobytes() == b"first"
    assert (source.built, waited) == ([None], [1])


def test_what_a_build_raises_is_raised_and_leaves_nothing(source):
    def build(_old: ColumnFile | None) -> Any:
        raise NotFoundError("a file is missing")

    with pytest.raises(NotFoundError, match="a file is missing"):
        source.index(build=build)
    assert indexes_in(source.path.parent) == []
