"""A PyTorch data loader that reads with O_DIRECT and io_uring straight into pooled, reusable
memory.

``RecordDataset`` streams fixed-size records of local files as batches; ``DataLoader`` brings them
to the training loop, from worker processes too; ``DevicePrefetcher`` copies them to a GPU ahead of
the step. ``FileStore`` reads whole files and ranges; ``BufferPool`` is the memory below all.
"""

import importlib.util as _util

import torch as _torch  # noqa: F401  (loads the libraries that the extension links to)

if _util.find_spec("torch_s3io._C") is None:
    raise ImportError(
        f"{__path__[0]} is the source of torch_s3io, in which the extension was not built: `make "
        "setup` beside it builds it there; to import what pip installed, start Python in another "
        "folder"
    )

from ._version import __version__
from .augment import record_generator
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
from .mapstyle import RecordMapDataset
from .memory import AlignedBuf, BufferPool
from .mix import Mix
from .prefetch import DevicePrefetcher
from .record_writer import RecordWriter
from .store import FileStore, ObjectInfo
from .writer import ObjectWriter, WrittenObject
from .zipped import Zip

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
    "Mix",
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
    "RecordMapDataset",
    "RecordWriter",
    "WriteError",
    "WriteTimeoutError",
    "WrittenObject",
    "Zip",
    "__version__",
    "record_generator",
]
