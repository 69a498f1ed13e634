"""The store of a checkpoint, and bytes of objects into tensors, several ranges at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch

from ..config import MIB, BufferPoolConfig, FileSystemConfig, path_text
from ..store.file_store import FileStore
from ..store.open import open_store
from ..store.stores import StoreSetting, scheme_of

if TYPE_CHECKING:
    from ..store.s3_store import S3Store

Config: TypeAlias = FileSystemConfig | StoreSetting

_THREADS = 4
_PIECE_BYTES = 16 * MIB
# A range of a piece, and the blocks that it begins and ends within.
_CONFIG = FileSystemConfig(
    buffer_pool=BufferPoolConfig(capacity=2 * _THREADS + 2, buffer_size=_PIECE_BYTES + MIB)
)


class Folder:
    """A folder of files, or a prefix of objects, in which a checkpoint lies.

    Args:
        path: A folder, or ``s3://bucket/prefix``.
        config: How to read and write; None: the defaults.
    """

    def __init__(self, path: str | os.PathLike[str], config: Config = None) -> None:
        self.path = path_text(path).rstrip("/") or "/"
        self.store = store_for(self.path, config)

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"

    def make(self) -> None:
        if isinstance(self.store, FileStore):
            os.makedirs(self.path, exist_ok=True)


def store_for(path: str, config: Config) -> FileStore | S3Store:
    is_file = scheme_of(path) != "s3"
    return open_store(path, _CONFIG if config is None and is_file else config)


def warn_if_nothing_verifies(path: str) -> None:
    """Of a bucket, where what is read of it is compared with no checksum, and TLS is not there."""
    if scheme_of(path) == "s3":
        from ..store.s3_objects import the_s3_objects  # where it was built with that

        buckets = the_s3_objects().buckets
        buckets.core_store(path)  # refuses an address with a password, which a warning would show
        buckets.servers.warn_if_nothing_verifies(buckets.endpoint_of(path))


class Range(NamedTuple):
    """Bytes of an object, and the uint8 tensor [n] on the CPU that they go to."""

    path: str
    offset: int
    into: torch.Tensor

    def pieces(self) -> Iterator[Range]:
        for begin in range(0, self.into.numel(), _PIECE_BYTES):
            yield Range(self.path, self.offset + begin, self.into[begin : begin + _PIECE_BYTES])


def read_all(
    store: FileStore | S3Store, ranges: Iterable[Range], versions: Mapping[str, Any]
) -> None:
    """Reads them, several at a time.

    Args:
        versions: Of each file or object, as ``stat`` gave it: another one is an error.

    Raises:
        FileChangedError, ObjectChangedError: One has another version.
        NotFoundError, RangeError: One is missing, or too short. Others: of ``get_range``.
    """
    pieces = [piece for one in ranges for piece in one.pieces()]

    def read(piece: Range) -> None:
        path, offset, into, of = piece.path, piece.offset, piece.into, versions[piece.path]
        if isinstance(store, FileStore):
            into.copy_(store.get_range(path, offset, into.numel(), version=of))
        else:
            store.read_into(path, offset, into, version=of)

    with ThreadPoolExecutor(_THREADS, "torch_s3io-checkpoint") as threads:
        reads = [threads.submit(read, piece) for piece in pieces]
        try:
            for one in reads:
                one.result()
        except BaseException:
            for one in reads:
                one.cancel()
            raise


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """The memory of a contiguous tensor as uint8 [n]."""
    return tensor.detach().reshape(-1).view(torch.uint8)
