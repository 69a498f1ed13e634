"""Files in columns: those that a pattern means, and those that a list names. There may be millions,
and no Python object is made of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .. import _C
from ..errors import NotFoundError
from ..wording import printable
from .local_files import LocalFiles, as_pattern

Column = np.ndarray[Any, Any]

_BRACES = "; braces {} stand for themselves: make a list of two patterns of {a,b}"
# Looking at a file that the kernel does not know waits for the device.
_THREADS = 16


@dataclass(frozen=True, eq=False)
class FileColumns:
    """Of n files.

    Attributes:
        paths: Absolute, one after the other: uint8.
        path_ends: Where each path ends: uint64 [n].
        versions: Device, inode, size in bytes, time of change in ns since 1970: uint64 [n, 4].
        direct_alignments: Of direct reads, in bytes; 0: there are none. int64 [n].
    """

    paths: Column
    path_ends: Column
    versions: Column
    direct_alignments: Column

    def __len__(self) -> int:
        return len(self.path_ends)

    @classmethod
    def of(cls, found: _C.FoundFiles) -> FileColumns:
        versions = found.versions.reshape(-1, 4)
        return cls(found.paths, found.path_ends, versions, found.direct_alignments)

    @classmethod
    def joined(cls, parts: Sequence[FileColumns]) -> FileColumns:
        """Those of all parts, one part after the other."""
        columns = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(cls)
        }
        before = np.cumsum([0, *(len(part.paths) for part in parts[:-1])], dtype=np.uint64)
        ends = [part.path_ends + start for part, start in zip(parts, before, strict=True)]
        return cls(**{**columns, "path_ends": np.concatenate(ends)})


@dataclass(frozen=True)
class FilePattern:
    """Files of mounted file systems.

    Attributes:
        folder: Absolute: the fixed part of the pattern.
        names: The rest, with wildcards.
    """

    folder: str
    names: str

    @classmethod
    def of(cls, path: str) -> FilePattern | None:
        """None: it is the name of one file."""
        pattern = as_pattern(path)
        return None if pattern is None else cls(LocalFiles().absolute(pattern[0]), pattern[1])

    def scan(
        self, *, settles: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> tuple[FileColumns, FileColumns]:
        """The files, by the bytes of their paths, and all folders that were listed.

        Args:
            settles: A folder that was changed just now is listed a moment later: whatever changes
                it afterwards gives it another time of change.
            progress: Is called every few milliseconds with the number of files and of folders so
                far. What it raises ends the scan.

        Raises:
            NotFoundError: There are none; or a link leads to nothing.
            AccessError: A folder cannot be listed.
            ConfigError: A FIFO, a socket or a device is among them.
        """
        files, folders = _C.scan_folder(
            folder=self.folder,
            pattern=self.names,
            threads=_THREADS,
            settles=settles,
            progress=progress,
        )
        if not len(files):
            raise NotFoundError(
                f"{printable(os.path.join(self.folder, self.names))}: no file matches this "
                "pattern, in which *, ? and [...] stand for other characters, and ** for any "
                "folders; where they belong to a name, glob.escape(name) takes them as they are"
                f"{_BRACES if '{' in self.names else ''}"
            )
        return FileColumns.of(files), FileColumns.of(folders)


def inspect_files(
    paths: Sequence[bytes], progress: Callable[[int], None] | None = None
) -> FileColumns:
    """What the kernel says of these files.

    Args:
        paths: At least one; none is empty or has a NUL character in it.

    Raises:
        NotFoundError, AccessError: One is missing, or may not be looked at.
        ConfigError: One is something else than a file, such as a folder.
    """
    current = LocalFiles().absolute(".")
    try:
        found = _C.inspect_paths(
            paths=b"\0".join(paths), current=current, threads=_THREADS, progress=progress
        )
    except NotFoundError as error:
        raise NotFoundError(f"{error}; name files that are there, or a pattern") from None
    return FileColumns.of(found)


def changed_folder(paths: Column, path_ends: Column, modified_ns: Column) -> int:
    """The first of these folders that has another time of change than it had, or is gone; -1:
    none."""
    number: int = _C.changed_folder(
        paths=paths.data,
        path_ends=path_ends.data,
        modified_ns=modified_ns,
        threads=_THREADS,
    )
    return number
