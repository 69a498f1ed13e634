"""Samples of ImageNet-like sizes, as people store them, against the loaders that people use.

Listing: names, sizes and times of change of the files, by what SampleDataset.from_files lists with,
and by glob with a stat of each.

Reading: the same 100,000 samples lie there as files in folders by class, as tar archives (as
webdataset writes them), as TFRecords and in our own format. Each contestant reads whole epochs in
random order, in batches of 256, and delivers the bytes of each image and its label where its format
has one. Nothing is decoded. webdataset, DALI and tf.data read on and shuffle within a buffer of
1,000 samples, as does shuffle="block" within its blocks; the others shuffle all samples.

Each run is a process of its own, so that no contestant runs beside what another one imported. A
rival tries several numbers of workers or threads first, on a tenth of the samples, and the best one
is shown. Cold: an epoch, its workers' start included, with nothing of the data in the page cache;
with --drop-inodes (as root: it empties the caches of the whole machine) the kernel knows no names
and inodes, either. Warm: the second epoch, by the same workers, of data that was brought into the
page cache. Every epoch must bring all samples and all bytes. The index of our data sets is written
before; lists of paths are made before the clock starts.
"""

from __future__ import annotations

import argparse
import glob
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import common
import fio
from image_rivals import OURS, RIVALS, set_up
from images import CLASSES, MEAN_BYTES, Images
from storage import bring_into_cache, drop_from_cache

from torch_s3io.store.file_columns import FilePattern

COLUMNS = ["contestant", "samples/s", "GB/s", "CPU us/sample"]
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
DEPTH = 32


def read_epoch(name: str, images: Images, count: int, warm: bool) -> common.Sample:
    """In a process of its own."""
    set_up()
    epoch = (OURS | RIVALS)[name].make(images, count)
    if warm:
        epoch()
    start, cpu = time.perf_counter(), common.cpu_seconds()
    samples, total = epoch()
    elapsed_s = time.perf_counter() - start
    assert (samples, total) == (images.count, images.total_bytes), (samples, total)
    del epoch  # the processor time of workers is known once they have ended
    cpu_s = (common.cpu_seconds() - cpu) / (2 if warm and count else 1)
    return {
        "samples_per_s": samples / elapsed_s,
        "gb_per_s": total / elapsed_s / common.GB,
        "cpu_us": cpu_s / samples * 1e6,
    }


def prepare(args: argparse.Namespace, paths: list[Path], warm: bool) -> None:
    for path in paths:
        (bring_into_cache if warm else drop_from_cache)(path)
    if args.drop_inodes and not warm:
        os.sync()
        DROP_CACHES.write_text("3")


def run(args: argparse.Namespace, name: str, count: int, warm: bool, samples: int) -> common.Sample:
    images = Images(args.data, samples)
    prepare(args, (OURS | RIVALS)[name].paths(images), warm)
    command = [sys.executable, __file__, "--data", str(args.data), "--samples", str(samples)]
    command += ["--one", name, "--count", str(count), *(["--warm"] if warm else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise RuntimeError(f"{name}, {count}: {done.stderr}")
    result: common.Sample = json.loads(done.stdout.splitlines()[-1])
    return result


def best_count(args: argparse.Namespace, name: str, warm: bool) -> int:
    speeds = {}
    for count in RIVALS[name].counts:
        speeds[count] = run(args, name, count, warm, args.samples // 10)["samples_per_s"]
        unit = RIVALS[name].unit
        print(f"  {name}, {count} {unit}: {speeds[count]:,.0f} samples/s", file=sys.stderr)
    return max(speeds, key=lambda count: speeds[count])


def by_fio(path: Path, seed: list[int]) -> common.Sample:
    drop_from_cache(path)
    seed[0] += 1
    block = MEAN_BYTES // 512 * 512
    speed = fio.random_reads(path, block, DEPTH, 5, seed[0], fio.AT_ITS_BEST)
    per_s = speed["gb_per_s"] * common.GB / block
    cpu_us = speed["cpu_s_per_gb"] * block / common.GB * 1e6
    return {"samples_per_s": per_s, "gb_per_s": speed["gb_per_s"], "cpu_us": cpu_us}


def scan(folder: Path) -> int:
    return len(FilePattern(str(folder), "**/*.jpg").scan()[0])


def glob_and_stat(folder: Path) -> int:
    return len([os.stat(path) for path in glob.glob(f"{folder}/**/*.jpg", recursive=True)])


def bench_listing(report: common.Report, args: argparse.Namespace, warm: bool) -> None:
    title = f"Listing files, {'warm' if warm else 'cold'}"
    if not report.wants(title):
        return
    images = Images(args.data, args.samples)
    files = images.files()

    def listed(work: Callable[[Path], int]) -> common.Sample:
        prepare(args, files, warm)
        start, cpu = time.perf_counter(), common.cpu_seconds()
        count = work(files[0].parents[1].absolute())
        elapsed_s = time.perf_counter() - start
        assert count == images.count
        return {
            "samples_per_s": count / elapsed_s,
            "cpu_us": (common.cpu_seconds() - cpu) / count * 1e6,
        }

    work = {
        "FilePattern.scan": partial(listed, scan),
        "glob and os.stat": partial(listed, glob_and_stat),
    }
    samples = common.in_rounds(work, args.rounds, title)
    rows = [
        [
            name,
            common.spread(common.values(runs, "samples_per_s"), ",.0f"),
            common.spread(common.values(runs, "cpu_us"), ".1f"),
        ]
        for name, runs in samples.items()
    ]
    note = f"{images.count:,} files in {CLASSES} folders."
    report.table(title, note, ["contestant", "files/s", "CPU us/file"], rows, samples)


def bench(report: common.Report, args: argparse.Namespace, warm: bool) -> None:
    title = f"Images in files, tars and shards, shuffled, {'warm' if warm else 'cold'}"
    if not report.wants(title):
        return
    contestants, left = {}, []
    for name, one in OURS.items():
        images = Images(args.data, args.samples)
        one.make(images, 0)  # makes the index, if there is none
        for path in one.paths(images):  # what was just written lies in the cache in small pieces
            drop_from_cache(path)
        for count in one.counts:
            contestants[f"{name}, {count} workers"] = partial(
                run, args, name, count, warm, args.samples
            )
    for name, rival in () if args.ours else RIVALS.items():
        if rival.package and importlib.util.find_spec(rival.package) is None:
            left.append(f"\n- not here: {name}: {rival.package} is not installed")
            continue
        count = best_count(args, name, warm)
        contestants[f"{name}, {count} {rival.unit}"] = partial(
            run, args, name, count, warm, args.samples
        )
    if not warm and fio.version():
        shard = max(Images(args.data, args.samples).shards(), key=lambda path: path.stat().st_size)
        contestants[f"{fio.version()}, one file, depth {DEPTH}"] = partial(by_fio, shard, [0])
    samples = common.in_rounds(contestants, args.rounds, title)
    rows = [
        [
            name,
            common.spread(common.values(runs, "samples_per_s"), ",.0f"),
            common.spread(common.values(runs, "gb_per_s")),
            common.spread(common.values(runs, "cpu_us"), ".1f"),
        ]
        for name, runs in samples.items()
    ]
    images = Images(args.data, args.samples)
    note = f"{images.count:,} samples, {images.total_bytes:,} bytes." + "".join(left)
    report.table(title, note, COLUMNS, rows, samples)


def main() -> None:
    parser = common.argument_parser(__doc__)
    add = parser.add_argument
    add("--samples", type=int, default=100_000, metavar="N", help="(default: %(default)s)")
    add("--drop-inodes", action="store_true", help="see above")
    add("--ours", action="store_true", help="without the rivals")
    add("--one", choices=OURS | RIVALS, help=argparse.SUPPRESS)
    add("--count", type=int, help=argparse.SUPPRESS)
    add("--warm", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(rounds=3)
    args = common.parse(parser)
    if args.one is not None:
        images = Images(args.data, args.samples)
        print(json.dumps(read_epoch(args.one, images, args.count, args.warm)))
        return
    args.data.mkdir(parents=True, exist_ok=True)
    report = common.Report(args, common.machine(args.data))
    for warm in (False, True):
        bench_listing(report, args, warm)
        bench(report, args, warm)
    report.save()


if __name__ == "__main__":
    main()
