"""Checkpoints by ``torch.distributed.checkpoint``, each contestant's in its usual way.

A state is of float32 tensors of 64 MiB, with random bits, and a number. It is saved from memory,
overwritten there, loaded into the same tensors, and compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import common
import torch
from libraries import library

_TENSOR_ELEMENTS = 4096, 4096
_TENSOR_BYTES = 64 << 20
_STEP = 7

State = dict[str, Any]


@dataclass(frozen=True)
class Checkpointer:
    """How a contestant writes and reads.

    Attributes:
        writer, reader: Of an address, the StorageWriter and StorageReader.
        package: What has to be installed.
    """

    writer: Callable[[str], Any]
    reader: Callable[[str], Any]
    package: str


def save_and_load(one: Checkpointer, url: str, size_gib: float) -> common.Sample:
    """Of a checkpoint at ``url``; in a process of its own."""
    import torch.distributed.checkpoint as dcp

    state = _state(max(1, int(size_gib * (1 << 30)) // _TENSOR_BYTES))
    library(one.package)
    saved = _timed(state, lambda: dcp.save(state, storage_writer=one.writer(url)))
    _overwrite(state)
    loaded = _timed(state, lambda: dcp.load(state, storage_reader=one.reader(url)))
    _check(state)
    return {f"save_{name}": value for name, value in saved.items()} | {
        f"load_{name}": value for name, value in loaded.items()
    }


def _timed(state: State, work: Callable[[], object]) -> common.Sample:
    size = sum(one.nbytes for one in state.values() if isinstance(one, torch.Tensor))

    def measured() -> tuple[int, float]:
        start = time.perf_counter()
        work()
        return size, time.perf_counter() - start

    return common.measured(measured)


def _random_bits() -> torch.Tensor:
    # Of any other numbers the server would find some parts that it can compress.
    random = torch.Generator().manual_seed(0)
    low, high = -(1 << 31), 1 << 31
    return torch.randint(low, high, _TENSOR_ELEMENTS, dtype=torch.int32, generator=random)


def _tensor(bits: torch.Tensor, number: int) -> torch.Tensor:
    """Another one for each number."""
    return (bits ^ (number * 0x01000193 & 0x7FFFFFFF)).view(torch.float32)


def _state(count: int) -> State:
    bits = _random_bits()
    tensors: State = {f"layers.{number}": _tensor(bits, number) for number in range(count)}
    return tensors | {"step": _STEP}


def _overwrite(state: State) -> None:
    for one in state.values():
        if isinstance(one, torch.Tensor):
            one.zero_()
    state["step"] = 0


def _check(state: State) -> None:
    bits = _random_bits()
    assert state["step"] == _STEP, state["step"]
    for number in range(len(state) - 1):
        found = state[f"layers.{number}"].view(torch.int32)
        assert torch.equal(found, _tensor(bits, number).view(torch.int32)), number


def _our_writer(url: str) -> Any:
    from torch_s3io import checkpoint

    return checkpoint.Writer(url)


def _our_reader(url: str) -> Any:
    from torch_s3io import checkpoint

    return checkpoint.Reader(url)


def _connector_config() -> Any:
    from s3torchconnector import S3ClientConfig

    return S3ClientConfig(force_path_style=True)


def _connector_writer(url: str) -> Any:
    from s3torchconnector.dcp import S3StorageWriter

    return S3StorageWriter("us-east-1", url, s3client_config=_connector_config())


def _connector_reader(url: str) -> Any:
    from s3torchconnector.dcp import S3StorageReader

    return S3StorageReader("us-east-1", url, s3client_config=_connector_config())


def _fsspec_writer(url: str) -> Any:
    from torch.distributed.checkpoint._fsspec_filesystem import FsspecWriter

    # By default it calls sync(2) after each file, since no object has an fsync.
    return FsspecWriter(url, sync_files=False)


def _fsspec_reader(url: str) -> Any:
    from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader

    return FsspecReader(url)


CHECKPOINTERS = {
    "s3io.checkpoint": Checkpointer(_our_writer, _our_reader, "torch_s3io"),
    "s3torchconnector": Checkpointer(_connector_writer, _connector_reader, "s3torchconnector"),
    "fsspec (s3fs)": Checkpointer(_fsspec_writer, _fsspec_reader, "s3fs"),
}
