"""The folder of a RecordWriter is free again, whatever ends the writer, and taken until then."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from record_sets import check_set, values_in, write_set

from torch_s3io import _C, ConfigError, FileStore, RecordWriter, WriteError
from torch_s3io.store.object_writer import ObjectWriter


def begun_writer(folder) -> RecordWriter:
    """Two shards are full, and a third one is open."""
    writer = RecordWriter(folder, dtype="u1", shape=1000, shard_bytes=300_000, overwrite=True)
    writer.write(np.full((700, 1000), 2, "u1"))
    return writer


@pytest.mark.parametrize(
    ("owner", "name"), [(ObjectWriter, "cancel"), (ThreadPoolExecutor, "shutdown")]
)
def test_a_second_ctrl_c_while_the_first_one_cancels_leaves_the_folder_free(
    disk, monkeypatch, owner, name
):
    write_set(disk / "set", 1)
    original = getattr(owner, name)

    def interrupted(*arguments, **options):
        original(*arguments, **options)
        signal.raise_signal(signal.SIGINT)

    writer = begun_writer(disk / "set")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt) as caught, writer:
            signal.raise_signal(signal.SIGINT)
        assert isinstance(caught.value.__context__, KeyboardInterrupt)
    check_set(disk / "set", 1)
    write_set(disk / "set", 3)  # although `caught` keeps the writer alive
    check_set(disk / "set", 3)


def test_cancelling_when_the_folder_is_gone_is_silent(disk, monkeypatch):
    writer = begun_writer(disk / "set")
    writer._finishing[2].result()  # a thread names the second shard
    failed = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    shutil.rmtree(disk / "set")
    writer.cancel()
    assert failed == []
    write_set(disk / "set", 1)
    check_set(disk / "set", 1)


@pytest.fixture
def unlistable(monkeypatch):
    """A context in which folders cannot be listed."""

    def listdir(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", listdir)
            yield

    return context


def test_a_folder_that_cannot_be_listed_is_an_error_of_start_and_leaves_it_free(disk, unlistable):
    write_set(disk / "set", 1)
    with unlistable(), pytest.raises(WriteError, match="set: cannot list the folder") as kept:
        RecordWriter(disk / "set", dtype="u1", overwrite=True)
    write_set(disk / "set", 2)  # although `kept` keeps the frames of the first one
    assert kept.value
    check_set(disk / "set", 2)


def test_a_folder_that_cannot_be_listed_after_the_manifest_is_an_error_that_says_so(
    disk, unlistable
):
    write_set(disk / "set", 1)
    writer = begun_writer(disk / "set")
    with unlistable(), pytest.raises(WriteError, match=r"cannot list .* new data set is in place"):
        writer.finish()
    assert values_in(disk / "set") == {2}
    RecordWriter(disk / "set", dtype="u1", overwrite=True).cancel()  # removes the old shards
    check_set(disk / "set", 2)


def test_a_manifest_that_fails_in_a_folder_that_cannot_be_listed_leaves_it_free(disk, unlistable):
    write_set(disk / "set", 1)
    writer = begun_writer(disk / "set")
    writer._manifest_store = FileStore()._with(faults=_C.FaultPlan(by_call={0: errno.EIO}))
    with unlistable(), pytest.raises(WriteError, match=r"manifest\.json: cannot create: EIO"):
        writer.finish()
    assert values_in(disk / "set") == {1}
    RecordWriter(disk / "set", dtype="u1", overwrite=True).cancel()  # removes the new shards
    check_set(disk / "set", 1)


def test_a_manifest_of_another_program_is_not_replaced(disk):
    (disk / "set").mkdir()
    manifest = disk / "set" / "manifest.json"
    for text in ('{"name": "a web app", "icons": []}', ""):
        manifest.write_text(text)
        with pytest.raises(ConfigError, match=r"manifest\.json: is another program's"):
            RecordWriter(disk / "set", dtype="u1", overwrite=True)
        assert manifest.read_text() == text
    manifest.unlink()
    write_set(disk / "set", 1)
    manifest.write_text(manifest.read_text()[:100])  # ours, damaged
    write_set(disk / "set", 2)
    assert values_in(disk / "set") == {2}


@contextlib.contextmanager
def on_its_way(folder, name: str) -> Iterator[None]:
    """A temporary file as of a live writer, which may yet rename it."""
    path = folder / f".s3io-tmp-0123456789abcdef-{name}"
    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    path.unlink()


def test_a_writer_waits_for_a_manifest_on_its_way_but_not_for_files_that_are_named_alike(disk):
    write_set(disk / "set", 1)
    with (
        on_its_way(disk / "set", "manifest.json"),
        pytest.raises(ConfigError, match="may yet put its manifest in place") as kept,
    ):
        RecordWriter(disk / "set", dtype="u1", overwrite=True)
    write_set(disk / "set", 2)  # although `kept` keeps the frames of the first one
    assert kept.value
    for name in ("my-manifest.json", "manifest.json-", "manifest"):
        with on_its_way(disk / "set", name):
            RecordWriter(disk / "set", dtype="u1", overwrite=True).cancel()
    with open(disk / "set" / ".s3io-tmp-x-manifest.json", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        RecordWriter(disk / "set", dtype="u1", overwrite=True).cancel()
        os.unlink(file.name)
    check_set(disk / "set", 2)


def test_a_data_set_of_links_is_replaced_and_what_they_lead_to_stays(disk):
    write_set(disk / "set", 1)
    (disk / "blobs").mkdir()
    for path in list((disk / "set").iterdir()):
        path.rename(disk / "blobs" / path.name)
        path.symlink_to(f"../blobs/{path.name}")
    blobs = {path.name: path.read_bytes() for path in (disk / "blobs").iterdir()}
    writer = begun_writer(disk / "set")
    writer.cancel()
    assert values_in(disk / "set") == {1}
    write_set(disk / "set", 2)
    check_set(disk / "set", 2)
    assert not any(path.is_symlink() for path in (disk / "set").iterdir())
    assert {path.name: path.read_bytes() for path in (disk / "blobs").iterdir()} == blobs


def test_a_writer_that_had_no_manifest_yet_removes_its_shards_at_once(disk):
    write_set(disk / "set", 1)
    writer = begun_writer(disk / "set")
    with on_its_way(disk / "set", "manifest.json"):
        writer.cancel()
    check_set(disk / "set", 1)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_neither_keeps_nor_gives_back_the_folder(disk):
    writer = RecordWriter(disk / "set", dtype="u1", overwrite=True)
    ended, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        writer.cancel()
        del writer
        os.read(ended, 1)  # until the parent closes its end
        os._exit(0)
    closing = os.fork()
    if closing == 0:
        writer._folder.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(closing, 0)[1]) == 0
    with pytest.raises(ConfigError, match="another writer"):
        RecordWriter(disk / "set", dtype="u1", overwrite=True)
    writer.cancel()
    RecordWriter(disk / "set", dtype="u1", overwrite=True).cancel()
    assert os.waitpid(child, os.WNOHANG) == (0, 0)  # it lives
    os.close(end)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(ended)
