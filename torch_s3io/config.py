"""Settings, as frozen values that are checked once."""

from __future__ import annotations

import operator
import os
import re
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, get_args

from . import _C
from .errors import ConfigError
from .keywords import checks_keywords
from .wording import short

DirectMode = Literal["auto", "require", "off"]
EngineKind = Literal["auto", "uring", "threads"]

MIB = 1 << 20
PAGE_BYTES = 4096


PATH_TYPES = (str, bytes, os.PathLike)


def path_text(path: Any) -> str:
    """A path as text, which os.fsencode takes back. Raises ConfigError for what no file can be
    called."""
    try:
        name = os.fsencode(path)
    except TypeError:
        raise ConfigError(f"{short(path)} is not a path") from None
    except UnicodeEncodeError:
        raise ConfigError(f"{short(path)} is not a path: half of a character is in it") from None
    if not name:
        raise ConfigError(f"{short(path)} is not a path: it is empty")
    if b"\0" in name:
        raise ConfigError(f"{short(path)} is not a path: it contains a NUL character")
    text = os.fsdecode(name)
    if text.startswith("s3://") and not _is_utf8(text):
        raise ConfigError(f"{short(path)} is not a path of an object: its name is not UTF-8")
    return text


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_choice(name: str, value: Any, choices: Any) -> None:
    if value not in get_args(choices):
        allowed = ", ".join(repr(choice) for choice in get_args(choices))
        raise ConfigError(f"{name} must be one of {allowed}, not {short(value)}")


def check_int(name: str, value: Any, at_least: int) -> int:
    """The value as a plain int, also where it is one of numpy's."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ConfigError(f"{name} must be an integer, not {short(value)}") from None
    if isinstance(value, bool):
        raise ConfigError(f"{name} must be an integer, not {short(value)}")
    if number < at_least:
        raise ConfigError(f"{name} must be at least {at_least}, not {short(number)}")
    if number >= 1 << 62:
        raise ConfigError(f"{name} is too large: {short(number)}")
    return number


def check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, not {short(value)}")


def check_seconds(name: str, value: Any) -> None:
    try:
        seconds = 0.0 if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = 0.0
    if not seconds > 0:
        raise ConfigError(f"{name} must be a number of seconds above 0, not {short(value)}")


_ADDRESS = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")


def refuse_address(path: str) -> None:
    """Raises ConfigError for https://host/name and its like, which would pass for a local path."""
    if path.startswith("s3:/") and not path.startswith("s3://"):
        raise ConfigError(
            f"{path}: pathlib has taken a slash away: give the address as a text, 's3:/{path[3:]}'"
        )
    if _ADDRESS.match(path):
        raise ConfigError(
            f"{path}: is an address; here only files are read and written, and s3://bucket/key by "
            "data sets: copy the data to a local disk, and name its path there"
        )


def check_alignment(name: str, value: Any) -> None:
    check_int(name, value, 1)
    if value & (value - 1) or value > 2 * MIB:
        raise ConfigError(f"{name} must be a power of two of at most 2 MiB, not {value}")


@checks_keywords
@dataclass(frozen=True, kw_only=True)
class BufferPoolConfig:
    """Size of a buffer pool: the bound on the memory that data is read into.

    Attributes:
        capacity: Number of buffers.
        buffer_size: Bytes of one buffer. In a data set it must hold a batch; the error says how
            many bytes that takes.
        alignment: Every buffer begins at a multiple of it: a power of two of at most 2 MiB, in
            bytes.
    """

    capacity: int = 32
    buffer_size: int = 64 * MIB
    alignment: int = PAGE_BYTES

    def __post_init__(self) -> None:
        check_int("BufferPoolConfig.capacity", self.capacity, 1)
        check_int("BufferPoolConfig.buffer_size", self.buffer_size, 1)
        check_alignment("BufferPoolConfig.alignment", self.alignment)

    @property
    def total_bytes(self) -> int:
        """Memory of the whole pool once every buffer has been used, in bytes."""
        return self.capacity * self.buffer_size


@checks_keywords
@dataclass(frozen=True, kw_only=True)
class RangeEngineConfig:
    """How one large read is split into concurrent ranges.

    Attributes:
        chunk_size: Bytes of one range.
        max_concurrent_ranges: Ranges in flight at once, per call.
        min_split_size: A read shorter than this is not split, in bytes, nor copied out of the page
            cache by several threads.
        range_timeout: Longest wait without any progress, in seconds; then ReadTimeoutError.
    """

    chunk_size: int = 1 * MIB
    max_concurrent_ranges: int = 16
    min_split_size: int = 4 * MIB
    range_timeout: float = 30.0

    def __post_init__(self) -> None:
        check_int("RangeEngineConfig.chunk_size", self.chunk_size, PAGE_BYTES)
        check_int("RangeEngineConfig.max_concurrent_ranges", self.max_concurrent_ranges, 1)
        check_int("RangeEngineConfig.min_split_size", self.min_split_size, 0)
        check_seconds("RangeEngineConfig.range_timeout", self.range_timeout)


@checks_keywords
@dataclass(frozen=True, kw_only=True)
class FileSystemConfig:
    """How a FileStore reads and writes.

    ``FileSystemConfig()`` reads as ``direct_io="auto"`` says, without a pool.
    ``FileSystemConfig.direct_io()`` and ``FileSystemConfig.high_performance()`` are ready-made.

    Attributes:
        direct_io: ``"auto"``: from the page cache what is there, with O_DIRECT what is not;
            ``"require"``: O_DIRECT, or DirectIOError; ``"off"``: through the page cache. Writes
            with ``"auto"`` are direct where the file system can.
        alignment: Alignment of direct reads and writes in bytes, a power of two of at most 2 MiB;
            None: what the file system asks for (statx), 4096 where it does not say.
        min_io_size: With ``"auto"``, reads shorter than this go through the page cache, in bytes.
        sync_writes: Whether a write is complete only when the bytes, and the file's name, are on
            the device.
        checksum_writes: Whether the CRC-32C of what is written is computed on the way, returned,
            and kept with the file.
        enable_range_engine: Whether large reads are split into concurrent ranges.
        range_engine: How they are split; ``range_timeout`` holds for writes, too.
        buffer_pool: The buffers to read into, and to write from where data must be copied; None:
            an aligned allocation for every read, and for every writer.
    """

    direct_io: DirectMode = field(default_factory=lambda: "auto")
    alignment: int | None = None
    min_io_size: int = 0
    sync_writes: bool = True
    checksum_writes: bool = True
    enable_range_engine: bool = True
    range_engine: RangeEngineConfig = RangeEngineConfig()
    buffer_pool: BufferPoolConfig | None = None

    def __post_init__(self) -> None:
        check_choice("FileSystemConfig.direct_io", self.direct_io, DirectMode)
        if self.alignment is not None:
            check_alignment("FileSystemConfig.alignment", self.alignment)
        check_int("FileSystemConfig.min_io_size", self.min_io_size, 0)
        check_bool("FileSystemConfig.sync_writes", self.sync_writes)
        check_bool("FileSystemConfig.checksum_writes", self.checksum_writes)
        check_bool("FileSystemConfig.enable_range_engine", self.enable_range_engine)
        if not isinstance(self.range_engine, RangeEngineConfig):
            raise ConfigError(
                "FileSystemConfig.range_engine must be a RangeEngineConfig, "
                f"not {self.range_engine!r}"
            )
        if not isinstance(self.buffer_pool, (BufferPoolConfig, type(None))):
            raise ConfigError(
                "FileSystemConfig.buffer_pool must be a BufferPoolConfig or None, "
                f"not {self.buffer_pool!r}"
            )

    @classmethod
    def high_performance(cls) -> FileSystemConfig:
        """Direct reads where possible, pooled buffers, 4 MiB ranges, 32 of them at once."""
        return cls._ready_made("high_performance")

    @classmethod
    def _ready_made(cls, name: str) -> FileSystemConfig:
        """What the C++ constructor of that name makes."""
        settings = _C.file_system_config(name)
        ranges, pool = settings.pop("range_engine"), settings.pop("buffer_pool")
        return cls(
            range_engine=RangeEngineConfig(**ranges),
            buffer_pool=None if pool is None else BufferPoolConfig(**pool),
            **settings,
        )


def _direct_io(cls: type[FileSystemConfig]) -> FileSystemConfig:
    """O_DIRECT required, and a pool of 32 buffers of 64 MiB, page-aligned."""
    return cls._ready_made("direct_io")


# Note: `direct_io` is a field and a constructor. An instance finds its field first; the class has
# no attribute of that name (the field's default is a factory), so the constructor can take the
# place.
setattr(FileSystemConfig, "direct_io", classmethod(_direct_io))  # noqa: B010
