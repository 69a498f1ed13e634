"""Writing a new file, its fsync included, against fio's sequential direct writes; and packing.

Blocks of 1 MiB, eight in flight, on both sides. A disk may be slower to take bytes that a processor
has just changed, and from more memory. So what goes out from where it lies, the same bytes again
and again, is compared with fio that leaves its buffers as they are; what is copied, with fio as it
is by default, when it changes a buffer before every write; and what is written from 64 MiB also
with fio that writes from as much. Ours also creates a temporary file, renames it and syncs its
folder, and computes the checksum where a row says so. Packing reads a file from the device as well,
as dd and cp do. SampleWriter is compared with RecordWriter, which writes the same bytes.
Contestants take turns; ratios are taken within each round.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
import subprocess
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
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
    SampleWriter,
    cli,
)

BLOCK_BYTES, DEPTH = MIB, 8
SOURCE_BYTES = 64 * MIB
RECORD_BYTES, PACKED_RECORD_BYTES = 114_660, 4096
BATCH_RECORDS = 64
SAMPLE_BYTES = (1000, 110_000, 1_000_000)
SAMPLE_BATCH_BYTES = 32_000_000
POOL = BufferPoolConfig(capacity=2, buffer_size=10 * MIB)
FROM_64_MIB = "aligned memory, 64 MiB"
FIO, FIO_UNCHANGED = "fio", "fio, bytes unchanged"
FIO_FROM_64_MIB = "fio, bytes unchanged, from 64 MiB"


def source() -> torch.Tensor:
    """Random bytes on huge pages, as a batch of a data set lies in memory."""
    pool = BufferPool(BufferPoolConfig(capacity=1, buffer_size=SOURCE_BYTES))
    buffer: torch.Tensor = pool.take().tensor()
    buffer.numpy()[:] = np.frombuffer(np.random.default_rng(0).bytes(SOURCE_BYTES), np.uint8)
    return buffer


def write_file(
    path: Path, chunks: Iterator[torch.Tensor], size_bytes: int, checksum: bool, copy: bool = True
) -> Sample:
    """Writes chunk after chunk, until the file has its size."""
    store = FileStore(FileSystemConfig(checksum_writes=checksum, buffer_pool=POOL))
    path.unlink(missing_ok=True)

    def work() -> tuple[int, float]:
        start = time.perf_counter()
        with store.writer(path, size_bytes=size_bytes) as writer:
            while writer.size_bytes < size_bytes:
                writer.write(next(chunks), copy=copy)
        return writer.size_bytes, time.perf_counter() - start

    sample = measured(work)
    path.unlink()
    if not copy and store.stats()["write_copied_bytes"] > 0:
        raise RuntimeError("aligned buffers were copied")
    return sample


def buffers_of_a_pool() -> Iterator[torch.Tensor]:
    """Endless, of as many as fio has, and one at hand while those are in flight."""
    pool = BufferPool(BufferPoolConfig(capacity=DEPTH + 1, buffer_size=BLOCK_BYTES))
    held = [pool.take().tensor() for _ in range(DEPTH + 1)]
    for buffer in held:
        buffer.numpy()[:] = np.frombuffer(np.random.default_rng(0).bytes(BLOCK_BYTES), np.uint8)
    del held, buffer
    return (pool.take().tensor() for _ in itertools.count())


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


Contestants = dict[str, Callable[[], Sample]]


def contestants(folder: Path, size_bytes: int) -> tuple[Contestants, Contestants]:
    """Those that write from where the bytes lie, and those that copy them."""
    memory = source()
    path = folder / "written.bin"
    as_fio = memory[: DEPTH * BLOCK_BYTES]
    odd = list(memory[64 : 64 + (DEPTH - 1) * MIB].split(MIB))  # not aligned
    rows = memory[: SOURCE_BYTES // RECORD_BYTES * RECORD_BYTES].view(-1, RECORD_BYTES)
    write = partial(write_file, path, size_bytes=size_bytes)
    write_rows = partial(write_records, folder / "records", size_bytes=size_bytes)
    in_place: Contestants = {
        "buffers of a pool, 1 MiB, copy=False": partial(
            write, buffers_of_a_pool(), checksum=False, copy=False
        ),
        "buffers of a pool, checksum": partial(
            write, buffers_of_a_pool(), checksum=True, copy=False
        ),
        "aligned memory, 8 MiB": partial(write, itertools.repeat(as_fio), checksum=False),
        "aligned memory, 8 MiB, checksum": partial(write, itertools.repeat(as_fio), checksum=True),
        FROM_64_MIB: partial(write, itertools.repeat(memory), checksum=False),
    }
    copied: Contestants = {
        "chunks of 1 MiB, copied": partial(write, itertools.cycle(odd), checksum=False),
        "chunks of 1 MiB, copied, checksum": partial(write, itertools.cycle(odd), checksum=True),
        f"RecordWriter, {BATCH_RECORDS} x 114,660 B": partial(write_rows, rows[:BATCH_RECORDS]),
        f"RecordWriter, {len(rows)} x 114,660 B": partial(write_rows, rows),
    }
    return in_place, copied


def bench_against_fio(report: Report, args: Namespace) -> None:
    title = "Writer against fio: a new file, direct, with fsync"
    if not report.wants(title):
        return
    if not fio.version():
        print("\nfio is not installed (Debian, Ubuntu: apt install fio): its table is left out")
        return
    size_bytes = int(args.size_gib * GIB) // 4 // SOURCE_BYTES * SOURCE_BYTES
    in_place, copied = contestants(args.data, size_bytes)
    with fio.huge_page_options(args.reserve_hugepages) as (huge, about_pages):

        def by_fio(block_bytes: int, changing: bool) -> Sample:
            path = args.data / "fio.bin"
            return fio.sequential_writes(path, block_bytes, DEPTH, size_bytes, huge, changing)

        rivals = {
            FIO: partial(by_fio, BLOCK_BYTES, changing=True),
            FIO_UNCHANGED: partial(by_fio, BLOCK_BYTES, changing=False),
            FIO_FROM_64_MIB: partial(by_fio, SOURCE_BYTES // DEPTH, changing=False),
        }
        samples = in_rounds({**in_place, **copied, **rivals}, args.rounds, "writing")
    pairs = [(name, FIO_UNCHANGED) for name in in_place]
    pairs += [(FROM_64_MIB, FIO_FROM_64_MIB), *((name, FIO) for name in copied)]
    rows = [
        [
            ours,
            rival,
            *(spread(values(samples[one], "gb_per_s")) for one in (ours, rival)),
            spread(ratios(samples[ours], samples[rival], "gb_per_s"), unit="x"),
            *(spread(values(samples[one], "cpu_s_per_gb"), ".3f") for one in (ours, rival)),
        ]
        for ours, rival in pairs
    ]
    note = (
        f"{fio.version()} --rw=write --ioengine=io_uring --direct=1 --bs=1M --iodepth=8 "
        "--fallocate=native --end_fsync=1; bytes unchanged: --scramble_buffers=0; from 64 MiB: "
        "--bs=8M, so all of that in flight. "
        f"{about_pages}. Files of {size_bytes / 1e9:.2f} GB. CPU seconds are of the whole process, "
        "the kernel's io_uring workers included; fio's without those of starting. Checksums by "
        f"{torch_s3io._C.crc32c_method()}; RecordWriter computes them always."
    )
    columns = ["ours", "rival", "GB/s", "rival GB/s", "throughput ratio"]
    report.table(title, note, [*columns, "CPU s/GB", "rival CPU s/GB"], rows, samples)


def write_samples(
    folder: Path, fields: dict[str, object], write: Callable[[SampleWriter], None], size_bytes: int
) -> Sample:
    """A data set of samples, in shards of 256 MiB; ``write`` writes a batch of so many bytes."""

    def work() -> tuple[int, float]:
        start = time.perf_counter()
        with SampleWriter(folder, fields=fields) as writer:
            for _ in range(size_bytes // SAMPLE_BATCH_BYTES):
                write(writer)
        return size_bytes // SAMPLE_BATCH_BYTES * SAMPLE_BATCH_BYTES, time.perf_counter() - start

    sample = measured(work)
    shutil.rmtree(folder)
    return sample


def write_rows(folder: Path, rows: np.ndarray, size_bytes: int) -> Sample:
    """The same bytes as records, as many at once."""

    def work() -> tuple[int, float]:
        start = time.perf_counter()
        with RecordWriter(folder, dtype="u1", shape=rows.shape[1]) as writer:
            for _ in range(size_bytes // rows.nbytes):
                writer.write(rows)
        return size_bytes // rows.nbytes * rows.nbytes, time.perf_counter() - start

    sample = measured(work)
    shutil.rmtree(folder)
    return sample


def sample_contestants(folder: Path, sample_bytes: int, size_bytes: int) -> Contestants:
    count = SAMPLE_BATCH_BYTES // sample_bytes
    batch = np.frombuffer(np.random.default_rng(0).bytes(count * sample_bytes), np.uint8)
    rows = batch.reshape(count, sample_bytes)
    data, numbers = [row.tobytes() for row in rows], list(range(count))
    samples = [{"data": one, "label": number} for one, number in zip(data, numbers, strict=True)]
    fields: dict[str, object] = {"data": bytes, "label": np.int64}
    ragged = {"data": rows, "label": np.arange(count)}

    def one_by_one(writer: SampleWriter) -> None:
        for sample in samples:
            writer.write(sample)

    ways: dict[str, Callable[[SampleWriter], None]] = {
        "write_batch, arrays": lambda writer: writer.write_batch(ragged),
        "write_batch, lists": lambda writer: writer.write_batch({"data": data, "label": numbers}),
        "write_batch, dicts": lambda writer: writer.write_batch(samples),
        "write, one by one": one_by_one,
    }
    made: Contestants = {
        f"{sample_bytes:,} B: {name}": partial(write_samples, folder, fields, write, size_bytes)
        for name, write in ways.items()
    }
    return {
        f"{sample_bytes:,} B: RecordWriter": partial(write_rows, folder, rows, size_bytes),
        **made,
    }


def bench_samples(report: Report, args: Namespace) -> None:
    title = "SampleWriter against RecordWriter: samples of one size"
    if not report.wants(title):
        return
    size_bytes = max(SAMPLE_BATCH_BYTES, int(args.size_gib * GIB) // 8)
    samples: dict[str, list[Sample]] = {}
    rows = []
    for sample_bytes in SAMPLE_BYTES:
        contestants = sample_contestants(args.data / "samples", sample_bytes, size_bytes)
        rival, *ours = contestants
        samples |= in_rounds(contestants, args.rounds, f"writing samples of {sample_bytes:,} bytes")
        rows += [
            [
                one,
                *(spread(values(samples[name], "gb_per_s")) for name in (one, rival)),
                spread(ratios(samples[one], samples[rival], "gb_per_s"), unit="x"),
                *(spread(values(samples[name], "cpu_s_per_gb"), ".3f") for name in (one, rival)),
            ]
            for one in ours
        ]
    note = (
        f"{size_bytes / 1e9:.2f} GB of samples of one field of bytes and a label, in batches of "
        f"{SAMPLE_BATCH_BYTES / 1e6:.0f} MB; RecordWriter writes the same bytes, without labels, "
        "from arrays of as many records. Each sample and each file has a checksum."
    )
    columns = ["samples", "GB/s", "RecordWriter GB/s", "throughput ratio", "CPU s/GB"]
    report.table(title, note, [*columns, "RecordWriter CPU s/GB"], rows, samples)


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
    args.data.mkdir(parents=True, exist_ok=True)
    report = Report(args, machine(args.data))
    bench_against_fio(report, args)
    bench_samples(report, args)
    bench_pack(report, args)
    report.save()


if __name__ == "__main__":
    main()
