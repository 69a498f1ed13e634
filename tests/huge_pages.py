"""Huge pages for what a process has in memory: it then is forked in a third of the time.

A fork copies page tables, and the end of the forked process takes them down: of what torch and the
tests are, for 50 ms on a slow machine. The suite forks thousands of times.

What the parent writes while a child lives splits them again. A process that does little between its
forks gains most.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

_COLLAPSE = 25  # MADV_COLLAPSE of <asm-generic/mman-common.h>, since Linux 6.1
_HUGE_BYTES = 2 << 20

_madvise = ctypes.CDLL(None, use_errno=True).madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def use_huge_pages() -> None:
    """Puts this process's heap into huge pages. Where the kernel refuses, all stays as it is."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, access, _, _, _, *name = line.split(maxsplit=5)
        if access != "rw-p" or name not in ([], ["[heap]"]):
            continue
        first, last = (int(address, 16) for address in place.split("-"))
        begin, end = -(-first // _HUGE_BYTES) * _HUGE_BYTES, last // _HUGE_BYTES * _HUGE_BYTES
        if begin < end:
            _madvise(begin, end - begin, _COLLAPSE)
