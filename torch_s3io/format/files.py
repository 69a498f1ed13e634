"""Which files a data set has, and how many records each holds."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import _C
from ..errors import ConfigError, DataError, NotFoundError
from .layout import RecordLayout, make_layout, make_stored_layout
from .manifest import has_manifest, read_manifest
from .npy import NpyHeader, read_npy_header

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_PATH = (str, bytes, os.PathLike)


@dataclass(frozen=True)
class Shard:
    """One file of a data set.

    Attributes:
        path: Absolute.
        name: The path below the source, which is what the user named: see ``Found``.
        header_bytes: Where the first record begins.
        num_records: Possibly 0.
        size_bytes: Of the file.
        identity: (device, inode, size_bytes, modified_ns): changes with the file.
        direct_alignment: Of direct reads, in bytes; 0 where the file system says there are none.
    """

    path: str
    name: str
    header_bytes: int
    num_records: int
    size_bytes: int
    identity: tuple[int, int, int, int]
    direct_alignment: int

    def unused_bytes(self, layout: RecordLayout) -> int:
        """Bytes at the end that belong to no record; its padding up to the stride does."""
        covered = 0
        if self.num_records:
            last = max(layout.record_bytes, layout.stride_bytes)
            covered = (self.num_records - 1) * layout.stride_bytes + last
        return max(0, self.size_bytes - self.header_bytes - covered)


class Found(NamedTuple):
    """A file that a source names: a path, a pattern, or a folder with a manifest.

    Attributes:
        path: Absolute.
        name: The path below the fixed part of the source: the folder of a file, the folders of a
            pattern in front of its first wildcard, a folder itself. It survives a copy of the
            files to another place, whatever else the data set has elsewhere.
    """

    path: str
    name: str


def expand_paths(paths: Paths) -> list[str]:
    """The files that ``paths`` names, as absolute paths; as ``find_files`` otherwise."""
    return [found.path for found in find_files(paths)]


def find_files(paths: Paths) -> list[Found]:
    """The files that ``paths`` names: patterns sorted, sequences in their order. Folders that a
    pattern matches are left out.

    Raises:
        NotFoundError: A pattern matches nothing, or there are no paths.
        ConfigError: Something that is not a path.
    """
    items = [paths] if isinstance(paths, _PATH) else paths
    has_no_order = isinstance(items, (set, frozenset))
    if not isinstance(items, Iterable) or has_no_order:
        raise ConfigError(f"paths must be a path, a pattern or a sequence of them, not {paths!r}")
    files: list[Found] = []
    for item in items:
        if not isinstance(item, _PATH):
            raise ConfigError(f"{item!r} is not a path")
        path = os.path.expanduser(os.fsdecode(item))
        if not isinstance(path, str) or not path or "\0" in path:
            raise ConfigError(f"{item!r} is not a path")
        files += _expand(path)
    if not files:
        raise NotFoundError("there are no files: paths is empty")
    return files


def _expand(path: str) -> list[Found]:
    if os.path.isdir(path):
        if has_manifest(path):
            raise ConfigError(
                f"{path}: is a folder with a manifest, which says what its records are: "
                f"RecordDataset({path!r}) reads it, alone or beside others that have one"
            )
        raise ConfigError(
            f"{path}: is a directory without a manifest; name its files, or a pattern: {path}/*.bin"
        )
    if not glob.has_magic(path) or os.path.lexists(path):
        return [Found(_absolute(path), os.path.basename(_absolute(path)))]
    matches = sorted(match for match in glob.glob(path, recursive=True) if not os.path.isdir(match))
    if not matches:
        raise NotFoundError(f"{path}: no file matches this pattern")
    top = os.path.dirname(path)
    while glob.has_magic(top):
        top = os.path.dirname(top)
    above = os.path.join(_absolute(top), "")
    files = [_absolute(match) for match in matches]
    return [Found(file, file.removeprefix(above)) for file in files]


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise NotFoundError(
            f"{path}: the current directory, which it is relative to, was removed"
        ) from None


def count_records(paths: Paths, layout: RecordLayout, header_bytes: int) -> list[Shard]:
    """The shards of files that hold nothing but a header and whole records.

    Raises:
        DataError: A size that is not a whole number of records.
    """
    return [
        _shard(file, info, header_bytes, _whole_records(file.path, info, layout, header_bytes))
        for file, info in _inspect(find_files(paths))
    ]


def count_windows(paths: Paths, layout: RecordLayout, item_bytes: int) -> list[Shard]:
    """The shards of token streams: as many windows as fit into each file.

    Raises:
        DataError: A size that is not a whole number of tokens; no window at all.
    """
    shards = []
    for file, info in _inspect(find_files(paths)):
        size = info[0][2]
        if size % item_bytes:
            raise DataError(
                f"{file.path}: has {size} bytes, no multiple of the {item_bytes} bytes of a token"
            )
        count = 0
        if size >= layout.record_bytes:
            count = (size - layout.record_bytes) // layout.stride_bytes + 1
        shards.append(_shard(file, info, 0, count))
    if not any(shard.num_records for shard in shards):
        longest = max(shards, key=lambda shard: shard.size_bytes)
        window, most = layout.record_bytes // item_bytes, longest.size_bytes // item_bytes
        raise DataError(
            f"there are no records: a window of {window} tokens fits into no file; the longest, "
            f"{longest.path}, has {most}: lower window="
        )
    return shards


def count_npy(paths: Paths, as_dtype: Any) -> tuple[list[Shard], RecordLayout]:
    """The shards of ``.npy`` files and their layout: records along the first axis.

    Raises:
        DataError: Headers that are damaged or disagree, or a file whose size is not what its header
            says.
    """
    inspected = _inspect(find_files(paths))
    headers = [read_npy_header(file.path) for file, _ in inspected]
    first_path, first = inspected[0][0].path, headers[0]
    for ((path, _), _), header in zip(inspected, headers, strict=True):
        if not header.shape:
            raise DataError(f"{path}: holds a single number, not an array of records")
        if (header.dtype, header.shape[1:]) != (first.dtype, first.shape[1:]):
            raise DataError(
                f"{path}: records of {_describe(header)}, but {first_path} has {_describe(first)}"
            )
    if 0 in first.shape[1:]:
        raise DataError(f"{first_path}: records of shape {first.shape[1:]} have no bytes")
    if first.dtype.itemsize == 0:
        raise DataError(f"{first_path}: records of {first.dtype} have no bytes")
    layout = make_layout(first.dtype, first.shape[1:], as_dtype)
    shards = []
    for (file, info), header in zip(inspected, headers, strict=True):
        expected = header.header_bytes + header.shape[0] * layout.record_bytes
        if info[0][2] != expected:
            raise DataError(
                f"{file.path}: has {info[0][2]} bytes, but its header describes {expected}: "
                "it was cut off or appended to"
            )
        shards.append(_shard(file, info, header.header_bytes, header.shape[0]))
    return shards, layout


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
    top = os.path.abspath(folder)
    files = [Found(os.path.join(top, entry.name), entry.name) for entry in manifest.shards]
    shards = []
    for entry, (file, info) in zip(manifest.shards, _inspect(files), strict=True):
        if info[0][2] != entry.size_bytes:
            raise DataError(
                f"{file.path}: has {info[0][2]} bytes, but the manifest says {entry.size_bytes}: "
                "it was cut off or appended to"
            )
        shards.append(_shard(file, info, 0, entry.num_records))
    return shards, layout


def manifest_folders(paths: Any) -> list[str]:
    """The folders that ``paths`` names, also by patterns, if all of them have a manifest."""
    items = [paths] if isinstance(paths, _PATH) else paths
    folders: list[str] = []
    for item in items if isinstance(items, Sequence) else []:
        found = _packed_at(os.path.expanduser(os.fsdecode(item))) if isinstance(item, _PATH) else []
        if not found:
            return []
        folders += found
    return folders


def _packed_at(path: str) -> list[str]:
    if "\0" in path:
        return []
    if not glob.has_magic(path) or os.path.lexists(path):
        return [path] if _is_packed(path) else []
    found = []
    for match in glob.iglob(path, recursive=True):
        if not _is_packed(match):
            return []
        found.append(match)
    return sorted(found)


def _is_packed(path: str) -> bool:
    return os.path.isdir(path) and has_manifest(path)


_Info = tuple[tuple[int, int, int, int], int]


def _inspect(files: list[Found]) -> list[tuple[Found, _Info]]:
    return list(zip(files, _C.inspect_files([file.path for file in files]), strict=True))


def _describe(header: NpyHeader) -> str:
    return f"{header.dtype} and shape {header.shape[1:]}"


def _whole_records(path: str, info: _Info, layout: RecordLayout, header_bytes: int) -> int:
    size = info[0][2]
    if size == 0:
        return 0
    if size < header_bytes:
        raise DataError(f"{path}: has {size} bytes, fewer than header_bytes={header_bytes}")
    count, rest = divmod(size - header_bytes, layout.record_bytes)
    if rest:
        after = f" after a header of {header_bytes}" if header_bytes else ""
        raise DataError(
            f"{path}: has {size} bytes{after}, which is {count} records of {layout.record_bytes} "
            f"bytes and a remainder of {rest}: dtype, shape or header_bytes do not fit this file, "
            "or it was cut off"
        )
    return count


def _shard(file: Found, info: _Info, header_bytes: int, count: int) -> Shard:
    identity, alignment = info
    return Shard(file.path, file.name, header_bytes, count, identity[2], identity, alignment)
