"""Small records in random order: against fio, against what PyTorch users write, and how soon.

- Batches of 4 KiB records read directly, fully shuffled and in random blocks, against fio's random
  and sequential reads.
- A whole first epoch, fully shuffled, from a cold page cache, of a set that fits in memory; and how
  long it takes to bring the set into the page cache, in the file's order.
- A whole epoch of records that are mixed within windows of blocks, as of a set that does not.
- The time to the first batch, from making the data set on, at the start of an epoch and after
  resuming at its last percent, with a billion records.

Contestants take turns; ratios are taken within each round.
"""

from __future__ import annotations

import itertools
import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import fio
import numpy as np
import torch
from common import (
    MIB,
    Report,
    Sample,
    argument_parser,
    data_file,
    drop_from_cache,
    engine_reads,
    in_rounds,
    machine,
    measured,
    parse,
    ratios,
    spread,
    values,
)
from torch.utils.data import DataLoader, Dataset, RandomSampler

import torch_s3io as s3io
from torch_s3io.order.record_order import default_block_records
from torch_s3io.store.file_access import FileAccess
from torch_s3io.store.stores import store_of

RECORD_BYTES, BATCH_SIZE = 4096, 256
WARM_UP_BATCHES = 64
BILLION = 1_000_000_000


def dataset_of(path: Path, **options: Any) -> s3io.RecordDataset:
    return s3io.RecordDataset(
        path, dtype=np.uint8, shape=RECORD_BYTES, batch_size=BATCH_SIZE, **options
    )


# ---- Against fio.


def for_seconds(dataset: s3io.RecordDataset, seconds: float) -> tuple[int, float]:
    """Batches for so long, epoch after epoch, after a warm-up, without looking into them."""
    batches: Iterator[torch.Tensor] = itertools.chain.from_iterable(itertools.repeat(dataset))
    for _ in itertools.islice(batches, WARM_UP_BATCHES):
        pass
    count, start = 0, time.perf_counter()
    for batch in batches:
        count += batch.nbytes
        elapsed_s = time.perf_counter() - start
        if elapsed_s >= seconds:
            break
    return count, elapsed_s


def direct_sample(path: Path, seconds: float, **options: Any) -> Sample:
    dataset = dataset_of(path, direct="require", **options)
    return measured(partial(for_seconds, dataset, seconds))


def bench_against_fio(report: Report, path: Path, args: Namespace) -> None:
    title = "Shuffled batches against fio: 4 KiB records, direct reads"
    if not report.wants(title):
        return
    if not fio.version():
        print("\nfio is not installed (Debian, Ubuntu: apt install fio): its table is left out")
        return
    # A virtual disk is slow for blocks that its host has not read lately: read all of them first.
    engine_reads(path, MIB, 8, seconds=3 * path.stat().st_size / 1e9, sequential=True)
    state = drop_from_cache(path)
    rows, all_samples = [], {}
    with fio.huge_page_options(args.reserve_hugepages) as (huge, about_pages):
        for depth in (32, 64):
            name = f"shuffle=True, depth {depth}"
            rival = partial(fio.random_reads, path, RECORD_BYTES, depth, args.seconds, 1, huge)
            ours = partial(direct_sample, path, args.seconds, shuffle=True, depth=depth)
            samples = in_rounds({"ours": ours, "fio": rival}, args.rounds, name)
            all_samples[name] = samples
            rows.append(row(name, f"random 4 KiB, depth {depth}", samples))
        for block in (16, 32, 64):
            name = f"shuffle='block', {block * RECORD_BYTES >> 10} KiB"
            rival = partial(fio.sequential_reads, path, MIB, 8, args.seconds, huge)
            ours = partial(direct_sample, path, args.seconds, shuffle="block", block_records=block)
            samples = in_rounds({"ours": ours, "fio": rival}, args.rounds, name)
            all_samples[name] = samples
            rows.append(row(name, "sequential 1 MiB, depth 8", samples))
    block_bytes = store_of(str(path)).block_bytes
    note = (
        f"Batches of {BATCH_SIZE}, num_workers=0, direct='require', no byte touched. "
        f"{fio.version()} --ioengine=io_uring --direct=1. {about_pages}. {state}. "
        f"The default block is {default_block_records(RECORD_BYTES, block_bytes)} records."
    )
    columns = ["order", "fio", "GB/s", "fio GB/s", "throughput ratio", "CPU s/GB", "fio CPU s/GB"]
    report.table(title, note, columns, rows, all_samples)


def row(name: str, rival: str, samples: dict[str, list[Sample]]) -> list[str]:
    ours, theirs = samples["ours"], samples["fio"]
    return [
        name,
        rival,
        *(spread(values(runs, "gb_per_s"), ".3f") for runs in (ours, theirs)),
        spread(ratios(ours, theirs, "gb_per_s"), unit="x"),
        *(spread(values(runs, "cpu_s_per_gb")) for runs in (ours, theirs)),
    ]


# ---- The first epoch, cold.


class MemmapRecords(Dataset[torch.Tensor]):
    """A map-style data set over numpy.memmap."""

    def __init__(self, path: Path) -> None:
        self.rows = np.memmap(path, np.uint8, mode="r").reshape(-1, RECORD_BYTES)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.from_numpy(self.rows[number].copy())


class MemmapBatches(MemmapRecords):
    """The same, at its best: whole batches, indexed by the array itself."""

    def __getitems__(self, numbers: list[int]) -> torch.Tensor:
        return torch.from_numpy(self.rows[numbers])  # indexing by a list copies


class PreadRecords(Dataset[torch.Tensor]):
    """A map-style data set that reads record by record."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        self._count = path.stat().st_size // RECORD_BYTES

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> torch.Tensor:
        data = bytearray(os.pread(self._fd, RECORD_BYTES, number * RECORD_BYTES))
        return torch.frombuffer(data, dtype=torch.uint8)

    def __del__(self) -> None:
        os.close(self._fd)


def as_it_is(batch: Any) -> Any:
    return batch


def shuffled_by_torch(dataset: Dataset[torch.Tensor], **options: Any) -> Iterable[torch.Tensor]:
    sampler = RandomSampler(dataset)  # type: ignore[arg-type]
    return DataLoader(dataset, batch_size=BATCH_SIZE, sampler=sampler, **options)


def touched_epoch(path: Path, make: Callable[[], Iterable[torch.Tensor]]) -> Sample:
    """A whole epoch from making the data set on; one byte of every record is read."""
    drop_from_cache(path)
    first_batch_s = 0.0

    def work() -> tuple[int, float]:
        nonlocal first_batch_s
        start, count, total = time.perf_counter(), 0, 0
        for batch in make():
            first_batch_s = first_batch_s or time.perf_counter() - start
            count += batch.nbytes
            total += int(batch[:, 0].sum())
        assert total > 0
        return count, time.perf_counter() - start

    return {**measured(work), "first_batch_ms": first_batch_s * 1000}


def filled_cache(path: Path) -> Sample:
    """The file brought into the page cache in its own order, and nothing delivered."""
    drop_from_cache(path)
    piece, ahead, size = 256 << 10, MIB, path.stat().st_size

    def work() -> tuple[int, float]:
        start = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            for begin in range(0, size, piece):
                os.posix_fadvise(file.fileno(), begin, piece, os.POSIX_FADV_WILLNEED)
                os.pread(file.fileno(), 1, max(0, begin - ahead))
            for begin in range(0, size, 64 << 10):  # all of it is there
                os.pread(file.fileno(), 1, begin)
        return size, time.perf_counter() - start

    return measured(work)


def rows_beside(samples: dict[str, list[Sample]], ours: str) -> list[list[str]]:
    """Every contestant's throughput, how much faster `ours` is, and its processor time."""
    return [
        [
            name,
            spread(values(runs, "gb_per_s")),
            spread(ratios(samples[ours], runs, "gb_per_s"), unit="x"),
            spread(values(runs, "cpu_s_per_gb")),
        ]
        for name, runs in samples.items()
    ]


def bench_first_epoch(report: Report, path: Path, args: Namespace) -> None:
    title = "First epoch, fully shuffled, cold page cache, a set that fits in memory"
    if not report.wants(title):
        return
    makers: dict[str, Callable[[], Iterable[torch.Tensor]]] = {
        "RecordDataset, direct='auto'": lambda: dataset_of(path, shuffle=True),
        "RecordDataset, 2 workers": lambda: s3io.DataLoader(
            dataset_of(path, shuffle=True), num_workers=2, persistent_workers=False
        ),
        "RecordDataset, direct='require'": lambda: dataset_of(
            path, shuffle=True, direct="require", depth=64
        ),
        "numpy.memmap, record by record": lambda: shuffled_by_torch(MemmapRecords(path)),
        "numpy.memmap, 2 workers": lambda: shuffled_by_torch(MemmapRecords(path), num_workers=2),
        "numpy.memmap, whole batches": lambda: shuffled_by_torch(
            MemmapBatches(path), collate_fn=as_it_is
        ),
        "preads, record by record": lambda: shuffled_by_torch(PreadRecords(path)),
    }
    contestants = {name: partial(touched_epoch, path, make) for name, make in makers.items()}
    filling = "the page cache filled, nothing delivered"
    samples = in_rounds(
        {**contestants, filling: partial(filled_cache, path)}, args.rounds, "first epochs"
    )
    rows = rows_beside(samples, "RecordDataset, direct='auto'")
    for row in rows:
        runs = samples[row[0]]
        row.append("" if row[0] == filling else spread(values(runs, "first_batch_ms"), ".0f"))
    note = (
        f"{path.stat().st_size / 1e9:.2f} GB of 4 KiB records, batches of {BATCH_SIZE}, "
        "num_workers=0 but where stated; the rivals with torch's DataLoader and RandomSampler. "
        "Dropped from the page cache before every run; from making the data set and starting "
        "workers on. The device's readahead, which decides what a mapped file gets, is in the "
        "machine's list."
    )
    columns = ["contestant", "GB/s", "ours / it", "CPU s/GB", "first batch ms"]
    report.table(title, note, columns, rows, samples)


# ---- Windows of blocks.


def bench_windows(report: Report, path: Path, args: Namespace) -> None:
    title = "Windows of blocks, cold page cache, a set that does not fit in memory"
    if not report.wants(title):
        return
    block = partial(dataset_of, path, shuffle="block")
    makers: dict[str, Callable[[], Iterable[torch.Tensor]]] = {
        "window_blocks=64": partial(block, window_blocks=64),
        "window_blocks=512": partial(block, window_blocks=512),
        "window_blocks=512, 2 workers": lambda: s3io.DataLoader(
            block(window_blocks=512), num_workers=2, persistent_workers=False
        ),
        "shuffle='block' alone": block,
        "shuffle=True": partial(dataset_of, path, shuffle=True, depth=64),
    }
    contestants = {name: partial(touched_epoch, path, make) for name, make in makers.items()}
    # A small file stands for a large one: what fits would be brought in as a whole.
    with mock.patch.object(FileAccess, "_fits", return_value=False):
        samples = in_rounds(contestants, args.rounds, "windows")
    rows = rows_beside(samples, "window_blocks=64")
    note = (
        f"{path.stat().st_size / 1e9:.2f} GB of 4 KiB records in blocks of 128 KiB, batches of "
        f"{BATCH_SIZE}, num_workers=0 but where stated; told that they do not fit in memory. "
        "Dropped from the page cache before every run."
    )
    report.table(title, note, ["order", "GB/s", "64 / it", "CPU s/GB"], rows, samples)


# ---- The time to the first batch.


def billion_records(path: Path) -> s3io.RecordDataset:
    return s3io.RecordDataset(path, dtype="u1", shape=64, batch_size=BATCH_SIZE, shuffle=True)


def first_batch(path: Path, state: dict[str, Any] | None) -> Sample:
    fresh = billion_records(path)
    start = time.perf_counter()
    if state is not None:
        fresh.load_state_dict(state)
    next(iter(fresh))
    return {"ms": (time.perf_counter() - start) * 1000}


def bench_start(report: Report, args: Namespace) -> None:
    title = "Time to the first batch: 1e9 records, shuffled"
    if not report.wants(title):
        return
    path = args.data / "billion.bin"
    with path.open("wb") as file:
        file.truncate(BILLION * 64)
    try:
        late = {**billion_records(path).state_dict(), "consumed": BILLION // 100 * 99}
        contestants = {
            "at the start": partial(first_batch, path, None),
            "resumed at the last percent": partial(first_batch, path, late),
        }
        samples = in_rounds(contestants, max(args.rounds, 5), "first batches")
    finally:
        path.unlink()
    rows = [[name, spread(values(runs, "ms"), ".1f")] for name, runs in samples.items()]
    note = (
        "A sparse file of 64-byte records: the device has nothing to read. From load_state_dict() "
        "or iter() to the batch."
    )
    report.table(title, note, ["epoch", "ms"], rows, samples)


def main() -> None:
    args = parse(argument_parser(__doc__))
    path = data_file(args.data, args.size_gib)
    report = Report(args, machine(args.data))
    bench_against_fio(report, path, args)
    bench_first_epoch(report, path, args)
    bench_windows(report, path, args)
    bench_start(report, args)
    report.save()


if __name__ == "__main__":
    main()
