"""Folders of many files: listing them, and files per second of shuffled epochs.

Files of log-normal sizes around 110 KB, as ImageNet has them, in folders by class, are read whole
and in random order, in batches of 256, by

* SampleDataset.from_files, without workers and with two;
* a plain torch Dataset that opens and reads each file, with a DataLoader of several numbers of
  workers, of which the best is shown;
* plain threads that open, fstat, read and close, which make no batches.

A cold run begins with a page cache that has nothing of the files. With --drop-inodes (as root: it
empties the caches of the whole machine) the kernel knows no names and inodes of them, either.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import (
    GIB,
    Report,
    Sample,
    argument_parser,
    bring_into_cache,
    cpu_seconds,
    drop_from_cache,
    in_rounds,
    machine,
    parse,
    spread,
    values,
)
from torch.utils.data import DataLoader, Dataset

import torch_s3io as s3io
from torch_s3io.store.file_columns import FilePattern

MEAN_BYTES, SIGMA = 110_000, 0.5
FOLDERS = 100
BATCH = 256
WORKERS = (0, 1, 2, 4, 8, 16)
THREADS = (8, 16)
COLUMNS = ["contestant", "files/s", "CPU us/file"]
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def write_files(folder: Path, total_bytes: int) -> list[Path]:
    """Written once."""
    count = max(FOLDERS, total_bytes // MEAN_BYTES)
    random = np.random.default_rng(1)
    sizes = (random.lognormal(-(SIGMA**2) / 2, SIGMA, count) * MEAN_BYTES).astype(int).tolist()
    content = random.bytes(max(sizes))
    paths = [
        folder / f"{count}" / f"n{number % FOLDERS:08}" / f"{number:08}.jpg"
        for number in range(count)
    ]
    for path, size in zip(paths, sizes, strict=True):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[:size])
    return paths


class FileDataset(Dataset[torch.Tensor]):
    """Map-style, as people write it."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        with open(self.paths[number], "rb") as file:
            return torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)


def same(batch: list[torch.Tensor]) -> list[torch.Tensor]:
    return batch


def plain_epoch(paths: list[str], workers: int) -> int:
    loader = DataLoader(
        FileDataset(paths), batch_size=BATCH, shuffle=True, num_workers=workers, collate_fn=same
    )
    return sum(map(len, loader))


def read_file(path: str) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return len(os.read(fd, os.fstat(fd).st_size))
    finally:
        os.close(fd)


def threads_epoch(paths: list[str], threads: int) -> int:
    order = np.random.default_rng().permutation(len(paths)).tolist()
    parts = [[paths[number] for number in order[part::threads]] for part in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: [read_file(path) for path in part], parts))
    return len(paths)


def our_epoch(paths: list[str], workers: int) -> int:
    dataset = s3io.SampleDataset.from_files(paths, batch_size=BATCH, shuffle=True)
    return sum(len(batch["data"]) for batch in s3io.DataLoader(dataset, num_workers=workers))


def prepare(paths: list[Path], is_cold: bool, drops_inodes: bool) -> None:
    for path in paths:
        (drop_from_cache if is_cold else bring_into_cache)(path)
    if is_cold and drops_inodes:
        os.sync()
        DROP_CACHES.write_text("3")


def measured(
    work: Callable[[], int], paths: list[Path], is_cold: bool, drops_inodes: bool
) -> Sample:
    prepare(paths, is_cold, drops_inodes)
    start, cpu = time.perf_counter(), cpu_seconds()
    count = work()
    elapsed_s, cpu_s = time.perf_counter() - start, cpu_seconds() - cpu
    return {"files_per_s": count / elapsed_s, "cpu_us": cpu_s / count * 1e6}


def table(report: Report, title: str, note: str, samples: dict[str, list[Sample]]) -> None:
    rows = [
        [name, spread(values(runs, "files_per_s"), ",.0f"), spread(values(runs, "cpu_us"), ".1f")]
        for name, runs in samples.items()
    ]
    report.table(title, note, COLUMNS, rows, samples)


def bench_epochs(report: Report, args, paths: list[Path], is_cold: bool) -> None:
    title = f"Files: shuffled epochs, {'cold' if is_cold else 'warm'}"
    if not report.wants(title):
        return
    names = list(map(str, paths))
    work = {
        "SampleDataset.from_files": partial(our_epoch, names, 0),
        "SampleDataset.from_files, 2 workers": partial(our_epoch, names, 2),
        **{f"plain threads, {count}": partial(threads_epoch, names, count) for count in THREADS},
    }
    run = partial(measured, paths=paths, is_cold=is_cold, drops_inodes=args.drop_inodes)
    plain = {
        workers: run(partial(plain_epoch, names, workers))["files_per_s"] for workers in WORKERS
    }
    best = max(plain, key=lambda workers: plain[workers])
    work[f"plain Dataset, {best} workers"] = partial(plain_epoch, names, best)
    contestants = {name: partial(run, one) for name, one in work.items()}
    total = sum(path.stat().st_size for path in paths)
    note = f"{len(paths):,} files, {total:,} bytes, batches of {BATCH}."
    table(report, title, note, in_rounds(contestants, args.rounds, title))


def scan(folder: Path) -> int:
    return len(FilePattern(str(folder), "**/*.jpg").scan()[0])


def glob_and_stat(folder: Path) -> int:
    return len([os.stat(path) for path in glob.glob(f"{folder}/**/*.jpg", recursive=True)])


def bench_listing(report: Report, args, paths: list[Path], is_cold: bool) -> None:
    title = f"Files: listing, {'cold' if is_cold else 'warm'}"
    if not report.wants(title):
        return
    folder = paths[0].parents[1].absolute()
    work = {
        "FilePattern.scan": partial(scan, folder),
        "glob and os.stat": partial(glob_and_stat, folder),
    }
    run = partial(measured, paths=paths, is_cold=is_cold, drops_inodes=args.drop_inodes)
    contestants = {name: partial(run, one) for name, one in work.items()}
    note = f"{len(paths):,} files in {FOLDERS} folders: names, sizes and times of change."
    table(report, title, note, in_rounds(contestants, args.rounds, title))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--drop-inodes", action="store_true", help="see above")
    args = parse(parser)
    args.data.mkdir(parents=True, exist_ok=True)
    report = Report(args, machine(args.data))
    paths = write_files(args.data / "files", int(args.size_gib * GIB))
    for is_cold in (True, False):
        bench_listing(report, args, paths, is_cold)
        bench_epochs(report, args, paths, is_cold)
    report.save()


if __name__ == "__main__":
    main()
