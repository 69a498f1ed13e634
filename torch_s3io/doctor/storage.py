"""The storage below a path: direct reads, their alignment, and how fast which requests are."""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from .. import _C
from ..config import MIB
from ..errors import ConfigError, Error
from .finding import Finding, in_bytes

BLOCKS = (4 << 10, 16 << 10, 64 << 10, 256 << 10, MIB, 4 * MIB)
DEPTHS = (1, 8, 32, 128)
QUICK_BLOCKS = (4 << 10, 256 << 10, MIB)
QUICK_DEPTHS = (8, 32)
DATASET_BLOCK, DATASET_DEPTH = MIB, 32  # how RecordDataset reads
MOST_FILES_COUNTED = 10_000

_MOST_BUFFER_BYTES = 128 * MIB
# What is read into in turn, whatever the depth, as a data set does with its pool: few buffers stay
# in the processor's caches, and seem faster than they are in use.
_POOL_BYTES = 64 * MIB
_MOST_SECONDS = 50.0
_SECONDS_A_POINT = 2.0
_QUICK_SECONDS_A_POINT = 0.2
_LARGE_FILE_BYTES = 1 << 30
_FILE_BYTES, _QUICK_FILE_BYTES = 1 << 30, 128 * MIB
_SMALLEST_FILE_BYTES = 16 * MIB
_WRITE_BYTES = 16 * MIB
_NEAR_BEST = 0.97  # the smallest requests that come this near to the fastest are recommended
_WORTH_SAYING = 1.15

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ReadSpeed:
    """Random reads of one size at one depth."""

    block_bytes: int
    depth: int
    engine: str
    gb_per_s: float
    requests_per_s: float
    cpu_s_per_gb: float

    def __str__(self) -> str:
        return (
            f"{self.gb_per_s:.2f} GB/s with requests of {in_bytes(self.block_bytes)}, {self.depth} "
            f"at a time ({self.requests_per_s:,.0f} requests/s, {self.cpu_s_per_gb:.3f} s of "
            "processor time per GB)"
        )


def count_files(path: Path) -> int:
    """Files below the folder; MOST_FILES_COUNTED + 1 stands for all above. 1 for a file."""
    if path.is_file():
        return 1
    count = 0
    for _, _, names in os.walk(path):
        count += len(names)
        if count > MOST_FILES_COUNTED:
            return MOST_FILES_COUNTED + 1
    return count


@contextlib.contextmanager
def file_to_read(path: Path, quick: bool, report: Report) -> Iterator[tuple[Path, str]]:
    """A file on the storage below ``path``, and where it comes from.

    ``path`` itself, a file of at least 1 GiB in the folder, or a new one without a name, which
    is gone at the end, however the process ends.

    Raises:
        ConfigError: The file is too small to measure, or there is no room for a new one.
    """
    if path.is_file():
        size = path.stat().st_size
        if size < _SMALLEST_FILE_BYTES:
            raise ConfigError(
                f"{path}: {in_bytes(size)} are too few to measure reads; name a file of "
                f"{in_bytes(_SMALLEST_FILE_BYTES)} or more, or a folder"
            )
        yield path, "the file that was named"
        return
    for name in sorted(os.listdir(path)):
        candidate = path / name
        large = candidate.is_file() and candidate.stat().st_size >= _LARGE_FILE_BYTES
        if large and os.access(candidate, os.R_OK):
            yield candidate, f"{name}, which was there"
            return
    with _new_file(path, quick, report) as (made, size):
        yield made, f"a temporary file of {in_bytes(size)}"


@contextlib.contextmanager
def _new_file(folder: Path, quick: bool, report: Report) -> Iterator[tuple[Path, int]]:
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    size = min(_QUICK_FILE_BYTES if quick else _FILE_BYTES, free // 4) // MIB * MIB
    if size < _SMALLEST_FILE_BYTES:
        raise ConfigError(
            f"{folder}: only {in_bytes(free)} are free, too few for a file to measure reads of; "
            "free some space, or name a file that is there"
        )
    random = np.random.Generator(np.random.SFC64(0))  # imports what an interrupt could get lost in
    report(f"making a file of {in_bytes(size)} in {folder}, gone at the end")
    with contextlib.ExitStack() as stack:
        try:
            # A file without a name where the file system can (O_TMPFILE).
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            for begin in range(0, size, _WRITE_BYTES):
                file.write(random.bytes(min(_WRITE_BYTES, size - begin)))
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise ConfigError(
                f"{folder}: cannot make a file to measure reads of: {error.strerror}; name a file "
                "that is there"
            ) from None
        yield Path(f"/proc/self/fd/{file.fileno()}"), size


def direct_reads(file: Path) -> Finding:
    """Whether O_DIRECT works there, and at which alignment (statx)."""
    [(_, stated)] = _C.inspect_files([str(file)])
    alignment = _C.direct_alignment(str(file), "auto")
    data = {"alignment_bytes": alignment, "statx_alignment_bytes": stated}
    if alignment == 0:
        return Finding(
            topic="direct reads",
            status="costs",
            found="this file system refuses O_DIRECT",
            cost="every read goes through the page cache: more processor time and, on a disk, less "
            "throughput; direct='require' is an error",
            fix="move the data to ext4, XFS or another file system with direct reads",
            data=data,
        )
    return Finding(
        topic="direct reads",
        found=f"work (O_DIRECT), at multiples of {alignment} bytes",
        data=data,
    )


def measure(
    file: Path,
    block_bytes: int,
    depth: int,
    seconds: float,
    *,
    engine: Literal["auto", "uring", "threads"] = "auto",
    direct: bool = True,
) -> ReadSpeed:
    """Random reads for so many seconds, straight from the engine."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    result = _C.measure_reads(
        str(file),
        block_bytes=block_bytes,
        depth=depth,
        seconds=seconds,
        engine=engine,
        direct="require" if direct else "off",
        seed=block_bytes + depth,
        memory_bytes=_POOL_BYTES,
    )
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    gigabytes = result["bytes"] / 1e9
    return ReadSpeed(
        block_bytes=block_bytes,
        depth=depth,
        engine=result["engine"],
        gb_per_s=gigabytes / result["seconds"],
        requests_per_s=result["requests"] / result["seconds"],
        cpu_s_per_gb=cpu_s / gigabytes,
    )


def points(quick: bool, file_bytes: int) -> list[tuple[int, int]]:
    """(block, depth) to measure: what fits into a sensible amount of buffers, and the file."""
    blocks, depths = (QUICK_BLOCKS, QUICK_DEPTHS) if quick else (BLOCKS, DEPTHS)
    return [
        (block, depth)
        for block in blocks
        for depth in depths
        if block * depth <= _MOST_BUFFER_BYTES and block <= file_bytes
    ]


def sweep(file: Path, quick: bool, direct: bool, report: Report) -> list[ReadSpeed]:
    """All points, within a minute."""
    wanted = points(quick, file.stat().st_size)
    seconds = min(
        _QUICK_SECONDS_A_POINT if quick else _SECONDS_A_POINT, _MOST_SECONDS / len(wanted)
    )
    speeds = []
    for number, (block, depth) in enumerate(wanted, 1):
        report(f"reading, {number} of {len(wanted)}: {in_bytes(block)}, {depth} at a time")
        speeds.append(measure(file, block, depth, seconds, direct=direct))
    return speeds


def best_of(speeds: list[ReadSpeed]) -> ReadSpeed:
    """The smallest requests in flight that are nearly as fast as the fastest."""
    fastest = max(speed.gb_per_s for speed in speeds)
    near = [speed for speed in speeds if speed.gb_per_s >= _NEAR_BEST * fastest]
    return min(near, key=lambda speed: (speed.block_bytes * speed.depth, speed.block_bytes))


def read_speed(file: Path, origin: str, quick: bool, report: Report) -> list[Finding]:
    """The best block size and depth, and what they are against the defaults of a data set."""
    direct = _C.direct_alignment(str(file), "auto") > 0
    try:
        speeds = sweep(file, quick, direct, report)
    except Error as error:
        return [
            Finding(
                topic="reads",
                status="costs",
                found=f"reading failed: {error}",
                cost="a data set there fails, too",
                fix="dmesg tells what the device reported",
            )
        ]
    best = best_of(speeds)
    how = "past the page cache" if direct else "through the page cache"
    small = max((s for s in speeds if s.block_bytes == BLOCKS[0]), key=lambda s: s.gb_per_s)
    findings = [
        Finding(
            topic="reads",
            found=f"random reads of {origin}, {how}, by {best.engine}. Best: {best}. Small ones: "
            f"{small}",
            data={"origin": origin, "direct": direct, "best": asdict(best),
                  "measured": [asdict(speed) for speed in speeds]},
        )
    ]  # fmt: skip
    if direct:
        findings += _against_defaults(file, speeds, quick, report)
    return findings


def _against_defaults(
    file: Path, speeds: list[ReadSpeed], quick: bool, report: Report
) -> list[Finding]:
    """Whether another depth is faster for the reads of a data set: measured in turns, since one
    run of each is noisy. Empty where the file is smaller than such a read."""
    same_block = [speed for speed in speeds if speed.block_bytes == DATASET_BLOCK]
    if not same_block:
        return []
    depth = best_of(same_block).depth
    seconds = _QUICK_SECONDS_A_POINT if quick else 1.0
    ratios, defaults = [], []
    for number in range(3):
        report(f"comparing with the defaults, {number + 1} of 3")
        default = measure(file, DATASET_BLOCK, DATASET_DEPTH, seconds)
        candidate = measure(file, DATASET_BLOCK, depth, seconds)
        ratios.append(candidate.gb_per_s / default.gb_per_s)
        defaults.append(default.gb_per_s)
    ratio, speed = statistics.median(ratios), statistics.median(defaults)
    data = {"ratio": ratio, "ratios": ratios, "depth": depth, "default_gb_per_s": speed}
    text = (
        f"a RecordDataset has requests of {in_bytes(DATASET_BLOCK)}, {DATASET_DEPTH} at a time: "
        f"{speed:.2f} GB/s"
    )
    if depth == DATASET_DEPTH or ratio < _WORTH_SAYING:
        found = f"{text}; no other number at a time is much faster"
        return [Finding(topic="defaults", found=found, data=data)]
    return [
        Finding(
            topic="defaults",
            status="costs",
            found=f"{text}; {depth} at a time are {ratio:.2f} times as fast",
            cost=f"{(1 - 1 / ratio):.0%} of the throughput, where records are large",
            fix=f"RecordDataset(..., depth={depth})",
            data=data,
        )
    ]
