"""Writing a new file, its fsync included, against fio's sequential direct writes; and packing.

Blocks of 1 MiB, eight in flight, on both sides. Ours also creates a temporary file, renames it and
syncs its folder, and computes the checksum where a row says so. Packing reads a file from the
device as well, as dd and cp do. Contestants take turns; ratios are taken within each round.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fio
import numpy as np
import torch
from common import (
    GIB,
    MIB,
    Report,
    Sample,
    argument_parser,
    drop_from_cache,
    in_rounds,
    machine,
    measured,
    parse,
    ratios,
    spread,
    values,
)

import torch_s3io
from torch_s3io import (
    BufferPool,
    BufferPoolConfig,
    FileStore,
    FileSystemConfig,
    RecordWriter,
    cli,
)

BLOCK_BYTES, DEPTH = MIB, 8
SOURCE_BYTES = 64 * MIB
RECORD_BYTES, PACKED_RECORD_BYTES = 114_660, 4096
POOL = BufferPoolConfig(capacity=2, buffer_size=8 * MIB)


def source() -> torch.Tensor:
    """Random bytes on huge pages, as a batch of a data set lies in memory."""
    buffer = BufferPool(BufferPoolConfig(capacity=1, buffer_size=SOURCE_BYTES)).take().tensor()
    buffer.numpy()[:] = np.frombuffer(np.random.default_rng(0).bytes(SOURCE_BYTES), np.uint8)
    return buffer


def write_file(path: Path, chunks: list[torch.Tensor], size_bytes: int, checksum: bool) -> Sample:
    """Writes the chunks again and again, until the file has its size."""
    store = FileStore(FileSystemConfig(checksum_writes=checksum, buffer_pool=POOL))
    path.unlink(missing_ok=True)

    def work() -> tuple[int, float]:
        start = time.perf_counter()
        with store.writer(path, size_bytes=size_bytes) as writer:
            while writer.size_bytes < size_bytes:
                for chunk in chunks:
                    writer.write(chunk)
        return writer.size_bytes, time.perf_counter() - start

    sample = measured(work)
    path.unlink()
    return sample


def write_records(folder: Path, rows: torch.Tensor, size_bytes: int) -> Sample:
    """A data set of padded records, in shards of 256 MiB."""

    def work() -> tuple[int, float]:
        start = time.perf_counter()
        with RecordWriter(folder, dtype="u1", shape=RECORD_BYTES) as writer:
            while writer.num_records * RECORD_BYTES < size_bytes:
                writer.write(rows)
        return writer.num_records * RECORD_BYTES, time.perf_counter() - start

    sample = measured(work)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return sample


def contestants(folder: Path, size_bytes: int) -> dict[str, Callable[[], Sample]]:
    buffer = source()
    small = list(buffer[64 : 64 + 32 * MIB].split(MIB))  # not aligned: copied
    rows = buffer[: SOURCE_BYTES // RECORD_BYTES * RECORD_BYTES].view(-1, RECORD_BYTES)
    path = folder / "written.bin"
    as_fio = buffer[: DEPTH * BLOCK_BYTES]  # as much memory as fio writes from
    return {
        "aligned memory, 8 MiB": partial(write_file, path, [as_fio], size_bytes, False),
        "aligned memory, 64 MiB": partial(write_file, path, [buffer], size_bytes, False),
        "aligned memory, 64 MiB, checksum": partial(write_file, path, [buffer], size_bytes, True),
        "chunks of 1 MiB, copied": partial(write_file, path, small, size_bytes, False),
        "chunks of 1 MiB, copied, checksum": partial(write_file, path, small, size_bytes, True),
        "RecordWriter, 114,660 B records": partial(
            write_records, folder / "records", rows, size_bytes
        ),
    }


def bench_against_fio(report: Report, args: Namespace) -> None:
    title = "Writer against fio: a new file, direct, with fsync"
    if not report.wants(title):
        return
    if not fio.version():
        print("\nfio is not installed (Debian, Ubuntu: apt install fio): its table is left out")
        return
    args.data.mkdir(parents=True, exist_ok=True)
    size_bytes = int(args.size_gib * GIB) // 4 // SOURCE_BYTES * SOURCE_BYTES
    ours = contestants(args.data, size_bytes)
    with fio.huge_page_options(args.reserve_hugepages) as (huge, about_pages):
        rival = partial(
            fio.sequential_writes, args.data / "fio.bin", BLOCK_BYTES, DEPTH, size_bytes, huge
        )
        samples = in_rounds({**ours, "fio": rival}, args.rounds, "writing")
    rows = [
        [
            name,
            *(spread(values(samples[one], "gb_per_s")) for one in (name, "fio")),
            spread(ratios(samples[name], samples["fio"], "gb_per_s"), unit="x"),
            *(spread(values(samples[one], "cpu_s_per_gb"), ".3f") for one in (name, "fio")),
        ]
        for name in ours
    ]
    note = (
        f"{fio.version()} --rw=write --ioengine=io_uring --direct=1 --bs=1M --iodepth=8 "
        f"--fallocate=native --end_fsync=1. {about_pages}. Files of {size_bytes / 1e9:.2f} GB. CPU "
        "seconds are of the whole process, the kernel's io_uring workers included; fio's without "
        f"those of starting. Checksums by {torch_s3io._C.crc32c_method()}."
    )
    columns = ["ours", "GB/s", "fio GB/s", "throughput ratio", "CPU s/GB", "fio CPU s/GB"]
    report.table(title, note, columns, rows, samples)


def write_npy(path: Path, size_bytes: int) -> None:
    """Records of 4 KiB, random."""
    random = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(
        path,
        mode="w+",
        dtype=np.uint8,
        shape=(size_bytes // PACKED_RECORD_BYTES, PACKED_RECORD_BYTES),
    )
    for part in np.array_split(rows, max(1, size_bytes // SOURCE_BYTES)):
        part[:] = np.frombuffer(random.bytes(part.nbytes), np.uint8).reshape(part.shape)
    rows.flush()


def copied(path: Path, target: Path, copy: Callable[[], object]) -> Sample:
    """One run, from a cold page cache until all is on the device."""
    remove(target)
    drop_from_cache(path)

    def work() -> tuple[int, float]:
        start = time.perf_counter()
        copy()
        return path.stat().st_size, time.perf_counter() - start

    sample = measured(work)
    remove(target)
    return sample


def remove(target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)


def pack(path: Path, folder: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = cli.main(["pack", str(path), "--output", str(folder)])
    if status != 0:
        raise RuntimeError(f"pack {path} failed")


def bench_pack(report: Report, args: Namespace) -> None:
    title = "pack against dd: a .npy file, from the device to the device"
    if not report.wants(title):
        return
    args.data.mkdir(parents=True, exist_ok=True)
    path, file, folder = (args.data / name for name in ("pack.npy", "copy.npy", "packed"))
    write_npy(path, int(args.size_gib * GIB) // 4)
    dd = ["dd", f"if={path}", f"of={file}", "bs=8M", "iflag=direct", "oflag=direct", "conv=fsync"]
    cp = ["sh", "-c", 'cp --reflink=never "$0" "$1" && sync "$1"', str(path), str(file)]
    run = partial(subprocess.run, check=True, capture_output=True)
    contestants = {
        "pack": partial(copied, path, folder, partial(pack, path, folder)),
        "dd, direct, 8 MiB": partial(copied, path, file, partial(run, dd)),
        "cp, sync": partial(copied, path, file, partial(run, cp)),
    }
    try:
        samples = in_rounds(contestants, args.rounds, "packing")
    finally:
        for left in (path, file, folder):
            remove(left)
    rows = [
        [
            name,
            spread(values(runs, "gb_per_s")),
            spread(ratios(samples["pack"], runs, "gb_per_s"), unit="x"),
            spread(values(runs, "cpu_s_per_gb"), ".3f"),
        ]
        for name, runs in samples.items()
    ]
    note = (
        f"{int(args.size_gib * GIB) // 4 / 1e9:.2f} GB of 4 KiB records, dropped from the page "
        "cache before every run, two processes where there are two processors; pack also computes "
        "checksums. Starting Python and importing torch, 1-2 s, is not in it."
    )
    report.table(title, note, ["what", "GB/s", "pack / it", "CPU s/GB"], rows, samples)


def main() -> None:
    args = parse(argument_parser(__doc__), min_gib=0.25)
    report = Report(args, machine(args.data.parent))
    bench_against_fio(report, args)
    bench_pack(report, args)
    report.save()


if __name__ == "__main__":
    main()
