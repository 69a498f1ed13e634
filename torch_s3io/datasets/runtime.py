"""What a data set needs in the process that iterates it: files, buffers, reading threads,
counters."""

from __future__ import annotations

import contextlib
import multiprocessing.util
import os
from collections.abc import Iterator
from typing import Any

from torch.utils.data import get_worker_info

from .. import _C
from ..config import MIB, BufferPoolConfig
from ..errors import AccessError, ConfigError, FileChangedError, NoSpaceError, NotFoundError
from ..format.objects import Column, Objects
from ..format.records import BufferBytes, Records
from ..order.record_order import Window
from ..processes.handover import Arena
from ..processes.ranks import find_local_ranks
from ..store.access import Access, Reading
from ..store.mixed_access import MixedAccess
from ..store.stores import store_of
from ..warning import warn
from .options import DatasetOptions
from .sizing import auto_pool, check_pool

_CHUNK_BYTES = 1 * MIB
_SAMPLES_PER_READ = 256  # with batch_size=None
_SAMPLE_READ_BYTES = 1 * MIB
_MOST_RANKS = 1 << 16  # of one machine: more, the environment cannot mean


def _sharing_processors() -> int:
    """Processes of this machine that are at work: its ranks, and their workers."""
    _, ranks = find_local_ranks(_MOST_RANKS)
    worker = get_worker_info()
    return ranks * (1 if worker is None else worker.num_workers + 1)


class Runtime:
    """Belongs to one process; a forked child makes its own. One thread at a time."""

    def __init__(
        self,
        records: Records,
        options: DatasetOptions,
        order: _C.RecordOrder,
        arena: Arena | None = None,
        board: _C.EpochBoard | None = None,
        most_records: int | None = None,
        neighbours: int = 1,
        window: Window | None = None,
        is_told: bool = False,
    ) -> None:
        """``order``: by which its batches will come. ``board``: in a worker, where the main
        process sees what it counts. ``most_records``: that a batch has at most. ``neighbours``:
        records that the order reads one after the other as they lie in a file. ``window``: that it
        mixes. ``is_told``: that another process has warned of what the file system refuses."""
        self.owner = os.getpid()
        self._arena = arena
        self._board = board
        self._records = records
        self._options = options
        self._most_records = most_records
        self._neighbours = neighbours
        self._order = order
        self._needed: tuple[tuple[int, int], BufferBytes] | None = None
        self._epochs_done = 0
        self._access = self._make_access(window, is_told)
        self._form, self._source = self._make_source()
        self._past_forms: list[_C.BatchForm] = []
        self._past_sources: list[_C.RecordSource] = []
        self._idle_pools: list[_C.BufferPool] = []
        self._all_pools: list[_C.BufferPool] = []
        self._readers: list[_C.BatchIterator] = []
        self._ahead: tuple[_C.BatchIterator, _C.BufferPool | None] | None = None
        self._engine = ""  # that a reader has used
        self._said_no_arena = False
        self._fetcher: _C.BatchFetcher | None = None

    def _make_access(self, window: Window | None, is_told: bool) -> Access:
        objects, has_checksums = self._records.objects, self._records.has_checksums
        accesses = {
            scheme: store_of(objects.path(numbers[0])).access(
                self._reading(objects.some(numbers), has_checksums[numbers], window, is_told)
            )
            for scheme, numbers in objects.by_scheme().items()
        }
        return MixedAccess(accesses) if len(accesses) > 1 else next(iter(accesses.values()))

    def _reading(
        self, objects: Objects, has_checksums: Column, window: Window | None, is_told: bool
    ) -> Reading:
        records, options = self._records, self._options
        return Reading(
            path=objects.path,
            identity=lambda number: objects[number].identity,
            alignments=objects.direct_alignments,
            devices=objects.versions["device"],
            total_bytes=objects.total_bytes,
            record_bytes=records.record_bytes,
            spacing_bytes=records.spacing_bytes,
            neighbours=self._neighbours,
            window_records=1 if window is None else window.records,
            window_block_records=1 if window is None else window.block_records,
            direct=options.direct,
            engine=options.engine,
            has_checksums=has_checksums,
            keeps_cached=options.keeps_cached,
            faults=options.faults,
            is_told=is_told,
        )

    def _make_source(self) -> tuple[_C.BatchForm, _C.RecordSource]:
        options = self._options
        block_bytes = self._access.block_bytes
        form = self._records.make_form(block_bytes, options.with_record_numbers)
        source = _C.RecordSource(
            store=self._access.make_store(),
            objects=self._records.objects.to_core(),
            form=form,
            chunk_bytes=_CHUNK_BYTES,
            depth=options.depth,
            read_timeout_s=float(options.read_timeout_s),
        )
        return form, source

    def _begin_epoch(self) -> None:
        if not self._access.changes_after(self._epochs_done):
            return
        if self._ahead is not None:
            self._close(*self._ahead)
            self._ahead = None
        self._past_forms.append(self._form)
        self._past_sources.append(self._source)
        self._form, self._source = self._make_source()
        self._fetcher = None

    @property
    def group_size(self) -> int:
        """Batches that are read together: many where a batch is a single record."""
        if self._options.batch_size is not None:
            return 1
        wanted = _SAMPLE_READ_BYTES // max(1, self._records.record_bytes)
        return max(1, min(_SAMPLES_PER_READ, wanted))

    def _pool_config(self, num_workers: int) -> BufferPoolConfig | None:
        setting = self._options.pool
        wanted = self._options.batch_size or self.group_size
        records = wanted
        if self._most_records is not None:
            records = min(wanted, self._most_records)
        needed = self._buffer_bytes(records)
        if setting is None:
            return None
        # Workers find memory that other ones, or those before them, took for the same pools.
        backed = 0 if self._arena is None else self._arena.backed_bytes
        most = backed + _C.available_memory_bytes(with_swap=True)
        if setting == "auto":
            available = backed + _C.available_memory_bytes()
            wanted, least = needed
            alignment = self._access.alignment
            return auto_pool(wanted, alignment, num_workers, available, most, least)
        check_pool(setting, num_workers, most)
        problem = self._records.buffer_problem(setting.buffer_size, needed, records)
        if problem:
            raise ConfigError(problem)
        return setting

    def _buffer_bytes(self, count: int) -> BufferBytes:
        """What a buffer must have for so many records, however they are read: this process may read
        through the page cache by now, and workers that start begin with direct reads."""
        forms = [*self._past_forms, self._form]
        if self._needed is None or self._needed[0] != (len(forms), count):
            found = [self._records.buffer_bytes(form, self._order, count) for form in forms]
            wanted, least = map(max, zip(*found, strict=True))
            self._needed = (len(forms), count), BufferBytes(wanted, least)
        return self._needed[1]

    def check_pool(self, num_workers: int) -> None:
        self._pool_config(num_workers)

    def pool_capacity(self, num_workers: int) -> int:
        config = self._pool_config(num_workers)
        return 0 if config is None else config.capacity

    def make_arena(self) -> Arena | None:
        """Room for the pools of workers; None where data does not go through pools, or where shared
        memory is not to be had, which is warned of."""
        config = self._pool_config(num_workers=1)
        if config is None:
            return None
        try:
            return Arena(config)
        except (AccessError, NoSpaceError) as error:
            if not self._said_no_arena:
                self._said_no_arena = True
                warn(f"{error}: batches from workers are copied on their way")
            return None

    def _borrow_pool(self, num_workers: int) -> _C.BufferPool | None:
        try:
            return self._idle_pools.pop()
        except IndexError:
            pass
        config = self._pool_config(num_workers)
        if config is None:
            return None
        worker = get_worker_info()
        pool = None
        if worker is not None and self._arena is not None:
            pool = self._arena.claim(worker.id, config)
            if pool is not None:
                # Iterators that somebody still has: their reads must not outlive this process,
                # whose part of the memory another one gets.
                multiprocessing.util.Finalize(None, self._close_readers, exitpriority=1)
        if pool is None:
            pool = _C.BufferPool(
                capacity=config.capacity, buffer_size=config.buffer_size, alignment=config.alignment
            )
        self._all_pools.append(pool)
        return pool

    def _give_back_pool(self, pool: _C.BufferPool | None) -> None:
        if pool is None:
            return
        if self._idle_pools:
            self._all_pools.remove(pool)  # one is kept for the next epoch
        else:
            self._idle_pools.append(pool)

    def iterate(
        self, plan: _C.EpochPlan, worker: int, num_workers: int, world_size: int
    ) -> Iterator[Any]:
        """The batches of the plan, which is that of one of ``num_workers`` of one rank."""
        local_rank, local_world_size = find_local_ranks(world_size)
        # Which of the processes that read the set on this machine this one is.
        share, count = local_rank * num_workers + worker, local_world_size * num_workers
        self._begin_epoch()
        self._access.check()
        # A program that reads a second epoch will read a third one: its first batches are read
        # while this one's last ones are in use.
        reads_on = self._options.reads_on and self._epochs_done > 0
        ahead = self._continue_with(plan)
        reader, pool = ahead or self._new_reader(plan, num_workers, reads_on, share, count)
        self._readers.append(reader)
        finished = False
        try:
            with self._changed_objects():
                yield from self._finished(reader)
            self._epochs_done += 1
            finished = True
        finally:
            self._engine = reader.engine or self._engine
            self._readers.remove(reader)
            if finished and reads_on and self._ahead is None:
                self._ahead = reader, pool
            else:
                self._close(reader, pool)

    def _continue_with(
        self, plan: _C.EpochPlan
    ) -> tuple[_C.BatchIterator, _C.BufferPool | None] | None:
        """The reader of the epoch before, if it has begun with this plan; else it is closed."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[0].begin_next_epoch(plan=plan):
            return ahead
        self._close(*ahead)
        return None

    def _close(self, reader: _C.BatchIterator, pool: _C.BufferPool | None) -> None:
        reader.close()
        self._give_back_pool(pool)

    def _new_reader(
        self, plan: _C.EpochPlan, num_workers: int, reads_on: bool, share: int, count: int
    ) -> tuple[_C.BatchIterator, _C.BufferPool | None]:
        pool = self._borrow_pool(num_workers)
        fill_block_bytes = self._access.fill_block_bytes(self._epochs_done)
        reader = _C.BatchIterator(
            source=self._source,
            plan=plan,
            pool=pool,
            board=self._board,
            reads_on=reads_on,
            fill_block_bytes=fill_block_bytes,
            window_positions=0 if fill_block_bytes else self._access.window_to_read_ahead(),
            share=share,
            count=count,
            processes=_sharing_processors(),
        )
        return reader, pool

    def _finished(self, batches: Iterator[Any]) -> Iterator[Any]:
        # Not a generator: that would hold on to a batch while the loop works on it.
        return map(self._finish, batches) if self._records.finishes else batches

    def _finish(self, batch: Any) -> Any:
        return self._records.finished(batch, self._options.with_record_numbers)

    @contextlib.contextmanager
    def _changed_objects(self) -> Iterator[None]:
        """Where an object is not as it was, no listing that says so may stay."""
        try:
            yield
        except (FileChangedError, NotFoundError) as error:
            objects = self._records.objects
            if not objects.listings:
                raise
            raise objects.without_listings(error) from None

    def _close_readers(self) -> None:
        for reader in [*self._readers, *([self._ahead[0]] if self._ahead is not None else [])]:
            reader.close()

    def fetch(self, numbers: list[int]) -> Any:
        if self._fetcher is None:
            self._access.check()
            pool = self._borrow_pool(num_workers=1)
            self._fetcher = _C.BatchFetcher(
                source=self._source, pool=pool, processes=_sharing_processors()
            )
            self._give_back_pool(pool)  # it never waits for a buffer, so it can share them
        with self._changed_objects():
            fetched = self._fetcher.fetch(self._source, numbers, board=self._board)
        return self._finish(fetched)

    def look_at(self, numbers: list[int]) -> Any:
        """The same by itself: neither counted, nor from a buffer or file that stays."""
        self._access.check()
        _, source = self._make_source()
        fetcher = _C.BatchFetcher(source=source, pool=None, processes=_sharing_processors())
        with self._changed_objects():
            fetched = fetcher.fetch(source, numbers)
        return self._finish(fetched)

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = dict(self._source.stats())
        for source in self._past_sources:
            for key, value in source.stats().items():
                stats[key] += value
        for reader in self._readers:
            self._engine = reader.engine or self._engine
        stats |= self._access.facts(self._engine)
        pools = [pool.stats() for pool in self._all_pools]
        for key in ("taken", "waited", "wait_s", "in_use", "peak", "oversize"):
            stats[f"pool_{key}"] = sum(pool[key] for pool in pools)
        huge = sum(pool["huge_pages"] for pool in pools)
        small = sum(pool["small_pages"] for pool in pools)
        stats["huge_pages"], stats["small_pages"] = huge, small
        names = {(False, False): "none yet", (True, False): "2 MiB", (False, True): "4 KiB"}
        stats["page_size"] = names.get((huge > 0, small > 0), "mixed")
        return stats
