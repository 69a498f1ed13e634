"""How a data set reads objects of buckets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from .. import _C
from ..errors import ConfigError
from .access import Access, Reading

if TYPE_CHECKING:
    from .s3_objects import S3Objects

_SCHEME = "s3://"
_LEAST_BYTES = 2  # of an object that tells what its server heeds
_MOST_LOOKED_AT = 100  # for such objects
_MOST_ASKED_S = 3.0  # a server that does not answer is told of by the first read


class S3Access(Access):
    """By ranges over HTTP, straight into the buffers; nothing is kept on this machine.

    Args:
        firsts: Paths of the buckets, each with a slash, and the number of the first object there.

    Raises:
        ConfigError: ``direct=`` or ``engine=`` of files are asked for.
    """

    def __init__(self, objects: S3Objects, firsts: Mapping[str, int], reading: Reading) -> None:
        self._objects, self._paths = objects, list(firsts)
        for name, value in (("direct", reading.direct), ("engine", reading.engine)):
            if value != "auto":
                raise ConfigError(
                    f"{self._paths[0]}: {name}={value!r} is for files, and objects of s3:// are "
                    "read over HTTP: leave it out"
                )
        if not reading.is_told:
            for bucket, first in firsts.items():
                self._look_at_server(bucket, first, reading)

    def _look_at_server(self, bucket: str, first: int, reading: Reading) -> None:
        servers, endpoint = self._objects.servers, self._objects.endpoint_of(bucket)
        if not reading.has_checksums:
            servers.warn_if_nothing_verifies(endpoint)
        for number in range(first, min(first + _MOST_LOOKED_AT, len(reading.alignments))):
            path, identity = reading.path(number), reading.identity(number)
            if path.startswith(bucket) and identity.size_bytes >= _LEAST_BYTES:
                asks = partial(
                    self._objects.core_store(path).honours_if_match,
                    path,
                    identity,
                    timeout_s=_MOST_ASKED_S,
                )
                servers.warn_if_versions_are_ignored(endpoint, asks)
                return

    def make_store(self) -> _C.Store:
        stores = self.make_stores(_SCHEME)
        return _C.CompositeStore(stores) if len(stores) > 1 else stores[_SCHEME]

    def make_stores(self, prefix: str) -> dict[str, _C.Store]:
        """One, unless buckets have several configs."""
        stores = {path: self._objects.core_store(path) for path in self._paths}
        first, *others = stores.values()
        return dict(stores) if any(one is not first for one in others) else {prefix: first}

    def check(self) -> None:
        """Nothing differs from what one expects."""

    def facts(self, engine_in_use: str) -> dict[str, str]:
        return {"engine": engine_in_use or "none yet", "direct": "off"}
