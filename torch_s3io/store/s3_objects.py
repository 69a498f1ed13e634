"""Objects of buckets: how they are named, looked at, and read in small parts."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .. import _C
from ..errors import AccessError, ConfigError, NotFoundError, ObjectChangedError
from ..wording import printable
from .access import Access, Reading
from .key_patterns import compiled, fixed_part, is_pattern
from .local_files import in_order
from .s3_access import S3Access
from .s3_config import S3Config, check_endpoint
from .s3_connections import connections_here
from .s3_credentials import S3Credentials, place_of
from .s3_servers import Servers
from .shared_lists import Listed, listed_once
from .store import FileOrder, Found, Identity, Inspected, Store

_SCHEME = "s3://"
_SAME_LIST_S = 5.0  # `matches` is followed by `find`, of the same pattern
_MOST_REMEMBERED = 100_000
_PAGE = 1000  # of a list
_MOST_ETAGS = 10_000_000  # as many as a list has at most
_FEWEST_LISTED = 16  # names in a folder that are looked for in a list of it
_READ_DEPTH = 16  # parts of one read


class Bucket(NamedTuple):
    config: S3Config
    credentials: S3Credentials


class _Listed(NamedTuple):
    prefix: str
    ended_s: float
    found: dict[str, Identity]


class S3Objects(Store):
    """Of all buckets that this process reads, each with its S3Config."""

    block_bytes = 4 << 20  # a request costs as much as 1 to 8 MB take to come

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """All buckets, as in a new process."""
        self.servers = Servers()
        self._buckets: dict[str, Bucket] = {}
        self._others: Bucket | None = None  # of buckets without a config of their own
        self._etags: set[str] = set()  # that versions do not tell; for all processes
        self._found: dict[str, Identity] = {}  # that nobody has inspected yet
        self._known: dict[str, Identity] = {}  # for reads, which notice where it is an old one
        self._expected: dict[str, float] = {}  # of those that are found: when that was
        self._listed: _Listed | None = None
        self._cores: dict[tuple[int, int], _Core] = {}  # of a process, and a config

    def configure(self, buckets: Iterable[str], config: S3Config) -> None:
        """They are reached like this from now on.

        Raises:
            ConfigError: One has another config already.
        """
        names = list(buckets)
        for name in names:
            known = self._buckets.get(name)
            if known is not None and known.config != config:
                keys = " with other keys" if repr(known.config) == repr(config) else ""
                raise ConfigError(
                    f"s3://{name}: store= is another S3Config than this process reads the bucket "
                    f"with, {known.config}{keys}: a bucket has one in a process"
                )
        known_ones = [*self._buckets.values(), *([self._others] if self._others else [])]
        same = (one for one in known_ones if one.config == config)
        bucket = next(same, None) or Bucket(config, S3Credentials(config))
        for name in names:
            self._buckets.setdefault(name, bucket)

    def configure_others(self, config: S3Config) -> None:
        """Buckets without a config of their own."""
        self._others = Bucket(config, S3Credentials(config))

    def is_configured(self, path: str) -> bool:
        """Whether its bucket has a config of its own."""
        return bucket_of(path) in self._buckets

    def config_of(self, path: str) -> S3Config:
        return self._bucket_of(path).config

    def endpoint_of(self, path: str) -> str:
        """Of the bucket's server; empty: AWS's."""
        return place_of(self.config_of(path)).endpoint

    def core_store(self, path: str) -> _C.S3Objects:
        """Of this process, for the bucket of the path."""
        return self._core_of(path).objects

    def reads(self, path: str) -> _C.S3Reads:
        return self._core_of(path).reads

    def absolute(self, path: str) -> str:
        return path

    def is_folder(self, path: str) -> bool:
        """Whether there is an object below it. What is an object itself is none."""
        is_object = self._is_expected(path) or (self._listed and path in self._listed.found)
        if is_pattern(path) or is_object:
            return False
        if not path.endswith("/") and _key_of(path):
            with contextlib.suppress(NotFoundError):
                self._expect({path: self._look_at(path)})
                return False
        return bool(self.core_store(path).list_objects(_folder(path), most=1))

    def _is_expected(self, path: str) -> bool:
        return time.monotonic() - self._expected.get(path, -math.inf) < _SAME_LIST_S

    def _expect(self, identities: Mapping[str, Identity]) -> None:
        """They were looked at just now, and will be asked for."""
        self._found.update(identities)
        now = time.monotonic()
        self._expected = {one: at for one, at in self._expected.items() if now - at < _SAME_LIST_S}
        self._expected.update(dict.fromkeys(identities, now))

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
            if path.startswith(_SCHEME) and not is_pattern(path) and _key_of(path):
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
            page = self.core_store(begins).list_objects(begins, most=_PAGE)
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
        return self._found.pop(path) if path in self._found else None

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
        data = self.reads(path).read(path, begin, length, version=identity, clips=True)
        return memoryview(data.numpy().data)

    def access(self, reading: Reading) -> Access:
        # There may be millions of paths, and seldom several configs.
        looked_at = len(reading.alignments) if self._buckets else 1
        firsts: dict[str, int] = {}
        for number in range(looked_at):
            firsts.setdefault(f"{_SCHEME}{bucket_of(reading.path(number))}/", number)
        return S3Access(self, firsts, reading)

    def _list(self, prefix: str, keeps: bool = False) -> dict[str, Identity]:
        """What begins with it, but for folders that are objects themselves.

        Args:
            keeps: For the next call.
        """
        known, self._listed = self._listed, None
        if known and known.prefix == prefix and time.monotonic() - known.ended_s < _SAME_LIST_S:
            return known.found
        core, place = self.core_store(prefix), place_of(self.config_of(prefix))
        listed = listed_once(f"{place.endpoint} {prefix}", lambda: core.list_objects(prefix))
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
            version, etag = self.core_store(path).stat(path)
        except NotFoundError as error:
            raise NotFoundError(
                f"{error}; name an object, a pattern such as 's3://bucket/train/*.bin', or a folder"
            ) from None
        identity = Identity(*version)
        if not identity.device:
            self.know_etags(path, {etag})
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
        self.know_etags(path, etags)
        return identities

    def know_etags(self, path: str, etags: set[str]) -> None:
        """Of versions that do not tell them, in the bucket of the path: reads ask for them, in this
        process and in those that are begun later."""
        if not etags:
            return
        if len(self._etags) + len(etags) > _MOST_ETAGS:
            self._etags = set()
        self._etags |= etags
        self.core_store(path).know_etags(list(etags))

    def _remember(self, identities: Mapping[str, Identity]) -> None:
        if len(self._known) + len(identities) > _MOST_REMEMBERED:
            self._known = {}
        if len(identities) <= _MOST_REMEMBERED:
            self._known.update(identities)

    def _bucket_of(self, path: str) -> Bucket:
        known = self._buckets.get(bucket_of(path)) or self._others
        if known is None:
            self.configure_others(S3Config())
            return self._bucket_of(path)
        return known

    def _core_key(self, path: str) -> tuple[int, int]:
        return os.getpid(), id(self._bucket_of(path).credentials)

    def _core_of(self, path: str) -> _Core:
        key = self._core_key(path)
        core = self._cores.get(key)
        if core is None:
            core = self._cores[key] = _Core(self._bucket_of(path))
            core.objects.know_etags(list(self._etags))
        return core

    def __reduce__(self) -> Any:
        return _restored, (self._buckets, self._others, self._etags)


class _Core:
    """What C++ has for one config, in one process."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket  # kept: another one's credentials have another id
        config, place = bucket.config, place_of(bucket.config)
        if place.endpoint:
            check_endpoint("AWS_ENDPOINT_URL, or AWS_ENDPOINT_URL_S3,", place.endpoint)
        self.objects = _C.S3Objects(
            endpoint=place.endpoint,
            region=place.region,
            ca_file=place.ca_file,
            addressing=config.addressing,
            requester_pays=config.requester_pays,
            connect_timeout_s=config.connect_timeout_s,
            stall_timeout_s=config.stall_timeout_s,
            max_idle_s=3,
            max_attempts=config.max_attempts,
            retry_timeout_s=config.retry_timeout_s,
            retries_per_s=config.retries_per_s,
            part_bytes=config.part_bytes,
            connections=connections_here(config.connections),
            credentials=bucket.credentials.source(),
        )
        self.reads = _C.S3Reads(objects=self.objects, buffer_pool=None, depth=_READ_DEPTH)


def _restored(buckets: dict[str, Bucket], others: Bucket | None, etags: set[str]) -> S3Objects:
    """What this process has, and what another one had beside."""
    store = the_s3_objects()
    for name, bucket in buckets.items():
        store._buckets.setdefault(name, bucket)
    store._others = store._others or others
    store._etags |= etags
    for (process, _), core in store._cores.items():
        if process == os.getpid():
            core.objects.know_etags(list(etags))
    return store


_THE_STORE = S3Objects()


def the_s3_objects() -> S3Objects:
    """The one of this process."""
    return _THE_STORE


def bucket_of(path: str) -> str:
    return path.removeprefix(_SCHEME).partition("/")[0]


def _key_of(path: str) -> str:
    return path.removeprefix(_SCHEME).partition("/")[2]


def _folder(path: str) -> str:
    return path if path.endswith("/") else f"{path}/"


def _starts(path: str, pattern: str) -> Iterable[str]:
    """The path, and the folders above it, of which the pattern may mean one."""
    if "**" not in pattern:
        parts = path.split("/")
        yield "/".join(parts[: pattern.count("/") + 1])
        return
    yield from (path[:at] for at, one in enumerate(path) if one == "/" and at > len(_SCHEME))
    yield path


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name
