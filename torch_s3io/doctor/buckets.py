"""What a server of objects offers: whether it heeds what keeps reads right, and how fast it is."""

from __future__ import annotations

import math
import os
import random
import secrets
import time
from collections.abc import Callable

from .. import _C
from ..config import MIB
from ..errors import ConfigError, Error, ExistsError
from ..index.place import is_index_name
from ..store.open import open_store
from ..store.s3_objects import the_s3_objects
from ..store.store import Identity
from .finding import Finding, in_bytes

DEPTHS, QUICK_DEPTHS = (1, 4, 16, 64), (1, 16)
_SECONDS_A_POINT, _QUICK_SECONDS_A_POINT = 3.0, 0.2
_LEAST_BYTES = 2  # that tell whether ranges are served

Report = Callable[[str], None]


def buckets(path: str, quick: bool, report: Report) -> list[Finding]:
    """Of the largest object among the first ones below the path.

    Raises:
        NotFoundError, AccessError, ReadError, ConfigError: It cannot be asked, or has no objects.
    """
    store = the_s3_objects()
    objects = store.buckets.core_store(path)
    report(f"listing {path}")
    listed = store.identities(path, objects.list_objects(path, most=1000))
    data = (name for name in listed if not is_index_name(os.path.basename(name)))
    largest = max(data, key=lambda name: listed[name].size_bytes, default="")
    if not largest or listed[largest].size_bytes < _LEAST_BYTES:
        raise ConfigError(f"{path}: no object begins with this name; name a prefix that has some")
    version = listed[largest]
    size = version.size_bytes
    report(f"writing an object of 1 byte beside {largest}")
    findings = [_conditions(objects, largest, version), _writes(os.path.dirname(largest))]
    part_bytes = store.buckets.at(path).config.part_bytes
    seconds = _QUICK_SECONDS_A_POINT if quick else _SECONDS_A_POINT
    rates = {}
    for depth in QUICK_DEPTHS if quick else DEPTHS:
        report(f"reading {largest}, {depth} parts at a time")
        reads = _C.S3Reads(objects=objects, buffer_pool=None, depth=depth)
        length = min(size, depth * part_bytes)
        rates[depth] = _gb_per_s(reads, largest, version, length, seconds)
    return [*findings, _speed(largest, size, min(part_bytes, size), rates)]


def _conditions(objects: _C.S3Objects, path: str, version: Identity) -> Finding:
    if objects.honours_if_match(path, version, timeout_s=math.inf):
        return Finding(
            topic="If-Match",
            found="the server serves ranges, and refuses them once an object has changed.",
            data={"honours_if_match": True},
        )
    return Finding(
        topic="If-Match",
        status="note",
        found="the server serves ranges, but ignores If-Match: it sends another version of an "
        "object than was asked for. Each reply is compared with the ETag that was seen, so that "
        "is an error all the same, after the transfer has begun.",
        data={"honours_if_match": False},
    )


def _writes(folder: str) -> Finding:
    """By an object that comes while another writer of it is open; it is removed."""
    path = f"{folder}/.torch_s3io-doctor-{secrets.token_hex(8)}"
    store, is_heeded = open_store(path), False
    try:
        try:
            with store.writer(path, if_absent=True) as writer:  # there is none yet
                writer.write(b"2")
                store.put(path, b"1")
        except ExistsError:
            is_heeded = True
        finally:
            store.remove(path)
    except Error as error:
        return Finding(
            topic="If-None-Match",
            status="note",
            found=f"whether writers may rely on it cannot be told: {error}",
        )
    if is_heeded:
        return Finding(
            topic="If-None-Match",
            found="the server does not replace an object where it is asked not to.",
            data={"honours_if_none_match": True},
        )
    return Finding(
        topic="If-None-Match",
        status="note",
        found="the server ignores If-None-Match: if_absent=True replaces an object that comes "
        "after its writer has looked, and of two writers of one data set or checkpoint at once "
        "the last one wins, though neither may overwrite. Let each write to a place of its own.",
        data={"honours_if_none_match": False},
    )


def _gb_per_s(
    reads: _C.S3Reads, path: str, version: Identity, length: int, seconds: float
) -> float:
    """Of reads of this length, one after the other, at random places."""
    generator = random.Random(0)
    begun, total = time.perf_counter(), 0
    while total == 0 or time.perf_counter() - begun < seconds:
        offset = generator.randrange(version.size_bytes - length + 1)
        reads.read(path, offset, length, version=version)
        total += length
    return total / (time.perf_counter() - begun) / 1e9


def _speed(path: str, size: int, part_bytes: int, rates: dict[int, float]) -> Finding:
    best = max(rates, key=lambda depth: rates[depth])
    shown = ", ".join(f"{rate:.2g} GB/s with {depth}" for depth, rate in rates.items())
    is_small = size < best * part_bytes
    small = f" It has {in_bytes(size)}: a larger one would tell more." if is_small else ""
    return Finding(
        topic="objects",
        status="note" if size < 16 * MIB else "ok",
        found=f"{path} is read at {shown} parts of {in_bytes(part_bytes)} at a time.{small}",
        data={"path": path, "part_bytes": part_bytes, "gb_per_s": rates},
    )
