"""What a data set needs in the process that iterates it: files, buffers, reading threads,
counters."""

from __future__ import annotations

import multiprocessing.util
import os
from collections.abc import Iterator
from typing import Any

from torch.utils.data import get_worker_info

from .. import _C
from ..config import MIB, BufferPoolConfig, DirectMode
from ..errors import AccessError, ConfigError, NoSpaceError
from ..format.files import Shard
from ..format.layout import RecordLayout
from ..order.record_order import Window
from ..processes.handover import Arena
from ..processes.ranks import find_local_ranks
from ..warning import warn
from ..wording import count_of
from .options import DatasetOptions
from .sizing import auto_pool, check_pool

_CHUNK_BYTES = 1 * MIB
_SAMPLES_PER_READ = 256  # with batch_size=None
_SAMPLE_READ_BYTES = 1 * MIB
# Direct reads of less, in random order, are slower than bringing a file into the page cache.
_SCATTERED_BYTES = 16 << 10
# What comes into the page cache with a record. A device reads larger blocks hardly faster, and a
# batch of scattered records waits for one for each of its records.
_FILL_BLOCK_BYTES = 128 << 10
_MOST_RANKS = 1 << 16  # of one machine: more, the environment cannot mean
_MOST_IN_WINDOW = 1 << 20  # records, whose numbers are listed in memory


def _sharing_processors() -> int:
    """Processes of this machine that are at work: its ranks, and their workers."""
    _, ranks = find_local_ranks(_MOST_RANKS)
    worker = get_worker_info()
    return ranks * (1 if worker is None else worker.num_workers + 1)


class Runtime:
    """Belongs to one process; a forked child makes its own. One thread at a time."""

    def __init__(
        self,
        shards: list[Shard],
        layout: RecordLayout,
        options: DatasetOptions,
        arena: Arena | None = None,
        board: _C.EpochBoard | None = None,
        most_records: int | None = None,
        neighbours: int = 1,
        window: Window | None = None,
        is_told: bool = False,
    ) -> None:
        """``board``: in a worker, where the main process sees what it counts. ``most_records``:
        that a batch has at most. ``neighbours``: records that the order reads one after the other
        as they lie in a file. ``window``: that it mixes. ``is_told``: that another process has
        warned of what the file system refuses."""
        self._is_told = is_told
        self.owner = os.getpid()
        self._arena = arena
        self._board = board
        self._shards = shards
        self._layout = layout
        self._options = options
        self._most_records = most_records
        self._neighbours = neighbours
        self._window = window
        self._epochs_done = 0
        self._alignment = self._find_alignment()
        self._direct: DirectMode = options.direct if self._alignment > 1 else "off"
        self._source = self._make_source()
        self._past_sources: list[_C.RecordSource] = []
        self._idle_pools: list[_C.BufferPool] = []
        self._all_pools: list[_C.BufferPool] = []
        self._readers: list[_C.BatchIterator] = []
        self._ahead: tuple[_C.BatchIterator, _C.BufferPool | None] | None = None
        self._engine = "none yet"
        self._said_no_arena = False
        self._fetcher: _C.BatchFetcher | None = None

    def _find_alignment(self) -> int:
        """What every direct read of these files satisfies; 1 if none is direct."""
        if self._options.direct == "off":
            return 1
        # Opening one file per file system tells whether O_DIRECT is accepted there.
        by_device = {shard.identity[0]: shard for shard in self._shards}
        opened = {
            device: _C.direct_alignment(shard.path, self._options.direct)
            for device, shard in by_device.items()
        }
        refused = [
            shard.path
            for shard in self._shards
            if shard.direct_alignment == 0 or opened[shard.identity[0]] == 0
        ]
        if refused and not self._is_told:
            others = f" (and {count_of(len(refused) - 1, 'other file')})" if refused[1:] else ""
            warn(
                f"{refused[0]}: the file system refuses O_DIRECT: direct='auto' reads it through "
                f"the page cache{others}; direct='off' does so without a warning"
            )
        if not any(opened.values()):
            return 1
        return max(1, *(shard.direct_alignment for shard in self._shards))

    def _make_source(self) -> _C.RecordSource:
        layout, options = self._layout, self._options
        return _C.RecordSource(
            shards=[
                (shard.path, shard.header_bytes, shard.num_records, shard.identity_here)
                for shard in self._shards
            ],
            fields=[
                (part.name, part.stored, part.output, part.swap_bytes, part.offset, part.shape)
                for part in layout.fields
            ],
            record_bytes=layout.record_bytes,
            record_stride=layout.stride_bytes,
            alignment=1 if self._direct == "off" else self._alignment,
            direct=self._direct,
            engine=options.engine,
            chunk_bytes=_CHUNK_BYTES,
            depth=options.depth,
            read_timeout_s=float(options.read_timeout_s),
            with_record_numbers=options.with_record_numbers,
            faults=options.faults,
        )

    def _begin_epoch(self) -> None:
        """After a whole epoch, a set that fits in memory is kept in the page cache.

        Filling the cache costs several times a direct read, so a single pass does not do it.
        """
        if self._epochs_done == 0 or self._options.direct != "auto" or self._direct == "off":
            return
        if self._fits():
            if self._ahead is not None:
                self._close(*self._ahead)
                self._ahead = None
            self._past_sources.append(self._source)
            self._direct = "off"
            self._source = self._make_source()
            self._fetcher = None

    def _fills_cache(self) -> bool:
        """Whether this epoch brings a set that fits in memory into the page cache, or what is
        missing of it there: from the first one on where it is small records in random order, which
        the device would otherwise read one by one; else from that on after which it stays."""
        is_scattered = self._neighbours * self._layout.stride_bytes < _SCATTERED_BYTES
        is_time = self._epochs_done >= (0 if is_scattered else 1)
        return self._options.direct == "auto" and is_time and self._fits()

    def _fits(self) -> bool:
        """Whether the set is kept in the page cache, in which it leaves room for others."""
        if not self._options.keeps_cached:
            return False
        total_bytes = sum(shard.size_bytes for shard in self._shards)
        return total_bytes <= _C.available_memory_bytes() // 2

    @property
    def group_size(self) -> int:
        """Batches that are read together: many where a batch is a single record."""
        if self._options.batch_size is not None:
            return 1
        wanted = _SAMPLE_READ_BYTES // self._layout.record_bytes
        return max(1, min(_SAMPLES_PER_READ, wanted))

    def _pool_config(self, num_workers: int) -> BufferPoolConfig | None:
        setting = self._options.pool
        wanted = self._options.batch_size or self.group_size
        records = wanted
        if self._most_records is not None:
            records = min(wanted, self._most_records)
        batch_bytes = self._buffer_bytes(records)
        if setting is None:
            return None
        # Workers find memory that other ones, or those before them, took for the same pools.
        backed = 0 if self._arena is None else self._arena.backed_bytes
        most = backed + _C.available_memory_bytes(with_swap=True)
        if setting == "auto":
            available = backed + _C.available_memory_bytes()
            return auto_pool(batch_bytes, self._alignment, num_workers, available, most)
        check_pool(setting, num_workers, most)
        if setting.buffer_size < batch_bytes:
            raise ConfigError(
                f"BufferPoolConfig.buffer_size is {setting.buffer_size} bytes, but a batch of "
                f"{records} records needs {batch_bytes} (records, alignment and conversions "
                "included); raise it or lower batch_size"
            )
        return setting

    def _buffer_bytes(self, records: int) -> int:
        """What a buffer must have for so many records, however they are read: this process may read
        through the page cache by now, and workers that start begin with direct reads."""
        sources = [*self._past_sources, self._source]
        return max(source.batch_bytes(records) for source in sources)

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
        self._check_engine()
        # A program that reads a second epoch will read a third one: its first batches are read
        # while this one's last ones are in use.
        reads_on = self._options.reads_on and self._epochs_done > 0
        ahead = self._continue_with(plan)
        reader, pool = ahead or self._new_reader(plan, num_workers, reads_on, share, count)
        self._readers.append(reader)
        finished = False
        try:
            yield from reader
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
        fills = self._fills_cache()
        reader = _C.BatchIterator(
            source=self._source,
            plan=plan,
            pool=pool,
            board=self._board,
            reads_on=reads_on,
            fill_block_bytes=_FILL_BLOCK_BYTES if fills else 0,
            window_positions=0 if fills else self._window_to_read_ahead(),
            share=share,
            count=count,
            processes=_sharing_processors(),
        )
        return reader, pool

    def _window_to_read_ahead(self) -> int:
        """Records that are brought into the page cache block by block, before the order asks for
        them one by one; 0 where the device reads them as fast by themselves, or there is no room
        for two windows."""
        window, layout = self._window, self._layout
        if window is None or self._options.direct == "require":
            return 0
        is_scattered = layout.record_bytes < _SCATTERED_BYTES
        is_block = window.block_records * layout.stride_bytes >= _SCATTERED_BYTES
        room = _C.available_memory_bytes() // 4
        has_room = window.records <= min(_MOST_IN_WINDOW, room // layout.stride_bytes)
        return window.records if is_scattered and is_block and has_room else 0

    def _close_readers(self) -> None:
        for reader in [*self._readers, *([self._ahead[0]] if self._ahead is not None else [])]:
            reader.close()

    def fetch(self, numbers: list[int]) -> Any:
        if self._fetcher is None:
            self._check_engine()
            pool = self._borrow_pool(num_workers=1)
            self._fetcher = _C.BatchFetcher(
                source=self._source, pool=pool, processes=_sharing_processors()
            )
            self._give_back_pool(pool)  # it never waits for a buffer, so it can share them
        return self._fetcher.fetch(self._source, numbers, board=self._board)

    def look_at(self, numbers: list[int]) -> Any:
        """The same by itself: neither counted, nor from a buffer or file that stays."""
        self._check_engine()
        source = self._make_source()
        fetcher = _C.BatchFetcher(source=source, pool=None, processes=_sharing_processors())
        return fetcher.fetch(source, numbers)

    def _check_engine(self) -> None:
        """Finds out, once, what the engine will be, and warns where it is not io_uring."""
        if self._engine != "none yet":
            return
        self._engine = "uring" if self._options.engine == "auto" else self._options.engine
        reason = _C.uring_unavailable_reason() if self._options.engine == "auto" else ""
        if reason:
            self._engine = "threads"
            worker = get_worker_info()
            if worker is None or worker.id == 0:  # the others would say the same
                warn(
                    f"{reason}: reading with threads instead; engine='threads' does so without a "
                    "warning"
                )

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = dict(self._source.stats())
        for source in self._past_sources:
            for key, value in source.stats().items():
                stats[key] += value
        for reader in self._readers:
            self._engine = reader.engine or self._engine
        stats["engine"] = self._engine
        stats["direct"] = self._direct
        pools = [pool.stats() for pool in self._all_pools]
        for key in ("taken", "waited", "wait_s", "in_use", "peak", "oversize"):
            stats[f"pool_{key}"] = sum(pool[key] for pool in pools)
        huge = sum(pool["huge_pages"] for pool in pools)
        small = sum(pool["small_pages"] for pool in pools)
        stats["huge_pages"], stats["small_pages"] = huge, small
        names = {(False, False): "none yet", (True, False): "2 MiB", (False, True): "4 KiB"}
        stats["page_size"] = names.get((huge > 0, small > 0), "mixed")
        return stats
