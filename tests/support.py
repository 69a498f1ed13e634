"""What several test files share: what the kernel says of this process, and files with known
bytes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import re
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mappings import shared_mappings
from warm_python import STARTED

from torch_s3io import _C, BufferPoolConfig, FileStore, FileSystemConfig, RecordDataset

DEADLINE_S = 60.0  # longest wait for anything that must happen
QUICK_CONTEXTS = ("fork", "forkserver")  # ways to start a worker
CONTEXTS = (*QUICK_CONTEXTS, "spawn")  # see `worker_count`
MIB = 1 << 20
ENGINES = ["threads"] if _C.uring_unavailable_reason() else ["uring", "threads"]
REFUSES_DIRECT = "/sys/kernel/mm/transparent_hugepage/enabled"  # sysfs has no direct reads

_libc = ctypes.CDLL(None, use_errno=True)


def worker_count(context: str) -> int:
    """A new interpreter for each would take seconds. test_handover and test_late_workers have
    two."""
    return 1 if context == "spawn" else 2


# Files ------------------------------------------------------------------------------------------


def random_bytes(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def write_file(path: Path, data: bytes, *, age_s: float = 100.0) -> Path:
    """Writes a file that looks ``age_s`` old, so that a later change always changes its time."""
    path.write_bytes(data)
    then = time.time_ns() - int(age_s * 1e9)
    os.utime(path, ns=(then, then))
    return path


def write_records(path: Path, count: int, record_bytes: int, seed: int = 0) -> np.ndarray:
    """Writes random records; uint8 [count, record_bytes], what numpy sees in them."""
    data = random_bytes(count * record_bytes, seed)
    write_file(path, data)
    return np.frombuffer(data, np.uint8).reshape(-1, record_bytes)


def make_cold(path: Path) -> None:
    """Drops the file's pages from the page cache; fails if they stay."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert cached_pages(path) == 0, "the page cache keeps this file"


def make_warm(path: Path) -> None:
    path.read_bytes()
    assert cached_pages(path) == -(-path.stat().st_size // mmap.PAGESIZE)


def cached_pages(path: Path) -> int:
    """Pages of the file in the page cache, as mincore(2) says."""
    size = path.stat().st_size
    flags = {"flags": mmap.MAP_PRIVATE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, **flags) as mapping:
        resident = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        anchor = ctypes.c_char.from_buffer(mapping)
        address = ctypes.c_void_p(ctypes.addressof(anchor))
        status = _libc.mincore(address, ctypes.c_size_t(size), resident)
        del anchor
        assert status == 0, os.strerror(ctypes.get_errno())
    return sum(byte & 1 for byte in resident)


def mount_in_memory(folder: Path, options: str, *, again: bool = False) -> str:
    """Mounts a tmpfs, or changes the options of one; why that is not to be had, or nothing."""
    remount = 32  # MS_REMOUNT
    arguments = (b"none", os.fsencode(folder), b"tmpfs", remount if again else 0, options.encode())
    return "" if _libc.mount(*arguments) == 0 else os.strerror(ctypes.get_errno())


def unmount(folder: Path) -> None:
    assert _libc.umount2(os.fsencode(folder), 0) == 0, "files are left open there"


# What is tested ---------------------------------------------------------------------------------


def small_pool(capacity: int) -> BufferPoolConfig:
    return BufferPoolConfig(capacity=capacity, buffer_size=32 * 1024)


def small_batches(path: Path, **options) -> RecordDataset:
    """Batches of 10 records of 1000 bytes, in four small buffers."""
    options = {"batch_size": 10, "pool": small_pool(4), **options}
    return RecordDataset(path, dtype="u1", shape=1000, **options)


def dataset_of_100_bytes(paths, **options) -> RecordDataset:
    return RecordDataset(paths, **{"dtype": "u1", "shape": 100, **options})


def store_with(engine="auto", faults=None, **fields) -> FileStore:
    return FileStore(FileSystemConfig(**fields), engine=engine)._with(faults=faults)


def raise_warnings(_worker: int) -> None:
    """A ``worker_init_fn``: what a worker would warn of is an error."""
    warnings.simplefilter("error")


# Faults, as `_C.FaultPlan` takes them: (errno, short, lost)
SHORT = (0, True, False)
LOST = (0, False, True)
KILLED = -1  # in place of an errno: the process kills itself there
HANGING_CALL = -2  # in by_call; FaultPlan.release() lets go of it
RETRIED = {errno.EINTR, errno.EAGAIN}
ERRNOS = [
    errno.EIO,
    errno.EINTR,
    errno.EAGAIN,
    errno.EINVAL,
    errno.ENOMEM,
    errno.EBADF,
    errno.EFAULT,
    errno.ESTALE,
    errno.ENODATA,
    errno.EOPNOTSUPP,
    errno.ETIMEDOUT,
]


def failing(error_number: int) -> tuple[int, bool, bool]:
    return (error_number, False, False)


def names_errno(error: Exception, error_number: int) -> bool:
    names = (os.strerror(error_number), errno.errorcode[error_number])
    return any(name in str(error) for name in names)


def bytes_until(epoch: dict, end_s: float) -> float:
    """What the throughput over time adds up to until then, one of the begins or the end."""
    timeline = epoch["timeline"]
    ends_s = [*timeline["begin_s"][1:], epoch["wall_s"]]
    pieces = zip(timeline["begin_s"], ends_s, timeline["gb_per_s"], strict=True)
    return sum((end - begin) * speed * 1e9 for begin, end, speed in pieces if end <= end_s)


# What the kernel says of this process -----------------------------------------------------------


def open_files() -> dict[int, str]:
    """Number and target of every open file descriptor, but for those of `warm_python`."""
    targets = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            targets[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    for warm in STARTED.values():
        targets.pop(warm.fileno(), None)
    return {fd: target for fd, target in targets.items() if not target.startswith("/proc/")}


def says_what_is_cached(fd):
    """cachestat(2) of the first page."""
    where, answer = (ctypes.c_uint64 * 2)(0, 4096), (ctypes.c_uint64 * 5)()
    return ctypes.CDLL(None).syscall(451, fd, where, answer, 0) == 0


def is_direct(fd: int) -> bool:
    """Whether the descriptor is open with O_DIRECT."""
    info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    match = re.search(r"^flags:\s*([0-7]+)$", info, re.MULTILINE)
    assert match, info
    return bool(int(match[1], 8) & os.O_DIRECT)


def rings() -> list[int]:
    """Descriptors of io_uring instances."""
    return [fd for fd, target in open_files().items() if "io_uring" in target]


def ring_info(ring: int) -> str:
    """What the kernel says of an io_uring instance; it says nothing while the ring is at work."""
    deadline = time.monotonic() + DEADLINE_S
    while "SqMask" not in (info := Path(f"/proc/self/fdinfo/{ring}").read_text()):
        assert time.monotonic() < deadline, "the ring is always at work"
        os.sched_yield()
    return info


def registered_buffers(ring: int) -> int:
    return len(re.findall(r"^\s*\d+: 0x[0-9a-f]+/\d+$", ring_info(ring), re.MULTILINE))


def ring_entries(ring: int) -> int:
    """Requests that fit into the ring's submission queue."""
    match = re.search(r"^SqMask:\s*0x([0-9a-f]+)$", ring_info(ring), re.MULTILINE)
    assert match
    return int(match[1], 16) + 1


def threads() -> dict[int, str]:
    """Number and name of every thread of this process, without the kernel's own io_uring workers
    and what has ended."""
    found = {}
    for name in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = Path(f"/proc/self/task/{name}/status").read_text()
            comm = re.search(r"^Name:\s*(.*)$", status, re.MULTILINE)
            ended = re.search(r"^State:\s*[ZX]", status, re.MULTILINE)
            if comm and not comm[1].startswith("iou-") and not ended:
                found[int(name)] = comm[1]
    return found


def pool_mappings() -> list[tuple[int, int]]:
    """Address ranges [begin, end) of the mappings of buffer pools."""
    return [(one.begin, one.end) for one in shared_mappings() if "memfd:torch_s3io" in one.name]


def lies_in_a_pool(tensor: torch.Tensor) -> bool:
    begin = tensor.data_ptr()
    last = (tensor[-1] if tensor.ndim > 1 else tensor)[-1:].data_ptr()
    return any(low <= begin and last < high for low, high in pool_mappings())


def device_bytes() -> int:
    """Bytes that this process has caused to be read from a device."""
    match = re.search(r"^read_bytes: (\d+)$", Path("/proc/self/io").read_text(), re.MULTILINE)
    assert match
    return int(match[1])


def holds_soon(condition) -> bool:
    """Looks again until the condition holds, within a bound: threads end after the join."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def end_workers(batches: Any) -> None:
    """Ends the workers of torch's iterator now: as garbage of an error they take torch 5 s each."""
    if hasattr(batches, "_shutdown_workers"):
        batches._shutdown_workers()
