"""Finds the index of a data set, or makes it: one process of a machine, for all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import (
    AccessError,
    ConfigError,
    DataError,
    Error,
    NotFoundError,
    ReadError,
    ReadTimeoutError,
    WriteError,
    WriteTimeoutError,
)
from ..warning import warn
from ..wording import printable
from .column_file import Column, ColumnFile, is_index, map_columns
from .column_writer import columns_in_memory, write_columns
from .file_lock import file_lock
from .in_bucket import StaleIndexWarning, copy_index, is_missing, put_index
from .place import Where, index_places

Made = tuple[Mapping[str, Any], Mapping[str, Column]]
IsCurrent = Callable[[ColumnFile], bool]
Build = Callable[[ColumnFile | None], Made]

_MOST_BYTES = 16 << 30


def indexed(
    sources: Sequence[str],
    recipe: Mapping[str, Any],
    is_current: IsCurrent,
    build: Build,
    where: Where = True,
    passing: Container[str] = (),
    most_bytes: int = _MOST_BYTES,
) -> ColumnFile:
    """The index that is there, if it is current; else a new one, written where that can be.

    One process of a machine builds; the others wait for it, and map what it wrote. When it is
    killed another one builds. Where no file can be written, the index is in memory, which is warned
    of. In place of building, the index in a bucket is copied, if there is a current one. A new one
    is put there where ``where`` names the bucket, and else by who calls ``put_index``. So is one
    that this machine has already, where the bucket has none.

    Args:
        sources: Absolute paths or patterns, in any order: what the index is of.
        recipe: For JSON: "kind", a word, and all else that decides what is in it. It becomes
            ``head["recipe"]``.
        is_current: Whether the data are what this index says. A DataError: it is damaged.
        build: Makes the head, for JSON, and the columns. It gets an index that is not current, if
            there is one, for what of it still holds.
        where: As for ``index_places``.
        passing: Columns that tell whether it is current, and nothing of the data: a data set that
            was pickled reads on with a new index that differs in these alone.
        most_bytes: That an index of these data may have: a longer one in a bucket is not read.

    Raises:
        ConfigError: ``where`` is a file that is something else than this index.
        AccessError: ``where`` is a path that cannot be written to.
        ReadTimeoutError: Another process has been building it for hours.
    """
    places = index_places(sources, recipe, where)
    entries = {"recipe": json.loads(json.dumps(recipe)), "name": places.name}
    is_path = not isinstance(where, bool)
    bucket = _InBucket(places.in_bucket, most_bytes, is_path) if places.in_bucket else None
    search = _Search(entries, is_current, build, passing, bucket)
    if is_path and bucket is None:
        _refuse_other_file(places.paths[0], places.name)
    for find in (search.found_in, search.made_in):
        for path in places.paths:
            found = find(path)
            if found is not None:
                found.in_bucket = places.in_bucket
                if find == search.found_in:
                    search.put_where_missing(found)
                return found
    if is_path:
        what = "index=" if bucket is None else "the copy of index= in the cache folder"
        raise AccessError(
            f"{what} cannot be written to, {search.problems[0]}; name another path, or leave it out"
        )
    copy = search.copied_to_memory()
    if search.problems:
        how = "made" if copy is None else "read from its bucket"
        warn(
            f"the index cannot be written to {', nor to '.join(search.problems)}: it is in memory, "
            f"and {how} again by every program. index= names a place for it; index=False does "
            "without one, and without this warning"
        )
    return copy or columns_in_memory(*search.made())


class _InBucket(NamedTuple):
    """Where an index may be, too.

    Attributes:
        path: Of the object.
        most_bytes: That it may have.
        is_asked_for: So a new one is put there.
    """

    path: str
    most_bytes: int
    is_asked_for: bool


class _Search:
    """For an index with these entries in its head."""

    def __init__(
        self,
        entries: Mapping[str, Any],
        is_current: IsCurrent,
        build: Build,
        passing: Container[str],
        bucket: _InBucket | None,
    ) -> None:
        self._bucket = bucket
        self._entries = entries
        self._passing = passing
        self._is_current = is_current
        self._build = build
        self._old: ColumnFile | None = None
        self._made: Made | None = None
        self.problems: list[str] = []

    def found_in(self, path: str) -> ColumnFile | None:
        """The index there, if it is current."""
        try:
            found = map_columns(path)
            if any(found.head.get(key) != entry for key, entry in self._entries.items()):
                return None
            if self._is_current(found):
                return found
            self._old = self._old or found
        except (NotFoundError, AccessError, ReadError, DataError):
            pass  # whatever it is, it is built anew
        return None

    def made_in(self, path: str) -> ColumnFile | None:
        """The index that this process, or another one, builds there; None where it cannot be
        written."""
        with contextlib.ExitStack() as stack:
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                lock = file_lock(f"{path}.lock", f"builds the index {printable(path)}")
                stack.enter_context(lock)
            except Error:
                raise
            except OSError as error:
                self._note(path, error)
                return None
            # Whoever had the lock before has built it, perhaps.
            found = self.found_in(path) or self._copied_to(path)
            if found is not None:
                return found
            made = self.made()
            try:
                write_columns(path, *made, self._passing)
                new = map_columns(path)
            except OSError as error:
                self._note(path, error)
                return None
            self._put(new)
            return new

    def copied_to_memory(self) -> ColumnFile | None:
        """A copy of the index in the bucket, if that is current, in no file."""
        if self._bucket is None:
            return None
        with contextlib.suppress(OSError), tempfile.TemporaryDirectory() as folder:
            found = self._copied_to(os.path.join(folder, "index"))
            if found is not None:
                return columns_in_memory(found.head, found.columns)
        return None

    def _copied_to(self, path: str) -> ColumnFile | None:
        """A copy of the index in the bucket, if that is current."""
        if self._bucket is None:
            return None
        try:
            if not copy_index(self._bucket.path, path, self._bucket.most_bytes):
                return None
        except OSError:
            return None  # neither can a new one be written; that is told
        found = self.found_in(path)
        if found is None:
            how = "made anew, to take its place"
            if not self._bucket.is_asked_for:
                how = "made anew on this machine. `python -m torch_s3io index` puts a new one there"
            warn(
                f"{printable(self._bucket.path)}: the data have changed since this index was made: "
                f"it is {how}",
                StaleIndexWarning,
            )
        return found

    def put_where_missing(self, found: ColumnFile) -> None:
        """A current one that this machine has: who made it could not put it, or the one in the
        bucket was removed."""
        if self._bucket is None or not self._bucket.is_asked_for:
            return
        if not self._is_to_put(found):
            return
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file_lock(f"{found.path}.lock", "puts the index into a bucket"))
            except Error:
                raise
            except OSError:
                return  # somebody else's cache folder
            if self._is_to_put(found):
                self._put(found)

    def _is_to_put(self, found: ColumnFile) -> bool:
        """Whether the bucket has none, or may have another one, which could not be replaced."""
        assert self._bucket is not None
        return os.path.exists(_mark_of(found)) or is_missing(self._bucket.path)

    def _put(self, new: ColumnFile) -> None:
        if self._bucket is None or not self._bucket.is_asked_for:
            return
        new.in_bucket = self._bucket.path
        try:
            with contextlib.suppress(OSError):
                open(_mark_of(new), "wb").close()
            put_index(new)
            with contextlib.suppress(OSError):
                os.unlink(_mark_of(new))
        except AccessError as error:
            raise AccessError(
                f"index= cannot be written to, {error}; name another place, or leave it out"
            ) from None
        except (WriteError, WriteTimeoutError, ReadError, ReadTimeoutError) as error:
            warn(
                "the index is on this machine alone, and the next program puts it into its bucket: "
                f"{error}"
            )

    def made(self) -> Made:
        if self._made is None:
            head, columns = self._build(self._old)
            self._made = {**head, **self._entries}, columns
        return self._made

    def _note(self, path: str, error: OSError) -> None:
        self.problems.append(f"{printable(path)} ({error.strerror or error})")


def _mark_of(file: ColumnFile) -> str:
    """Of a file in the cache folder: it is there while its bucket has not got that."""
    return f"{file.path}.unsent"


def _refuse_other_file(path: str, name: str) -> None:
    """What a user names by mistake is not overwritten."""
    if os.path.exists(path) and not is_index(path):
        raise ConfigError(
            f"index={printable(path)!r}: this file is no index, and would be replaced by one: name "
            "another one, or a folder"
        )
    with contextlib.suppress(DataError, NotFoundError, AccessError, ReadError):
        if map_columns(path).head.get("name") != name:
            raise ConfigError(
                f"index={printable(path)!r}: is the index of other data: name another file, or a "
                "folder, in which each data set has one of its own"
            )
