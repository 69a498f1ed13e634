"""How a data set reads objects of buckets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from .. import _C
from ..errors import ConfigError
from .access import Access, Column, Reading
from .s3_bucket import SCHEME

if TYPE_CHECKING:
    from .s3_bucket import Bucket
    from .s3_buckets import Buckets

_LEAST_BYTES = 2  # of an object that tells what its server heeds
_MOST_LOOKED_AT = 100  # for such objects
_MOST_ASKED_S = 3.0  # a server that does not answer is told of by the first read


class S3Access(Access):
    """By ranges over HTTP, straight into the buffers; nothing is kept on this machine.

    A data set has it as long as it lives: Buckets has a weak reference.

    Args:
        buckets: How they are reached, by their paths, each with a slash.
        all_buckets: Those of this process.

    Raises:
        ConfigError: ``direct=`` or ``engine=`` of files are asked for.
    """

    def __init__(
        self, buckets: Mapping[str, Bucket], all_buckets: Buckets, reading: Reading
    ) -> None:
        self.buckets, self._all_buckets = buckets, all_buckets
        for name, value in (("direct", reading.direct), ("engine", reading.engine)):
            if value != "auto":
                raise ConfigError(
                    f"{next(iter(buckets))}: {name}={value!r} is for files, and objects of s3:// "
                    "are read over HTTP: leave it out"
                )

    def look_at_servers(self, numbers: Mapping[str, Column], reading: Reading) -> None:
        """Warns of what they do not promise.

        Args:
            numbers: Of the objects of each bucket, or of all that are reached like it: int64 [k].
        """
        for bucket, its in numbers.items():
            self._look_at_server(bucket, its, reading)

    def _look_at_server(self, bucket: str, numbers: Column, reading: Reading) -> None:
        servers, endpoint = self._all_buckets.servers, self.buckets[bucket].place.endpoint
        if not reading.has_checksums[numbers].all():
            servers.warn_if_nothing_verifies(endpoint)
        for number in numbers[:_MOST_LOOKED_AT].tolist():
            path, identity = reading.path(number), reading.identity(number)
            if identity.size_bytes >= _LEAST_BYTES:
                asks = partial(
                    self._core_of(bucket).honours_if_match,
                    path,
                    identity,
                    timeout_s=_MOST_ASKED_S,
                )
                servers.warn_if_versions_are_ignored(endpoint, asks)
                return

    def _core_of(self, bucket: str) -> _C.S3Objects:
        return self._all_buckets.core_of(self.buckets[bucket]).objects

    def make_store(self) -> _C.Store:
        stores = self.make_stores(SCHEME)
        return _C.CompositeStore(stores) if len(stores) > 1 else stores[SCHEME]

    def make_stores(self, prefix: str) -> dict[str, _C.Store]:
        """One, unless buckets have several configs."""
        stores: dict[str, _C.Store] = {path: self._core_of(path) for path in self.buckets}
        first, *others = stores.values()
        return stores if any(one is not first for one in others) else {prefix: first}

    def check(self) -> None:
        """Nothing differs from what one expects."""

    def facts(self, engine_in_use: str) -> dict[str, str]:
        return {"engine": engine_in_use or "none yet", "direct": "off"}
