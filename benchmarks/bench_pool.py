"""Buffers of a pool against allocating them, and what a read costs with either.

The first table takes and gives back buffers, against allocating and freeing the same aligned ones;
both write one byte per 4 KiB page of every buffer. The second counts, per read, calls of the
allocator (by a preloaded library) and minor page faults (getrusage), with a pool and without.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import (
    MIB,
    Report,
    Sample,
    argument_parser,
    data_file,
    drop_from_cache,
    in_rounds,
    machine,
    parse,
    ratios,
    spread,
    values,
)

import torch_s3io as s3io
from torch_s3io import _C

SIZES = (64 << 10, MIB, 8 * MIB, 64 * MIB)
HELD = (1, 4)  # buffers that are in use at the same time
ALIGNMENT = 4096
OWNERS = ("core", "bindings", "torch", "other")
FOLDER = Path(__file__).parent


def nanoseconds_per_buffer(work: Callable[..., None], seconds: float) -> Sample:
    rounds = 16
    while True:
        start = time.perf_counter_ns()
        work(rounds=rounds)
        elapsed_ns = time.perf_counter_ns() - start
        if elapsed_ns >= seconds * 1e9 / 2:
            return {"ns": elapsed_ns / rounds}
        rounds *= 2


def bench_take_give(report: Report, args: Namespace) -> None:
    title = "Pool: take and give against allocate and free, touched"
    if not report.wants(title):
        return
    rows, all_samples = [], {}
    for size in SIZES:
        for held in HELD:
            config = s3io.BufferPoolConfig(capacity=held + 1, buffer_size=size, alignment=ALIGNMENT)
            pool = s3io.BufferPool(config)

            take_give = partial(_C.benchmark_take_give, pool, held=held)
            allocate_free = partial(
                _C.benchmark_allocate_free, size, alignment=ALIGNMENT, held=held
            )
            contestants = {
                "pool": partial(nanoseconds_per_buffer, take_give, args.seconds / 4),
                "allocator": partial(nanoseconds_per_buffer, allocate_free, args.seconds / 4),
            }
            name = f"{size >> 10:,} KiB, {held} at a time"
            samples = in_rounds(contestants, args.rounds, name)
            all_samples[name] = samples
            rows.append(
                [name]
                + [spread(values(runs, "ns"), ",.0f") for runs in samples.values()]
                + [spread(ratios(samples["allocator"], samples["pool"], "ns"), ",.1f", "x")]
            )
    note = (
        "Time per buffer: make it, write a byte to each of its 4 KiB pages, drop it. The allocator "
        "is AlignedBuf::allocate: aligned_alloc, and MADV_HUGEPAGE from 2 MiB on."
    )
    columns = ["buffers", "take + give, ns", "allocate + free, ns", "faster by"]
    report.table(title, note, columns, rows, all_samples)


def bench_reads(report: Report, path: Path, args: Namespace) -> None:
    title = "Allocator calls and page faults per read"
    if not report.wants(title):
        return
    for tool in ("cc", "nm"):
        if shutil.which(tool) is None:
            print(f"\n{tool} is not installed: the table of allocator calls is left out")
            return
    state = drop_from_cache(path)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "count_allocations.so"
        source = FOLDER / "count_allocations.c"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
        command = [
            sys.executable,
            FOLDER / "count_per_read.py",
            path,
            args.rounds,
            args.seconds / 4,
        ]
        result = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, "LD_PRELOAD": str(library)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    all_samples = json.loads(result.stdout)
    rows = [
        [name]
        + [spread(values(runs, owner)) for owner in OWNERS]
        + [spread(values(runs, "minor_faults"), ",.2f"), spread(values(runs, "gb_per_s"))]
        for name, runs in all_samples.items()
    ]
    note = (
        "Direct reads, after a warm-up. Calls of malloc and its like and of operator new per read, "
        "by the code that calls: csrc below the bindings, the bindings, torch's libraries, all "
        f"others (Python). {state}."
    )
    columns = ["read", "core", "bindings", "torch", "others", "minor faults", "GB/s"]
    report.table(title, note, columns, rows, all_samples)
    for name, runs in all_samples.items():
        for function, calls in runs[-1]["callers_in_core"].items():
            print(f"{'- ' if args.markdown else '    '}{name}: {calls:.2f} in `{function[:120]}`")


def main() -> None:
    args = parse(argument_parser(__doc__))
    path = data_file(args.data, args.size_gib)
    report = Report(args, machine(args.data))
    bench_take_give(report, args)
    bench_reads(report, path, args)
    report.save()


if __name__ == "__main__":
    main()
