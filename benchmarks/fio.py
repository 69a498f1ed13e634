"""fio as the rival: runs it and reads its report; huge pages for its buffers."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import GB, Sample
from storage import MIB

# What fio offers beyond the plain job: registered buffers and files, and no clock for latencies.
AT_ITS_BEST = ("--fixedbufs", "--registerfiles", "--gtod_reduce=1")

_NR_HUGEPAGES = Path("/proc/sys/vm/nr_hugepages")
_MOST_BYTES = 80 * MIB  # more than the buffers of any job here


def version() -> str:
    """fio's version, or an empty string if it is not installed."""
    if shutil.which("fio") is None:
        return ""
    return subprocess.run(["fio", "--version"], capture_output=True, text=True).stdout.strip()


def random_reads(
    path: Path, block_bytes: int, depth: int, seconds: float, seed: int, options: tuple[str, ...]
) -> Sample:
    """GB/s and CPU seconds per GB of random direct reads through io_uring."""
    kind = ("--rw=randread", "--norandommap", f"--randseed={seed}")
    return _reads(path, block_bytes, depth, seconds, (*kind, *options))


def sequential_reads(
    path: Path, block_bytes: int, depth: int, seconds: float, options: tuple[str, ...]
) -> Sample:
    """The same, from the beginning of the file to its end, again and again."""
    return _reads(path, block_bytes, depth, seconds, ("--rw=read", *options))


def _reads(
    path: Path, block_bytes: int, depth: int, seconds: float, options: tuple[str, ...]
) -> Sample:
    command = ["fio", "--name=bench", f"--filename={path}", "--readonly"]
    command += ["--ioengine=io_uring", "--direct=1", f"--bs={block_bytes}", f"--iodepth={depth}"]
    command += ["--time_based", f"--runtime={round(seconds * 1000)}ms"]
    command += ["--thread", "--output-format=json", *options]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\nfailed: {result.stderr or result.stdout}")
    job = json.loads(result.stdout[result.stdout.index("{") :])["jobs"][0]
    read, elapsed_s = job["read"], job["read"]["runtime"] / 1000
    cpu_s = (job["usr_cpu"] + job["sys_cpu"]) / 100 * elapsed_s
    gigabytes = read["io_bytes"] / GB
    return {"gb_per_s": gigabytes / elapsed_s, "cpu_s_per_gb": cpu_s / gigabytes}


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def sequential_writes(
    path: Path,
    block_bytes: int,
    depth: int,
    size_bytes: int,
    options: tuple[str, ...],
    changing: bool,
) -> Sample:
    """GB/s and CPU seconds per GB of writing a new file directly, its fsync included.

    `changing`: fio changes some bytes of a buffer before every write, as it does by default.

    The time is fio's own, of its write phase. The CPU seconds are those of the whole program, which
    includes the kernel's io_uring workers, less those of a run that writes a single block.
    """
    command = ["fio", "--name=bench", f"--filename={path}", "--rw=write", "--unlink=1"]
    command += ["--ioengine=io_uring", "--direct=1", f"--bs={block_bytes}", f"--iodepth={depth}"]
    command += ["--fallocate=native", "--end_fsync=1", "--thread", "--output-format=json", *options]
    command += [f"--scramble_buffers={int(changing)}"]

    def run(size: int) -> tuple[dict[str, Any], float]:
        path.unlink(missing_ok=True)  # else fio would overwrite blocks that are there already
        before = _children_cpu_s()
        result = subprocess.run([*command, f"--size={size}"], capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\nfailed: {result.stderr or result.stdout}")
        job = json.loads(result.stdout[result.stdout.index("{") :])["jobs"][0]
        return job["write"], _children_cpu_s() - before

    _, starting_cpu_s = run(block_bytes)
    write, cpu_s = run(size_bytes)
    gigabytes = write["io_bytes"] / GB
    return {
        "gb_per_s": gigabytes / (write["runtime"] / 1000),
        "cpu_s_per_gb": max(0.0, cpu_s - starting_cpu_s) / gigabytes,
    }


@contextlib.contextmanager
def huge_page_options(reserve: bool) -> Iterator[tuple[tuple[str, ...], str]]:
    """Options that put fio's buffers on huge pages if there are any, and a sentence about it.

    With `reserve`, takes them from the kernel for as long as the context lasts (root only).
    """
    info = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    page_bytes = int(info.get("Hugepagesize", "2048 kB").split()[0]) * 1024
    needed = _MOST_BYTES // page_bytes
    if int(info.get("HugePages_Free", "0")) >= needed:
        yield ("--iomem=shmhuge",), "fio's buffers lie on huge pages"
        return
    if not (reserve and os.access(_NR_HUGEPAGES, os.W_OK)):
        hint = "only root may reserve some" if reserve else "--reserve-hugepages was not given"
        yield (), f"fio's buffers lie on 4 KiB pages: no huge pages are free, and {hint}"
        return
    before = int(_NR_HUGEPAGES.read_text())
    try:
        _NR_HUGEPAGES.write_text(str(before + needed))
        if int(_NR_HUGEPAGES.read_text()) >= before + needed:
            yield ("--iomem=shmhuge",), "fio's buffers lie on huge pages, reserved for this run"
        else:
            yield (), "fio's buffers lie on 4 KiB pages: the kernel could not free huge ones"
    finally:
        _NR_HUGEPAGES.write_text(str(before))
