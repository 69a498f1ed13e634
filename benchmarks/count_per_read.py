"""Counts allocator calls and minor page faults per read, and prints them as JSON.

bench_pool.py runs this program, with the library preloaded that count_allocations.c makes.
"""

from __future__ import annotations

import bisect
import ctypes
import itertools
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import GB, MIB

import torch_s3io as s3io
from torch_s3io import _C

WARM_UP_READS = 50
LENGTHS = (MIB, 8 * MIB)
SHAPES = ((4096, 256), (2_800_000, 4))  # bytes of a record, records per batch

_counting = ctypes.CDLL(None)
_counting.allocation_caller.restype = ctypes.c_uint64


def callers() -> Counter[int]:
    """Allocator calls so far, by return address."""
    address = ctypes.c_size_t()
    counts: Counter[int] = Counter()
    for index in range(_counting.allocation_callers()):
        calls = _counting.allocation_caller(index, ctypes.byref(address))
        if calls:
            counts[address.value] += calls
    return counts


class Symbols:
    """Tells what code an address belongs to."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, str]] = []  # begin, end, library
        for line in Path("/proc/self/maps").read_text().splitlines():
            fields = line.split()
            if len(fields) >= 6:
                begin, end = (int(part, 16) for part in fields[0].split("-"))
                self._ranges.append((begin, end, fields[5]))
        listing = subprocess.run(
            ["nm", "--demangle", "--defined-only", "--numeric-sort", _C.__file__],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        lines = [line.split(maxsplit=2) for line in listing.splitlines()]
        self._starts = [int(line[0], 16) for line in lines]
        self._names = [line[2] for line in lines]

    def owner(self, address: int) -> tuple[str, str]:
        """("core" | "bindings" | "torch" | "other", name of the function or the library)."""
        library = next(
            (name for begin, end, name in self._ranges if begin <= address < end), "unknown"
        )
        if library == _C.__file__:
            base = min(begin for begin, _, name in self._ranges if name == library)
            name = self._names[bisect.bisect_right(self._starts, address - base) - 1]
            outside = any(part in name for part in ("bindings", "pybind11", "at::", "c10::"))
            return ("bindings" if outside else "core"), name
        name = Path(library).name
        return ("torch" if name.startswith(("libtorch", "libc10")) else "other"), name


def count(one_read: Callable[[], Any], reads: int, symbols: Symbols) -> dict[str, Any]:
    """Per read: allocator calls by owner, minor faults; GB/s; and who called in csrc."""
    callers_before = callers()
    faults_before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    _counting.allocation_counting(1)
    start, length = time.perf_counter(), 0
    for _ in range(reads):
        length += one_read().nbytes
    elapsed_s = time.perf_counter() - start
    _counting.allocation_counting(0)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults_before
    calls = {"core": 0.0, "bindings": 0.0, "torch": 0.0, "other": 0.0}
    in_core: Counter[str] = Counter()
    for address, number in (callers() - callers_before).items():
        owner, name = symbols.owner(address)
        calls[owner] += number / reads
        if owner == "core":
            in_core[name] += number
    return {
        **calls,
        "minor_faults": faults / reads,
        "gb_per_s": length / GB / elapsed_s,
        "callers_in_core": {name: number / reads for name, number in in_core.most_common(8)},
    }


def store_reads(path: str, length: int, pooled: bool) -> Iterator[Any]:
    pool = s3io.BufferPoolConfig(capacity=4, buffer_size=length) if pooled else None
    store = s3io.FileStore(s3io.FileSystemConfig(direct_io="require", buffer_pool=pool))
    blocks = Path(path).stat().st_size // length
    offsets = np.random.default_rng(0).integers(0, blocks, 4096) * length
    for offset in itertools.cycle(offsets.tolist()):
        yield store.get_range(path, offset, length)


def batches(path: str, record_bytes: int, batch_size: int, pooled: bool) -> Iterator[Any]:
    dataset = s3io.RecordDataset(
        path,
        dtype=np.uint8,
        shape=(record_bytes,),
        batch_size=batch_size,
        header_bytes=Path(path).stat().st_size % record_bytes,
        direct="require",
        pool="auto" if pooled else None,
    )
    while True:
        yield from dataset


def main() -> None:
    path, rounds, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    readers: dict[str, Iterator[Any]] = {}
    for pooled in (True, False):
        suffix = "with a pool" if pooled else "without"
        for length in LENGTHS:
            name = f"FileStore.get_range, {length // MIB} MiB, {suffix}"
            readers[name] = store_reads(path, length, pooled)
        for record_bytes, batch_size in SHAPES:
            name = f"RecordDataset batch, {record_bytes:,} B x {batch_size}, {suffix}"
            readers[name] = batches(path, record_bytes, batch_size, pooled)
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in readers}
    reads = {}
    for name, reader in readers.items():
        start = time.perf_counter()
        for _ in range(WARM_UP_READS):
            next(reader)
        reads[name] = max(10, int(seconds * WARM_UP_READS / (time.perf_counter() - start)))
    symbols = Symbols()
    for _ in range(rounds):
        for name, reader in readers.items():
            samples[name].append(count(partial(next, reader), reads[name], symbols))
    print(json.dumps(samples))


if __name__ == "__main__":
    main()
