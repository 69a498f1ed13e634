"""Running a pack job: several processes, a journal of finished shards, resumed after a kill."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from types import FrameType

from ..errors import DataError, Error, NoSpaceError, WriteError
from ..format.manifest import MANIFEST_NAME, Manifest, ShardEntry, parse_shard_line, shard_line
from ..format.samples import SampleManifest
from ..processes.lifetime import end_with
from ..store.file_store import FileStore
from ..store.last_put import put_last
from ..store.stores import scheme_of
from .folder_writer import WRITE_CONFIG, place_of
from .packing import PackJob
from .record_folder import JOURNAL_PREFIX, RecordFolder, refuse_to_replace
from .record_prefix import RecordPrefix

_MOST_LINE_BYTES = 512
_POLL_S = 0.1
_END_S = 1.0
_END_IN_BUCKETS_S = 20.0  # an upload is aborted first
_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Packed:
    """What a pack did.

    Attributes:
        manifest: Of the data set.
        resumed_shards: Those that an earlier run had finished, checked.
        replaced: The data set whose place it took; None where there was none that can be read.
    """

    manifest: Manifest
    resumed_shards: int
    replaced: Manifest | SampleManifest | None = None


def run_pack(
    job: PackJob, processes: int, on_bytes: Callable[[int], None], *, overwrite: bool = False
) -> Packed:
    """Packs, or goes on with what an interrupted run of the same job has left.

    Args:
        processes: That pack shards at the same time; with 1, this process does.
        on_bytes: Called with the bytes of records that are done, now and then.
        overwrite: Take the place of another data set that the folder holds.

    Raises:
        ConfigError: The folder holds another data set; another writer is at work in the folder.
        Error: Whatever reading or writing raises; finished shards stay, to be resumed.
    """
    if scheme_of(job.folder) == "s3":
        return _pack_into_bucket(job, processes, on_bytes, overwrite)
    folder = RecordFolder(job.folder)
    try:
        journal = _Journal(folder, job)
        replaced = folder.current()
        if replaced is not None and journal.is_there and _is_of(replaced, job):
            replaced = None  # this job's own, killed in its last step
        elif not overwrite:
            refuse_to_replace(folder.path, "--overwrite")
        folder.start(keep=frozenset([journal.name, *(entry.name for entry in journal.entries)]))
        done = dict(_whole_shards(job, journal.entries, folder, on_bytes))
        resumed = len(done)
        todo = [number for number in range(job.num_shards) if number not in done]
        with journal.open(done):
            for number, entry in _pack_shards(job, todo, processes, on_bytes):
                journal.add(entry)
                done[number] = entry
        shards = tuple(done[number] for number in range(job.num_shards))
        manifest = job.manifest(shards)
        path = folder.file(MANIFEST_NAME)
        FileStore(WRITE_CONFIG).put(path, manifest.to_json(), follow_links=False)
        folder.remove(journal.name)
        folder.tidy_after_manifest()
        return Packed(manifest, resumed, replaced)
    finally:
        folder.close()


def _pack_into_bucket(
    job: PackJob, processes: int, on_bytes: Callable[[int], None], overwrite: bool
) -> Packed:
    """There is no journal, since nobody else could tell whose it is: a run that was killed begins
    anew, under other names. By these, one that fails finds what its processes have written."""
    place = place_of(job.folder)
    folder = place.make_folder()
    assert isinstance(folder, RecordPrefix)
    if not overwrite:
        refuse_to_replace(folder.path, "--overwrite")
    folder.start()
    replaced = folder.current()
    job = replace(job, folder=folder.path, generation=secrets.token_hex(4))
    done: dict[int, ShardEntry] = {}
    try:
        numbers = list(range(job.num_shards))
        for number, entry in _pack_shards(job, numbers, processes, on_bytes):
            done[number] = entry
        manifest = job.manifest(tuple(done[number] for number in numbers))
        options = place.manifest_options(overwrite)
        with folder.placing_manifest([entry.name for entry in manifest.shards]):
            put_last(place.store, folder.file(MANIFEST_NAME), manifest.to_json(), **options)
    except BaseException:
        if folder.is_settled():  # else it may be in place, or come there
            # More than is done may be there: of other processes, or one whose reply was lost.
            names = [entry.name for entry in done.values()]
            folder.remove_begun(job.name(0).rpartition("-")[0], names)
        raise
    folder.tidy_after_manifest()
    return Packed(manifest, 0, replaced)


def _whole_shards(
    job: PackJob, entries: list[ShardEntry], folder: RecordFolder, on_bytes: Callable[[int], None]
) -> Iterator[tuple[int, ShardEntry]]:
    """The shards that are there as the journal and the job say: read, and compared by their
    checksums."""
    store = FileStore(WRITE_CONFIG)
    numbers = {job.name(number): number for number in range(job.num_shards)}
    for entry in entries:
        number = numbers.pop(entry.name, None)
        if number is None or entry.num_records != len(job.records_of(number)):
            continue
        with contextlib.suppress(Error):
            if store.checksum(folder.file(entry.name)) == entry.crc32c:
                on_bytes(entry.num_records * job.sources.layout.record_bytes)
                yield number, entry


def _is_of(manifest: Manifest | SampleManifest, job: PackJob) -> bool:
    names = [job.name(number) for number in range(job.num_shards)]
    return [entry.name for entry in manifest.shards] == names


class _Journal:
    """The shards that are finished, a line each, as they come. A torn last line is not read."""

    def __init__(self, folder: RecordFolder, job: PackJob) -> None:
        self.name = f"{JOURNAL_PREFIX}{job.fingerprint()[:32]}.jsonl"
        self._path = folder.file(self.name)
        self.is_there = os.path.lexists(self._path)
        self.entries: list[ShardEntry] = []
        with contextlib.suppress(OSError), open(self._path, "rb") as file:
            for line in file.read(job.num_shards * _MOST_LINE_BYTES).splitlines():
                with contextlib.suppress(DataError):
                    self.entries.append(parse_shard_line(line, self._path, job.stride_bytes))

    @contextlib.contextmanager
    def open(self, done: dict[int, ShardEntry]) -> Iterator[None]:
        try:
            with open(self._path, "wb", opener=_not_through_a_link) as self._file:
                for entry in done.values():
                    self.add(entry)
                yield
        except Error:  # of the packing: some are OSErrors, too
            raise
        except OSError as error:
            kind = NoSpaceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else WriteError
            raise kind(f"{self._path}: cannot write: {error.strerror}") from None

    def add(self, entry: ShardEntry) -> None:
        self._file.write(shard_line(entry))
        self._file.flush()


def _not_through_a_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _pack_shards(
    job: PackJob, numbers: list[int], processes: int, on_bytes: Callable[[int], None]
) -> Iterator[tuple[int, ShardEntry]]:
    processes = min(processes, len(numbers))
    if processes <= 1:
        for number in numbers:
            yield number, job.pack_shard(number, on_bytes)
        return
    # Forked: that starts at once, and this process has no thread, ring or data set by now.
    context = multiprocessing.get_context("fork")
    counts = _ByteCounts()
    others = multiprocessing.active_children()
    is_bucket = scheme_of(job.folder) == "s3"
    start = (job, counts, os.getpid(), is_bucket)
    pool = ProcessPoolExecutor(processes, context, _start_process, start)
    futures: dict[Future[ShardEntry], int] = {}
    try:
        with _interrupted_later():  # else a process may be left that nobody knows
            for number in numbers:
                futures[pool.submit(_pack_in_process, number)] = number
        while futures:
            with _interrupted_later():  # else locks of futures stay taken: the pool never ends
                finished, _ = wait(futures, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            on_bytes(counts.received())
            # What is whole comes before an error.
            for future in sorted(finished, key=lambda one: one.exception() is not None):
                yield futures.pop(future), future.result()
        pool.shutdown()
    except BrokenProcessPool:
        again = "again" if is_bucket else "to go on"
        raise WriteError(
            f"{job.folder}: a process that packed was killed, perhaps for its memory; run the same "
            f"command {again}, with lower --processes if it happens again"
        ) from None
    finally:
        ours = [p for p in multiprocessing.active_children() if p not in others]
        _end_processes(pool, ours, is_bucket)
        counts.close()


@contextlib.contextmanager
def _interrupted_later() -> Iterator[None]:
    """Ctrl-C and SIGTERM come when it ends. What is forked meanwhile has both blocked."""
    came: list[int] = []
    handlers = {}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTIONS)
    try:
        # Where another thread gets the signal, Python acts in this one all the same.
        if threading.current_thread() is threading.main_thread():
            for one in _INTERRUPTIONS:
                handlers[one] = signal.signal(one, lambda number, _frame: came.append(number))
        yield
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in came:
            signal.raise_signal(number)


def _end_processes(
    pool: ProcessPoolExecutor, processes: list[BaseProcess], is_bucket: bool
) -> None:
    """Ends them, but waits no longer than a second: a call that hangs may keep a process for ever,
    and the error that it led to has to come through. In a bucket they abort their uploads first,
    for which they have 20 seconds."""
    pool.shutdown(wait=False, cancel_futures=True)
    deadline = time.monotonic() + (_END_IN_BUCKETS_S if is_bucket else _END_S)
    for process in processes if is_bucket else []:
        process.terminate()
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()  # what it has written of a shard, the next start removes


class _ByteCounts:
    """Numbers that forked processes send to their parent: a pipe, which takes each as a whole."""

    _BYTES = 8

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)

    def send(self, count: int) -> None:
        os.write(self._writing, count.to_bytes(self._BYTES, "little"))

    def received(self) -> int:
        """The sum of what came since the last call."""
        total = 0
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._reading, self._BYTES):
                total += int.from_bytes(data, "little")
        return total

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


_job: PackJob
_counts: _ByteCounts
_is_packing = False


class _Ended(BaseException):
    """What SIGTERM raises in a process that packs into a bucket: its writer aborts the upload."""


def _start_process(job: PackJob, counts: _ByteCounts, parent: int, is_bucket: bool) -> None:
    global _job, _counts
    _job, _counts = job, counts
    # Not the command's handler.
    signal.signal(signal.SIGTERM, _end if is_bucket else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, too, which ends this
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTIONS)
    end_with(parent)


def _end(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not _is_packing:
        os._exit(1)
    raise _Ended


def _pack_in_process(number: int) -> ShardEntry:
    global _is_packing
    try:
        _is_packing = True
        return _job.pack_shard(number, _counts.send)
    except _Ended:
        os._exit(1)  # nobody waits for a result, or for the next shard
    finally:
        _is_packing = False
