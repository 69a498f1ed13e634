"""What the benchmarks of object storage read: the same records as objects of several kinds."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from libraries import library
from storage import progress

RANGE_BYTES, LARGE_BYTES = 8 << 20, 128 << 20
RECORD_BYTES, RECORDS_PER_SHARD = 114_660, 250
NAME = "bench"

Range = tuple[str, int, int]  # key, offset, length


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """What was put on the server.

    Attributes:
        endpoint: The server.
        large: Keys of objects of ``LARGE_BYTES`` that are read by ranges.
        shards: Keys of objects of ``RECORDS_PER_SHARD`` records.
        files: Keys of objects that hold one record.
        tars: The same records as archives.
        converted: Prefixes of data sets in formats of their own, by name.
    """

    endpoint: str
    large: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    tars: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()

    def ranges(self) -> list[Range]:
        starts = range(0, LARGE_BYTES, RANGE_BYTES)
        return [(key, start, RANGE_BYTES) for key in self.large for start in starts]

    def records(self) -> list[Range]:
        """Where they lie in the shards."""
        starts = range(0, RECORDS_PER_SHARD * RECORD_BYTES, RECORD_BYTES)
        return [(key, start, RECORD_BYTES) for key in self.shards for start in starts]


def put_large(client: Any, endpoint: str, size_gib: float) -> Bucket:
    content = np.random.default_rng(0).bytes(LARGE_BYTES)
    count = max(1, int(size_gib * (1 << 30)) // LARGE_BYTES)
    keys = [f"large/{number:03}.bin" for number in range(count)]
    _put(client, [(key, lambda: content) for key in keys])
    return Bucket(endpoint=endpoint, large=tuple(keys))


def put_records(client: Any, endpoint: str, least: int) -> Bucket:
    """At least as many records, in whole shards, of which there are two or more."""
    content = np.random.default_rng(0).bytes(LARGE_BYTES)
    count = max(2, -(-least // RECORDS_PER_SHARD))
    shards = [f"shards/{number:03}.bin" for number in range(count)]
    tars = [f"tars/{number:03}.tar" for number in range(count)]
    records = RECORDS_PER_SHARD * count
    files = [f"files/{number:06}.bin" for number in range(records)]

    def record(number: int) -> bytes:
        begin = number * 4099 % (LARGE_BYTES - RECORD_BYTES)
        return content[begin : begin + RECORD_BYTES]

    def shard(number: int) -> Iterator[bytes]:
        begin = number * RECORDS_PER_SHARD
        return map(record, range(begin, begin + RECORDS_PER_SHARD))

    def whole(number: int) -> bytes:
        return b"".join(shard(number))

    def tar(number: int) -> bytes:
        names = files[number * RECORDS_PER_SHARD :]
        return _tar((name[6:], data) for name, data in zip(names, shard(number), strict=False))

    _put(client, [(key, partial(record, number)) for number, key in enumerate(files)])
    _put(client, [(key, partial(whole, n)) for n, key in enumerate(shards)])
    _put(client, [(key, partial(tar, number)) for number, key in enumerate(tars)])
    converted = []
    for name, (package, write) in _CONVERTERS.items():
        if not find_spec(package):
            continue
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), map(record, range(records)))
            written = [path for path in Path(folder).rglob("*") if path.is_file()]
            _put(client, [(f"{name}/{one.relative_to(folder)}", one.read_bytes) for one in written])
        converted.append(name)
    return Bucket(
        endpoint=endpoint, shards=tuple(shards), files=tuple(files), tars=tuple(tars),
        converted=tuple(converted),
    )  # fmt: skip


def _put(client: Any, objects: list[tuple[str, Callable[[], bytes]]]) -> None:
    def put(one: tuple[str, Callable[[], bytes]]) -> None:
        client.put_object(Bucket=NAME, Key=one[0], Body=one[1]())

    with ThreadPoolExecutor(8) as pool:
        list(progress(pool.map(put, objects), len(objects), "filling the server"))


def _tar(members: Iterator[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _write_mds(folder: Path, records: Iterator[bytes]) -> None:
    """In shards of 64 MiB."""
    with library("streaming").MDSWriter(out=str(folder), columns={"x": "bytes"}) as writer:
        for record in records:
            writer.write({"x": record})


def _write_litdata(folder: Path, records: Iterator[bytes]) -> None:
    """In chunks of 64 MB of tensors; bytes would be views, which its workers cannot hand over."""
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes="64MB")
    for number, record in enumerate(records):
        writer[number] = torch.frombuffer(bytearray(record), dtype=torch.uint8)
    writer.done()
    writer.merge()


_CONVERTERS: dict[str, tuple[str, Callable[[Path, Iterator[bytes]], None]]] = {
    "mds": ("streaming", _write_mds),
    "litdata": ("litdata", _write_litdata),
}
