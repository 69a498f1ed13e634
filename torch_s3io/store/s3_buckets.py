"""The buckets that this process reads, and how each is reached."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from .. import _C
from ..errors import ConfigError
from .s3_access import S3Access
from .s3_bucket import SCHEME, Bucket, Core
from .s3_config import S3Config, differences, without_keys
from .s3_servers import Servers

_MOST_ETAGS = 10_000_000  # as many as a list has at most


class Buckets:
    """All of them. A bucket has one config at a time, which may change while nobody reads it.

    Args:
        lock: Of these, and of what else a change concerns.
        on_change: Called with the lock when one is reached otherwise than before.
    """

    def __init__(self, lock: threading.RLock, on_change: Callable[[], None]) -> None:
        self.servers = Servers()
        self._on_change = on_change
        self._lock = lock
        self._buckets: dict[str, Bucket] = {}
        self._configured: set[str] = set()  # those with a config of their own
        self._others = S3Config()  # of all others
        self._accesses: weakref.WeakSet[S3Access] = weakref.WeakSet()  # of data sets
        self._etags: set[str] = set()  # that versions do not tell; for all processes

    def configure(self, buckets: Iterable[str], config: S3Config) -> None:
        """They are reached like this from now on.

        Raises:
            ConfigError: A living data set reads one of them with another config.
        """
        names = list(buckets)
        with self._lock:
            for name in names:
                known = self._buckets.get(name)
                is_own = name in self._configured
                if known is not None and is_own and self._is_refused(name, known, config):
                    raise ConfigError(
                        f"s3://{name}: store= is another S3Config than a data set of this process "
                        f"reads the bucket with: {differences(known.config, config)}. All data "
                        "sets of a bucket have one: drop the others (del dataset) and try again, "
                        "or start another process"
                    )
            for name in names:
                self._reach(name, config)
            self._configured.update(names)

    def configure_others(self, config: S3Config) -> None:
        """Buckets without a config of their own."""
        self._others = config

    def is_configured(self, path: str) -> bool:
        """Whether its bucket has a config of its own."""
        return bucket_of(path) in self._configured

    def at(self, path: str) -> Bucket:
        """How the bucket of the path is reached now."""
        name = bucket_of(path)
        with self._lock:
            is_own = name in self._configured
            return self._reach(name, self._buckets[name].config if is_own else self._others)

    def endpoint_of(self, path: str) -> str:
        """Of the bucket's server; empty: AWS's."""
        return self.at(path).place.endpoint

    def core_of(self, bucket: Bucket) -> Core:
        return bucket.core(self._etags)

    def core_store(self, path: str) -> _C.S3Objects:
        """Of this process, for the bucket of the path."""
        return self.core_of(self.at(path)).objects

    def reads(self, path: str) -> _C.S3Reads:
        return self.core_of(self.at(path)).reads

    def are_one(self) -> bool:
        """Whether all of them, and any other, are reached alike."""
        return not self._configured and len(set(self._buckets.values())) <= 1

    def open(self, paths: Iterable[str], make: Callable[[dict[str, Bucket]], S3Access]) -> S3Access:
        """A data set's access to the buckets of these paths, whose configs stay while it lives."""
        with self._lock:
            access = make({path: self.at(path) for path in paths})
            self._accesses.add(access)
        return access

    def know_etags(self, path: str, etags: set[str]) -> None:
        """Of versions that do not tell them, in the bucket of the path: reads ask for them, in this
        process and in those that are begun later."""
        if not etags:
            return
        if len(self._etags) + len(etags) > _MOST_ETAGS:
            self._etags = set()
        self._etags |= etags
        self.core_store(path).know_etags(list(etags))

    def state(self) -> Any:
        """What another process joins."""
        with self._lock:
            return self._buckets.copy(), self._configured.copy(), self._others, self._etags.copy()

    def join(
        self, buckets: dict[str, Bucket], configured: set[str], others: S3Config, etags: set[str]
    ) -> None:
        """Those of another process, beside what this one has."""
        with self._lock:
            new = buckets.keys() - self._buckets.keys()
            self._buckets.update((name, buckets[name]) for name in new)
            self._configured |= configured & new
            if self._others == S3Config():
                self._others = others
            self._etags |= etags
            for bucket in set(self._buckets.values()):
                bucket.know_etags(etags)

    def begin_in_child(self, lock: threading.RLock) -> None:
        """After a fork: another thread of the parent may have had the lock."""
        self._lock = lock

    def _reach(self, name: str, config: S3Config) -> Bucket:
        known = self._buckets.get(name)
        if known is not None and known.config == config and not self._is_outdated(name, known):
            return known
        if known is not None:
            self._on_change()
        same = (one for one in self._buckets.values() if one.config == config)
        bucket = next((one for one in same if not one.is_outdated), None) or Bucket(config)
        self._buckets[name] = bucket
        return bucket

    def _is_refused(self, name: str, known: Bucket, config: S3Config) -> bool:
        if known.config == config:
            return False
        if known.is_elsewhere and known.config == without_keys(config):
            return False  # the same one: its keys have stayed in the process that it comes from
        if not self._is_read(name, known):
            return False
        gc.collect()  # data sets that nobody can reach any more
        return self._is_read(name, known)

    def _is_read(self, name: str, bucket: Bucket) -> bool:
        """By a living data set. One that was sent to this process may have read nothing yet."""
        path = f"{SCHEME}{name}/"
        return bucket.is_inherited or any(
            access.buckets.get(path) is bucket for access in self._accesses
        )

    def _is_outdated(self, name: str, bucket: Bucket) -> bool:
        """Whether variables say something else by now, and nobody reads as they were."""
        return bucket.is_outdated and not self._is_read(name, bucket)


def bucket_of(path: str) -> str:
    return path.removeprefix(SCHEME).partition("/")[0]
