"""Which files a data set has, and how many records each holds."""

from __future__ import annotations

import os
from typing import Any, Literal, NamedTuple

from ..errors import ConfigError, DataError
from ..store.store import Found, Inspected
from ..store.stores import scheme_of, store_of
from .layout import RecordLayout, make_layout, make_stored_layout
from .manifest import read_manifest
from .npy import NpyHeader, is_of_numpy, npy_dtype, read_npy_header
from .objects import Shard, shard_of

NpyRecords = Literal["rows", "files"]


class DataFile(NamedTuple):
    """A file of a data set.

    Attributes:
        path: Absolute.
        num_records: In it; 0 for an empty file.
    """

    path: str
    num_records: int


def count_records(files: list[Found], layout: RecordLayout, header_bytes: int) -> list[Shard]:
    """The shards of files that hold nothing but a header and whole records.

    Raises:
        DataError: A size that is not a whole number of records; an array of numpy, whose header
            would be records.
    """
    shards = [
        shard_of(file, info, header_bytes, _whole_records(file, info, layout, header_bytes))
        for file, info in _inspect(files)
    ]
    if not header_bytes:
        # One record is a file as it is, whose header is a part of it.
        _refuse_arrays([shard for shard in shards if shard.num_records > 1], "records")
    return shards


def count_windows(files: list[Found], layout: RecordLayout, item_bytes: int) -> list[Shard]:
    """The shards of token streams: as many windows as fit into each file.

    Raises:
        DataError: A size that is not a whole number of tokens; no window at all; an array of
            numpy, whose header would be tokens.
    """
    shards = []
    for file, info in _inspect(files):
        size = info.size_bytes
        if size % item_bytes:
            raise DataError(
                f"{file.path}: has {size} bytes, no multiple of the {item_bytes} bytes of a token: "
                "another dtype= may be meant, or the file was cut off"
            )
        count = 0
        if size >= layout.record_bytes:
            count = (size - layout.record_bytes) // layout.stride_bytes + 1
        shards.append(shard_of(file, info, 0, count))
    _refuse_arrays(shards, "tokens")
    if not any(shard.num_records for shard in shards):
        longest = max(shards, key=lambda shard: shard.size_bytes)
        window, most = layout.record_bytes // item_bytes, longest.size_bytes // item_bytes
        raise DataError(
            f"there are no records: a window of {window} tokens fits into no file; the longest, "
            f"{longest.path}, has {most}: lower window="
        )
    return shards


def _refuse_arrays(shards: list[Shard], what: str) -> None:
    """Files that numpy wrote, as their names and first bytes say."""
    for shard in shards:
        if shard.path.endswith((".npy", ".npz")) and is_of_numpy(shard.path):
            raise DataError(
                f"{shard.path}: is a file of numpy, whose header would pass for {what}. "
                f"RecordDataset.from_npy (pack --format npy) reads arrays; "
                'numpy.load(path).tofile("name.bin") writes the bare numbers of one'
            )


def count_npy(
    files: list[Found], dtype: Any = None, as_dtype: Any = None, records: NpyRecords = "rows"
) -> tuple[list[Shard], RecordLayout]:
    """The shards of ``.npy`` files and their layout.

    Args:
        dtype: Of the elements, where headers cannot say it; None: what they say.
        records: ``"rows"``: along the first axis. ``"files"``: every array is one.

    Raises:
        DataError: Headers that are damaged or disagree, or a file whose size is not what its header
            says.
        ConfigError: ``dtype`` is needed, or is not what the headers say.
    """
    inspected = _inspect(files)
    headers = [read_npy_header(file.path) for file in files]
    if records == "rows":
        for file, header in zip(files, headers, strict=True):
            if not header.shape:
                raise DataError(
                    f"{file.path}: holds a single number, not an array of records; "
                    'records="files" makes every file a record'
                )
    rows = 1 if records == "rows" else 0  # the axes that count records
    _refuse_different_arrays(files, headers, rows)
    first_path, first = files[0].path, headers[0]
    shape = first.shape[rows:]
    if 0 in shape or first.dtype.itemsize == 0:
        raise DataError(
            f"{first_path}: records of {_describe(first, rows)} have no bytes; leave it out"
        )
    if first.dtype.names is not None and shape:
        raise DataError(
            f"{first_path}: holds structures in {len(first.shape)} dimensions, of which a record "
            f"would have {len(shape)}; save array.reshape(-1) instead: every structure is a record"
        )
    layout = make_layout(npy_dtype(first_path, first, dtype), shape, as_dtype)
    shards = []
    for (file, info), header in zip(inspected, headers, strict=True):
        count = header.shape[0] if rows else 1
        expected = header.header_bytes + count * layout.record_bytes
        if info.size_bytes != expected:
            raise DataError(
                f"{file.path}: has {info.size_bytes} bytes, but its header describes {expected}: "
                "it was cut off or appended to; save or copy it again"
            )
        shards.append(shard_of(file, info, header.header_bytes, count))
    return shards, layout


# Files of samples are many, small, and have few rows; those of shards are few, or large.
_FEWEST_SAMPLES = 16
_MOST_SAMPLE_BYTES = 8 << 20
_MOST_ROWS_PER_FILE = 4


def looks_like_samples(shards: list[Shard], layout: RecordLayout) -> bool:
    """Whether ``.npy`` files, whose rows are records, rather seem to be a record each."""
    rows = shards[0].num_records
    return (
        len(shards) >= _FEWEST_SAMPLES
        and layout.is_plain
        and layout.fields[0].shape != ()
        and all(shard.num_records == rows for shard in shards)
        and shards[0].size_bytes <= _MOST_SAMPLE_BYTES
        and rows <= _MOST_ROWS_PER_FILE * len(shards)
    )


def _refuse_different_arrays(files: list[Found], headers: list[NpyHeader], rows: int) -> None:
    first = headers[0]
    for file, header in zip(files, headers, strict=True):
        if (header.dtype, header.shape[rows:]) != (first.dtype, first.shape[rows:]):
            raise DataError(
                f"{file.path}: records of {_describe(header, rows)}, but {files[0].path} has "
                f"{_describe(first, rows)}. Records of a data set have one dtype and one shape: "
                "pad or crop the arrays and save them again, or read arrays of any shape with a "
                "torch Dataset of your own that calls numpy.load"
            )


def count_manifests(
    folders: list[str], dtype: Any, shape: Any, as_dtype: Any
) -> tuple[list[Shard], RecordLayout]:
    """The shards that the folders' manifests name, and their layout, which is one.

    Raises:
        DataError, NotFoundError, ConfigError: As for each of them; two have different layouts.
    """
    shards, layout = _count_manifest(folders[0], dtype, shape, as_dtype)
    for folder in folders[1:]:
        others, other_layout = _count_manifest(folder, dtype, shape, as_dtype)
        if other_layout != layout:
            raise ConfigError(
                f"{folder}: has {_padded(other_layout)}, but {folders[0]} has {_padded(layout)}; "
                "read them as data sets of their own"
            )
        shards += others
    return shards, layout


def _padded(layout: RecordLayout) -> str:
    return f"{layout.describe()}, one every {layout.stride_bytes} bytes"


def _count_manifest(
    folder: str, dtype: Any, shape: Any, as_dtype: Any
) -> tuple[list[Shard], RecordLayout]:
    """The shards that the folder's manifest names, and their layout.

    Raises:
        DataError: A damaged manifest, or shards that are not what it says.
        NotFoundError: A shard is missing.
        ConfigError: ``dtype`` or ``shape`` are given and are not what the manifest says.
    """
    manifest = read_manifest(folder)
    layout = make_stored_layout(
        manifest.fields, manifest.record_bytes, manifest.stride_bytes, as_dtype
    )
    if dtype is not None:
        given = make_layout(dtype, shape)
        if (given.fields, given.record_bytes) != (manifest.fields, manifest.record_bytes):
            raise ConfigError(
                f"{folder}: dtype={dtype} and shape={shape} are {given.describe()}, but the "
                f"manifest says {layout.describe()}; leave them out"
            )
    elif shape != ():
        raise ConfigError(f"{folder}: has a manifest, which says the shape; leave shape= out")
    top = store_of(folder).absolute(folder)
    files = [Found(os.path.join(top, entry.name), entry.name) for entry in manifest.shards]
    infos = inspect_again([file.path for file in files])
    shards = []
    for entry, file, info in zip(manifest.shards, files, infos, strict=True):
        if info.size_bytes != entry.size_bytes:
            raise DataError(
                f"{file.path}: has {info.size_bytes} bytes, but the manifest says "
                f"{entry.size_bytes}: it was cut off or appended to; copy it again, or write the "
                "data set anew"
            )
        shards.append(shard_of(file, info, 0, entry.num_records))
    return shards, layout


def inspect(files: list[Found]) -> list[Inspected]:
    """What their store says of them.

    Raises:
        NotFoundError, AccessError: One is missing, or may not be looked at.
        ConfigError: One is no regular file; they are in several stores.
    """
    paths = [file.path for file in files]
    schemes = set(map(scheme_of, paths))
    if len(schemes) > 1:
        raise ConfigError(
            f"{paths[0]}, ...: the files of a data set are in one store, and these are in "
            f"{len(schemes)}: make a data set of each, and a Mix of those"
        )
    return store_of(paths[0]).inspect(paths) if paths else []


def inspect_again(paths: list[str]) -> list[Inspected]:
    """What the store says of objects that nobody has just listed; raises as ``inspect``."""
    if paths:
        store_of(paths[0]).expect(paths)
    return inspect([Found(path, "") for path in paths])


def _inspect(files: list[Found]) -> list[tuple[Found, Inspected]]:
    return list(zip(files, inspect(files), strict=True))


def _describe(header: NpyHeader, rows: int) -> str:
    return f"{header.dtype} and shape {header.shape[rows:]}"


def _whole_records(file: Found, info: Inspected, layout: RecordLayout, header_bytes: int) -> int:
    path, size = file.path, info.size_bytes
    if size == 0:
        return 0
    if size < header_bytes:
        raise DataError(
            f"{path}: has {size} bytes, fewer than header_bytes={header_bytes}; lower that, or "
            "leave "
            "the file out"
        )
    count, rest = divmod(size - header_bytes, layout.record_bytes)
    if rest:
        after = f" after a header of {header_bytes}" if header_bytes else ""
        raise DataError(
            f"{path}: has {size} bytes{after}, which is {count} records of {layout.record_bytes} "
            f"bytes and a remainder of {rest}: dtype, shape or header_bytes do not fit this file, "
            "or it was cut off"
        )
    return count
