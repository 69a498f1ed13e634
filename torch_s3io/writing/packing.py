"""Packing existing files into a data set of records: what to read, and shard after shard."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from .. import _C
from ..config import MIB
from ..datasets.options import DatasetOptions
from ..datasets.record_dataset import RecordDataset
from ..errors import ConfigError, DataError, NotFoundError
from ..format.files import Shard, count_npy, count_records, count_windows, expand_paths
from ..format.layout import RecordLayout, make_layout, make_window_layout
from ..format.manifest import MANIFEST_NAME, ShardEntry, has_own_manifest
from ..store.file_store import FileStore
from ..wording import count_of
from .record_folder import JOURNAL_PREFIX
from .record_writer import WRITE_CONFIG, AlignRecords, shard_name, stride_for

PackFormat = Literal["auto", "npy", "files", "cifar10", "tokens", "records"]

# Of the options that describe records, those that each format has.
_OPTIONS = {
    "npy": (),
    "cifar10": (),
    "files": ("dtype", "shape", "header-bytes"),
    "tokens": ("dtype", "window", "stride"),
    "records": ("dtype", "shape", "header-bytes"),
}

CIFAR10 = np.dtype([("label", "u1"), ("image", "u1", (3, 32, 32))])
_CIFAR10_NAME = re.compile(r"(data_batch_[0-9]+|test_batch)\.bin")
_BATCH_BYTES = 8 * MIB


@dataclass(frozen=True)
class Sources:
    """Files of records, in the order in which they are packed.

    Attributes:
        shards: Where the records lie.
        layout: Of a record; its stride is that in these files.
        format: How they were understood.
    """

    shards: tuple[Shard, ...]
    layout: RecordLayout
    format: str

    @property
    def num_records(self) -> int:
        return sum(shard.num_records for shard in self.shards)

    def part(self, begin: int, end: int) -> list[Shard]:
        """The records ``[begin, end)``."""
        parts, first = [], 0
        for shard in self.shards:
            low, high = max(begin, first), min(end, first + shard.num_records)
            if low < high:
                offset = shard.header_bytes + (low - first) * self.layout.stride_bytes
                parts.append(replace(shard, header_bytes=offset, num_records=high - low))
            first += shard.num_records
        return parts


def find_sources(
    paths: Sequence[str],
    output: str,
    *,
    format: PackFormat = "auto",
    dtype: Any = None,
    shape: Sequence[int] = (),
    header_bytes: int = 0,
    window: int | None = None,
    stride: int | None = None,
) -> Sources:
    """The records of the files that ``paths`` name; a folder stands for its files, sorted.

    What is hidden in a folder, and the data sets that were packed into it, are left out.

    Args:
        output: The folder that they will be packed into.
        format: ``"npy"``: records along the first axis. ``"files"``: every file is a record, all
            of the same size. ``"cifar10"``: its binary version. ``"tokens"``: windows of ``window``
            tokens of ``dtype`` every ``stride``. ``"records"``: files of ``dtype`` and ``shape``
            after ``header_bytes``. ``"auto"``: by name and kind.
        dtype: Of the records or tokens; of ``"files"``, uint8 by default.
    """
    files = _files_of(paths, output)
    if format == "auto":
        format = _guess(paths, files)
    given = {
        "dtype": dtype is not None,
        "shape": shape != (),
        "header-bytes": header_bytes != 0,
        "window": window is not None,
        "stride": stride is not None,
    }
    for name, is_given in given.items():
        if is_given and name not in _OPTIONS[format]:
            raise ConfigError(f"--{name} is not for sources of format {format}: leave it out")
    if format == "npy":
        shards, layout = count_npy(files, None)
    elif format == "cifar10":
        layout = make_layout(CIFAR10)
        shards = count_records(files, layout, 0)
    elif format == "files":
        if dtype is None and (given["shape"] or header_bytes):
            raise ConfigError("--shape and --header-bytes need --dtype, the type of the records")
        layout = _file_layout(files, dtype, shape)
        shards = count_records(files, layout, header_bytes)
    elif format == "tokens":
        if window is None:
            raise ConfigError("format tokens needs --window, the tokens of a record")
        token_dtype = "uint16" if dtype is None else dtype
        layout, token_bytes = make_window_layout(token_dtype, window, stride, None)
        shards = count_windows(files, layout, token_bytes)
    else:
        layout = make_layout(dtype, shape)
        shards = count_records(files, layout, header_bytes)
    sources = Sources(tuple(shards), layout, format)
    if sources.num_records == 0:
        raise DataError(
            f"there are no records in {count_of(len(files), 'file')}, the first being {files[0]}"
        )
    return sources


def _files_of(paths: Sequence[str], output: str) -> list[str]:
    files: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            files += expand_paths(path)
            continue
        if os.path.realpath(path) == os.path.realpath(output):
            raise ConfigError(
                f"{path}: is packed into itself, where its files and the shards would be one; name "
                "another --output, which may lie in it"
            )
        if _is_packed(path, os.listdir(path)):
            raise ConfigError(f"{path}: is packed already: RecordDataset({path!r}) reads it")
        inside = sorted(_files_in(path, os.path.realpath(output)))
        if not inside:
            raise NotFoundError(f"{path}: there are no files in this folder")
        files += expand_paths(inside)
    if not files:
        raise NotFoundError("there is nothing to pack")
    return files


def _files_in(top: str, output: str) -> Iterator[str]:
    for folder, folders, names in os.walk(top):
        if os.path.realpath(folder) == output or (folder != top and _is_packed(folder, names)):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(folder, name) for name in names if not name.startswith("."))


def _is_packed(folder: str, names: list[str]) -> bool:
    """Whether it holds a data set, or what a killed pack has left of one."""
    is_begun = any(name.startswith(JOURNAL_PREFIX) for name in names)
    return is_begun or (MANIFEST_NAME in names and has_own_manifest(folder))


def _guess(paths: Sequence[str], files: list[str]) -> PackFormat:
    if all(file.endswith(".npy") for file in files):
        return "npy"
    if all(_CIFAR10_NAME.fullmatch(os.path.basename(file)) for file in files):
        return "cifar10"
    if any(os.path.isdir(path) for path in paths):
        return "files"
    _C.inspect_files(files)  # raises where one is not there
    raise ConfigError(
        f"{files[0]}: what is in it? --format tokens --window N, or --format records --dtype D "
        "--shape S, or --format files, says so"
    )


def _file_layout(files: list[str], dtype: Any, shape: Sequence[int]) -> RecordLayout:
    if dtype is not None:
        return make_layout(dtype, tuple(shape))
    sizes = [identity[2] for identity, _ in _C.inspect_files(files)]
    size = sizes[0]
    for file, other in zip(files, sizes, strict=True):
        if other != size:
            raise DataError(
                f"{file}: has {other} bytes, but {files[0]} has {size}; "
                "files of one record each are all of the same size"
            )
    if size == 0:
        raise DataError(f"{files[0]}: is empty")
    return make_layout("u1", (size,))


@dataclass(frozen=True)
class PackJob:
    """Everything that decides the bytes of the shards; the same in every process.

    Attributes:
        folder: Where they go.
        generation: The digits in their names.
        stride_bytes: Of the packed records.
        per_shard: Records per shard.
    """

    sources: Sources
    folder: str
    generation: str
    stride_bytes: int
    per_shard: int

    @classmethod
    def of(
        cls, sources: Sources, folder: str, shard_bytes: int, align_records: AlignRecords
    ) -> PackJob:
        stride = stride_for(sources.layout.record_bytes, align_records)
        job = cls(sources, folder, "", stride, max(1, shard_bytes // stride))
        # The same sources packed in the same way give the same names: so a job can be resumed.
        return replace(job, generation=job.fingerprint()[:8])

    @property
    def num_shards(self) -> int:
        return -(-self.sources.num_records // self.per_shard)

    @property
    def total_bytes(self) -> int:
        return self.sources.num_records * self.sources.layout.record_bytes

    def fingerprint(self) -> str:
        """Changes with any source file, the layout, and how it is packed."""
        files = [
            (shard.path, shard.header_bytes, shard.num_records, shard.identity)
            for shard in self.sources.shards
        ]
        text = json.dumps(
            [files, repr(self.sources.layout), self.stride_bytes, self.per_shard],
            ensure_ascii=True,
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def name(self, number: int) -> str:
        return shard_name(self.generation, number)

    def pack_shard(self, number: int, on_bytes: Callable[[int], None]) -> ShardEntry:
        """Writes one shard; ``on_bytes`` hears of progress."""
        begin = number * self.per_shard
        end = min(begin + self.per_shard, self.sources.num_records)
        size, layout = self.sources.layout.record_bytes, self.sources.layout
        raw = make_layout("u1", (size,), stride_bytes=layout.stride_bytes)
        # Every process packs all of its shard, whatever ranks the environment speaks of.
        options = DatasetOptions(batch_size=max(1, _BATCH_BYTES // size), rank=0, world_size=1)
        batches = RecordDataset._of(self.sources.part(begin, end), raw, options)
        store = FileStore(WRITE_CONFIG)
        path = os.path.join(self.folder, self.name(number))
        size_bytes = (end - begin) * self.stride_bytes
        with store.writer(path, size_bytes=size_bytes, follow_links=False) as writer:
            for rows in batches:
                self._write(writer, rows)
                on_bytes(rows.numel())
                del rows
        written = writer.finish()
        assert written.crc32c is not None
        return ShardEntry(self.name(number), end - begin, written.size_bytes, written.crc32c)

    def _write(self, writer: Any, rows: torch.Tensor) -> None:
        size = self.sources.layout.record_bytes
        if self.stride_bytes == size:
            writer.write(rows.contiguous(), copy=False)
        else:
            writer.write_rows(rows.contiguous(), size, self.stride_bytes)
