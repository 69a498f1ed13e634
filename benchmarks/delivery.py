"""Tables of what the training loop gets: against the engine, and against a warm page cache."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from common import (
    MIB,
    Report,
    Sample,
    bring_into_cache,
    cache_state,
    drop_from_cache,
    engine_reads,
    in_rounds,
    measured,
    ratios,
    spread,
    values,
)
from torch.utils.data import DataLoader

import torch_s3io as s3io

WARM_UP_BATCHES = 64  # then every buffer of the pool has been used
ENGINE_BLOCK, ENGINE_DEPTH = MIB, 8


@dataclass(frozen=True)
class Shape:
    record_bytes: int
    batch_size: int

    def __str__(self) -> str:
        return f"{self.record_bytes:,} B x {self.batch_size}"


SHAPES = (Shape(4096, 256), Shape(114_660, 64), Shape(2_800_000, 4), Shape(MIB, 8))


def make_dataset(
    path: Path, shape: Shape, direct: Literal["auto", "require"]
) -> s3io.RecordDataset:
    return s3io.RecordDataset(
        path,
        dtype=np.uint8,
        shape=(shape.record_bytes,),
        batch_size=shape.batch_size,
        header_bytes=path.stat().st_size % shape.record_bytes,  # the rest is whole records
        direct=direct,
    )


def drain(batches: Iterable[Any], seconds: float) -> tuple[int, float]:
    """Takes batches for so long, epoch after epoch, without looking into them."""
    count = 0
    start = time.perf_counter()
    while True:
        for batch in batches:
            count += batch.nbytes
            if time.perf_counter() - start >= seconds:
                return count, time.perf_counter() - start


def one_epoch(batches: Iterable[Any]) -> tuple[int, float]:
    start = time.perf_counter()
    count = sum(batch.nbytes for batch in batches)
    return count, time.perf_counter() - start


def pread_loop(path: Path) -> tuple[int, float]:
    """The file by 1 MiB preads into one reused buffer."""
    buffers, offset = [memoryview(bytearray(MIB))], 0
    fd = os.open(path, os.O_RDONLY)
    try:
        start = time.perf_counter()
        while count := os.preadv(fd, buffers, offset):
            offset += count
        return offset, time.perf_counter() - start
    finally:
        os.close(fd)


def speeds(samples: dict[str, list[Sample]]) -> list[str]:
    return [spread(values(runs, "gb_per_s")) for runs in samples.values()]


def speed_ratios(samples: dict[str, list[Sample]], rival: str) -> list[str]:
    return [
        spread(ratios(runs, samples[rival], "gb_per_s"), unit="x")
        for name, runs in samples.items()
        if name != rival
    ]


def bench_delivery(report: Report, path: Path, args: Namespace) -> None:
    title = "Delivery: batches in the training loop against the engine"
    if not report.wants(title):
        return
    rows, all_samples = [], {}
    state = drop_from_cache(path)
    for shape in SHAPES:
        dataset = make_dataset(path, shape, "require")
        for _, _ in zip(range(WARM_UP_BATCHES), dataset, strict=False):
            pass
        engine = partial(engine_reads, path, ENGINE_BLOCK, ENGINE_DEPTH, sequential=True)
        pool_bytes = dataset.buffers_per_worker(1) * shape.record_bytes * shape.batch_size
        loader = DataLoader(dataset, batch_size=None)
        contestants = {
            "engine": partial(engine, seconds=args.seconds),
            "same memory": partial(engine, seconds=args.seconds, memory_bytes=pool_bytes),
            "dataset": partial(measured, partial(drain, dataset, args.seconds)),
            "loader": partial(measured, partial(drain, loader, args.seconds)),
        }
        samples = in_rounds(contestants, args.rounds, str(shape))
        all_samples[str(shape)] = samples
        cpu = [
            spread(values(samples[name], "cpu_s_per_gb"), ".3f") for name in ("engine", "dataset")
        ]
        fair = spread(ratios(samples["dataset"], samples["same memory"], "gb_per_s"), unit="x")
        rows.append([str(shape), *speeds(samples), *speed_ratios(samples, "engine"), fair, *cpu])
    note = (
        'direct="require", num_workers=0, no byte touched; the engine reads 1 MiB blocks in the '
        "file's order, depth 8, no byte touched, into 8 MiB again and again, or into as much "
        f"memory as the data set's pool has. {state}."
    )
    columns = ["records x batch", "engine GB/s", "same memory GB/s", "RecordDataset GB/s",
               "DataLoader GB/s", "same memory / engine", "RecordDataset / engine",
               "DataLoader / engine", "RecordDataset / same memory", "engine CPU s/GB",
               "RecordDataset CPU s/GB"]  # fmt: skip
    report.table(title, note, columns, rows, all_samples)


def endless(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from batches


def drain_on(batches: Iterator[Any], skipped: int, seconds: float) -> tuple[int, float]:
    """The same from where it was left, without the batches that were made ready meanwhile."""
    for _ in range(skipped):
        next(batches)
    return drain(batches, seconds)


def bench_workers(report: Report, path: Path, args: Namespace) -> None:
    title = "Delivery from two workers against the engine"
    if not report.wants(title):
        return
    rows, all_samples = [], {}
    state = drop_from_cache(path)
    for shape in SHAPES:
        dataset = make_dataset(path, shape, "require")
        loader = s3io.DataLoader(dataset, num_workers=2)
        ready = 2 * (loader.prefetch_factor or 0) + WARM_UP_BATCHES
        batches = endless(loader)
        next(batches)
        engine = partial(engine_reads, path, ENGINE_BLOCK, ENGINE_DEPTH, sequential=True)
        pool_bytes = 2 * dataset.buffers_per_worker(2) * shape.record_bytes * shape.batch_size
        contestants = {
            "engine": partial(engine, seconds=args.seconds),
            "same memory": partial(engine, seconds=args.seconds, memory_bytes=pool_bytes),
            "loader": partial(measured, partial(drain_on, batches, ready, args.seconds)),
        }
        samples = in_rounds(contestants, args.rounds, str(shape))
        all_samples[str(shape)] = samples
        fair = spread(ratios(samples["loader"], samples["same memory"], "gb_per_s"), unit="x")
        rows.append([str(shape), *speeds(samples), *speed_ratios(samples, "engine"), fair])
        del batches, contestants, loader, dataset
    note = (
        'direct="require", s3io.DataLoader(num_workers=2), no byte touched; the engine, in one '
        f"process, as in the table above; as much memory as both pools have. {state}."
    )
    columns = ["records x batch", "engine GB/s", "same memory GB/s", "DataLoader GB/s",
               "same memory / engine", "DataLoader / engine",
               "DataLoader / same memory"]  # fmt: skip
    report.table(title, note, columns, rows, all_samples)


class Epochs:
    """The first epochs of fresh data sets, in their order; one call runs one set's epochs."""

    NAMES = ("epoch 1", "epoch 2", "loader")

    def __init__(self, path: Path, shape: Shape) -> None:
        self._make = partial(make_dataset, path, shape, "auto")
        self.samples: dict[str, list[Sample]] = {name: [] for name in self.NAMES}

    def __call__(self) -> Sample:
        dataset = self._make()
        for name in self.NAMES:
            batches = DataLoader(dataset, batch_size=None) if name == "loader" else dataset
            self.samples[name].append(measured(partial(one_epoch, batches)))
        return self.samples[self.NAMES[-1]][-1]


def bench_warm(report: Report, path: Path, args: Namespace) -> None:
    title = "Warm page cache: direct='auto' against a loop of preads"
    if not report.wants(title):
        return
    rows, all_samples = [], {}
    state = bring_into_cache(path)
    for shape in SHAPES:
        epochs = Epochs(path, shape)
        preads = partial(measured, partial(pread_loop, path))
        runs = in_rounds({"preads": preads, "ours": epochs}, args.rounds, str(shape))
        samples = {"preads": runs["preads"], **epochs.samples}
        all_samples[str(shape)] = samples
        rows.append([str(shape), *speeds(samples), *speed_ratios(samples, "preads")])
    note = (
        "Whole epochs, no byte touched. Epoch 1 asks for every range whether it is in the page "
        "cache, later ones know. The loop reads 1 MiB at a time into one buffer. "
        f"Before: {state}; after: {cache_state(path)}."
    )
    columns = ["records x batch", "preads GB/s", "epoch 1 GB/s", "epoch 2 GB/s", "DataLoader GB/s",
               "epoch 1 / preads", "epoch 2 / preads", "DataLoader / preads"]  # fmt: skip
    report.table(title, note, columns, rows, all_samples)
