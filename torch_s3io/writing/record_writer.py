"""Data sets of fixed-size records, written as shards and a manifest."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal

from ..config import (
    MIB,
    BufferPoolConfig,
    EngineKind,
    FileSystemConfig,
    check_alignment,
    check_bool,
    check_int,
)
from ..errors import ConfigError, Error, WriteError
from ..format.layout import make_layout
from ..format.manifest import MANIFEST_NAME, Manifest, ShardEntry
from ..keywords import checks_keywords
from ..store.file_store import FileStore, as_path, check_store_config
from ..store.object_writer import ObjectWriter, WrittenObject
from .record_folder import RecordFolder
from .record_rows import rows_of

AlignRecords = Literal["auto"] | int | None

# What the padding of "auto" may cost at most, and what it pads to: blocks of any disk, or of most.
MOST_PADDING = 0.03
_BLOCKS = (4096, 512)
_CLEAN_UP_S = 1.0

WRITE_CONFIG = FileSystemConfig(buffer_pool=BufferPoolConfig(capacity=2, buffer_size=10 * MIB))


def stride_for(record_bytes: int, align_records: AlignRecords) -> int:
    """From one record's start to the next one's; see RecordWriter."""
    if align_records is None:
        return record_bytes
    if align_records == "auto":
        for block in _BLOCKS:
            stride = -(-record_bytes // block) * block
            if stride - record_bytes < MOST_PADDING * record_bytes:
                return stride
        return record_bytes
    check_alignment("align_records", align_records)
    return -(-record_bytes // align_records) * align_records


def _do_within(seconds: float, work: Callable[[], None]) -> None:
    """Waits no longer than that: a file system that hangs keeps the work, but not the caller."""
    if sys.is_finalizing():  # no thread starts any more, and Python 3.11 waits for it all the same
        work()
        return
    thread = threading.Thread(target=work, name="torch_s3io-clean-up", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # there are no more threads
        work()
    else:
        thread.join(seconds)


def shard_name(generation: str, number: int) -> str:
    return f"records-{generation}-{number:05d}.bin"


@checks_keywords
class RecordWriter:
    """Writes a data set of fixed-size records into a folder: shards and a manifest.

    ``RecordDataset(folder)`` reads it with no other argument. A context manager::

        with RecordWriter("train", dtype=np.float32, shape=(3, 32, 32)) as writer:
            for images in batches:  # float32 [B, 3, 32, 32]
                writer.write(images)
        dataset = RecordDataset("train", batch_size=64)

    Leaving the block finishes the data set; an exception cancels it. Where a write failed before
    (caught, or in another thread), its error is raised then. Shards and manifest appear whole, the
    manifest last: until then, and after a cancelled, failed or killed writer, the folder holds the
    old data set, or none. The new one then takes its place; other files in the folder are left
    alone. One process writes into a folder at a time. ``docs/format.md`` has the format.

    Thread-safe: the batches of several threads come one after the other, each of them whole, in the
    order in which the calls got their turn.

    Args:
        folder: Made if it is not there. One that holds a data set is refused, unless ``overwrite``.
        dtype: Of the records: a numpy dtype, plain or structured, or a torch dtype.
        shape: Shape of one record of a plain dtype.
        shard_bytes: Size of a shard, in bytes; at least one record goes into each.
        align_records: Records begin at multiples of this, in bytes, with zeros in between: direct
            reads of single records then need no copy. ``"auto"``: 4096, or else 512, where that
            costs under 3 %; None: one record after the other.
        config: How the files are written; checksums are computed in any case. A pool needs two
            buffers: while a shard is synced, the next one is begun. None: directly where possible,
            from two buffers of 10 MiB.
        engine: As for FileStore.
        overwrite: Take the place of the data set that the folder holds, once this one is whole.

    Raises:
        ConfigError: Arguments that cannot work; a data set is there already; another writer is at
            work in the folder, or another program's manifest.json lies there.
        AccessError, NoSpaceError, WriteError: As for ``FileStore.put``.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        dtype: Any,
        shape: int | Sequence[int] = (),
        shard_bytes: int = 256 * MIB,
        align_records: AlignRecords = "auto",
        config: FileSystemConfig | None = None,
        engine: EngineKind = "auto",
        overwrite: bool = False,
    ) -> None:
        check_int("shard_bytes", shard_bytes, 1)
        check_bool("overwrite", overwrite)
        self._layout = make_layout(dtype, shape)
        self._stride = stride_for(self._layout.record_bytes, align_records)
        self._per_shard = max(1, shard_bytes // self._stride)
        config = check_store_config(WRITE_CONFIG if config is None else config)
        config = replace(config, checksum_writes=True)
        self._store = FileStore(config, engine=engine)
        self._manifest_store = self._store
        self._generation = secrets.token_hex(4)
        self._shards: list[ShardEntry] = []
        self._shard: ObjectWriter | None = None
        self._in_shard = 0  # records
        self._num_records = 0
        self._num_begun = 0  # shards that are full
        self._finishing: tuple[ObjectWriter, int, Future[WrittenObject]] | None = None
        self._thread = ThreadPoolExecutor(1, "torch_s3io-finish")  # starts with the first shard
        self._has_begun_manifest = False
        self._is_open = False
        self._is_cancelling = False  # because the user said so
        self._failure: tuple[type[Error], str] | None = None  # for those who come later
        self._owner = os.getpid()
        # Reentrant, as a failed call cancels. Never taken in a forked child, where it may be locked
        # for ever.
        self._lock = threading.RLock()
        self._folder = RecordFolder(as_path(folder))
        try:
            if not overwrite:
                self._folder.refuse_to_replace("overwrite=True")
            self._folder.start()
            old = self._folder.current()
            self._replaced_records = 0 if old is None else old.num_records
            self._is_open = True
        except BaseException:
            self._folder.close()
            raise

    @property
    def num_records(self) -> int:
        """Records written so far."""
        return self._num_records

    @property
    def replaced_records(self) -> int:
        """Records of the data set that this one takes the place of; 0 where none can be read."""
        return self._replaced_records

    @property
    def stride_bytes(self) -> int:
        """From one record's start to the next one's, in bytes."""
        return self._stride

    def write(self, records: Any) -> None:
        """Appends a batch of records.

        Args:
            records: A tensor or array ``[B, *shape]`` of the plain dtype; for a structured one an
                array ``[B]`` of it, or a dict ``{field: tensor or array [B, ...]}``, nested fields
                by their dotted names. Dtypes are not converted, byte orders are.

        The error of a shard that cannot be completed may come with a later call, or ``finish``. The
        writer is cancelled then; further calls raise an error of the same type (WriteError for one
        that is not ours), which says so.
        """
        self._check_open()
        rows, count = rows_of(records, self._layout)
        self.write_rows(rows, count)

    def write_rows(self, rows: memoryview, count: int) -> None:
        """Appends ``count`` records as their bytes, one after the other."""
        self._check_open()
        with self._lock:
            self._check_open()
            try:
                self._append(rows, count)
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

    def _append(self, rows: memoryview, count: int) -> None:
        size = self._layout.record_bytes
        begin = 0
        while begin < count:
            self._check_open()
            if self._shard is None:
                name = shard_name(self._generation, self._num_begun)
                self._shard = self._store.writer(self._folder.file(name), follow_links=False)
                self._check_open()  # a cancel() in the meantime found no shard to end
            end = min(count, begin + self._per_shard - self._in_shard)
            part = rows[begin * size : end * size]
            if self._stride == size:
                self._shard.write(part)
            else:
                self._shard.write_rows(part, size, self._stride)
            self._in_shard += end - begin
            self._num_records += end - begin
            begin = end
            if self._in_shard == self._per_shard:
                self._finish_shard()

    def _finish_shard(self) -> None:
        """Lets a thread sync the shard and name it, while the next one is begun."""
        assert self._shard is not None
        self._wait_for_shard()
        self._finishing = (self._shard, self._in_shard, self._thread.submit(self._shard.finish))
        self._num_begun += 1
        self._shard, self._in_shard = None, 0

    def _wait_for_shard(self) -> None:
        if self._finishing is None:
            return
        shard, count, finishing = self._finishing
        written = finishing.result()
        assert written.crc32c is not None
        if written.size_bytes != count * self._stride:
            raise WriteError(
                f"{shard.path}: has {written.size_bytes} bytes, but its {count} records take "
                f"{count * self._stride}; the data set is not put in place"
            )
        name = os.path.basename(shard.path)
        self._shards.append(ShardEntry(name, count, written.size_bytes, written.crc32c))
        self._finishing = None

    def finish(self) -> Manifest:
        """Completes the data set, which takes the place of the old one.

        Raises:
            ConfigError: There are no records.
            AccessError, NoSpaceError, WriteError, WriteTimeoutError: The old data set stays, unless
                the text says that the new one is in place, or that this is unknown.
        """
        self._check_open()
        with self._lock:
            self._check_open()
            try:
                manifest = self._complete()
            except BaseException as error:
                self._fail(error)
                raise
            self._is_open = False
            try:
                self._thread.shutdown()
                self._folder.tidy_after_manifest()
            finally:
                self._folder.close()
            return manifest

    def _complete(self) -> Manifest:
        if self.num_records == 0:
            raise ConfigError(
                f"{self._folder.path}: no records were written, and a data set has one at least; "
                "cancel() ends the writer without one"
            )
        if self._shard is not None:
            self._finish_shard()
        self._wait_for_shard()
        self._check_open()
        manifest = self._manifest()
        self._has_begun_manifest = True
        path = self._folder.file(MANIFEST_NAME)
        self._manifest_store.put(path, manifest.to_json(), follow_links=False)
        return manifest

    def _manifest(self) -> Manifest:
        layout = self._layout
        return Manifest(layout.fields, layout.record_bytes, self._stride, tuple(self._shards))

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
                finishing[0].cancel()

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
                _do_within(_CLEAN_UP_S, self._clean_up)

    def _clean_up(self) -> None:
        try:
            with contextlib.suppress(OSError):  # the next start removes what is left
                self._remove_written()
        finally:
            self._folder.close()

    def _remove_written(self) -> None:
        if self._finishing is not None:
            self._folder.remove(os.path.basename(self._finishing[0].path))
        if self._has_begun_manifest:
            if not self._folder.is_settled():
                return  # it may yet come into its place: the shards wait for the next start
            if self._folder.current() == self._manifest():
                self._folder.tidy()  # it is in place, although the last step after that failed
                return
        for shard in self._shards:
            self._folder.remove(shard.name)

    def _check_open(self) -> None:
        if self._owner != os.getpid():
            raise ConfigError(
                f"{self._folder.path}: this writer belongs to the parent process; write there, or "
                "make another "
                "RecordWriter here, for another folder"
            )
        if self._failure is not None and not self._is_cancelling:
            kind, text = self._failure
            raise kind(text)
        if not self._is_open or self._is_cancelling:
            raise ConfigError(
                f"{self._folder.path}: this writer is finished or cancelled; make another one to "
                "write more"
            )

    def __enter__(self) -> RecordWriter:
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

    def __repr__(self) -> str:
        return f"RecordWriter({self._folder.path!r}, {self.num_records} records)"
