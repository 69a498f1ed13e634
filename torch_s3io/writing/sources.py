"""Files to pack: which they are, and what records they hold."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError, DataError, Error, NotFoundError
from ..format.files import (
    count_npy,
    count_records,
    count_windows,
    inspect,
    looks_like_samples,
)
from ..format.layout import RecordLayout, make_layout, make_window_layout
from ..format.manifest import MANIFEST_NAME, has_own_manifest
from ..format.objects import Shard
from ..format.paths import find_files
from ..format.samples import SampleManifest, read_any_manifest
from ..store.local_files import files_below, in_order
from ..store.store import FileOrder, Found
from ..warning import warn
from ..wording import count_of
from .record_folder import JOURNAL_PREFIX

PackFormat = Literal["auto", "npy", "npy-files", "files", "cifar10", "tokens", "records"]

# Of the options that describe records, those that each format has.
_OPTIONS = {
    "npy": ("dtype",),
    "npy-files": ("dtype",),
    "cifar10": (),
    "files": ("dtype", "shape", "header-bytes"),
    "tokens": ("dtype", "window", "stride"),
    "records": ("dtype", "shape", "header-bytes"),
}

_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
CIFAR10 = np.dtype([("label", "u1"), ("image", "u1", (3, 32, 32))])
_CIFAR10_NAME = re.compile(r"(data_batch_[0-9]+|test_batch)\.bin")


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
    file_order: FileOrder = "name",
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
        format: ``"npy"``: records along the first axis. ``"npy-files"``: every array is a record.
            ``"files"``: every file is a record, all of the same size. ``"cifar10"``: its binary
            version. ``"tokens"``: windows of ``window`` tokens of ``dtype`` every ``stride``.
            ``"records"``: files of ``dtype`` and ``shape`` after ``header_bytes``. ``"auto"``: by
            name and kind.
        file_order: Of the files of a folder or a pattern, as for RecordDataset.
        dtype: Of the records or tokens; of ``"files"``, uint8 by default; of ``"npy"``, where
            headers cannot say it.
    """
    files = _files_of(paths, output, file_order)
    is_guessed = format == "auto"
    if is_guessed:
        format = _guess(paths, files)
    given = {
        "dtype": dtype is not None,
        "shape": shape != (),
        "header-bytes": header_bytes != 0,
        "window": window is not None,
        "stride": stride is not None,
    }
    _check_options(format, given)
    if format in ("npy", "npy-files"):
        shards, layout = count_npy(files, dtype, records="rows" if format == "npy" else "files")
        if is_guessed:
            _warn_of_samples(shards, layout)
    elif format == "tokens":
        if window is None:
            raise ConfigError(
                "format tokens needs --window, the tokens of a record: 1025 for a context of 1024"
            )
        layout, token_bytes = make_window_layout(dtype or "uint16", window, stride, None)
        shards = count_windows(files, layout, token_bytes)
    else:
        layout = _layout_of(format, files, dtype, shape)
        shards = count_records(files, layout, header_bytes)
    sources = Sources(tuple(shards), layout, format)
    if sources.num_records == 0:
        raise DataError(
            f"there are no records in {count_of(len(files), 'file')}, the first being "
            f"{files[0].path}: they are empty"
        )
    return sources


def _check_options(format: str, given: dict[str, bool]) -> None:
    for name, is_given in given.items():
        if is_given and name not in _OPTIONS[format]:
            raise ConfigError(f"--{name} is not for sources of format {format}: leave it out")
    if format == "files" and not given["dtype"] and (given["shape"] or given["header-bytes"]):
        raise ConfigError("--shape and --header-bytes need --dtype, the type of the records")


def _warn_of_samples(shards: list[Shard], layout: RecordLayout) -> None:
    if looks_like_samples(shards, layout):
        warn(
            f"{count_of(len(shards), 'array')} of the same {shards[0].num_records} rows each, the "
            f"first being {shards[0].path}: every row is a record. Where every file is one, say "
            "--format npy-files; --format npy says that rows are meant"
        )


def _layout_of(format: str, files: list[Found], dtype: Any, shape: Sequence[int]) -> RecordLayout:
    if format == "cifar10":
        return make_layout(CIFAR10)
    if format == "files" and dtype is None:
        return make_layout("u1", (_size_of_all(files),))
    if dtype is None:
        raise ConfigError(
            "format records needs --dtype, the type of the records, and --shape, unless a record "
            "is a single number: --dtype float32 --shape 3,32,32"
        )
    return make_layout(dtype, tuple(shape))


def _files_of(paths: Sequence[str], output: str, order: FileOrder) -> list[Found]:
    files: list[Found] = []
    for path in paths:
        if not os.path.isdir(path):
            files += find_files(path, order)
            continue
        if os.path.realpath(path) == os.path.realpath(output):
            raise ConfigError(
                f"{path}: is packed into itself, where its files and the shards would be one; name "
                "another --output, which may lie in it"
            )
        if _is_packed(path, os.listdir(path)):
            raise ConfigError(f"{path}: is packed already: {_reader_of(path)}({path!r}) reads it")
        inside = in_order(_files_in(path, os.path.realpath(output)), order)
        if not inside:
            raise NotFoundError(f"{path}: there are no files in this folder")
        files += find_files(inside)
    if not files:
        raise NotFoundError("there is nothing to pack: name files, patterns or folders")
    return files


def _files_in(top: str, output: str) -> Iterator[str]:
    def leaves_out(folder: str, names: list[str]) -> bool:
        return os.path.realpath(folder) == output or (folder != top and _is_packed(folder, names))

    return files_below(top, leaves_out)


def _is_packed(folder: str, names: list[str]) -> bool:
    """Whether it holds a data set, or what a killed pack has left of one."""
    is_begun = any(name.startswith(JOURNAL_PREFIX) for name in names)
    return is_begun or (MANIFEST_NAME in names and has_own_manifest(folder))


def _reader_of(folder: str) -> str:
    with contextlib.suppress(Error):
        if isinstance(read_any_manifest(folder), SampleManifest):
            return "SampleDataset"
    return "RecordDataset"


def _guess(paths: Sequence[str], found: list[Found]) -> PackFormat:
    files = [file.path for file in found]
    if all(file.endswith(".npy") for file in files):
        return "npy"
    if all(_CIFAR10_NAME.fullmatch(os.path.basename(file)) for file in files):
        return "cifar10"
    if any(os.path.isdir(path) for path in paths):
        return "files"
    inspect(found)  # raises where one is not there
    unknown = next(file for file in files if not file.endswith(".npy"))
    if unknown.endswith(".npz"):
        raise ConfigError(f"{unknown}: .npz is not read; save each of its arrays by numpy.save")
    raise ConfigError(
        f"{unknown}: what is in it? --format tokens --window N, or --format records --dtype D "
        "--shape S, or --format files, says so"
    )


def _size_of_all(files: list[Found]) -> int:
    """Of files that are a record each."""
    paths = [file.path for file in files]
    sizes = [info.size_bytes for info in inspect(files)]
    for path, size in zip(paths, sizes, strict=True):
        if size != sizes[0]:
            raise DataError(
                f"{path}: has {size} bytes, but {paths[0]} has {sizes[0]}. "
                f"{_advice_for_sizes(path)}"
            )
    if sizes[0] == 0:
        raise DataError(f"{paths[0]}: is empty, as all of the files are; name others")
    return sizes[0]


def _advice_for_sizes(file: str) -> str:
    """What to do with files that are no records of one size."""
    if not file.lower().endswith(_IMAGES):
        return (
            "Records have one size: as files of one record each (--format files) they must all be "
            "as long. Pad or cut them; or say what is in them: --format records --dtype D --shape "
            "S, --format tokens --window N"
        )
    return (
        "Records have one size, and compressed images have not: decode them to arrays of one shape "
        "and write those: `with s3io.RecordWriter('packed', dtype='uint8', shape=(224, 224, 3)) as "
        "writer:`, and in it for every file `writer.write(numpy.asarray(PIL.Image.open(path)"
        ".convert('RGB').resize((224, 224)))[None])`"
    )
