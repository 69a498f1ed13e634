"""The objects of a data set, as columns: there may be millions of them."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from .. import _C
from ..errors import Error
from ..index.column_file import ColumnFile
from ..store.file_columns import FileColumns
from ..store.store import Found, Identity, Inspected
from ..store.stores import scheme_of
from ..wording import printable

Column = np.ndarray[Any, Any]

_LINES_AT_ONCE = 1 << 13

VERSION = np.dtype(
    [("device", "<u8"), ("inode", "<u8"), ("size_bytes", "<i8"), ("modified_ns", "<i8")]
)


@cache
def machine() -> str:
    """Tells machines apart, and the times since they were started."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


@dataclass(frozen=True)
class Shard:
    """One object of a data set.

    Attributes:
        path: Absolute.
        name: The path below the source, which is what the user named: see ``Found``. The end of the
            path.
        header_bytes: Where the first record begins.
        num_records: Possibly 0.
        identity: Changes with the object.
        direct_alignment: Of direct reads, in bytes; 0 where the file system says there are none.
    """

    path: str
    name: str
    header_bytes: int
    num_records: int
    identity: Identity
    direct_alignment: int

    @property
    def size_bytes(self) -> int:
        return self.identity.size_bytes


def shard_of(file: Found, info: Inspected, header_bytes: int, count: int) -> Shard:
    return Shard(file.path, file.name, header_bytes, count, info.identity, info.direct_alignment)


@dataclass(frozen=True, eq=False)
class Objects(Sequence[Shard]):
    """The objects in the order of their records. A ``Shard`` of one is made when it is asked for.

    Attributes:
        paths: Of all, one after the other, in bytes: uint8.
        path_ends: Where each path ends: uint64 [n].
        name_bytes: How much of a path's end is its name: int64 [n].
        header_bytes, num_records, direct_alignments: As of ``Shard``: int64 [n].
        versions: As they were when the data set was made: VERSION [n].
        machine: Where inodes are those of the versions: copies elsewhere have others.
        recipe: What makes the same objects in another process: it is pickled in their place. None:
            the columns are.
        listings: Files that say which objects there are, and how they were.
    """

    paths: Column
    path_ends: Column
    name_bytes: Column
    header_bytes: Column
    num_records: Column
    direct_alignments: Column
    versions: Column
    machine: str
    recipe: Callable[[], Objects] | None = None
    listings: tuple[ColumnFile, ...] = ()

    @classmethod
    def of(cls, shards: Iterable[Shard]) -> Objects:
        """Of this machine."""
        if isinstance(shards, Objects):
            return shards
        shards = list(shards)
        assert all(shard.path.endswith(shard.name) for shard in shards)
        paths = [os.fsencode(shard.path) for shard in shards]
        names = [len(os.fsencode(shard.name)) for shard in shards]
        return cls(
            paths=np.frombuffer(b"".join(paths), np.uint8),
            path_ends=np.cumsum([len(path) for path in paths], dtype=np.uint64),
            name_bytes=np.array(names, np.int64),
            header_bytes=np.array([shard.header_bytes for shard in shards], np.int64),
            num_records=np.array([shard.num_records for shard in shards], np.int64),
            direct_alignments=np.array([shard.direct_alignment for shard in shards], np.int64),
            versions=np.array([tuple(shard.identity) for shard in shards], VERSION),
            machine=machine(),
        )

    @classmethod
    def of_files(
        cls,
        found: FileColumns,
        above: int,
        recipe: Callable[[], Objects] | None = None,
        listings: tuple[ColumnFile, ...] = (),
    ) -> Objects:
        """One record in each.

        Args:
            above: Bytes of all paths that are in front of their names.
        """
        count = len(found)
        return cls(
            paths=found.paths,
            path_ends=found.path_ends,
            name_bytes=_lengths(found.path_ends) - above,
            header_bytes=np.broadcast_to(np.int64(0), count),
            num_records=np.broadcast_to(np.int64(1), count),
            direct_alignments=found.direct_alignments,
            versions=found.versions.view(VERSION)[:, 0],
            machine=machine(),
            recipe=recipe,
            listings=listings,
        )

    @classmethod
    def joined(cls, parts: Sequence[Objects]) -> Objects:
        """Those of all parts, one part after the other."""
        here = {part.machine for part in parts}
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS
        }
        if len(here) > 1:
            columns["versions"] = np.concatenate([part._versions_here() for part in parts])
        starts = np.cumsum([0, *(len(part.paths) for part in parts[:-1])], dtype=np.uint64)
        ends = [part.path_ends + start for part, start in zip(parts, starts, strict=True)]
        columns["path_ends"] = np.concatenate(ends)
        listings = tuple(listing for part in parts for listing in part.listings)
        machine_id = here.pop() if len(here) == 1 else machine()
        return cls(**columns, machine=machine_id, listings=listings)

    def __reduce__(self) -> Any:
        if self.recipe is not None:
            return _made_by, (self.recipe,)
        columns = [getattr(self, name) for name in (*_COLUMNS, "machine", "recipe", "listings")]
        return type(self), tuple(columns)

    def __len__(self) -> int:
        return len(self.path_ends)

    @overload
    def __getitem__(self, index: int) -> Shard: ...
    @overload
    def __getitem__(self, index: slice) -> list[Shard]: ...
    def __getitem__(self, index: int | slice) -> Shard | list[Shard]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        begin = self.path_ends[number - 1] if number else 0
        path = self.paths[begin : self.path_ends[number]].tobytes()
        return Shard(
            os.fsdecode(path),
            os.fsdecode(path[len(path) - int(self.name_bytes[number]) :]),
            int(self.header_bytes[number]),
            int(self.num_records[number]),
            Identity(*self.versions[number].tolist()),
            int(self.direct_alignments[number]),
        )

    def path(self, number: int) -> str:
        return self[number].path

    def name(self, number: int) -> str:
        end = int(self.path_ends[number])
        return os.fsdecode(self.paths[end - int(self.name_bytes[number]) : end].tobytes())

    def all_paths(self) -> list[str]:
        ends = self.path_ends.tolist()
        return self._texts([0, *ends[:-1]], ends)

    @property
    def path_bytes(self) -> Column:
        """Of each path: int64 [n]."""
        return _lengths(self.path_ends)

    def name_lines(self) -> Iterator[bytes]:
        """The names as lines of JSON, many at a time."""
        return self._lines(self.path_bytes - self.name_bytes)

    def folder_lines(self) -> Iterator[bytes]:
        """The same of the paths, relative to the folder that holds all of them; of objects in
        several stores, as they are."""
        if len(self.by_scheme()) > 1:
            return self._lines(np.zeros(len(self), np.int64))
        above = _C.common_folder_bytes(paths=self.paths.data, path_ends=self.path_ends.data)
        return self._lines(np.full(len(self), above))

    def _lines(self, left_out: Column) -> Iterator[bytes]:
        for first in range(0, len(self), _LINES_AT_ONCE):
            yield _C.json_lines(
                paths=self.paths.data,
                path_ends=self.path_ends.data,
                left_out=left_out,
                first=first,
                last=min(first + _LINES_AT_ONCE, len(self)),
            )

    @property
    def repeated_names(self) -> int:
        """How many have a name that one before them has."""
        count: int = _C.count_repeated(
            paths=self.paths.data,
            path_ends=self.path_ends.data,
            left_out=self.path_bytes - self.name_bytes,
        )
        return count

    def without_listings(self, error: Error) -> Error:
        """The error of an object that is not as a listing says, which is removed: else it would be
        used again by whoever makes the data set anew."""
        kept = [printable(one.path) for one in self.listings if one.path and not one.remove()]
        text = str(error)
        if kept:
            text = f"{text}. Remove the index that says how it was: {', '.join(kept)}"
        elif self.listings:
            text = f"{text}. The index that says how it was is removed: files are listed anew"
        return type(error)(text)

    def _texts(self, begins: list[int], ends: list[int]) -> list[str]:
        every = self.paths.tobytes()
        return [os.fsdecode(every[begin:end]) for begin, end in zip(begins, ends, strict=True)]

    @property
    def total_bytes(self) -> int:
        return int(self.versions["size_bytes"].sum())

    @property
    def total_records(self) -> int:
        return int(self.num_records.sum())

    def by_scheme(self) -> dict[str, Column]:
        """The numbers of those of each store: int64 [k]."""
        if not self._has_schemes:
            return {"": np.arange(len(self))}
        schemes = np.array([scheme_of(path) for path in self.all_paths()])
        return {
            scheme: np.flatnonzero(schemes == scheme) for scheme in dict.fromkeys(schemes.tolist())
        }

    @cached_property
    def _has_schemes(self) -> bool:
        return re.search(b"://", self.paths.data) is not None

    def some(self, numbers: Column) -> Objects:
        """Those of these numbers, in their order."""
        if len(numbers) == len(self):
            return self
        some = Objects.of([self[number] for number in numbers.tolist()])
        return replace(some, machine=self.machine)

    def _versions_here(self) -> Column:
        """As far as they can be compared in this process."""
        if self.machine == machine():
            return self.versions
        versions = self.versions.copy()
        versions["inode"] = 0
        return versions

    def to_core(self) -> _C.Objects:
        return _C.Objects(
            paths=self.paths.data,
            path_ends=self.path_ends.data,
            versions=self._versions_here().view(np.uint64).data,
        )


def _lengths(ends: Column) -> Column:
    return np.diff(ends.astype(np.int64), prepend=0)


def _made_by(recipe: Callable[[], Objects]) -> Objects:
    return recipe()


_OTHERS = ("machine", "recipe", "listings")
_COLUMNS = tuple(name for name in Objects.__dataclass_fields__ if name not in _OTHERS)
