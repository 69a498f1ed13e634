"""The data file and its place in the page cache; the machine it lies on."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

import torch_s3io

MIB = 1 << 20
GIB = 1 << 30
_WRITE_BYTES = 64 * MIB

Item = TypeVar("Item")


def progress(items: Iterable[Item], total: int, text: str) -> Iterator[Item]:
    """The items, with a progress bar on a terminal where tqdm is installed."""
    if not sys.stderr.isatty():
        return iter(items)
    try:
        from tqdm import tqdm
    except ImportError:
        print(f"{text} ...", file=sys.stderr, flush=True)
        return iter(items)
    return iter(tqdm(items, total=total, desc=text, leave=False))


def data_file(folder: Path, size_gib: float, seed: int = 0) -> Path:
    """A file of seeded random bytes, which no device can compress; written if it is not there."""
    size_bytes = int(size_gib * GIB) // MIB * MIB
    path = folder / f"random-{size_bytes // MIB}MiB-seed{seed}.bin"
    if path.exists() and path.stat().st_size == size_bytes:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.Generator(np.random.SFC64(seed))
    partial = path.with_suffix(".partial")
    blocks = range(0, size_bytes, _WRITE_BYTES)
    with partial.open("wb") as file:
        for begin in progress(blocks, len(blocks), f"writing {path}, 64 MiB blocks"):
            file.write(random.bytes(min(_WRITE_BYTES, size_bytes - begin)))
        os.fsync(file.fileno())
    return partial.rename(path)


def cached_share(path: Path) -> float:
    """Share of the file that is in the page cache, by mincore."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
        pages = -(-len(mapped) // mmap.PAGESIZE)
        resident = np.zeros(pages, np.uint8)
        anchor = ctypes.c_char.from_buffer(mapped)
        status = libc.mincore(
            ctypes.c_void_p(ctypes.addressof(anchor)),
            ctypes.c_size_t(len(mapped)),
            ctypes.c_void_p(resident.ctypes.data),
        )
        del anchor
        if status != 0:
            raise OSError(ctypes.get_errno(), "mincore")
    return float(np.mean(resident & 1))


def drop_from_cache(path: Path) -> str:
    """Drops the file from the page cache; says how much of it is left there."""
    with path.open("rb") as file:
        os.fsync(file.fileno())  # dirty pages cannot be dropped
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return cache_state(path)


def bring_into_cache(path: Path) -> str:
    buffer = bytearray(MIB)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return cache_state(path)


def cache_state(path: Path) -> str:
    return f"{cached_share(path):.1%} of the file is in the page cache"


def machine(folder: Path) -> dict[str, str]:
    """Processor, memory, kernel, and the file system and device below `folder`."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.split(":")[1].strip() for line in cpuinfo.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{memory / GIB:.0f} GiB",
        "kernel": platform.release(),
        "storage": _storage(folder),
        "software": f"torch_s3io {torch_s3io.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }


def _storage(folder: Path) -> str:
    device = folder.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    kind = "unknown file system"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, source = line.partition(" - ")
        if fields.split()[2] == name:
            kind = source.split()[0]
    block = Path("/sys/dev/block") / name
    if not block.exists():
        return f"{kind}, no block device"
    queue = next((at / "queue" for at in (block.resolve(), block.resolve().parent)
                  if (at / "queue").exists()), None)  # fmt: skip
    scheduler = (queue / "scheduler").read_text().split("[")[-1].split("]")[0] if queue else "?"
    readahead = (queue / "read_ahead_kb").read_text().strip() if queue else "?"
    return (
        f"{kind} on {block.resolve().name}, I/O scheduler {scheduler.strip()}, "
        f"readahead {readahead} KiB"
    )
