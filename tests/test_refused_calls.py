"""System calls that a container's filter refuses, as old or strict runtimes do: everything works
without them, or the error names the call and the filter."""

from __future__ import annotations

import errno
import os

import pytest
from programs import run_program
from support import write_records

# Every call of ours that a kernel, or a profile, may be without, by its number on each machine.
CALLS = {
    name: numbers[os.uname().machine == "aarch64"]
    for name, numbers in {
        "statx": (332, 291),
        "memfd_create": (319, 279),
        "cachestat": (451, 451),
        "preadv2": (327, 286),
        "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
        "fallocate": (285, 47),
        "sync_file_range": (277, 84),
        "fsetxattr": (190, 7),
        "fgetxattr": (193, 10),
        "fadvise64": (221, 223),
        "madvise": (28, 233),
        "flock": (73, 32),
        "fstatfs": (138, 44),
        "getrandom": (318, 278),
        "eventfd2": (290, 19),
        "close_range": (436, 436),
        "prctl": (157, 167),  # the last one: it installs the filters
    }.items()
}

PROGRAM = """
    import os, sys, traceback, warnings
    from pathlib import Path
    import numpy as np
    import torch
    from torch_s3io import (
        BufferPoolConfig, DataLoader, FileStore, FileSystemConfig, RecordDataset, RecordWriter
    )
    from programs import forbid_system_call

    folder = Path(sys.argv[1])
    path = folder / "x.bin"
    array = np.fromfile(path, np.uint8).reshape(-1, 4096)
    warnings.simplefilter("ignore")

    def use(name):
        for options in ({"direct": "auto"}, {"direct": "require"}, {"direct": "off"}):
            dataset = RecordDataset(path, dtype="u1", shape=4096, batch_size=16, **options)
            for _ in range(2):
                batches = [batch.clone() for batch in dataset]
                assert np.array_equal(torch.cat(batches).numpy(), array)
            assert np.array_equal(dataset.get_batch([5, 3]).numpy(), array[[5, 3]])
        assert not name.startswith("statx") or options["direct"] == "off"
        dataset = RecordDataset(path, dtype="u1", shape=4096, batch_size=16, transform=twice)
        for batch, new in DataLoader(dataset, num_workers=1):
            assert torch.equal(batch, new)
        assert dataset.stats()["received_tensors"] == len(array) / 16
        with RecordWriter(folder / f"new-{name}", dtype="u1", shape=(4096,)) as writer:
            writer.write(array)
        written = torch.cat([batch.clone() for batch in RecordDataset(folder / f"new-{name}")])
        assert np.array_equal(written.numpy(), array)
        for config in (FileSystemConfig(), FileSystemConfig(direct_io="off")):
            store = FileStore(config)
            store.put(folder / f"put-{name}", torch.from_numpy(array))
            assert store.get(folder / f"put-{name}").numpy().tobytes() == array.tobytes()

    def twice(rows):
        return rows, rows.clone()

    def without(name, calls, error_number):
        child = os.fork()
        if child == 0:
            try:
                for call in calls:
                    forbid_system_call(call, error_number)
                use(name)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.fixture
def folder(disk):
    write_records(disk / "x.bin", 64, 4096)
    return disk


def test_each_call_may_be_refused_alone(folder):
    source = """
    calls = dict(pair.split("=") for pair in sys.argv[3:])
    failed = [
        name for name, call in calls.items() if not without(name, [int(call)], int(sys.argv[2]))
    ]
    print(failed)
    """
    pairs = [f"{name}={number}" for name, number in CALLS.items()]
    assert run_program(PROGRAM + source, folder, errno.EPERM, *pairs) == "[]\n"


@pytest.mark.parametrize("error_number", [errno.EPERM, errno.ENOSYS, errno.EACCES])
def test_all_of_them_may_be_refused_together(folder, error_number):
    source = """
    print(without("all", map(int, sys.argv[3:]), int(sys.argv[2])))
    """
    # Without getrandom OpenSSL, and with it Python's queues, have no random numbers.
    numbers = [number for name, number in CALLS.items() if name != "getrandom"]
    assert run_program(PROGRAM + source, folder, error_number, *numbers) == "True\n"


def test_without_statx_files_are_read_directly_and_changes_are_found(folder):
    source = """
    from torch_s3io import FileChangedError

    forbid_system_call(int(sys.argv[2]), 1)
    dataset = RecordDataset(path, dtype="u1", shape=4096, batch_size=16, direct="require")
    assert np.array_equal(torch.cat([batch.clone() for batch in dataset]).numpy(), array)
    print(dataset.stats()["direct_bytes"] >= array.nbytes, dataset.stats()["direct_refused"])
    os.utime(path)
    try:
        list(dataset)
    except FileChangedError:
        print("found")
    """
    assert run_program(PROGRAM + source, folder, CALLS["statx"]) == "True 0\nfound\n"


def test_a_real_refusal_stays_an_error_without_statx(public_folder, needs_root):
    source = """
    from torch_s3io import AccessError, NotFoundError
    from programs import become_nobody

    secret = folder / "secret"
    secret.mkdir(mode=0o700)
    (secret / "x.bin").write_bytes(bytes(10))
    become_nobody()
    forbid_system_call(int(sys.argv[2]), 1)
    for name, kind in (("secret/x.bin", AccessError), ("missing", NotFoundError)):
        try:
            RecordDataset(folder / name, dtype="u1")
        except kind as error:
            print(type(error).__name__)
    """
    write_records(public_folder / "x.bin", 1, 4096).tobytes()
    (public_folder / "x.bin").chmod(0o644)
    text = run_program(PROGRAM + source, public_folder, CALLS["statx"])
    assert text == "AccessError\nNotFoundError\n"


SMALL_DEV_SHM = """
    import ctypes, gc

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x20000) == 0, os.strerror(ctypes.get_errno())
    assert libc.mount(b"none", b"/", None, 0x44000, None) == 0
    assert libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, sys.argv[3].encode()) == 0
    forbid_system_call(int(sys.argv[2]), 1)
"""


def test_without_memfd_create_a_dev_shm_that_is_too_small_is_an_error_and_no_crash(
    folder, needs_root
):
    source = """
    from torch_s3io import NoSpaceError

    pool = BufferPoolConfig(capacity=8, buffer_size=4 << 20)
    dataset = RecordDataset(path, dtype="u1", shape=4096, batch_size=16, pool=pool)
    assert sum(len(batch) for batch in dataset) == 64  # in this process alone it needs none
    try:
        kept = list(DataLoader(dataset, num_workers=1))
    except NoSpaceError as error:
        print("--shm-size" in str(error), "/dev/shm" in str(error))
    """
    text = run_program(PROGRAM + SMALL_DEV_SHM + source, folder, CALLS["memfd_create"], "size=3m")
    assert text == "True True\n"


def test_without_memfd_create_and_dev_shm_the_error_names_both(folder, needs_root):
    source = """
    from torch_s3io import AccessError

    os.chmod("/dev/shm", 0o755)
    assert libc.mount(b"none", b"/dev/shm", None, 0x1021, None) == 0  # now read-only
    dataset = RecordDataset(path, dtype="u1", shape=4096, batch_size=16)
    assert sum(len(batch) for batch in dataset) == 64
    from torch_s3io import _C
    try:
        _C.Arena(capacity=1, buffer_size=4096, alignment=4096)
    except AccessError as error:
        text = str(error)
        print(all(word in text for word in ("memfd_create", "seccomp", "/dev/shm")), text)
    """
    text = run_program(PROGRAM + SMALL_DEV_SHM + source, folder, CALLS["memfd_create"], "size=3m")
    assert text.startswith("True")


def test_doctor_names_the_calls_that_are_refused():
    source = """
    from torch_s3io.doctor import system

    for call in sys.argv[2:]:
        forbid_system_call(int(call), 1)
    finding = system.system_calls()
    assert finding.data["refused"] == ["memfd_create", "cachestat"], finding
    assert "/dev/shm" in finding.cost and "page cache" in finding.cost
    print(finding.status, "seccomp" in finding.found)
    """
    calls = CALLS["memfd_create"], CALLS["cachestat"]
    program = "    import sys\n    from programs import forbid_system_call\n"
    assert run_program(program + source, "", *calls) == "costs True\n"
