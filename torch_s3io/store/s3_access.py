"""How a data set reads objects of a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _C
from ..errors import ConfigError
from .access import Access, Reading

if TYPE_CHECKING:
    from .s3_objects import S3Objects


class S3Access(Access):
    """By ranges over HTTP, straight into the buffers; nothing is kept on this machine.

    Args:
        path: Of the bucket, with a slash.

    Raises:
        ConfigError: ``direct=`` or ``engine=`` of files are asked for.
    """

    def __init__(self, objects: S3Objects, path: str, reading: Reading) -> None:
        self._objects, self._path = objects, path
        for name, value in (("direct", reading.direct), ("engine", reading.engine)):
            if value != "auto":
                raise ConfigError(
                    f"{path}: {name}={value!r} is for files, and objects of s3:// are read over "
                    "HTTP: leave it out"
                )

    def make_store(self) -> _C.Store:
        return self._objects.core_store(self._path)

    def check(self) -> None:
        """Nothing differs from what one expects."""

    def facts(self, engine_in_use: str) -> dict[str, str]:
        return {"engine": engine_in_use or "none yet", "direct": "off"}
