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

from . import checkpoint
from ._version import __version__
from .checkpoint.safetensors import load_safetensors, save_safetensors
from .config import BufferPoolConfig, FileSystemConfig, RangeEngineConfig
from .datasets.mapstyle import RecordMapDataset
from .datasets.mix import Mix
from .datasets.record_dataset import RecordDataset
from .datasets.sample_dataset import SampleDataset
from .datasets.token_dataset import TokenDataset
from .datasets.zipped import Zip
from .errors import (
    AccessError,
    ConfigError,
    DataError,
    DirectIOError,
    EngineError,
    Error,
    ExistsError,
    FileChangedError,
    NoSpaceError,
    NotFoundError,
    ObjectChangedError,
    OutOfMemoryError,
    PoolTimeoutError,
    RangeError,
    ReadError,
    ReadTimeoutError,
    WriteError,
    WriteTimeoutError,
)
from .format.ragged import Ragged
from .loading.data_loader import DataLoader
from .loading.device_prefetcher import DevicePrefetcher
from .memory import AlignedBuf, BufferPool
from .order.augment import record_generator
from .store.file_store import FileStore, ObjectInfo
from .store.object_writer import ObjectWriter, WrittenObject
from .store.open import open_store
from .store.s3_config import S3Config
from .writing.record_writer import RecordWriter
from .writing.sample_writer import SampleWriter

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
    "ExistsError",
    "FileChangedError",
    "FileStore",
    "FileSystemConfig",
    "Mix",
    "NoSpaceError",
    "NotFoundError",
    "ObjectChangedError",
    "ObjectInfo",
    "ObjectWriter",
    "OutOfMemoryError",
    "PoolTimeoutError",
    "Ragged",
    "RangeEngineConfig",
    "RangeError",
    "ReadError",
    "ReadTimeoutError",
    "RecordDataset",
    "RecordMapDataset",
    "RecordWriter",
    "S3Config",
    "SampleDataset",
    "SampleWriter",
    "TokenDataset",
    "WriteError",
    "WriteTimeoutError",
    "WrittenObject",
    "Zip",
    "__version__",
    "checkpoint",
    "load_safetensors",
    "open_store",
    "record_generator",
    "save_safetensors",
]
