"""What a benchmark's configuration holds: the schema of the YAML files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from ..config import (
    BufferPoolConfig,
    DirectMode,
    EngineKind,
    FileSystemConfig,
    RangeEngineConfig,
    check_bool,
    check_choice,
    check_int,
)
from ..errors import ConfigError
from ..wording import short

StorageType = Literal["file", "s3"]
Reader = Literal["records", "files"]
PageCache = Literal["cold", "warm", "leave"]
Shuffle = bool | Literal["block"]

_MOST_FILES = 1_000_000


def _check_path(key: str, text: str) -> None:
    """Raises ConfigError for a text that cannot be a path in this process."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ConfigError(
            f"{key}: the locale cannot express {short(text)} as a path; run it with PYTHONUTF8=1"
        ) from None
    if "\0" in text:
        raise ConfigError(f"{key}: {text!r} contains a NUL character")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The files that are read. They are made if they are absent: seeded random bytes, which no
    device can compress.

    Attributes:
        folder: Where they lie: a folder below it is made for every kind of data. With storage.type
            s3: as "s3://bucket/prefix".
        files: How many are read.
        records_per_file: Records in each.
        record_bytes: Bytes of a record.
        seed: Of the bytes.
    """

    folder: str = "data/bench"
    files: int = 64
    records_per_file: int = 1
    record_bytes: int = 8_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str) or not self.folder:
            raise ConfigError(f"data.folder must be a path, not {short(self.folder)}")
        _check_path("data.folder", self.folder)
        check_int("data.files", self.files, 1)
        if self.files > _MOST_FILES:
            raise ConfigError(f"data.files must be at most {_MOST_FILES:,}, not {self.files:,}")
        check_int("data.records_per_file", self.records_per_file, 1)
        check_int("data.record_bytes", self.record_bytes, 1)
        check_int("data.seed", self.seed, 0)

    @property
    def is_in_bucket(self) -> bool:
        return self.folder.startswith("s3://")

    @property
    def file_bytes(self) -> int:
        return self.records_per_file * self.record_bytes

    @property
    def total_bytes(self) -> int:
        return self.files * self.file_bytes


@dataclass(frozen=True, kw_only=True)
class StorageConfig:
    """How the files are read.

    Attributes:
        type: "file"; or "s3": objects of a bucket, which is reached as the environment says,
            and as ``bench --store`` does.
        direct_io: As ``RecordDataset(direct=)`` and ``FileSystemConfig(direct_io=)``. With
            ``page_cache`` cold "auto" brings nothing into the page cache that it would not of a set
            larger than memory.
        engine: "uring", "threads", or "auto".
        depth: Reads in flight (loader.reader records).
        pool: "auto"; null: an allocation for every read; or the numbers of a BufferPoolConfig.
            "auto" is for records; files have 32 buffers of the size of a file, rounded up.
        range_engine: How a file is split (loader.reader files); null: not at all.
    """

    type: StorageType = "file"
    direct_io: DirectMode = "auto"
    engine: EngineKind = "auto"
    depth: int = 32
    pool: Literal["auto"] | BufferPoolConfig | None = "auto"
    range_engine: RangeEngineConfig | None = field(default_factory=RangeEngineConfig)

    def __post_init__(self) -> None:
        check_choice("storage.type", self.type, StorageType)
        check_choice("storage.direct_io", self.direct_io, DirectMode)
        check_choice("storage.engine", self.engine, EngineKind)
        check_int("storage.depth", self.depth, 1)
        if isinstance(self.pool, str):
            check_choice("storage.pool", self.pool, Literal["auto"])


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How batches reach the training loop.

    Attributes:
        reader: "records": RecordDataset; "files": whole files by FileStore.
        batch_size: Records, or files, in a batch.
        workers: Worker processes; 0: none.
        shuffle: false; true; "block" (records alone).
        block_records: Records of a block; null: as many as make 128 KiB, or 4 MiB in
            a bucket (shuffle block).
        window_blocks: Mix the records of so many blocks (shuffle block).
        seed: Of the order.
        drop_last: Leave out a last batch that is not full.
        concurrent_files: Files read at the same time (loader.reader files).
        copy_batches: Copy every batch once more, into fresh memory, before the loop gets it, as a
            loader without a pool does.
    """

    reader: Reader = "records"
    batch_size: int = 1
    workers: int = 0
    shuffle: Shuffle = False
    block_records: int | None = None
    window_blocks: int = 1
    seed: int = 0
    drop_last: bool = False
    concurrent_files: int = 2
    copy_batches: bool = False

    def __post_init__(self) -> None:
        check_choice("loader.reader", self.reader, Reader)
        check_int("loader.batch_size", self.batch_size, 1)
        check_int("loader.workers", self.workers, 0)
        if not isinstance(self.shuffle, bool) and self.shuffle != "block":
            raise ConfigError(
                f"loader.shuffle must be true, false or block, not {short(self.shuffle)}"
            )
        self._check_blocks()
        check_int("loader.seed", self.seed, 0)
        check_bool("loader.drop_last", self.drop_last)
        check_int("loader.concurrent_files", self.concurrent_files, 1)
        check_bool("loader.copy_batches", self.copy_batches)

    def _check_blocks(self) -> None:
        if self.block_records is not None:
            check_int("loader.block_records", self.block_records, 1)
        check_int("loader.window_blocks", self.window_blocks, 1)
        for key, default in (("block_records", None), ("window_blocks", 1)):
            if getattr(self, key) != default and self.shuffle != "block":
                raise ConfigError(f"loader.{key} is for loader.shuffle block: set that, too")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """A benchmark: data, how it is read, and the loop that takes it.

    Attributes:
        name: Names the folder of the results.
        description: A sentence for ``bench --list``.
        data: The files.
        storage: How they are read.
        loader: How batches reach the loop.
        epochs: Times that the data is read as a whole. The first one, in which buffers are made
            and workers start, is reported apart and is in no median.
        compute_s_per_step: The loop sleeps so long for every batch, in seconds, as if it computed.
        page_cache: Before every epoch, files are dropped from it ("cold"), brought into it
            ("warm"), or left as they are ("leave"). Where that takes time between epochs, nothing
            is read ahead over their ends: it would be read before the time counts. "cold" measures
            the storage, "warm" the memory, and "leave" what a training run gets, which begins with
            the one and, where the data fits, goes on with the other.
        profile: Record the first epoch with torch's profiler: a trace with the ranges
            "torch_s3io.next" and "compute".
    """

    name: str = "bench"
    description: str = ""
    data: DataConfig = DataConfig()
    storage: StorageConfig = StorageConfig()
    loader: LoaderConfig = LoaderConfig()
    epochs: int = 4
    compute_s_per_step: float = 0.0
    page_cache: PageCache = "cold"
    profile: bool = False

    def __post_init__(self) -> None:
        is_name = isinstance(self.name, str) and self.name not in ("", ".", "..")
        if not is_name or "/" in self.name or "\0" in self.name:
            raise ConfigError(
                f"name must be the name of a folder, a text without slashes, not {short(self.name)}"
            )
        _check_path("name", self.name)
        check_int("epochs", self.epochs, 1)
        check_choice("page_cache", self.page_cache, PageCache)
        check_bool("profile", self.profile)
        if isinstance(self.compute_s_per_step, bool) or not 0 <= self.compute_s_per_step < 3600:
            raise ConfigError(
                "compute_s_per_step must be seconds, from 0 to an hour, "
                f"not {short(self.compute_s_per_step)}"
            )
        self._check_reader()
        self._check_storage()
        if self.page_cache == "warm" and self.storage.direct_io == "require":
            raise ConfigError(
                "page_cache warm has no effect with storage.direct_io require, which reads past "
                "the page cache: set storage.direct_io to auto or off, or page_cache to cold"
            )
        if self.step_count == 0:
            raise ConfigError(
                f"loader.drop_last leaves no batch: data.files={self.data.files} of "
                f"data.records_per_file={self.data.records_per_file} are fewer than "
                f"loader.batch_size={self.loader.batch_size} samples; raise data.files, or lower "
                "loader.batch_size"
            )

    def _check_storage(self) -> None:
        """Settings that objects of a bucket do not have must be as they are by default."""
        is_s3 = self.storage.type == "s3"
        if is_s3 != self.data.is_in_bucket:
            raise ConfigError(
                "storage.type s3 and data.folder s3://bucket/prefix belong together, and these are "
                f"{self.storage.type} and {short(self.data.folder)}"
            )
        for name, value, wanted in (
            ("page_cache", self.page_cache, "leave"),
            ("storage.direct_io", self.storage.direct_io, "auto"),
            ("storage.engine", self.storage.engine, "auto"),
            ("loader.reader", self.loader.reader, "records"),
        ):
            if is_s3 and value != wanted:
                raise ConfigError(
                    f"{name} {value} is for files: with storage.type s3 it is {wanted}"
                )

    def _check_reader(self) -> None:
        """Settings that the chosen reader does not have must be as they are by default."""
        files = self.loader.reader == "files"
        default_storage, default_loader = StorageConfig(), LoaderConfig()
        if files:
            others = {"storage.depth": self.storage.depth != default_storage.depth}
            if self.loader.shuffle == "block":
                raise ConfigError("loader.shuffle block is for loader.reader records")
            if self.data.records_per_file != 1:
                raise ConfigError(
                    "loader.reader files takes a file as a whole: set data.records_per_file to 1 "
                    "and data.record_bytes to the size of a file"
                )
        else:
            others = {
                "storage.range_engine": self.storage.range_engine != default_storage.range_engine,
                "loader.concurrent_files": (
                    self.loader.concurrent_files != default_loader.concurrent_files
                ),
            }
        for name, changed in others.items():
            if changed:
                wanted = "records" if files else "files"
                raise ConfigError(
                    f"{name} is for loader.reader {wanted}, not {self.loader.reader}: leave it out"
                )

    @property
    def sets_cache_each_time(self) -> bool:
        """Whether the page cache is set before later epochs, too: records that are read directly,
        and nothing else, leave nothing there that would have to be dropped again."""
        is_direct = self.loader.reader == "records" and self.storage.direct_io == "require"
        return self.page_cache == "warm" or (self.page_cache == "cold" and not is_direct)

    @property
    def step_count(self) -> int:
        """Batches in an epoch."""
        samples = self.data.files * self.data.records_per_file
        full, rest = divmod(samples, self.loader.batch_size)
        return full + (1 if rest and not self.loader.drop_last else 0)

    def file_system_config(self) -> FileSystemConfig:
        """Of the FileStore that reads whole files."""
        pool = self.storage.pool
        if pool == "auto":
            rounded = -(-self.data.record_bytes // (1 << 20)) << 20
            pool = BufferPoolConfig(capacity=32, buffer_size=rounded + (1 << 20))
        ranges = self.storage.range_engine
        return FileSystemConfig(
            direct_io=self.storage.direct_io,
            enable_range_engine=ranges is not None,
            range_engine=ranges or RangeEngineConfig(),
            buffer_pool=pool,
        )
