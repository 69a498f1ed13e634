"""Where the members of tar archives are: members per second, and how many reads it takes.

Archives as webdataset writes them (a pax header before each member), of an image and a label per
sample, are scanned from the first header to the last by

* scan_tars: what SampleDataset's formats are made of;
* scan_tars, one archive at a time, to show what reading many at once gives;
* tarfile of CPython, which seeks from header to header;
* webdataset, which reads all bytes (where it is installed).

"Tar: making the index" is all that `python -m torch_s3io index` does, by one thread and by one for
each processor, of archives as above and of empty members, where headers are all there is.

A cold run begins with a page cache that has nothing of the archives.
"""

from __future__ import annotations

import io
import os
import tarfile
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from common import (
    GIB,
    Report,
    Sample,
    argument_parser,
    bring_into_cache,
    drop_from_cache,
    in_rounds,
    machine,
    parse,
    spread,
    values,
)

from torch_s3io import _C
from torch_s3io.format.files import inspect
from torch_s3io.format.paths import find_files
from torch_s3io.format.tar import build_index
from torch_s3io.format.tar.tar_format import index_of
from torch_s3io.format.tar.tar_members import scan_tars

SHARDS = 16
# Mean bytes, of a log-normal distribution with sigma 0.5; share of --size-gib.
SIZES = {"110 KB images": (110_000, 1), "2 KB images": (2_000, 1 / 8)}
COLUMNS = ["contestant", "members/s", "CPU us/member", "reads"]


def write_shards(folder: Path, mean_bytes: int, total_bytes: int) -> list[Path]:
    """Written once. As many samples as the images' bytes and three blocks for each header allow."""
    samples = int(total_bytes / SHARDS / (mean_bytes + 6 * 512))
    random = np.random.default_rng(1)
    sizes = (random.lognormal(-0.125, 0.5, SHARDS * samples) * mean_bytes).astype(int).tolist()
    content = random.bytes(max(sizes))
    paths = [folder / f"{mean_bytes}_{samples}_{shard:03}.tar" for shard in range(SHARDS)]
    for shard, path in enumerate(paths):
        if path.exists():
            continue
        part = path.with_suffix(".part")
        with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
            for number in range(shard * samples, (shard + 1) * samples):
                for field, data in (("jpg", content[: sizes[number]]), ("cls", b"123")):
                    info = tarfile.TarInfo(f"{number:08}.{field}")
                    info.size, info.mtime = len(data), 1700000000.25
                    archive.addfile(info, io.BytesIO(data))
        part.rename(path)
    return paths


def scan(paths: list[Path], depth: int) -> tuple[int, int | None]:
    store = _C.FileObjects(direct="auto", engine="auto", alignment=4096, faults=None)
    found = scan_tars(store, [str(path) for path in paths], depth=depth)
    return sum(map(len, found.members)), found.reads


def scan_by_tarfile(paths: list[Path]) -> tuple[int, int | None]:
    count = 0
    for path in paths:
        with tarfile.open(path, "r:") as archive:
            count += sum(1 for member in archive if member.isreg())
    return count, None


def scan_by_webdataset(paths: list[Path]) -> tuple[int, int | None]:
    from webdataset.tariterators import tar_file_iterator

    count = 0
    for path in paths:
        with path.open("rb") as file:
            count += sum(1 for _ in tar_file_iterator(file))
    return count, None


def measured(
    work: Callable[[], tuple[int, int | None]], paths: list[Path], is_cold: bool
) -> Sample:
    for path in paths:
        (drop_from_cache if is_cold else bring_into_cache)(path)
    start, cpu = time.perf_counter(), time.process_time()
    count, reads = work()
    elapsed_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    sample = {"members_per_s": count / elapsed_s, "cpu_us": cpu_s / count * 1e6}
    return sample if reads is None else sample | {"reads": reads}


def bench_scan(report: Report, args: Namespace, name: str, is_cold: bool) -> None:
    title = f"Tar: finding members, {name}, {'cold' if is_cold else 'warm'}"
    if not report.wants(title):
        return
    folder = args.data / "tar"
    folder.mkdir(parents=True, exist_ok=True)
    mean_bytes, share = SIZES[name]
    paths = write_shards(folder, mean_bytes, int(args.size_gib * share * GIB))
    work = {
        "scan_tars": partial(scan, paths, 32),
        "scan_tars, depth 1": partial(scan, paths, 1),
        "tarfile": partial(scan_by_tarfile, paths),
    }
    try:
        import webdataset  # noqa: F401

        work["webdataset"] = partial(scan_by_webdataset, paths)
    except ImportError:
        print("webdataset is not installed: it is left out")
    contestants = {key: partial(measured, one, paths, is_cold) for key, one in work.items()}
    samples = in_rounds(contestants, args.rounds, title)
    rows = [
        [
            contestant,
            spread(values(runs, "members_per_s"), ",.0f"),
            spread(values(runs, "cpu_us"), ".2f"),
            spread(values(runs, "reads"), ",.0f") if "reads" in runs[0] else "",
        ]
        for contestant, runs in samples.items()
    ]
    count = scan(paths, 32)[0]
    note = f"{SHARDS} archives, {count:,} members, {sum(p.stat().st_size for p in paths):,} bytes."
    report.table(title, note, COLUMNS, rows, samples)


def write_headers(folder: Path, count: int) -> list[Path]:
    """As many empty members, two per sample, in 8 archives. Written once."""
    paths = [folder / f"{count}_empty_{shard}.tar" for shard in range(8)]
    block = tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT)
    for shard, path in enumerate(paths):
        if path.exists():
            continue
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            for number in range(shard * count // 8, (shard + 1) * count // 8):
                name = f"folder/{number // 2:08}.{('jpg', 'cls')[number % 2]}".encode()
                header = bytearray(name.ljust(100, b"\0") + block[100:])
                header[148:156] = b" " * 8
                header[148:156] = b"%06o\0 " % sum(header)
                file.write(header)
            file.write(bytes(1024))
        part.rename(path)
    return paths


def make_index(paths: list[Path], threads: int) -> tuple[int, int | None]:
    files = find_files(list(map(str, paths)), "name", ending=".tar")
    build_index._MOST_THREADS = threads
    index, _ = index_of(files, inspect(files), where=False)
    return int(index.columns["counts"].sum()), None


def bench_index(report: Report, args: Namespace, name: str, is_cold: bool) -> None:
    title = f"Tar: making the index, {name}, {'cold' if is_cold else 'warm'}"
    if not report.wants(title):
        return
    folder = args.data / "tar"
    folder.mkdir(parents=True, exist_ok=True)
    if name in SIZES:
        mean_bytes, share = SIZES[name]
        paths = write_shards(folder, mean_bytes, int(args.size_gib * share * GIB))
    else:
        paths = write_headers(folder, min(2_000_000, int(args.size_gib * 1_000_000)))
    processors = len(os.sched_getaffinity(0))
    work = {
        "a thread": partial(make_index, paths, 1),
        f"{processors} threads": partial(make_index, paths, processors),
    }
    contestants = {key: partial(measured, one, paths, is_cold) for key, one in work.items()}
    samples = in_rounds(contestants, args.rounds, title)
    rows = [
        [key, spread(values(runs, "members_per_s"), ",.0f"), spread(values(runs, "cpu_us"), ".2f")]
        for key, runs in samples.items()
    ]
    note = f"{len(paths)} archives, {sum(p.stat().st_size for p in paths):,} bytes."
    report.table(title, note, COLUMNS[:3], rows, samples)


def main() -> None:
    args = parse(argument_parser(__doc__))
    args.data.mkdir(parents=True, exist_ok=True)
    report = Report(args, machine(args.data))
    for name in SIZES:
        for is_cold in (True, False):
            bench_scan(report, args, name, is_cold)
    for name in (*SIZES, "empty members"):
        for is_cold in (True, False):
            bench_index(report, args, name, is_cold)
    report.save()


if __name__ == "__main__":
    main()
