"""What the contestants of bench_peers.py share: the records, and how they are read by number."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

THREADS = 8
WORKERS = 2
SHARD_BYTES = 64 << 20  # of formats that have shards
SHUFFLE_BUFFER = 1000  # samples, of those that shuffle within a buffer


class Left(Exception):
    """This contestant cannot take part. The text says why."""


@dataclass(frozen=True)
class Workload:
    """Files of nothing but records, and how they are wanted."""

    paths: tuple[Path, ...]
    record_bytes: int
    records_per_file: int
    batch_size: int
    shuffled: bool
    warm: bool

    @property
    def count(self) -> int:
        return len(self.paths) * self.records_per_file

    def name(self) -> str:
        return f"{len(self.paths)}x{self.records_per_file}x{self.record_bytes}"


@dataclass(frozen=True)
class Contestant:
    """Batches to iterate, and the files that they are read from."""

    batches: Iterable[torch.Tensor]
    files: tuple[Path, ...]


class Preads:
    """Records by number, by pread. Files are opened in the process that reads."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self._fds: dict[tuple[int, int], int] = {}

    def _fd(self, file: int) -> int:
        key = (os.getpid(), file)
        if key not in self._fds:
            self._fds[key] = os.open(self.workload.paths[file], os.O_RDONLY)
        return self._fds[key]

    def read_into(self, number: int, view: memoryview) -> None:
        file, record = divmod(number, self.workload.records_per_file)
        offset = record * self.workload.record_bytes
        while view:
            done = os.preadv(self._fd(file), [view], offset)
            view, offset = view[done:], offset + done

    def batch(self, numbers: Iterable[int]) -> torch.Tensor:
        """Records of these numbers, in fresh memory; neighbours of one file in one call."""
        numbers = list(numbers)
        size, per_file = self.workload.record_bytes, self.workload.records_per_file
        batch = torch.empty((len(numbers), size), dtype=torch.uint8)
        view = batch.numpy().data.cast("B")
        begin = 0
        for end in range(1, len(numbers) + 1):
            follows = (
                end < len(numbers)
                and numbers[end] == numbers[end - 1] + 1
                and numbers[end] % per_file
            )
            if not follows:
                self.read_into(numbers[begin], view[begin * size : end * size])
                begin = end
        return batch

    def __getstate__(self) -> dict[str, Any]:
        return {"workload": self.workload, "_fds": {}}


class Epochs:
    """Anew from a function for every epoch."""

    def __init__(self, make: Callable[[], Iterator[torch.Tensor]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self._make()
