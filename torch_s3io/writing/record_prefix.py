"""The prefix of a data set that is written into a bucket: RecordFolder's sister."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import ConfigError, Error, WriteError
from ..format.manifest import MANIFEST_NAME, Manifest, has_manifest, has_own_manifest
from ..format.samples import SampleManifest, read_any_manifest

if TYPE_CHECKING:
    from ..store.file_store import FileStore
    from ..store.s3_store import S3Store


class RecordPrefix:
    """``s3://bucket/prefix`` with a data set, or one to be.

    There are no locks. So nothing is removed but what this writer wrote, and the shards of the data
    set that it replaces. What a killed writer left stays.
    """

    def __init__(self, path: str, store: FileStore | S3Store) -> None:
        self.path = path.rstrip("/")
        self._store = store
        self._replaced: Manifest | SampleManifest | None = None
        self._is_settled = True

    def current(self) -> Manifest | SampleManifest | None:
        """The data set that is there now; None if there is none, or none that can be read."""
        try:
            return read_any_manifest(self.path)
        except Error:
            return None

    def start(self) -> None:
        """Looks before the first write.

        Raises:
            ConfigError: The manifest that is there belongs to another program.
            AccessError, ReadError: The bucket cannot be looked at.
        """
        if has_manifest(self.path) and not has_own_manifest(self.path):
            raise ConfigError(
                f"{self.file(MANIFEST_NAME)}: is another program's, which a data set here would "
                "replace; write under a prefix of its own, or move it away"
            )
        self._replaced = self.current()

    def tidy(self) -> None:
        """Removes the shards of the data set that was replaced.

        Raises:
            WriteError, AccessError: One cannot be removed.
        """
        manifest = self.current()
        if manifest is None or self._replaced is None:
            return
        used = {shard.name for shard in manifest.shards}
        for shard in self._replaced.shards:
            if shard.name not in used:
                self._store.remove(self.file(shard.name))

    def tidy_after_manifest(self) -> None:
        """The same, once the new manifest is in place."""
        try:
            self.tidy()
        except Error as error:
            raise WriteError(
                f"{error}; the new data set is in place, and shards of the old one are left beside "
                "it"
            ) from None

    @contextlib.contextmanager
    def placing_manifest(self) -> Iterator[None]:
        """Around the put of the manifest. A server may take it without a word, or late."""
        self._is_settled = False
        try:
            yield
        except Error as error:
            raise type(error)(
                f"{error}; its shards stay beside it: `python -m torch_s3io info {self.path}` says "
                "which data set is there; write again with overwrite=True"
            ) from None

    def is_settled(self) -> bool:
        """Whether no manifest of this writer is in place, or can still take its place."""
        return self._is_settled

    def holds(self, manifest: Manifest | SampleManifest) -> bool:
        """False, where it ``is_settled``."""
        return not self._is_settled

    def remove(self, name: str) -> None:
        with contextlib.suppress(Error):
            self._store.remove(self.file(name))

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"

    def close(self) -> None:
        """Nothing is held."""
