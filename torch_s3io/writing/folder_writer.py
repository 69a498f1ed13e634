"""What all writers of data sets share: shards that appear whole, and a manifest that comes last."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from ..config import MIB, BufferPoolConfig, EngineKind, FileSystemConfig, check_bool
from ..errors import ConfigError, Error, WriteError
from ..format.manifest import MANIFEST_NAME, Manifest
from ..format.samples import SampleManifest
from ..store.file_store import FileStore, as_path, check_store_config
from ..store.last_put import put_last
from ..store.object_writer import ObjectWriter, WrittenObject
from ..store.open import open_store
from ..store.open_writers import cancel_at_exit
from ..store.stores import StoreSetting, configure_store, scheme_of
from .record_folder import RecordFolder, refuse_to_replace
from .record_prefix import RecordPrefix

WRITE_CONFIG = FileSystemConfig(buffer_pool=BufferPoolConfig(capacity=2, buffer_size=10 * MIB))

_Made = TypeVar("_Made", Manifest, SampleManifest)
_Self = TypeVar("_Self", bound="FolderWriter[Any]")


def _do_within(seconds: float | None, work: Callable[[], None]) -> None:
    """Waits no longer than that: a file system that hangs keeps the work, but not the caller. None:
    the work does not hang."""
    # At the end no thread starts any more, and Python 3.11 waits for it all the same.
    if seconds is None or sys.is_finalizing():
        work()
        return
    thread = threading.Thread(target=work, name="torch_s3io-clean-up", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # there are no more threads
        work()
    else:
        thread.join(seconds)


class Place(NamedTuple):
    """Where a data set goes: a folder of files, or a prefix of objects.

    Attributes:
        shard_options: Of ``store.writer``.
    """

    store: Any  # FileStore or S3Store
    make_folder: Callable[[], RecordFolder | RecordPrefix]
    shard_options: dict[str, Any]

    def manifest_options(self, overwrite: bool) -> dict[str, Any]:
        """Of ``store.put``: a bucket refuses the second of two that write at once."""
        return self.shard_options or {"if_absent": not overwrite}


def place_of(
    folder: str | os.PathLike[str],
    config: FileSystemConfig | None = None,
    engine: EngineKind = "auto",
    store: StoreSetting = None,
) -> Place:
    """Of a folder, or of ``s3://bucket/prefix``; nothing is asked or made yet.

    Raises:
        ConfigError: Arguments that are for the other one.
    """
    if isinstance(folder, str) and scheme_of(folder) == "s3":
        if config is not None or engine != "auto":
            raise ConfigError(
                f"{folder}: config= and engine= are for files; store= takes an S3Config"
            )
        objects: Any = open_store(folder, store)  # an S3Store
        return Place(objects, partial(RecordPrefix, folder, objects), {})
    given = configure_store(folder, store)
    if given is not None:
        if config is not None or engine != "auto":
            raise ConfigError(f"{folder}: store= is a FileStore: leave config= and engine= out")
        config, engine = given.config, given.engine
    config = check_store_config(WRITE_CONFIG if config is None else config)
    files = FileStore(replace(config, checksum_writes=True), engine=engine)
    return Place(files, partial(RecordFolder, as_path(folder)), {"follow_links": False})


def shard_name(kind: str, generation: str, number: int) -> str:
    return f"{kind}-{generation}-{number:05d}.bin"


class _Finishing(NamedTuple):
    """A shard that is being synced: what it contains is the subclass's."""

    shard: ObjectWriter
    contents: Any
    written: Future[WrittenObject]


class FolderWriter(ABC, Generic[_Made]):
    """Writes shards and then their manifest into a folder; see RecordWriter for what that promises.

    A subclass converts what it is given, writes it to ``_open_shard()`` within ``_turn()``, and
    ends each shard with ``_finish_shard``.
    """

    _kind: str  # of what is written, in names of shards and in errors: "records"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: FileSystemConfig | None,
        engine: EngineKind,
        overwrite: bool,
        store: StoreSetting,
    ) -> None:
        check_bool("overwrite", overwrite)
        self._place = place_of(folder, config, engine, store)
        self._store = self._place.store
        self._manifest_store = self._store
        self._overwrite = overwrite
        self._generation = secrets.token_hex(4)
        self._shard_names: list[str] = []  # of those that are whole
        self._shard: ObjectWriter | None = None
        self._num_begun = 0  # shards that are full
        self._finishing: _Finishing | None = None
        self._thread = ThreadPoolExecutor(1, "torch_s3io-finish")  # starts with the first shard
        self._has_begun_manifest = False
        self._is_open = False
        self._is_cancelling = False  # because the user said so
        self._failure: tuple[type[Error], str] | None = None  # for those who come later
        self._owner = os.getpid()
        # Reentrant, as a failed call cancels. Never taken in a forked child, where it may be locked
        # for ever.
        self._lock = threading.RLock()
        self._folder = self._place.make_folder()
        try:
            if not overwrite:
                refuse_to_replace(self._folder.path, "overwrite=True")
            self._folder.start()
            self.replaced = self._folder.current()  # the data set whose place this one takes
            self._is_open = True
            if isinstance(self._folder, RecordPrefix):
                cancel_at_exit(self, self._folder.path)
        except BaseException:
            self._folder.close()
            raise

    @abstractmethod
    def _has_any(self) -> bool:
        """Whether anything was written."""

    @abstractmethod
    def _end_shard(self) -> None:
        """Completes the open shard, and hands it to ``_finish_shard``."""

    @abstractmethod
    def _add_shard(self, shard: ObjectWriter, contents: Any, written: WrittenObject) -> None:
        """Takes note of a shard that is whole; raises WriteError where it cannot be."""

    @abstractmethod
    def _manifest(self) -> _Made: ...

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """The right to write, which one thread has at a time; an error ends the writer."""
        self._check_open()
        with self._lock:
            self._check_open()
            try:
                yield
            except BaseException as error:
                self._fail(error)
                raise

    def _fail(self, error: BaseException) -> None:
        """Cancels because of an error; that which others hear of is the first one."""
        if self._failure is None:
            if isinstance(error, Error):
                kind, text = type(error), f"{type(error).__name__}: {error}"
            else:  # KeyboardInterrupt, say
                kind, text = WriteError, repr(error)
                if self._has_begun_manifest:
                    text += "; whether the new data set is in place is unknown"
            self._failure = kind, f"{self._folder.path}: the writer failed before, with {text}"
        self._cancel()

    def _open_shard(self) -> ObjectWriter:
        """The shard that is being written; begins one where there is none."""
        if self._shard is None:
            name = shard_name(self._kind, self._generation, self._num_begun)
            path = self._folder.file(name)
            self._shard = self._store.writer(path, **self._place.shard_options)
            self._check_open()  # a cancel() in the meantime found no shard to end
        return self._shard

    def _finish_shard(self, contents: Any) -> None:
        """Lets a thread sync the shard and name it, while the next one is begun."""
        assert self._shard is not None
        self._wait_for_shard()
        self._finishing = _Finishing(self._shard, contents, self._thread.submit(self._shard.finish))
        self._num_begun += 1
        self._shard = None

    def _wait_for_shard(self) -> None:
        if self._finishing is None:
            return
        shard, contents, finishing = self._finishing
        self._add_shard(shard, contents, finishing.result())
        self._shard_names.append(os.path.basename(shard.path))
        self._finishing = None

    def finish(self) -> _Made:
        """Completes the data set, which takes the place of the old one. Gives its manifest.

        Raises:
            ConfigError: Nothing was written.
            AccessError, NoSpaceError, WriteError, WriteTimeoutError: The old data set stays, unless
                the text says that the new one is in place, or that this is unknown.
        """
        self._check_open()
        with self._lock:
            with self._turn():
                manifest = self._complete()
            self._is_open = False
            try:
                self._thread.shutdown()
                self._folder.tidy_after_manifest()
            finally:
                self._folder.close()
            return manifest

    def _complete(self) -> _Made:
        if not self._has_any():
            raise ConfigError(
                f"{self._folder.path}: no {self._kind} were written, and a data set has one at "
                "least; cancel() ends the writer without one"
            )
        if self._shard is not None:
            self._end_shard()
        self._wait_for_shard()
        self._check_open()
        manifest = self._manifest()
        self._has_begun_manifest = True
        path = self._folder.file(MANIFEST_NAME)
        options = self._place.manifest_options(self._overwrite)
        with self._folder.placing_manifest(self._shard_names):
            put_last(self._manifest_store, path, manifest.to_json(), **options)
        return manifest

    def cancel(self) -> None:
        """Removes what was written; the old data set stays. Does nothing after ``finish``.

        Another thread's call fails then, at once where it waits for a shard's write or sync. But a
        ``finish`` that has come to the manifest goes on, and succeeds as if alone; ``cancel`` waits
        for it.
        """
        if self._owner != os.getpid():
            return
        self._is_cancelling = True  # so that a failure before need not be told any more
        if not self._is_open:
            return
        try:
            self._end_waits()  # that of the thread whose turn it is, if any
        finally:
            with self._lock:
                self._cancel()

    def _end_waits(self) -> None:
        shard, finishing = self._shard, self._finishing
        try:
            if shard is not None:
                shard.cancel()
        finally:
            if finishing is not None:
                finishing.shard.cancel()

    def _cancel(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        try:  # each part runs, though Ctrl-C may end any other one
            self._end_waits()
        finally:
            try:
                self._thread.shutdown()
            finally:
                _do_within(self._folder.clean_up_s, self._clean_up)

    def _clean_up(self) -> None:
        try:
            with contextlib.suppress(Error, OSError):  # the next start removes what is left
                self._remove_written()
        finally:
            self._folder.close()

    def _remove_written(self) -> None:
        names = list(self._shard_names)
        if self._finishing is not None:
            names.append(os.path.basename(self._finishing.shard.path))
        if self._has_begun_manifest:
            if not self._folder.is_settled():
                return  # it may be in place, or come there: the shards stay
            if self._folder.holds(self._manifest()):
                self._folder.tidy()  # it is in place, although the last step after that failed
                return
        self._folder.remove_shards(names)

    def _check_open(self) -> None:
        if self._owner != os.getpid():
            raise ConfigError(
                f"{self._folder.path}: this writer belongs to the parent process; write there, or "
                f"make another {type(self).__name__} here, for another folder"
            )
        if self._failure is not None and not self._is_cancelling:
            kind, text = self._failure
            raise kind(text)
        if not self._is_open or self._is_cancelling:
            raise ConfigError(
                f"{self._folder.path}: this writer is finished or cancelled; make another one to "
                "write more"
            )

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None or self._is_cancelling:
            self.cancel()
        elif self._is_open or self._failure is not None:
            try:
                self.finish()  # which raises what failed before
            except ConfigError:
                if not self._is_cancelling:  # by another thread, in the meantime
                    raise

    def __del__(self) -> None:
        if getattr(self, "_folder", None) is not None:
            self.cancel()
