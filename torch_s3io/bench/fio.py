"""fio on the same files, as the yardstick for reads."""

from __future__ import annotations

import json
import shutil
import subprocess

from ..errors import ConfigError, DataError
from ..wording import one_line
from .config import DataConfig
from .data import folder_of

_ALIGNMENT = 512


def version() -> str:
    """fio's version; empty if it is not installed."""
    if shutil.which("fio") is None:
        return ""
    return _run(["fio", "--version"]).stdout.strip()


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace")


def read_once(
    data: DataConfig, block_bytes: int, depth: int, *, shuffled: bool, seed: int = 0
) -> dict[str, float]:
    """GB/s and processor seconds per GB of direct reads of all files, once, through io_uring.

    One file after the other, in order; or all blocks of all files in random order, once each.
    """
    if block_bytes % _ALIGNMENT:
        raise ConfigError(f"fio reads blocks of whole sectors, not of {block_bytes} bytes")
    order = (
        ["--rw=randread", "--file_service_type=random", f"--randseed={seed}"]
        if shuffled
        else ["--rw=read", "--file_service_type=sequential"]
    )
    command = ["fio", "--name=read", f"--directory={folder_of(data).absolute()}"]
    command += ["--filename_format=$filenum.bin", f"--nrfiles={data.files}"]
    command += [f"--filesize={data.file_bytes}", f"--openfiles={min(data.files, 512)}", *order]
    command += ["--ioengine=io_uring", "--direct=1", f"--bs={block_bytes}", f"--iodepth={depth}"]
    command += ["--thread", "--fixedbufs", "--registerfiles", "--gtod_reduce=1"]
    result = _run([*command, "--output-format=json"])
    if result.returncode != 0:
        raise ConfigError(f"fio failed: {(result.stderr or result.stdout).strip()[:500]}")
    return figures(result.stdout)


def figures(report: str) -> dict[str, float]:
    """GB/s and processor seconds per GB, of what fio prints as JSON after its notes.

    Raises:
        DataError: It does not say them.
    """
    try:
        job = json.loads(report[report.index("{") :])["jobs"][0]
        read, seconds = job["read"], job["read"]["runtime"] / 1000
        gigabytes = read["io_bytes"] / 1e9
        cpu_s = (job["usr_cpu"] + job["sys_cpu"]) / 100 * seconds
        return {"gb_per_s": gigabytes / seconds, "cpu_s_per_gb": cpu_s / gigabytes}
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        raise DataError(
            f"fio's report cannot be read; try another version of fio: {one_line(report)}"
        ) from None
