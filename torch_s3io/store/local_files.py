"""Files of mounted file systems: how they are named, looked at, and read in small parts."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

import numpy as np

from .. import _C
from ..errors import AccessError, DataError, NotFoundError, ReadError
from ..wording import printable
from .access import Access, Reading
from .file_access import FileAccess
from .store import FileOrder, Found, Identity, Inspected, Store


class LocalFiles(Store):
    def absolute(self, path: str) -> str:
        try:
            return os.path.abspath(path)
        except FileNotFoundError:
            raise NotFoundError(
                f"{path}: the current directory, which it is relative to, was removed"
            ) from None

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(path)

    def has(self, path: str) -> bool:
        return os.path.lexists(path)

    def matches(self, path: str, order: FileOrder) -> list[str]:
        pattern = as_pattern(path)
        return [path] if pattern is None else in_order(_glob(*pattern), order)

    def find(self, path: str, order: FileOrder) -> list[Found]:
        pattern = as_pattern(path)
        if pattern is None:
            self._refuse_missing(path)
            return self._below(os.path.dirname(path), [path])
        matches = [match for match in _glob(*pattern) if not os.path.isdir(match)]
        if not matches:
            raise NotFoundError(
                f"{path}: no file matches this pattern, in which *, ? and [...] stand for other "
                "characters; where they belong to a name, glob.escape(name) takes them as they are"
            )
        return self._below(pattern[0], in_order(matches, order))

    def below(self, folder: str) -> Iterable[str]:
        return files_below(folder)

    def inspect(self, paths: list[str]) -> list[Inspected]:
        return [
            Inspected(Identity._make(version), direct_alignment)
            for version, direct_alignment in _C.inspect_files(paths)
        ]

    def read(self, path: str, begin: int = 0, end: int | None = None) -> memoryview:
        """It is read, not mapped: a mapped file that is cut off ends the process."""
        try:
            # Opening a FIFO must not wait for somebody to write into it.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise DataError(f"{printable(path)}: is not a regular file")
                end = status.st_size if end is None else min(end, status.st_size)
                return _read_from(fd, begin, max(begin, end))
            finally:
                os.close(fd)
        except FileNotFoundError:
            raise NotFoundError(f"{printable(path)}: is not there") from None
        except PermissionError as error:
            raise AccessError(f"{printable(path)}: cannot open: {error.strerror}") from None
        except OSError as error:
            raise ReadError(f"{printable(path)}: cannot read: {error.strerror}") from None

    def access(self, reading: Reading) -> Access:
        return FileAccess(reading)

    def _below(self, top: str, paths: list[str]) -> list[Found]:
        files = [self.absolute(path) for path in paths]
        above = os.path.join(self.absolute(top), "")
        return [Found(file, file.removeprefix(above)) for file in files]

    def _refuse_missing(self, path: str) -> None:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            is_link = os.path.islink(path)
            what = "is a link to a file that is not there" if is_link else "is not there"
            raise NotFoundError(
                f"{self.absolute(path)}: {what}; name a file, a pattern such as 'train/*.bin', or "
                "a folder"
            ) from None
        except OSError:
            return  # whoever opens it says what is wrong


def _read_from(fd: int, begin: int, end: int) -> memoryview:
    """Fewer bytes where the file ends before."""
    data = memoryview(np.empty(end - begin, np.uint8).data)
    os.lseek(fd, begin, os.SEEK_SET)  # os.preadv is preadv2(2), which a container may refuse
    at = 0
    while at < len(data):
        count = os.readv(fd, [data[at:]])
        if count == 0:
            break
        at += count
    return data[:at]


def as_pattern(path: str) -> tuple[str, str] | None:
    """The pattern that ``path`` is: a folder, and what is to be matched below it; None for the
    name of one file.

    A folder that is there under exactly this name is meant by it, whatever characters it has.
    """
    if not glob.has_magic(path) or os.path.lexists(path):
        return None
    ends = [match.end() for match in re.finditer("/", path)]
    there = max((end for end in ends if os.path.lexists(path[:end])), default=0)
    return path[:there], path[there:]


def _glob(folder: str, pattern: str) -> Iterator[str]:
    return glob.iglob(glob.escape(folder) + pattern, recursive=True)


def files_below(
    top: str, leaves_out: Callable[[str, list[str]], bool] = lambda folder, names: False
) -> Iterator[str]:
    """The files in a folder and those below it, links followed; but nothing hidden.

    Args:
        leaves_out: Of a folder and the names in it: whether it is left out.

    Raises:
        AccessError: A folder cannot be listed.
    """
    seen = set()  # a link may lead to a folder above it
    for folder, folders, names in os.walk(top, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        if real in seen or leaves_out(folder, names):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(folder, name) for name in names if not name.startswith("."))


def _refuse(error: OSError) -> NoReturn:
    raise AccessError(f"{error.filename}: cannot list the folder: {error.strerror}") from None


def in_order(paths: Iterable[str], order: FileOrder) -> list[str]:
    return sorted(paths, key=_natural_key if order == "natural" else None)


def _natural_key(path: str) -> tuple[list[str | int], str]:
    """Texts and numbers in turn; the path decides where they are equal (1 and 01)."""
    parts = re.split("([0-9]+)", path)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path
