"""Texts of the kernel, of the environment and of programs: nothing in them ends a command."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from torch_s3io import ConfigError
from torch_s3io.bench.fio import figures
from torch_s3io.bench.runner import mounted
from torch_s3io.doctor.devices import device_node, numa_nodes, parse_cpu_list
from torch_s3io.doctor.finding import chosen, read_text, whole_number
from torch_s3io.processes.ranks import find_local_ranks, find_ranks

TOKENS = [
    *(b"0-3,8", b"0-99999999999", b"3-1", b",", b"-", b"--5", b" - ", b"36 35 98:0 /", b"ext4"),
    *("²".encode(), "٣".encode(), b"1_0", b"+1", b"\xff\xfe", b"[never]", b"]x[", b"\n", b"\x85"),
    *(b'{"jobs": [{"read": {"runtime": 0, "io_bytes": 1}}]}', b"\x1c"),
]
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def make(folder: Path) -> Callable[[bytes], None]:
    node = folder / "sys/devices/system/node/node0"
    device = folder / "sys/dev/block/0:1"
    node.mkdir(parents=True)
    device.mkdir(parents=True)

    def read(data: bytes) -> None:
        """Up to four parts, cut by NUL bytes, are the variables; all of it is every other text."""
        (node / "cpulist").write_bytes(data)
        (device / "numa_node").write_bytes(data)
        text = read_text(node / "cpulist")
        nodes = numa_nodes(folder)
        assert nodes in ({}, {0: parse_cpu_list(text)})
        assert all(0 <= cpu < 100_000 for cpus in nodes.values() for cpu in cpus)
        number = whole_number(text)
        assert device_node(1, folder) == (-1 if number is None else max(number, -1))
        assert "]" not in chosen(text)
        mounted(text, "98:0").encode()
        _read_ranks(data)
        for value in figures(text).values():
            float(value)

    return read


def _read_ranks(data: bytes) -> None:
    for name, part in zip(_VARIABLES, data.split(b"\0"), strict=False):
        os.environ[name] = part.decode("utf-8", "surrogateescape")
    try:
        rank, local_ranks = find_local_ranks(8)
        assert 0 <= rank < local_ranks <= 8
        with contextlib.suppress(ConfigError):
            ranks = find_ranks(None, None)
            assert 0 <= ranks.rank < ranks.world_size
    finally:
        for name in _VARIABLES:
            os.environ.pop(name, None)
