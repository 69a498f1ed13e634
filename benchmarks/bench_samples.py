"""Samples that differ in length, against records of one size and of the same bytes.

For each distribution of lengths a data set of samples and a file of records of the same mean length
are written, and read in random order to batches of equally many by

* SampleDataset: a ragged field, delivered where it landed; and with the checksum of each sample;
* RecordDataset: fixed-size records, what the engine does at best;
* a map-style Dataset that preads each sample into a fresh array (torch collates a list of them).

One byte of every sample is read in the main process. Contestants run in turns. A cold run is a
first epoch: the page cache is emptied of the data, and workers start within it. A warm run is the
epochs after that one, from the page cache, by the same workers. The data set is opened before the
clock starts; what opening takes is in a table of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import torch_s3io as s3io
from torch_s3io.format.sample_records import SampleRecords

OURS, CHECKED = "SampleDataset", "SampleDataset, verify=True"
FIXED, PREADS = "RecordDataset of the mean length", "Dataset of preads"
COLUMNS = ["contestant", "GB/s", "of fixed records", "CPU s/GB", "oversize batches"]
_CHUNK = 16 * common.MIB
_MOST_EPOCHS = 1000


@dataclass(frozen=True)
class Lengths:
    """Of samples: log-normal (``sigma``), or uniform from half of the mean to one and a half."""

    mean_bytes: int
    sigma: float | None
    batch_size: int

    @property
    def name(self) -> str:
        how = "uniform" if self.sigma is None else f"log-normal, sigma {self.sigma:g}"
        return f"{self.mean_bytes:,} B, {how}, {self.batch_size} a batch"

    def draw(self, total_bytes: int) -> np.ndarray[Any, Any]:
        random = np.random.default_rng(0)
        count = max(self.batch_size, total_bytes // self.mean_bytes)
        if self.sigma is None:
            return random.integers(self.mean_bytes // 2, self.mean_bytes * 3 // 2, count)
        mu = np.log(self.mean_bytes) - self.sigma**2 / 2
        return np.maximum(1, random.lognormal(mu, self.sigma, count)).astype(np.int64)


CASES = (
    Lengths(110_000, 0.5, 64),
    Lengths(110_000, 1.0, 64),
    Lengths(110_000, 1.0, 256),
    Lengths(2_500, None, 256),
)


@dataclass(frozen=True)
class Data:
    """The same bytes, as samples and as records."""

    samples: Path
    records: Path
    record_bytes: int

    @property
    def files(self) -> list[Path]:
        return [*sorted(self.samples.glob("*.bin")), self.records]


def write(folder: Path, lengths: Lengths, total_bytes: int) -> Data:
    """Once: what is there is used again."""
    name = f"samples-{lengths.mean_bytes}-{lengths.sigma}-{lengths.batch_size}-{total_bytes}"
    samples, records = folder / name, folder / f"{name}.records"
    drawn = lengths.draw(total_bytes)
    size = int(drawn.mean())
    if not records.exists():
        shutil.rmtree(samples, ignore_errors=True)
        noise = np.random.default_rng(1).integers(1, 255, _CHUNK + int(drawn.max()), np.uint8)
        with s3io.SampleWriter(samples, fields={"data": bytes}) as writer:
            for first in range(0, len(drawn), 1000):
                part = drawn[first : first + 1000]
                starts = np.random.default_rng(first).integers(0, _CHUNK, len(part))
                writer.write_batch(
                    [
                        {"data": noise[start : start + length]}
                        for start, length in zip(starts, part, strict=True)
                    ]
                )
        with open(f"{records}.part", "wb") as file:
            for first in range(0, len(drawn)):
                start = first * 4096 % _CHUNK
                file.write(noise[start : start + size].tobytes())
        os.replace(f"{records}.part", records)
    return Data(samples, records, size)


def records_of(samples: s3io.SampleDataset) -> SampleRecords:
    records = samples._records
    assert isinstance(records, SampleRecords)
    return records


class PreadDataset(Dataset[torch.Tensor]):
    """Samples by pread into fresh memory, one by one."""

    def __init__(self, samples: s3io.SampleDataset) -> None:
        records = records_of(samples)
        tables = records.tables()
        self.paths = records.objects.all_paths()
        self.first = np.cumsum([0, *(table.num_samples for table in tables)])
        columns = [table.starts[0] for table in tables]
        self.starts = [column for column in columns if column is not None]
        assert len(self.starts) == len(tables)  # the package's own format has them
        self.lengths = [table.lengths[0][:, 0] for table in tables]
        self.opened: dict[int, int] = {}

    def __len__(self) -> int:
        return int(self.first[-1])

    def __getitem__(self, index: int) -> torch.Tensor:
        shard = int(np.searchsorted(self.first, index, "right")) - 1
        place = index - int(self.first[shard])
        if shard not in self.opened:
            self.opened[shard] = os.open(self.paths[shard], os.O_RDONLY)
        data = bytearray(int(self.lengths[shard][place]))
        os.preadv(self.opened[shard], [data], int(self.starts[shard][place]))
        return torch.frombuffer(data, dtype=torch.uint8)

    def close(self) -> None:
        for fd in self.opened.values():
            os.close(fd)
        self.opened.clear()


def ours(batch: Any) -> int:
    data = batch["data"]
    assert int(data.values[data.starts].min()) > 0
    return int(data.lengths.sum())


def fixed(batch: torch.Tensor) -> int:
    assert int(batch[:, 0].min()) > 0
    return batch.numel()


def alone(batch: list[torch.Tensor]) -> int:
    assert all(int(sample[0]) > 0 for sample in batch)
    return sum(sample.numel() for sample in batch)


def epochs(
    loader: Any, most: int, count: Callable[[Any], int], seconds: float
) -> tuple[int, float]:
    """Bytes and seconds of so many epochs, or as much of them as fits into the time."""
    start = time.perf_counter()
    received = 0
    for _ in range(most):
        for batch in loader:
            received += count(batch)
            if time.perf_counter() - start > seconds:
                return received, time.perf_counter() - start
    return received, time.perf_counter() - start


def contestants(
    data: Data, lengths: Lengths, workers: int, warm: bool, seconds: float
) -> dict[str, Callable[[], common.Sample]]:
    options: dict[str, Any] = {"batch_size": lengths.batch_size, "shuffle": True}

    def run(make: Callable[[], Any], count: Callable[[Any], int]) -> common.Sample:
        for file in data.files:
            (common.bring_into_cache if warm else common.drop_from_cache)(file)
        dataset = make()
        is_ours = isinstance(dataset, s3io.RecordDataset | s3io.SampleDataset)
        stay = warm and workers > 0
        if is_ours:
            loader: Any = s3io.DataLoader(dataset, num_workers=workers, persistent_workers=stay)
        else:
            loader = DataLoader(
                dataset,
                lengths.batch_size,
                shuffle=True,
                num_workers=workers,
                persistent_workers=stay,
                collate_fn=list,
            )
        # The processor time of workers is known once they have ended.
        cpu_before = common.cpu_seconds()
        before, _ = epochs(loader, 1, count, seconds) if warm else (0, 0.0)
        received, elapsed_s = epochs(loader, _MOST_EPOCHS if warm else 1, count, seconds)
        del loader
        cpu_s = common.cpu_seconds() - cpu_before
        measured = {
            "gb_per_s": received / common.GB / elapsed_s,
            "cpu_s_per_gb": cpu_s / ((before + received) / common.GB),
        }
        stats = dataset.stats() if is_ours else {}
        if not is_ours:
            dataset.close()
        share = stats.get("oversize_batches", 0) / max(1, stats.get("batches", 1))
        return {**measured, "oversize": share}

    samples = partial(s3io.SampleDataset, data.samples, **options)
    records = partial(
        s3io.RecordDataset, data.records, dtype="u1", shape=data.record_bytes, **options
    )
    return {
        OURS: lambda: run(samples, ours),
        CHECKED: lambda: run(partial(samples, verify=True), ours),
        FIXED: lambda: run(records, fixed),
        PREADS: lambda: run(lambda: PreadDataset(samples()), alone),
    }


def bench(report: common.Report, args: argparse.Namespace, warm: bool) -> None:
    title = f"Samples of any length, {'warm' if warm else 'cold'} page cache"
    if not report.wants(title):
        return
    rows, all_samples = [], {}
    for lengths in (one for one in CASES if args.cases in one.name):
        data = write(args.data, lengths, int(args.size_gib * common.GIB / 4))
        for file in data.files:  # what was just written lies in the cache in other pieces
            common.drop_from_cache(file)
        for workers in (0, 2):
            name = f"{lengths.name}, {workers} workers"
            runs = common.in_rounds(
                contestants(data, lengths, workers, warm, args.seconds), args.rounds, name
            )
            all_samples[name] = runs
            rows.append([f"{name}:", "", "", "", ""])
            for contestant, samples in runs.items():
                ratio = common.spread(common.ratios(samples, runs[FIXED], "gb_per_s"), unit="x")
                rows.append(
                    [
                        contestant,
                        common.spread(common.values(samples, "gb_per_s")),
                        "" if contestant == FIXED else ratio,
                        common.spread(common.values(samples, "cpu_s_per_gb")),
                        f"{max(common.values(samples, 'oversize')):.2%}"
                        * (contestant in (OURS, CHECKED)),
                    ]
                )
    note = "Shuffled; one byte of every sample is read in the main process. " + (
        f"{args.seconds:g} s of epochs after the first one, by the same workers; processor time is "
        "that of all epochs."
        if warm
        else f"The first epoch, or {args.seconds:g} s of it, from the start of the workers on: "
        "the data is not in the page cache as it begins; what fits in memory is brought there "
        "by both data sets of ours where its records are small."
    )
    report.table(title, note, COLUMNS, rows, all_samples)


def bench_opening(report: common.Report, args: argparse.Namespace) -> None:
    title = "Opening a data set of samples"
    if not report.wants(title):
        return
    rows, all_samples = [], {}
    for lengths in (one for one in CASES if args.cases in one.name):
        data = write(args.data, lengths, int(args.size_gib * common.GIB / 4))
        for file in data.files:
            common.bring_into_cache(file)
        made = s3io.SampleDataset(data.samples)

        def run(folder: Path = data.samples) -> common.Sample:
            start = time.perf_counter()
            s3io.SampleDataset(folder)
            return {"ms": (time.perf_counter() - start) * 1e3}

        samples = common.in_rounds({"open": run}, args.rounds, lengths.name)["open"]
        all_samples[lengths.name] = samples
        tables = records_of(made).tables()
        size = sum((8 + 4) * table.num_samples for table in tables)
        size += sum(column.nbytes for table in tables for column in table.lengths)
        rows.append(
            [
                lengths.name,
                f"{made.num_records:,}",
                common.spread(common.values(samples, "ms"), ".1f"),
                f"{size / made.num_records:.0f}",
            ]
        )
    note = "Manifest and tables read and checked, from the page cache."
    report.table(title, note, ["data set", "samples", "ms", "bytes of index a sample"], rows,
                 all_samples)  # fmt: skip


def main() -> None:
    parser = common.argument_parser(__doc__)
    parser.add_argument(
        "--cases",
        default="",
        metavar="TEXT",
        help="only the lengths with TEXT in their names",
    )
    args = common.parse(parser)
    args.data.mkdir(parents=True, exist_ok=True)
    report = common.Report(args, common.machine(args.data))
    bench_opening(report, args)
    bench(report, args, warm=False)
    bench(report, args, warm=True)
    report.save()


if __name__ == "__main__":
    main()
