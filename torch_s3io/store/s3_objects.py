"""Objects of buckets: how they are named, looked at, and read in small parts."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import _C
from ..errors import AccessError, DataError, NotFoundError, ObjectChangedError
from ..wording import printable
from .access import Access, Reading
from .key_patterns import compiled, fixed_part, is_pattern
from .local_files import in_order
from .s3_access import S3Access
from .s3_bucket import SCHEME
from .s3_buckets import Buckets, bucket_of
from .shared_lists import Listed, listed_once
from .store import FileOrder, Found, Identity, Inspected, Store

_SAME_LIST_S = 5.0  # `matches` is followed by `find`, of the same pattern
_MOST_REMEMBERED = 100_000
_PAGE = 1000  # of a list
_FEWEST_LISTED = 16  # names in a folder that are looked for in a list of it


class _Listed(NamedTuple):
    prefix: str
    ended_s: float
    found: dict[str, Identity]


class S3Objects(Store):
    """Of all buckets that this process reads."""

    block_bytes = 4 << 20  # a request costs as much as 1 to 8 MB take to come

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """All buckets, as in a new process."""
        self._lock = threading.RLock()  # of buckets, and of what is expected
        self.buckets = Buckets(self._lock, self._forget_objects)
        self._forget_objects()

    def _forget_objects(self) -> None:
        self._found: dict[str, Identity] = {}  # that nobody has inspected yet
        self._known: dict[str, Identity] = {}  # for reads, which notice where it is an old one
        with self._lock:
            self._expected: dict[str, float] = {}  # of those that are found: when that was
        self._listed: _Listed | None = None

    def begin_in_child(self) -> None:
        """After a fork: another thread of the parent may have had a lock."""
        self._lock = threading.RLock()
        self.buckets.begin_in_child(self._lock)

    def absolute(self, path: str) -> str:
        return path

    def is_folder(self, path: str) -> bool:
        """Whether there is an object below it. What is an object itself is none."""
        listed = self._listed  # another thread may replace it
        is_object = self._is_expected(path) or (listed is not None and path in listed.found)
        if is_pattern(path) or is_object:
            return False
        if not path.endswith("/") and _key_of(path):
            with contextlib.suppress(NotFoundError):
                self._expect({path: self._look_at(path)})
                return False
        return bool(list_of(self.buckets.core_store(path), _folder(path), most=1))

    def _is_expected(self, path: str) -> bool:
        return time.monotonic() - self._expected.get(path, -math.inf) < _SAME_LIST_S

    def _expect(self, identities: Mapping[str, Identity]) -> None:
        """They were looked at just now, and will be asked for."""
        self._found.update(identities)
        now = time.monotonic()
        with self._lock:
            kept = {one: at for one, at in self._expected.items() if now - at < _SAME_LIST_S}
            self._expected = kept | dict.fromkeys(identities, now)

    def has(self, path: str) -> bool:
        try:
            self._look_at(path)
        except NotFoundError:
            return False
        return True

    def matches(self, path: str, order: FileOrder) -> list[str]:
        if not is_pattern(path):
            return [path]
        takes = compiled(path)
        found = dict.fromkeys(
            start
            for one in self._list(fixed_part(path), keeps=True)
            for start in _starts(one, path)
            if takes.fullmatch(start)
        )
        return in_order(found, order)

    def find(self, path: str, order: FileOrder) -> list[Found]:
        if not is_pattern(path):
            if not self._is_expected(path):
                self._found[path] = self._look_at(path)
            with self._lock:
                self._expected.pop(path, None)
            return [Found(path, os.path.basename(path))]
        takes, fixed = compiled(path), fixed_part(path)
        listed = self._list(fixed)
        paths = self._taken_from(listed, filter(takes.fullmatch, listed))
        if not paths:
            raise NotFoundError(
                f"{printable(path)}: no object matches this pattern, in which *, ? and [...] stand "
                "for other characters of a name, and ** for any folders; where they belong to a "
                "name, glob.escape(name) takes them as they are"
            )
        above = fixed[: fixed.rindex("/") + 1]
        return [Found(one, one.removeprefix(above)) for one in in_order(paths, order)]

    def expect(self, paths: Iterable[str]) -> None:
        """By lists of what many names of a folder begin with. Where there is much else, or lists
        are forbidden, each is looked at by itself, when it is asked for."""
        names: dict[str, set[str]] = {}
        for path in paths:
            if path.startswith(SCHEME) and not is_pattern(path) and _key_of(path):
                names.setdefault(os.path.dirname(path), set()).add(path)
        with contextlib.suppress(AccessError):
            for wanted in names.values():
                self._expect(self._listed_of(sorted(wanted)))

    def _listed_of(self, wanted: list[str]) -> dict[str, Identity]:
        """Of sorted paths those that a list has. It takes a request for each 16 of them at most."""
        there: dict[str, Identity] = {}
        while len(wanted) >= _FEWEST_LISTED:
            part = wanted[:_PAGE]
            begins = os.path.commonprefix(part)  # noqa: RUF071  (as texts, not as folders)
            page = list_of(self.buckets.core_store(begins), begins, most=_PAGE)
            listed = self.identities(begins, page)
            there.update((path, listed[path]) for path in part if path in listed)
            passed = [path for path in part if len(page) < _PAGE or path <= page[-1][0]]
            if len(passed) < _FEWEST_LISTED:
                break
            wanted = wanted[len(passed) :]
        return there

    def below(self, folder: str) -> Iterable[str]:
        top = _folder(folder)
        listed = self._list(top)
        visible = (one for one in listed if not _is_hidden(one.removeprefix(top)))
        return self._taken_from(listed, visible)

    def inspect(self, paths: list[str]) -> list[Inspected]:
        self._listed = None
        identities = [self._taken(path) or self._look_at(path) for path in paths]
        self._remember(dict(zip(paths, identities, strict=True)))
        return [Inspected(identity, 0) for identity in identities]

    def _taken(self, path: str) -> Identity | None:
        return self._found.pop(path, None)

    def read(self, path: str, begin: int = 0, end: int | None = None) -> memoryview:
        known = self._known.get(path)
        if known is not None:
            try:
                return self._read(path, begin, end, known)
            except ObjectChangedError:
                pass  # since it was looked at: this is a new look
        return self._read(path, begin, end, self._look_at(path))

    def _read(self, path: str, begin: int, end: int | None, identity: Identity) -> memoryview:
        end = identity.size_bytes if end is None else min(end, identity.size_bytes)
        length = max(0, end - begin)
        data = self.buckets.reads(path).read(path, begin, length, version=identity, clips=True)
        return memoryview(data.numpy().data)

    def access(self, reading: Reading) -> Access:
        # There may be millions of paths, and seldom several configs.
        is_one = self.buckets.are_one()
        count = len(reading.alignments)
        looked_at = range(1 if is_one else count)
        of_each = [f"{SCHEME}{bucket_of(reading.path(number))}/" for number in looked_at]
        among = np.broadcast_to(of_each, count)
        numbers = {bucket: np.flatnonzero(among == bucket) for bucket in dict.fromkeys(of_each)}
        access = self.buckets.open(
            numbers, lambda reached: S3Access(reached, self.buckets, reading)
        )
        if not reading.is_told:
            access.look_at_servers(numbers, reading)
        return access

    def _list(self, prefix: str, keeps: bool = False) -> dict[str, Identity]:
        """What begins with it, but for folders that are objects themselves.

        Args:
            keeps: For the next call.
        """
        known, self._listed = self._listed, None
        if known and known.prefix == prefix and time.monotonic() - known.ended_s < _SAME_LIST_S:
            return known.found
        core, endpoint = self.buckets.core_store(prefix), self.buckets.endpoint_of(prefix)
        listed = listed_once(f"{endpoint} {prefix}", lambda: list_of(core, prefix))
        found = self.identities(prefix, (one for one in listed if not one[0].endswith("/")))
        if keeps:
            self._listed = _Listed(prefix, time.monotonic(), found)
        return found

    def _taken_from(self, listed: Mapping[str, Identity], paths: Iterable[str]) -> list[str]:
        """These paths, whose identities nobody has to ask for."""
        taken = list(paths)
        self._found.update((path, listed[path]) for path in taken)
        return taken

    def _look_at(self, path: str) -> Identity:
        """By a request.

        Raises:
            NotFoundError: It is not there; the text says how to name objects.
        """
        if not _key_of(path):
            raise NotFoundError(
                f"{printable(path)}: is a bucket; name an object, a pattern such as "
                "'s3://bucket/train/*.bin', or a folder"
            )
        try:
            version, etag = self.buckets.core_store(path).stat(path)
        except NotFoundError as error:
            raise NotFoundError(
                f"{error}; name an object, a pattern such as 's3://bucket/train/*.bin', or a folder"
            ) from None
        identity = Identity(*version)
        if not identity.device:
            self.buckets.know_etags(path, {etag})
        self._remember({path: identity})
        return identity

    def identities(self, path: str, listed: Iterable[Listed]) -> dict[str, Identity]:
        """Of what a list of the bucket of the path has."""
        etags = set()
        identities = {}
        for name, version, etag in listed:
            identities[name] = Identity(*version)
            if etag:
                etags.add(etag)
        self.buckets.know_etags(path, etags)
        return identities

    def _remember(self, identities: Mapping[str, Identity]) -> None:
        if len(self._known) + len(identities) > _MOST_REMEMBERED:
            self._known = {}
        if len(identities) <= _MOST_REMEMBERED:
            self._known.update(identities)

    def __reduce__(self) -> Any:
        return _restored, self.buckets.state()


def _restored(*known: Any) -> S3Objects:
    """What this process has, and what another one had beside."""
    store = the_s3_objects()
    store.buckets.join(*known)
    return store


_THE_STORE = S3Objects()
os.register_at_fork(after_in_child=_THE_STORE.begin_in_child)


def the_s3_objects() -> S3Objects:
    """The one of this process."""
    return _THE_STORE


def list_of(core: _C.S3Objects, prefix: str, most: int = 0) -> list[Listed]:
    """As ``list_objects``. Some servers leave empty parts of keys out, and list other ones."""
    try:
        return core.list_objects(prefix, most=most)
    except DataError as error:
        if "//" not in prefix.removeprefix(SCHEME):
            raise
        raise DataError(
            f"{error}; the path has an empty part, between two slashes, which this server may "
            "leave out: write one slash"
        ) from None


def _key_of(path: str) -> str:
    return path.removeprefix(SCHEME).partition("/")[2]


def _folder(path: str) -> str:
    return path if path.endswith("/") else f"{path}/"


def _starts(path: str, pattern: str) -> Iterable[str]:
    """The path, and the folders above it, of which the pattern may mean one."""
    if "**" not in pattern:
        parts = path.split("/")
        yield "/".join(parts[: pattern.count("/") + 1])
        return
    yield from (path[:at] for at, one in enumerate(path) if one == "/" and at > len(SCHEME))
    yield path


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name
