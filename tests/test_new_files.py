"""Files that are written only where there is none: FileStore.put and writer with if_absent=True."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from support import DEADLINE_S, MIB, random_bytes, write_file

from torch_s3io import (
    _C,
    ConfigError,
    Error,
    ExistsError,
    FileStore,
    FileSystemConfig,
    NoSpaceError,
    WriteError,
)

# Of a small file of known size, without a checksum, the third system call gives it its name.
NAMING = 2
SMALL = FileSystemConfig(direct_io="off", checksum_writes=False)


def test_a_new_file_is_written_and_one_that_is_there_stays(disk: Path, engine: str):
    store, data = FileStore(engine=engine), random_bytes(2 * MIB + 5)
    assert store.put(disk / "x", data, if_absent=True).size_bytes == len(data)
    for name in ("x", "link"):
        if name == "link":
            (disk / "link").symlink_to("x")
        with pytest.raises(ExistsError, match=f"/{name}: there is a file of this name") as failed:
            store.put(disk / name, b"new", if_absent=True)
        assert failed.value.is_undone
        assert pickle.loads(pickle.dumps(failed.value)).is_undone
        with pytest.raises(FileExistsError):
            store.writer(disk / name, if_absent=True)
    assert (disk / "x").read_bytes() == data
    assert sorted(os.listdir(disk)) == ["link", "x"]
    with pytest.raises(ConfigError, match="if_absent must be"):
        store.put(disk / "y", b"", if_absent=1)  # type: ignore[arg-type]


def test_of_a_link_the_file_behind_it_is_new_or_the_link_itself_is_in_the_way(disk: Path):
    (disk / "link").symlink_to("behind")
    store = FileStore()
    with pytest.raises(ExistsError):
        store.put(disk / "link", b"new", follow_links=False, if_absent=True)
    store.put(disk / "link", b"new", if_absent=True)
    assert (disk / "link").is_symlink()
    assert (disk / "behind").read_bytes() == b"new"


def test_a_file_that_comes_meanwhile_stays(disk: Path):
    writer = FileStore().writer(disk / "x", if_absent=True)
    writer.write(b"new")
    write_file(disk / "x", b"of somebody else")
    with pytest.raises(ExistsError):
        writer.finish()
    assert (disk / "x").read_bytes() == b"of somebody else"
    assert os.listdir(disk) == ["x"]


@pytest.mark.parametrize("refusal", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_where_a_rename_may_replace_files_a_link_does_not(disk: Path, refusal: int):
    """As NFS has it, and containers that know no renameat2."""
    store = FileStore(SMALL)._with(faults=_C.FaultPlan(by_call={NAMING: refusal}))
    store.put(disk / "x", b"new", if_absent=True)
    assert (disk / "x").read_bytes() == b"new"
    writer = (
        FileStore(SMALL)
        ._with(faults=_C.FaultPlan(by_call={NAMING: refusal}))
        .writer(disk / "y", size_bytes=3, if_absent=True)
    )
    writer.write(b"new")
    write_file(disk / "y", b"of somebody else")
    with pytest.raises(ExistsError):
        writer.finish()
    assert (disk / "y").read_bytes() == b"of somebody else"
    assert sorted(os.listdir(disk)) == ["x", "y"]


def test_a_file_system_that_has_neither_says_so(disk: Path):
    plan = _C.FaultPlan(by_call={NAMING: errno.EINVAL, NAMING + 1: errno.EPERM})
    with pytest.raises(ConfigError, match="neither renameat2 nor links; leave if_absent out") as no:
        FileStore(SMALL)._with(faults=plan).put(disk / "x", b"new", if_absent=True)
    assert no.value.is_undone
    assert os.listdir(disk) == []


def test_a_link_that_says_it_is_there_may_be_our_own(disk: Path):
    """NFS repeats a request whose reply was lost. Here the name is made before the call fails."""

    plan = _C.FaultPlan(by_call={NAMING: errno.EINVAL, NAMING + 1: errno.EEXIST})
    writer = FileStore(SMALL)._with(faults=plan).writer(disk / "x", size_bytes=3, if_absent=True)
    writer.write(b"new")
    [temporary] = disk.iterdir()
    os.link(temporary, disk / "x")
    assert writer.finish().size_bytes == 3
    assert (disk / "x").read_bytes() == b"new"
    assert os.listdir(disk) == ["x"]


@pytest.mark.parametrize("if_absent", [False, True])
def test_an_error_before_the_last_step_says_that_nothing_is_in_place(disk: Path, if_absent: bool):
    for number in range(NAMING):
        plan = _C.FaultPlan(by_call={number: errno.ENOSPC})
        with pytest.raises(NoSpaceError) as failed:
            FileStore(SMALL)._with(faults=plan).put(disk / "x", b"new", if_absent=if_absent)
        assert failed.value.is_undone
    for number in (NAMING, NAMING + 1):  # the name, and its sync
        plan = _C.FaultPlan(by_call={number: errno.EIO})
        with pytest.raises(WriteError) as failed:
            FileStore(SMALL)._with(faults=plan).put(disk / "x", b"new", if_absent=if_absent)
        assert not failed.value.is_undone
    assert not Error("of no write").is_undone


def put(folder: Path, number: int, start: Any, won: Any) -> None:
    store = FileStore(FileSystemConfig(sync_writes=False))
    start.wait(DEADLINE_S)
    for name in range(100):
        try:
            store.put(folder / str(name), bytes([number]) * 5000, if_absent=True)
            won.put((name, number))
        except ExistsError:
            pass
    won.put(None)


def test_of_processes_that_write_a_file_at_once_one_wins(disk: Path):
    context = multiprocessing.get_context("fork")
    start, won = context.Event(), context.Queue()
    processes = [context.Process(target=put, args=(disk, n, start, won)) for n in range(4)]
    for process in processes:
        process.start()
    start.set()
    winners: dict[int, int] = {}
    for _ in processes:
        while (one := won.get(timeout=DEADLINE_S)) is not None:
            assert one[0] not in winners
            winners[one[0]] = one[1]
    for process in processes:
        process.join(DEADLINE_S)
    assert sorted(winners) == list(range(100))
    for name, number in winners.items():
        assert (disk / str(name)).read_bytes() == bytes([number]) * 5000
    assert len(os.listdir(disk)) == 100
