"""Files as objects: read whole or in ranges, straight into pooled buffers; written whole or not at
all."""

from __future__ import annotations

import operator
import os
from typing import Any

import torch

from .. import _C
from ..config import (
    EngineKind,
    FileSystemConfig,
    check_bool,
    check_choice,
    check_int,
    path_text,
    refuse_address,
)
from ..errors import AccessError, ConfigError, FileChangedError, RangeError, WriteError
from ..keywords import checks_keywords
from ..warning import warn
from ..wording import short
from .object_writer import Bytes, ObjectWriter, WrittenObject, as_bytes

ObjectInfo = _C.ObjectInfo


def as_path(path: str | bytes | os.PathLike[str]) -> str:
    text = path_text(path)
    refuse_address(text)
    return text


def check_store_config(config: Any) -> FileSystemConfig:
    """The configuration, or ConfigError for anything else."""
    if not isinstance(config, FileSystemConfig):
        raise ConfigError(f"config must be a FileSystemConfig, not {config!r}")
    return config


@checks_keywords
class FileStore:
    """Reads the files of a mounted file system as tensors, and writes them whole or not at all.

    Results are uint8 tensors that view the buffer that the device wrote into: no copy. With a pool
    (``FileSystemConfig(buffer_pool=...)``) the buffer goes back to it when the last view of the
    tensor dies. Thread-safe: calls from several threads read concurrently. Works after fork, too:
    the child makes its own buffers and rings. Nothing is opened or started before the first read.

    Args:
        config: How to read; see FileSystemConfig.
        engine: ``"uring"``, ``"threads"``, or ``"auto"``: io_uring where the kernel allows it.

    Where ``"auto"`` falls back, for O_DIRECT or for io_uring, the read that notices warns of it: a
    RuntimeWarning, once per store.
    """

    def __init__(
        self,
        config: FileSystemConfig | None = None,
        *,
        engine: EngineKind = "auto",
    ) -> None:
        config = check_store_config(FileSystemConfig() if config is None else config)
        check_choice("engine", engine, EngineKind)
        self.config = config
        self.engine = engine
        self._said_buffered = False
        self._store = self._make()

    def _with(self, *, faults: Any) -> FileStore:
        """For tests: the same, where calls fail by a _C.FaultPlan."""
        store = FileStore(self.config, engine=self.engine)
        store._store = store._make(faults)
        return store

    def _make(self, faults: Any = None) -> _C.FileStore:
        config, ranges, pool = self.config, self.config.range_engine, self.config.buffer_pool
        return _C.FileStore(
            direct_io=config.direct_io,
            alignment=config.alignment or 0,
            min_io_size=config.min_io_size,
            sync_writes=config.sync_writes,
            checksum_writes=config.checksum_writes,
            enable_range_engine=config.enable_range_engine,
            chunk_size=ranges.chunk_size,
            max_concurrent_ranges=ranges.max_concurrent_ranges,
            min_split_size=ranges.min_split_size,
            range_timeout_s=ranges.range_timeout,
            buffer_pool=None if pool is None else (pool.capacity, pool.buffer_size, pool.alignment),
            engine=self.engine,
            faults=faults,
        )

    def get(self, path: str | os.PathLike[str]) -> torch.Tensor:
        """The whole file as a uint8 tensor [size].

        Raises:
            NotFoundError, AccessError: There is no such file, or it may not be read.
            ConfigError: ``path`` is a directory, a FIFO or a device.
            ReadError: The device failed; FileChangedError: the file changed while it was read.
            PoolTimeoutError, ReadTimeoutError: No buffer, or no data, within ``range_timeout``.
        """
        data: torch.Tensor = self._store.get(as_path(path))
        return data

    def get_range(
        self,
        path: str | os.PathLike[str],
        offset: int,
        length: int,
        *,
        version: ObjectInfo | None = None,
    ) -> torch.Tensor:
        """Bytes ``[offset, offset + length)`` of the file as a uint8 tensor [length].

        Args:
            version: What ``stat`` gave: a file of another size or time of change is a
                FileChangedError. None: the one that is there now.

        Raises:
            RangeError: The range does not lie within the file. Others: as ``get``.
        """
        for name, value in (("offset", offset), ("length", length)):
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise ConfigError(f"{name} must be an integer, not {short(value)}")
            if not 0 <= operator.index(value) < 1 << 63:
                raise RangeError(
                    f"{os.fspath(path)!r}: {name} {short(value)} is not within any file"
                )
        text = as_path(path)
        try:
            data: torch.Tensor = self._store.get_range(text, offset, length)
        except RangeError:
            self._check_version(text, version)
            raise
        # Afterwards: what it is still, it was while it was read.
        self._check_version(text, version)
        return data

    def _check_version(self, path: str, version: ObjectInfo | None) -> None:
        if version is None:
            return
        now = self._store.stat(path)
        if (now.size_bytes, now.modified_ns) != (version.size_bytes, version.modified_ns):
            raise FileChangedError(
                f"{path}: was changed or replaced while it was read: it has {now.size_bytes} "
                f"bytes of {now.modified_ns} ns, not {version.size_bytes} of {version.modified_ns} "
                "ns; read it again"
            )

    def put(
        self,
        path: str | os.PathLike[str],
        data: Bytes,
        *,
        follow_links: bool = True,
        if_absent: bool = False,
    ) -> WrittenObject:
        """Writes a file, whole or not at all: an interrupted write leaves the old file, or none.

        Memory that is aligned for direct writes (a page is enough) goes to the device from where
        it lies; other memory, and the end of the file, is copied once, into a pooled buffer.

        Args:
            path: The file; its folder must exist.
            data: Bytes, a contiguous array, or a contiguous CPU tensor, whose bytes are written.
            follow_links: Where ``path`` is a symbolic link: True writes the file behind it, False
                puts the file in the place of the link.
            if_absent: ExistsError where there is a file of this name, before or when it gets its
                name: of two processes that write it at once, one fails.

        Raises:
            ExistsError: See ``if_absent``.
            NoSpaceError: The disk, a quota, or the limit of file sizes is exhausted.
            WriteError: The device failed; the text has the byte. WriteTimeoutError: a write or
                another step did not come back within ``range_timeout``; the text says so where it
                is unknown whether the new file is in place.
            NotFoundError, AccessError: The folder is missing, or may not be written to.
            DirectIOError: ``direct_io="require"`` on a file system without direct writes.

        With ``FileSystemConfig.sync_writes`` the bytes and the name are on the device on return.
        """
        view = as_bytes(data)
        writer = self.writer(
            path, size_bytes=view.nbytes, follow_links=follow_links, if_absent=if_absent
        )
        writer.write(view)
        return writer.finish()

    def writer(
        self,
        path: str | os.PathLike[str],
        *,
        size_bytes: int | None = None,
        follow_links: bool = True,
        if_absent: bool = False,
    ) -> ObjectWriter:
        """A file to write in chunks, whole or not at all; see ObjectWriter.

        Args:
            path: The file; its folder must exist.
            size_bytes: How much will be written, where known: reserves the space at once.
            follow_links, if_absent: As for ``put``.
        """
        check_bool("follow_links", follow_links)
        check_bool("if_absent", if_absent)
        if size_bytes is not None:
            check_int("size_bytes", size_bytes, 0)
        text = as_path(path)
        writer = self._store.writer(text, size_bytes, follow_links, if_absent)
        return ObjectWriter(writer, text, self._after_write)

    def remove(self, path: str | os.PathLike[str]) -> None:
        """Removes a file, or a symbolic link itself; nothing happens where there is none.

        Raises:
            AccessError: The folder may not be written to. WriteError: it failed otherwise, as of a
                folder, which is not removed.
        """
        text = as_path(path)
        try:
            os.unlink(text)
        except FileNotFoundError:
            pass
        except PermissionError as error:
            raise AccessError(f"{text}: cannot remove it: {error.strerror}") from None
        except OSError as error:
            raise WriteError(f"{text}: cannot remove it: {error.strerror}") from None

    def _after_write(self, path: str) -> None:
        """Says once where ``direct_io="auto"`` could not write directly."""
        if self._said_buffered or self.config.direct_io != "auto":
            return
        if self._store.stats()["buffered_written_bytes"] > 0:
            self._said_buffered = True
            warn(
                f"{path}: the file system refuses O_DIRECT: direct_io='auto' wrote it through the "
                "page cache; FileSystemConfig(direct_io='off') does so without a warning"
            )

    def checksum(self, path: str | os.PathLike[str]) -> int:
        """The CRC-32C of the file, which is read for it."""
        return self._store.checksum(as_path(path))[1]

    def kept_checksum(self, path: str | os.PathLike[str]) -> int | None:
        """The CRC-32C that was kept with the file when ``put`` or a writer wrote it.

        It is in the file's attribute ``user.torch_s3io.crc32c``. None where there is none: other
        programs wrote the file, changed its size, or its file system has no such attributes.
        """
        return _C.kept_checksum(as_path(path))

    def stat(self, path: str | os.PathLike[str]) -> ObjectInfo:
        """Size in bytes, time of the last change in ns, and the alignment of direct reads (0:
        none)."""
        return self._store.stat(as_path(path))

    def list(self, prefix: str | os.PathLike[str]) -> list[str]:
        """Every file whose path begins with ``prefix``, also in folders below it, sorted. An empty
        text: every file below the current folder."""
        is_empty = isinstance(prefix, str | bytes) and not prefix
        return self._store.list("" if is_empty else as_path(prefix))

    def stats(self) -> dict[str, Any]:
        """What was read and written in this process, and how: bytes, requests, the pool's counts.

        Of writes: ``write_requests``; ``direct_written_bytes`` (padding included),
        ``buffered_written_bytes``; ``write_copied_bytes``: copied into a buffer on the way;
        ``write_retries``, ``short_writes``: repeated, continued; ``direct_write_refused``: fell
        back because O_DIRECT failed.
        """
        return self._store.stats()

    def __repr__(self) -> str:
        return f"FileStore({self.config!r}, engine={self.engine!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "engine": self.engine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.config, self.engine = state["config"], state["engine"]
        self._said_buffered = False
        self._store = self._make()
