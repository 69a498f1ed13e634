"""A PyTorch data loader that reads with O_DIRECT and io_uring straight into pooled, reusable
memory.

``RecordDataset`` streams fixed-size records of local files as batches; ``DataLoader`` brings them
to the training loop, from worker processes too; ``DevicePrefetcher`` copies them to a GPU ahead of
the step. ``FileStore`` reads whole files and ranges; ``BufferPool`` is the memory below all.
"""

import torch as _torch  # noqa: F401  (loads the libraries that the extension links to)

from ._version import __version__
from .config import BufferPoolConfig, FileSystemConfig, RangeEngineConfig
from .dataset import RecordDataset
from .errors import (
    AccessError,
    ConfigError,
    DataError,
    DirectIOError,
    EngineError,
    Error,
    FileChangedError,
    NoSpaceError,
    NotFoundError,
    OutOfMemoryError,
    PoolTimeoutError,
    RangeError,
    ReadError,
    ReadTimeoutError,
    WriteError,
    WriteTimeoutError,
)
from .loader import DataLoader
from .memory import AlignedBuf, BufferPool
from .prefetch import DevicePrefetcher
from .store import FileStore, ObjectInfo
from .writer import ObjectWriter, WrittenObject

__all__ = [
    "AccessError",
    "AlignedBuf",
    "BufferPool",
    "BufferPoolConfig",
    "ConfigError",
    "DataError",
    "DataLoader",
    "DevicePrefetcher",
    "DirectIOError",
    "EngineError",
    "Error",
    "FileChangedError",
    "FileStore",
    "FileSystemConfig",
    "NoSpaceError",
    "NotFoundError",
    "ObjectInfo",
    "ObjectWriter",
    "OutOfMemoryError",
    "PoolTimeoutError",
    "RangeEngineConfig",
    "RangeError",
    "ReadError",
    "ReadTimeoutError",
    "RecordDataset",
    "WriteError",
    "WriteTimeoutError",
    "WrittenObject",
    "__version__",
]
