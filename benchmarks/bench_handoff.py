"""What it costs to bring a batch from a worker process to the training loop.

* ours, ready: one batch in the worker's pool, handed over again and again: the hand-over alone;
* ours, read: the same with every batch read first, from a file in the page cache;
* stock: a fresh tensor of as many bytes, by torch's two sharing strategies;
* int: DataLoader passing a number, the floor of its machinery.

The stock batches are made by torch.empty and untouched by the worker: they cost it nothing but what
sharing them takes. No byte is touched in the main process.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import torch_s3io as s3io

SIZES_MB = (0.1, 1, 8, 38, 128)
WARM_UP = 24  # batches: then every buffer of the pools has been used
FEWEST, MOST = 8, 2000


class Ready(IterableDataset[Any]):
    """Yields what `make` returns, for ever."""

    def __init__(self, make: Callable[[], Any], strategy: str | None = None) -> None:
        self.make = make
        self.strategy = strategy

    def __iter__(self) -> Iterator[Any]:
        if self.strategy is not None:
            torch.multiprocessing.set_sharing_strategy(self.strategy)
        while True:
            yield self.make()


class Repeated(IterableDataset[Any]):
    """Batches of a data set as a dict of two tensors, for ever: all of them, or the first one."""

    def __init__(self, dataset: s3io.RecordDataset, first_only: bool) -> None:
        self.dataset = dataset
        self.first_only = first_only

    def __iter__(self) -> Iterator[Any]:
        while True:
            for batch, index in self.dataset:
                yield {"record": batch, "index": index}
                while self.first_only:
                    yield {"record": batch, "index": index}
                del batch, index


def process_faults(pids: list[int]) -> int:
    faults = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        faults += int(fields[7])
    return faults


def process_cpu_s(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(
    dataset: IterableDataset[Any], workers: int, batch_bytes: int, seconds: float
) -> common.Sample:
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    batches = iter(loader)
    assert isinstance(batches, _MultiProcessingDataLoaderIter)
    for _ in range(WARM_UP):
        next(batches)
    pids = [process.pid for process in batches._workers if process.pid is not None]
    me = [os.getpid()]
    # Once before it counts: since the fork every page that is written to for the first time faults,
    # also those that counting itself writes to.
    process_faults(pids), process_cpu_s(pids + me), resource.getrusage(resource.RUSAGE_SELF)
    faults, worker_faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, process_faults(pids)
    cpu_s = process_cpu_s(pids + me)
    start = time.perf_counter()
    count = 0
    while count < FEWEST or (count < MOST and time.perf_counter() - start < seconds):
        batch = next(batches)
        count += 1
    elapsed = time.perf_counter() - start
    del batch
    sample = {
        "us": elapsed / count * 1e6,
        "main_faults": (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / count,
        "worker_faults": (process_faults(pids) - worker_faults) / count,
        "cpu_s_per_gb": (process_cpu_s(pids + me) - cpu_s) / (count * batch_bytes / common.GB),
    }
    del batches
    return sample


def contestants(path: Path, batch_bytes: int, workers: int, seconds: float) -> dict[str, Any]:
    def ours(first_only: bool) -> IterableDataset[Any]:
        record_bytes = 4096
        # Without asking the page cache for every chunk: the file is known to be there.
        return Repeated(
            s3io.RecordDataset(
                path,
                dtype=np.uint8,
                shape=record_bytes,
                batch_size=max(1, batch_bytes // record_bytes),
                direct="off",
                return_index=True,
                drop_last=True,
            ),
            first_only,
        )

    def stock(strategy: str) -> IterableDataset[Any]:
        return Ready(lambda: {"record": torch.empty(batch_bytes, dtype=torch.uint8)}, strategy)

    makers: dict[str, Callable[[], IterableDataset[Any]]] = {
        "int": lambda: Ready(lambda: 1),
        "ours, ready": lambda: ours(True),
        "ours, read": lambda: ours(False),
        "stock, file_descriptor": lambda: stock("file_descriptor"),
        "stock, file_system": lambda: stock("file_system"),
    }
    return {
        name: lambda make=make: measure(make(), workers, batch_bytes, seconds)
        for name, make in makers.items()
    }


def main() -> None:
    parser = common.argument_parser(__doc__)
    parser.add_argument("--max-mb", type=float, default=128, help="size of the largest batch")
    args = common.parse(parser, min_gib=0.25)
    path = common.data_file(args.data, min(args.size_gib, 1))
    report = common.Report(args, common.machine(args.data))
    for workers in (1, 2):
        rows, all_samples = [], {}
        for size_mb in (size for size in SIZES_MB if size <= args.max_mb):
            batch_bytes = int(size_mb * 1e6)
            common.bring_into_cache(path)
            samples = common.in_rounds(
                contestants(path, batch_bytes, workers, args.seconds), args.rounds, f"{size_mb} MB"
            )
            all_samples[f"{size_mb} MB"] = samples
            for name, runs in samples.items():
                slower = [
                    run["us"] / own["us"]
                    for run, own in zip(runs, samples["ours, ready"], strict=True)
                ]
                above = [
                    run["us"] - floor["us"] for run, floor in zip(runs, samples["int"], strict=True)
                ]
                cpu = common.spread(common.values(runs, "cpu_s_per_gb"), ".3f")
                rows.append([
                    f"{size_mb:g} MB", name,
                    common.spread(common.values(runs, "us"), ".0f"),
                    "" if name == "int" else common.spread(above, ".0f"),
                    common.spread(slower, ".1f", unit="x"),
                    common.spread(common.values(runs, "main_faults"), ".1f"),
                    common.spread(common.values(runs, "worker_faults"), ".1f"),
                    "" if name == "int" else cpu,
                ])  # fmt: skip
        note = "Batches are a dict, ours of two tensors. prefetch_factor=2, fork, no pinning."
        columns = ["batch", "contestant", "us per batch", "above int, us", "it / ours, ready",
                   "minor faults per batch, main", "workers", "CPU s/GB"]  # fmt: skip
        report.table(f"Hand-over from {workers} worker(s)", note, columns, rows, all_samples)
    report.save()


if __name__ == "__main__":
    main()
