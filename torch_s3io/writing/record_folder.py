"""The folder of a data set being written: who may write, what is left over, what is current."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Sequence

from .. import _C
from ..errors import AccessError, ConfigError, DataError, Error, NotFoundError, WriteError
from ..format.manifest import MANIFEST_NAME, Manifest, has_own_manifest, is_shard_name
from ..format.samples import SampleManifest, read_any_manifest

JOURNAL_PREFIX = ".s3io-pack-"
# As csrc/store/temporary_file.h names it until then.
_MANIFEST_ON_ITS_WAY = re.compile(rf"\.s3io-tmp-[0-9a-f]{{16}}-{re.escape(MANIFEST_NAME)}")


def refuse_to_replace(folder: str, option: str) -> None:
    """Raises ConfigError where a data set is there; ``option`` is what replaces it."""
    if not has_own_manifest(folder):
        return
    try:
        old = f"a data set of {read_any_manifest(folder).counted}"
    except Error:
        old = "a data set whose manifest cannot be read"
    raise ConfigError(
        f"{folder}: holds {old} already; {option} replaces it once the new one is whole, or name "
        "another folder"
    )


class RecordFolder:
    """The right to write a data set into a folder, which one process has at a time.

    The right is a lock on the folder (flock), which ends with its process, however that dies. Where
    the file system has no such locks, nothing that others left is removed.
    """

    clean_up_s = 1.0  # how long a writer waits for what it removes

    def __init__(self, path: str) -> None:
        self._fd = -1
        self._owner = os.getpid()
        try:
            os.makedirs(path, exist_ok=True)
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError as error:
            raise AccessError(f"{path}: cannot make or open the folder: {error.strerror}") from None
        except NotADirectoryError:
            raise ConfigError(f"{path}: is a file, or lies below one; name a folder") from None
        except FileExistsError:
            raise ConfigError(f"{path}: is a file, or lies below one; name a folder") from None
        except OSError as error:
            raise WriteError(f"{path}: cannot make the folder: {error.strerror}") from None
        self.path = os.path.abspath(path)
        self.has_lock = True
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ConfigError(
                f"{path}: another writer is at work in this folder; wait for it, or stop it"
            ) from None
        except OSError:
            self.has_lock = False

    def current(self) -> Manifest | SampleManifest | None:
        """The data set that is there now; None if there is none, or none that can be read."""
        try:
            return read_any_manifest(self.path)
        except Error:
            return None

    def tidy(self, keep: frozenset[str] = frozenset()) -> None:
        """Removes the shards and journals that belong to no data set, and what dead writers left.

        A manifest that cannot be read may belong to any of the shards: then all stay.

        Raises:
            WriteError: The folder cannot be listed.
        """
        if not self.has_lock:
            return
        _C.remove_abandoned(self.path)
        manifest = self.current()
        if manifest is None and os.path.lexists(os.path.join(self.path, MANIFEST_NAME)):
            return
        used = keep | ({shard.name for shard in manifest.shards} if manifest else set())
        for name in _names_in(self.path):
            if (is_shard_name(name) or name.startswith(JOURNAL_PREFIX)) and name not in used:
                self.remove(name)

    def tidy_after_manifest(self) -> None:
        """Removes the shards of the old data set, once that of the new one is in place."""
        try:
            self.tidy()
        except WriteError as error:
            raise WriteError(
                f"{error}; the new data set is in place, and the next writer that starts in this "
                "folder removes the old shards"
            ) from None

    @contextlib.contextmanager
    def placing_manifest(self, shards: Sequence[str]) -> Iterator[None]:
        """Around the put of the manifest of these: what became of it, ``is_settled`` and ``holds``
        say."""
        yield

    def holds(self, manifest: Manifest | SampleManifest) -> bool:
        """Whether this manifest is in place; raises Error where that cannot be found out."""
        try:
            return read_any_manifest(self.path) == manifest
        except (NotFoundError, DataError):  # none, or a damaged one, which is not this one
            return False

    def is_settled(self) -> bool:
        """Whether no manifest can take its place any more but that of a writer yet to come.

        False where that cannot be found out.
        """
        try:
            return not self._is_manifest_on_its_way()
        except WriteError:
            return False

    def _is_manifest_on_its_way(self) -> bool:
        """A rename that hangs may happen after its writer gave up: its file is locked so long."""
        _C.remove_abandoned(self.path)
        return any(map(_MANIFEST_ON_ITS_WAY.fullmatch, _names_in(self.path)))

    def start(self, keep: frozenset[str] = frozenset()) -> None:
        """Tidies before the first write.

        Raises:
            ConfigError: The manifest of an earlier writer may yet take its place; or that which is
                there belongs to another program.
            WriteError: The folder cannot be listed.
        """
        if self.has_lock and self._is_manifest_on_its_way():
            raise ConfigError(
                f"{self.path}: the last step of an earlier writer has not come back, and may yet "
                "put its manifest in place; wait until its file system answers, or end its process"
            )
        manifest = self.file(MANIFEST_NAME)
        if os.path.exists(manifest) and not has_own_manifest(self.path):
            raise ConfigError(
                f"{manifest}: is another program's, which a data set here would replace; write "
                "into a folder of its own, or move the file away"
            )
        self.tidy(keep)

    def remove_shards(self, names: Sequence[str]) -> None:
        """Of a data set that will not be. What cannot be removed, the next start removes."""
        for name in names:
            self.remove(name)

    def remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.path, name))

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def close(self) -> None:
        """Gives the right back. In a forked child the parent keeps it."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            # The lock is shared with forked children, and closing alone would leave it to them.
            if self._owner == os.getpid():
                with contextlib.suppress(OSError):
                    fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise WriteError(f"{folder}: cannot list the folder: {error.strerror}") from None
