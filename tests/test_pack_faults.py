"""pack when a write fails or kills it: a typed error, nothing half done, the next run goes on."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from programs import is_killed_in
from record_sets import all_records, check_clean, is_clean_after_a_start, random_array
from support import KILLED, holds_soon, mount_in_memory

from torch_s3io import _C, Error, FileStore, NoSpaceError, WriteError
from torch_s3io.cli import main
from torch_s3io.writing import folder_writer, pack_run
from torch_s3io.writing.pack_run import Packed, run_pack
from torch_s3io.writing.packing import PackJob
from torch_s3io.writing.sources import find_sources

RECORDS = random_array("u1", 45, (100_000,), 1)
SHARDS = 3


@pytest.fixture
def source(disk) -> Path:
    np.save(disk / "x.npy", RECORDS)
    return disk / "x.npy"


def job_of(source: Path, folder: Path) -> PackJob:
    sources = find_sources([str(source)], str(folder))
    return PackJob.of(sources, str(folder), RECORDS.nbytes // SHARDS, None)


def pack(job: PackJob, processes: int = 1) -> Packed:
    return run_pack(job, processes, lambda count: None)


def failing_store(plan: _C.FaultPlan, name: str) -> type[FileStore]:
    """A FileStore under whose writes of the file of this name things go as planned."""

    class FailingStore(FileStore):
        def writer(self, path, **options):
            planned = plan if os.path.basename(path) == name else None
            return FileStore.writer(FileStore(self.config)._with(faults=planned), path, **options)

    return FailingStore


def fail_at(patch: pytest.MonkeyPatch, job: PackJob, name: str, plan: _C.FaultPlan) -> None:
    module = pack_run if name == "manifest.json" else folder_writer
    patch.setattr(module, "FileStore", failing_store(plan, name))


def check_records(folder: Path) -> None:
    got = np.concatenate([batch.numpy() for batch in all_records(folder)])
    np.testing.assert_array_equal(got, RECORDS)


def check_packed(folder: Path) -> None:
    """The folder holds all records, and nothing else."""
    check_records(folder)
    check_clean(folder)


def temporary_files(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".s3io-tmp-")]


def plans(error_number: int) -> list[_C.FaultPlan]:
    """The error at each block (of 1 MiB) and at each system call around them."""
    blocks = [_C.FaultPlan(by_number={n: (error_number, False, False)}) for n in range(2)]
    return [*blocks, *(_C.FaultPlan(by_call={n: error_number}) for n in range(8))]


@pytest.mark.parametrize("error_number", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["shard", "manifest.json"])
def test_whatever_fails_the_error_is_typed_and_the_next_run_goes_on(
    source, disk, monkeypatch, name, error_number
):
    failed = 0
    for number, plan in enumerate(plans(error_number)):
        job = job_of(source, disk / f"out-{number}")
        file = job.name(1) if name == "shard" else name
        error = None
        with monkeypatch.context() as patch:
            fail_at(patch, job, file, plan)
            try:
                pack(job)
            except Error as caught:
                error = caught
        if error is not None:
            failed += 1
            assert isinstance(error, NoSpaceError if error_number == errno.ENOSPC else WriteError)
            assert file in str(error)
            assert os.strerror(error_number) in str(error)
            assert temporary_files(disk / f"out-{number}") == []
            is_there = os.path.exists(disk / f"out-{number}" / "manifest.json")
            assert is_there == (name == "manifest.json" and "in place" in str(error))
            assert pack(job).resumed_shards == (1 if name == "shard" else SHARDS)
        check_packed(disk / f"out-{number}")
    assert failed >= 6


def test_a_journal_that_cannot_be_written_is_an_error_and_the_next_run_begins_anew(
    source, disk, monkeypatch
):
    def full_to_writers(path, mode, **options):
        return open("/dev/full" if mode == "wb" else path, mode, **options)

    job = job_of(source, disk / "out")
    with monkeypatch.context() as patch:
        patch.setattr(pack_run, "open", full_to_writers, raising=False)
        with pytest.raises(NoSpaceError, match=r"\.s3io-pack-.*: cannot write: No space left"):
            pack(job)
    assert not (disk / "out" / "manifest.json").exists()
    assert temporary_files(disk / "out") == []
    assert pack(job).resumed_shards == 0
    check_packed(disk / "out")


@pytest.mark.filterwarnings("ignore:.*refuses O_DIRECT:RuntimeWarning")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_an_error_that_says_so_and_room_lets_it_go_on(
    source, small_disk, processes, capfd
):
    folder = small_disk / "out"
    size_mib = RECORDS.nbytes / SHARDS / 2**20
    arguments = ["pack", source, "-o", folder, "--shard-mib", size_mib, "--align", "none"]
    arguments = [*map(str, arguments), "--processes", str(processes)]
    assert main(arguments) == 1
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "ENOSPC" in error
    assert "free some space there" in error
    assert temporary_files(folder) == []
    assert not (folder / "manifest.json").exists()
    assert mount_in_memory(small_disk, "size=8m", again=True) == ""
    assert main(arguments) == 0
    check_packed(folder)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("name", ["shard", "manifest.json"])
def test_killed_at_each_step_it_leaves_no_manifest_or_a_whole_data_set(
    source, disk, monkeypatch, name
):
    killed = 0
    for number, plan in enumerate(plans(KILLED)):
        folder = disk / f"out-{number}"
        job = job_of(source, folder)
        with monkeypatch.context() as patch:
            fail_at(patch, job, job.name(1) if name == "shard" else name, plan)
            is_killed = is_killed_in(lambda job=job: pack(job))
        killed += is_killed
        if (folder / "manifest.json").exists():
            assert name == "manifest.json" or not is_killed
            check_records(folder)
        if is_killed:
            assert pack(job).resumed_shards == (1 if name == "shard" else SHARDS)
        assert holds_soon(lambda folder=folder: is_clean_after_a_start(folder))
        check_records(folder)
    assert killed >= (9 if name == "shard" else 7)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_the_death_of_one_of_several_processes_is_an_error_that_says_how_to_go_on(
    source, disk, monkeypatch
):
    job = job_of(source, disk / "out")
    with monkeypatch.context() as patch:
        plan = _C.FaultPlan(by_number={1: (KILLED, False, False)})
        fail_at(patch, job, job.name(1), plan)
        with pytest.raises(WriteError, match=r"was killed, .*; run the same command"):
            pack(job, 2)
    assert not (disk / "out" / "manifest.json").exists()
    pack(job, 2)
    check_packed(disk / "out")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_process_that_is_told_to_end_is_an_error_of_pack(source, disk, monkeypatch, capsys):
    main_process = os.getpid()

    class Ended(FileStore):
        def writer(self, path, **options):
            assert os.getpid() != main_process
            signal.raise_signal(signal.SIGTERM)
            return super().writer(path, **options)

    monkeypatch.setattr(folder_writer, "FileStore", Ended)
    arguments = ["pack", source, "-o", disk / "out", "--processes", 2, "--shard-mib", 1]
    assert main([*map(str, arguments)]) == 1
    assert "was killed, perhaps for its memory; run the same command" in capsys.readouterr().err
