"""How a data set reads objects of buckets."""

from __future__ import annotations

from collections.abc import Sequence
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


class S3Access(Access):
    """By ranges over HTTP, straight into the buffers; nothing is kept on this machine.

    Args:
        paths: Of the buckets, each with a slash.

    Raises:
        ConfigError: ``direct=`` or ``engine=`` of files are asked for.
    """

    def __init__(self, objects: S3Objects, paths: Sequence[str], reading: Reading) -> None:
        self._objects, self._paths = objects, paths
        for name, value in (("direct", reading.direct), ("engine", reading.engine)):
            if value != "auto":
                raise ConfigError(
                    f"{paths[0]}: {name}={value!r} is for files, and objects of s3:// are read "
                    "over HTTP: leave it out"
                )
        if not reading.is_told:
            self._look_at_servers(reading)

    def _look_at_servers(self, reading: Reading) -> None:
        servers = self._objects.servers
        endpoints = {path: self._objects.endpoint_of(path) for path in self._paths}
        if not reading.has_checksums:
            for endpoint in endpoints.values():
                servers.warn_if_nothing_verifies(endpoint)
        for number in range(min(_MOST_LOOKED_AT, len(reading.alignments))):
            path, identity = reading.path(number), reading.identity(number)
            if identity.size_bytes < _LEAST_BYTES:
                continue
            endpoint = next(of for top, of in endpoints.items() if path.startswith(top))
            asks = partial(self._objects.core_store(path).honours_if_match, path, identity)
            servers.warn_if_versions_are_ignored(endpoint, asks)

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
