"""What a training loop gets: RecordDataset against what PyTorch users write themselves.

The same file of records, read to the same batches by

* ours: RecordDataset through DataLoader, without workers and with two;
* a map-style Dataset over numpy.memmap, with DataLoader's collation (0 and 2 workers);
* a map-style Dataset that preads each record into a fresh array (0 and 2 workers);
* an IterableDataset that reads whole batches with readinto (0 and 2 workers).

One byte of every page of every batch is read in the main process. Contestants run in turns; each
run starts with the page cache emptied of the file (cold) or full of it (warm).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

import torch_s3io as s3io

PAGE_BYTES = 4096
OURS = "RecordDataset"
SHAPES = ((4096, 256), (114_660, 64), (common.MIB, 8))  # bytes of a record, records of a batch


class Records(NamedTuple):
    """Where the records of a file lie."""

    path: Path
    header_bytes: int
    record_bytes: int
    num_records: int


class MemmapDataset(Dataset[torch.Tensor]):
    """Records of a memory map, one by one."""

    def __init__(self, records: Records) -> None:
        shape = (records.num_records, records.record_bytes)
        self.array = np.memmap(records.path, np.uint8, "r", records.header_bytes, shape)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.array[index].copy())


class PreadDataset(Dataset[torch.Tensor]):
    """Records by pread into fresh memory, one by one."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.fd = -1

    def __len__(self) -> int:
        return self.records.num_records

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.fd < 0:
            self.fd = os.open(self.records.path, os.O_RDONLY)
        data = bytearray(self.records.record_bytes)
        os.preadv(self.fd, [data], self.records.header_bytes + index * len(data))
        return torch.frombuffer(data, dtype=torch.uint8)


class BatchFileDataset(IterableDataset[torch.Tensor]):
    """Whole batches by readinto into fresh memory, workers in turn."""

    def __init__(self, records: Records, batch_size: int) -> None:
        self.records = records
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[torch.Tensor]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        path, header_bytes, record_bytes, count = self.records
        step = workers * self.batch_size
        with open(path, "rb", buffering=0) as file:
            for first in range(worker * self.batch_size, count, step):
                rows = min(self.batch_size, count - first)
                batch = torch.empty((rows, record_bytes), dtype=torch.uint8)
                file.seek(header_bytes + first * record_bytes)
                view = batch.numpy().data.cast("B")
                while view:
                    view = view[file.readinto(view) :]
                yield batch


def gb_per_s(loader: DataLoader[Any], seconds: float) -> float:
    """Runs one epoch, or as much of it as fits into the time; touches every page of every batch."""
    start = time.perf_counter()
    received = touched = 0
    for batch in loader:
        received += batch.numel()
        touched += int(batch[:, ::PAGE_BYTES].sum())
        if time.perf_counter() - start > seconds:
            break
    if touched == 0:
        raise SystemExit("the data is all zeros, or there is none")
    return received / common.GB / (time.perf_counter() - start)


def loaders(records: Records, batch_size: int) -> dict[str, Callable[[], DataLoader[Any]]]:
    def ours(workers: int) -> DataLoader[Any]:
        dataset = s3io.RecordDataset(
            records.path,
            dtype=np.uint8,
            shape=records.record_bytes,
            header_bytes=records.header_bytes,
            batch_size=batch_size,
        )
        return DataLoader(dataset, batch_size=None, num_workers=workers)

    def over_memmap(workers: int) -> DataLoader[Any]:
        return DataLoader(MemmapDataset(records), batch_size, num_workers=workers)

    def of_preads(workers: int) -> DataLoader[Any]:
        return DataLoader(PreadDataset(records), batch_size, num_workers=workers)

    def of_readinto(workers: int) -> DataLoader[Any]:
        dataset = BatchFileDataset(records, batch_size)
        return DataLoader(dataset, batch_size=None, num_workers=workers)

    makers = {
        OURS: ours,
        "Dataset over numpy.memmap": over_memmap,
        "Dataset of preads": of_preads,
        "IterableDataset of readinto": of_readinto,
    }
    return {
        f"{name}, {workers} workers": partial(make, workers)
        for workers in (0, 2)
        for name, make in makers.items()
    }


def run(
    make: Callable[[], DataLoader[Any]], path: Path, seconds: float, warm: bool
) -> Callable[[], common.Sample]:
    def measure() -> common.Sample:
        (common.bring_into_cache if warm else common.drop_from_cache)(path)
        return {"gb_per_s": gb_per_s(make(), seconds)}

    return measure


def bench(report: common.Report, path: Path, args: argparse.Namespace, warm: bool) -> None:
    title = f"Into the training loop, {'warm' if warm else 'cold'} page cache"
    if not report.wants(title):
        return
    columns, all_samples = ["contestant"], {}
    table: dict[str, list[str]] = {}
    for record_bytes, batch_size in SHAPES:
        name = f"{record_bytes} B x {batch_size}"
        count, rest = divmod(path.stat().st_size, record_bytes)
        records = Records(path, rest, record_bytes, count)
        contestants = {
            contestant: run(make, path, args.seconds, warm)
            for contestant, make in loaders(records, batch_size).items()
        }
        samples = common.in_rounds(contestants, args.rounds, name)
        all_samples[name] = samples
        columns += [f"{name}, GB/s", "ours / it"]
        for contestant, runs in samples.items():
            ours = samples[f"{OURS}, {contestant.rpartition(', ')[2]}"]
            ratio = common.spread(common.ratios(ours, runs, "gb_per_s"), unit="x")
            row = table.setdefault(contestant, [contestant])
            row.append(common.spread(common.values(runs, "gb_per_s")))
            row.append("" if runs is ours else ratio)
    note = (
        f"An epoch, or {args.seconds:g} s of it, from making the data set on; workers start anew; "
        "one byte of every page is read in the main process."
    )
    report.table(title, note, columns, list(table.values()), all_samples)


def main() -> None:
    args = common.parse(common.argument_parser(__doc__))
    path = common.data_file(args.data, args.size_gib)
    report = common.Report(args, common.machine(args.data))
    bench(report, path, args, warm=False)
    bench(report, path, args, warm=True)
    report.save()


if __name__ == "__main__":
    main()
