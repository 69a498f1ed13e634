"""The prefix of a data set that is written into a bucket: RecordFolder's sister."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from shlex import quote
from typing import TYPE_CHECKING

from ..errors import ConfigError, Error, WriteError
from ..format.manifest import MANIFEST_NAME, Manifest, has_manifest, has_own_manifest
from ..format.samples import SampleManifest, read_any_manifest
from ..warning import warn
from ..wording import count_of, listed

if TYPE_CHECKING:
    from ..store.s3_store import S3Store

_REMOVAL_S = 10.0  # of one object, or one upload


class RecordPrefix:
    """``s3://bucket/prefix`` with a data set, or one to be.

    There are no locks. So nothing is removed but what this writer wrote, and the shards of the data
    set that it replaces. What a killed writer left stays.
    """

    clean_up_s = None  # each removal has its own limit

    def __init__(self, path: str, store: S3Store) -> None:
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
    def placing_manifest(self, shards: Sequence[str]) -> Iterator[None]:
        """Around the put of the manifest of these. A server may take it without a word, or late:
        then they stay, and what is raised says so."""
        self._is_settled = False
        stay = (
            f"its shards stay beside it, {self._named(shards)}: `python -m torch_s3io info "
            f"{quote(self.path)}` says which data set is there; write again with overwrite=True"
        )
        unknown = f"{self.file(MANIFEST_NAME)}: whether it is in place is unknown; {stay}"
        try:
            yield
        except Error as error:
            if error.is_undone:
                self._is_settled = True
                raise
            raise type(error)(f"{error}; {stay}") from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt(unknown) from None
        except BaseException:
            warn(unknown)
            raise

    def is_settled(self) -> bool:
        """Whether no manifest of this writer is in place, or can still take its place."""
        return self._is_settled

    def holds(self, manifest: Manifest | SampleManifest) -> bool:
        """False, where it ``is_settled``."""
        return not self._is_settled

    def remove_shards(self, names: Sequence[str]) -> None:
        """Of a data set that will not be. Warns of those that stay."""
        left = list(names)
        try:
            while left:
                self._store.remove(self.file(left[0]), timeout_s=_REMOVAL_S)
                left.pop(0)
        except Error as error:  # which would likely be that of the others, too
            self._warn_of(left, str(error))
        except BaseException as error:
            self._warn_of(left, repr(error))
            raise

    def remove_begun(self, stem: str, names: Iterable[str]) -> None:
        """The shards of these names, all others whose names begin with ``stem``, and the uploads
        of such; their writers have ended. Warns of what may stay."""
        begin = self.file(stem)

        def remove(paths: Iterable[str]) -> None:
            for path in paths:
                self._store.remove(path, timeout_s=_REMOVAL_S)

        def abort_uploads() -> None:
            for upload in self._store.uploads(begin):
                self._store.abort_upload(upload, timeout_s=_REMOVAL_S)

        steps: list[Callable[[], None]] = [
            lambda: remove(map(self.file, names)),
            abort_uploads,
            lambda: remove(self._store.list(begin)),
        ]
        problems = []
        try:
            for step in steps:
                try:  # not every server, or policy, has lists
                    step()
                except Error as error:
                    problems.append(str(error))
        except BaseException as error:
            problems.append(repr(error))
            raise
        finally:
            if problems:
                self._warn_of_begun(begin, problems[0])

    def _warn_of(self, names: Sequence[str], why: str) -> None:
        warn(
            f"{self._named(names)}: belong to no data set, and could not be removed: {why}; remove "
            "them"
        )

    def _warn_of_begun(self, begin: str, why: str) -> None:
        warn(
            f"{begin}*: shards of a data set that was not finished may be left, and parts of them: "
            f"{why}; remove what begins so, and `python -m torch_s3io uploads {quote(begin)}` "
            "lists uploads, and aborts them with --abort-older"
        )

    def _named(self, names: Iterable[str]) -> str:
        """Shards of one writer differ in their numbers."""
        stems = sorted({name.rpartition("-")[0] for name in names})
        shown = listed([self.file(f"{stem}-*.bin") for stem in stems])
        return f"{shown} ({count_of(len(list(names)), 'shard')})"

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"

    def close(self) -> None:
        """Nothing is held."""
