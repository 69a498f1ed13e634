"""What a process and its workers have used so far: processor time, page faults, allocations."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Of this process, its workers that live, and those that have ended.

    Attributes:
        cpu_s: Processor time, user and system.
        minor_faults: Page faults without I/O.
        allocator_calls: malloc and its like; None where they are not counted.
        allocated_bytes: What these asked for.
    """

    cpu_s: float
    minor_faults: int
    allocator_calls: int | None
    allocated_bytes: int | None

    @classmethod
    def now(cls) -> Usage:
        own = resource.getrusage(resource.RUSAGE_SELF)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime
        faults = own.ru_minflt + ended.ru_minflt
        for pid in children():
            with contextlib.suppress(OSError):
                fields = _stat_fields(pid)
                faults += int(fields[7])
                cpu_s += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        return cls(
            cpu_s=cpu_s,
            minor_faults=faults,
            allocator_calls=_count(_calls),
            allocated_bytes=_count(_bytes),
        )


def _stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the name before may hold anything."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()


def children() -> list[int]:
    """Processes that this one has started and that live."""
    pids: list[int] = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/self/task/{task}/children").read_text()
            pids += [int(word) for word in text.split()]
    return pids


def reset_peak_memory() -> None:
    """From now on peak_memory_bytes counts anew, where the kernel allows it."""
    for pid in (os.getpid(), *children()):
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_memory_bytes() -> int:
    """Largest resident size of this process, plus that of each worker. Memory that they share is
    counted in each that has touched it."""
    total = 0
    for pid in (os.getpid(), *children()):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
                if line.startswith(b"VmHWM:"):
                    total += int(line.split()[1]) * 1024
    return total


def _counter(name: str) -> Any:
    """A counting function of the preloaded library, or None."""
    try:
        counter = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    counter.restype = ctypes.c_uint64
    return counter


_calls = _counter("torch_s3io_allocator_calls")
_bytes = _counter("torch_s3io_allocated_bytes")


def _count(counter: Any) -> int | None:
    return None if counter is None else int(counter())


def counts_allocations() -> bool:
    """Whether the counting library is preloaded."""
    return _calls is not None
