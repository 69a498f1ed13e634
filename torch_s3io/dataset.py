"""Fixed-size records of local files as an iterable data set of batches."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from multiprocessing.context import get_spawning_popen
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from .config import DirectMode, EngineKind, check_int
from .errors import ConfigError, DataError, RangeError
from .files import Paths, Shard, count_npy, count_records, count_windows
from .handover import Arena
from .layout import RecordLayout, make_layout
from .runtime import DatasetOptions, PoolSetting, Runtime

Batch = Any  # a tensor, a dict of tensors, or what `transform` makes of them


class RecordDataset(IterableDataset[Batch]):
    """Batches of fixed-size records, read with O_DIRECT and io_uring into pooled buffers.

    Iterating yields batches in the order of the files, each batch once::

        dataset = RecordDataset("train/*.bin", dtype=np.float32, shape=(3, 32, 32), batch_size=64)
        loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)
        for images in loader:  # float32 [64, 3, 32, 32]
            ...

    A batch is one tensor ``[B, *shape]`` for a plain dtype, and a dict of tensors ``[B, ...]`` for
    a structured one; fields of nested structures get dotted names. Tensors view the buffer that the
    device wrote into, wherever torch can express it; what it cannot (a field at an odd offset, the
    other byte order, another ``as_dtype``) is copied once, and counted in ``stats()``. The buffer
    is reused when the last view of it dies. Writing into a batch is allowed. Keeping more batches
    than the pool has buffers is allowed, too: they are then copied out, counted, and warned of
    once.

    Args:
        paths: A file, a glob pattern, or a sequence of these. Matches of a pattern are sorted.
        dtype: Of the records: a numpy dtype, plain or structured, or a torch dtype such as
            ``torch.bfloat16``.
        shape: Shape of one record of a plain dtype.
        batch_size: Records per batch. None: single samples, without the batch dimension; neighbours
            then share a buffer, which is reused when all of them are gone.
        drop_last: Leave out a last batch that is not full.
        header_bytes: Bytes to skip at the start of each file.
        direct: ``"require"``: O_DIRECT, or DirectIOError. ``"off"``: through the page cache.
            ``"auto"``: from the page cache what is there, with O_DIRECT what is not; after the
            first whole epoch of a process, a set that fits in half of the free memory is read
            through the page cache, which then keeps it.
        engine: ``"uring"``, ``"threads"``, or ``"auto"``: io_uring where the kernel allows it.
        pool: ``"auto"``: sized from the batch within the available memory; a BufferPoolConfig; or
            None: an allocation per batch. Every process that iterates has its own pool, and so has
            every iterator that is alive at the same time. Batches from workers stay in the
            worker's pool; with None torch copies them on their way.
        transform: Called with every batch (every sample with ``batch_size=None``), where it is
            read.
        as_dtype: Convert to this dtype while reading, where that keeps values (floats may be
            rounded); a dict by field name for a structured dtype.
        return_index: Yield ``(batch, index)``, index int64 [B]: the numbers of the records.
        depth: Reads in flight, of at most 1 MiB each, in every process that iterates.
        read_timeout_s: Longest wait for one batch, in seconds; then ReadTimeoutError.

    Raises:
        NotFoundError, AccessError: A file is missing or may not be read; a pattern matches nothing.
        DataError: A file is not a whole number of records, or there are no records at all.
        ConfigError: Arguments that cannot work.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        dtype: Any,
        shape: int | Sequence[int] = (),
        batch_size: int | None = 64,
        drop_last: bool = False,
        header_bytes: int = 0,
        direct: DirectMode = "auto",
        engine: EngineKind = "auto",
        pool: PoolSetting = "auto",
        transform: Callable[[Any], Any] | None = None,
        as_dtype: Any = None,
        return_index: bool = False,
        depth: int = 32,
        read_timeout_s: float = 60.0,
        _faults: Any = None,
    ) -> None:
        options = DatasetOptions(
            batch_size=batch_size,
            drop_last=drop_last,
            direct=direct,
            engine=engine,
            pool=pool,
            transform=transform,
            return_index=return_index,
            depth=depth,
            read_timeout_s=read_timeout_s,
            faults=_faults,
        )
        check_int("header_bytes", header_bytes, 0)
        layout = make_layout(dtype, shape, as_dtype)
        self._set_up(count_records(paths, layout, header_bytes), layout, options)

    @classmethod
    def from_npy(cls, paths: Paths, *, as_dtype: Any = None, **options: Any) -> RecordDataset:
        """Records along the first axis of ``.npy`` arrays (format versions 1 to 3).

        Args:
            paths: As for RecordDataset. All arrays have the same dtype and record shape.
            as_dtype: As for RecordDataset.
            **options: ``batch_size``, ``drop_last``, ``direct``, ``engine``, ``pool``,
                ``transform``, ``return_index``, ``depth``, ``read_timeout_s``, as for
                RecordDataset.

        Raises:
            DataError: A damaged header, Fortran order, Python objects, arrays that do not match.
        """
        checked = _checked_options("from_npy", options)
        shards, layout = count_npy(paths, as_dtype)
        return cls._of(shards, layout, checked)

    @classmethod
    def from_tokens(
        cls,
        paths: Paths,
        *,
        window: int,
        stride: int | None = None,
        dtype: Any = "uint16",
        as_dtype: Any = None,
        **options: Any,
    ) -> RecordDataset:
        """Windows of token streams: ``window`` tokens every ``stride`` tokens, within each file.

        A batch is a tensor ``[B, window]``. With ``stride < window`` the rows overlap in memory
        where they were read in place: clone a batch before writing into it. Tokens at the end of a
        file that fill no window are left out; ``unused_tail_bytes`` counts them.

        Args:
            paths: As for RecordDataset: files that hold nothing but tokens.
            window: Tokens per record; for next-token prediction, context length + 1.
            stride: Tokens from one window's start to the next one's; None: ``window``.
            dtype: Of the tokens, a plain numpy or torch dtype.
            as_dtype: For instance torch.int64, which embeddings want.
            **options: As for ``from_npy``.
        """
        checked = _checked_options("from_tokens", options)
        check_int("window", window, 1)
        step = window if stride is None else stride
        check_int("stride", step, 1)
        token = make_layout(dtype)
        if not token.is_plain or token.fields[0].shape:
            raise ConfigError(f"tokens have a plain dtype, not {dtype!r}")
        item_bytes = token.record_bytes
        layout = make_layout(dtype, (window,), as_dtype, stride_bytes=step * item_bytes)
        return cls._of(count_windows(paths, layout, item_bytes), layout, checked)

    @classmethod
    def _of(
        cls, shards: list[Shard], layout: RecordLayout, options: DatasetOptions
    ) -> RecordDataset:
        dataset = cls.__new__(cls)
        dataset._set_up(shards, layout, options)
        return dataset

    def _set_up(self, shards: list[Shard], layout: RecordLayout, options: DatasetOptions) -> None:
        self._shards = shards
        self._layout = layout
        self._options = options
        self._num_records = sum(shard.num_records for shard in shards)
        if self._num_records == 0:
            raise DataError(
                f"there are no records in {len(shards)} file(s), the first being {shards[0].path}"
            )
        self._runtime: Runtime | None = None
        self._arena: Arena | None = None
        _datasets.add(self)
        # Finds settings that cannot work now rather than in a worker: it reads nothing.
        self._own_runtime().check_pool(num_workers=1)

    @property
    def num_records(self) -> int:
        """Records in all files."""
        return self._num_records

    @property
    def unused_tail_bytes(self) -> int:
        """Bytes at the ends of files that no record covers: less than a window each."""
        layout = self._layout
        unused = 0
        for shard in self._shards:
            covered = 0
            if shard.num_records:
                covered = (shard.num_records - 1) * layout.stride_bytes + layout.record_bytes
            unused += max(0, shard.size_bytes - shard.header_bytes - covered)
        return unused

    @property
    def batch_size(self) -> int | None:
        """Records per batch; None for single samples."""
        return self._options.batch_size

    def buffers_per_worker(self, num_workers: int) -> int:
        """Buffers that the pool of each of so many workers has; 0 without pools."""
        return self._own_runtime().pool_capacity(num_workers)

    def __len__(self) -> int:
        """Batches in an epoch; samples with ``batch_size=None``."""
        size = self._options.batch_size
        if size is None:
            return self._num_records
        full, rest = divmod(self._num_records, size)
        return full + (1 if rest and not self._options.drop_last else 0)

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        runtime = self._own_runtime()
        batches = runtime.iterate(worker, num_workers)
        if self._options.batch_size is None:
            batches = _samples(batches, self._options.return_index)
        if self._options.transform is None:
            return batches
        return map(partial(_apply, self._options.transform, self._options.return_index), batches)

    def get_batch(self, indices: Any) -> Batch:
        """The records of these numbers as one batch, in this order; repeats are allowed.

        Args:
            indices: int [B]: a sequence, array or tensor of numbers from 0 to ``num_records - 1``.

        Raises:
            RangeError: A number that does not exist.
        """
        batch = self._own_runtime().fetch(_as_numbers(indices))
        if self._options.transform is None:
            return batch
        return _apply(self._options.transform, self._options.return_index, batch)

    def stats(self) -> dict[str, Any]:
        """What this process and its workers read so far, and how.

        ``batches``, ``batch_bytes``: delivered. ``direct_bytes``, ``cached_bytes``,
        ``buffered_bytes``: read from the device, found in the page cache, read through the page
        cache (over-read included). ``requests``: reads submitted; ``retries``, ``short_reads``: of
        those, repeated or continued. ``direct_refused``: fell back because O_DIRECT failed.
        ``copied_bytes``: written by copies in memory, of which ``converted_bytes`` for dtype, byte
        order or alignment. ``spilled_batches``: copied out of the pool. ``quarantined_buffers``:
        lost to reads that never came back. ``reader_wait_s``: the reader waited for a free buffer,
        because the consumer is slower. ``consumer_wait_s``: the consumer waited for data.
        ``engine``, ``direct``: in use. ``page_size``: behind the buffers: "2 MiB", "4 KiB", "mixed"
        or "none yet"; ``pool_*``: of the pools (see BufferPool.stats); all these of
        this process alone.

        Once there were workers: ``received_tensors``, ``received_bytes``: from them, without a
        copy but for ``held_out_tensors``, ``held_out_bytes`` (copied, because the batches held here
        left the worker too few buffers) and ``unmapped_tensors`` (read, because their memory could
        not be mapped). ``stale_tensors``: refused. ``held_buffers``: now held by tensors here.
        ``refused_workers``: found no room in the shared memory; torch copies their batches.
        """
        stats = self._own_runtime().stats()
        if self._arena is not None and self._arena.owner == os.getpid():
            for key, value in self._arena.worker_stats().items():
                stats[key] += value
            stats.update(self._arena.stats())
        return stats

    def _own_runtime(self) -> Runtime:
        """The files, buffers and counters of this process; never those of a parent."""
        if self._runtime is None or self._runtime.owner != os.getpid():
            self._runtime = Runtime(self._shards, self._layout, self._options, self._arena)
        return self._runtime

    def _ready_for_workers(self) -> Arena | None:
        """The shared memory that workers put batches into: made before the first of them starts."""
        if get_worker_info() is not None:
            return self._arena  # its consumer is the parent
        if self._arena is None or self._arena.owner != os.getpid():
            self._arena = self._own_runtime().make_arena()
        return self._arena

    def __getstate__(self) -> dict[str, Any]:
        spawning = get_spawning_popen() is not None
        arena = self._ready_for_workers() if spawning else None
        return {**self.__dict__, "_runtime": None, "_arena": arena}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _datasets.add(self)

    def __repr__(self) -> str:
        described = ", ".join(
            f"{field.name or 'record'}: {field.output}{list(field.shape)}"
            for field in self._layout.fields
        )
        return (
            f"RecordDataset({self._num_records} records of {self._layout.record_bytes} bytes in "
            f"{len(self._shards)} file(s), {{{described}}}, batch_size={self._options.batch_size})"
        )


# Workers that are forked inherit what exists by then.
_datasets: weakref.WeakSet[RecordDataset] = weakref.WeakSet()


def _before_fork() -> None:
    for dataset in list(_datasets):
        # Without shared memory batches go torch's own way.
        with contextlib.suppress(Exception):
            dataset._ready_for_workers()


os.register_at_fork(before=_before_fork)


def _checked_options(caller: str, options: dict[str, Any]) -> DatasetOptions:
    unknown = set(options) - {field.name for field in fields(DatasetOptions)}
    if unknown:
        raise TypeError(f"{caller}() got an unexpected keyword argument {min(unknown)!r}")
    return DatasetOptions(**options)


def _apply(transform: Callable[[Any], Any], with_index: bool, batch: Any) -> Any:
    if not with_index:
        return transform(batch)
    records, index = batch
    return transform(records), index


def _samples(batches: Iterator[Any], with_index: bool) -> Iterator[Any]:
    for batch in batches:
        if with_index:
            records, index = batch
            del batch
            yield from zip(_rows(records), index.unbind(0), strict=True)
            del records, index
        else:
            yield from _rows(batch)
            del batch


def _rows(records: Any) -> Iterator[Any]:
    if isinstance(records, torch.Tensor):
        return iter(records.unbind(0))
    columns = [column.unbind(0) for column in records.values()]
    return (dict(zip(records, row, strict=True)) for row in zip(*columns, strict=True))


def _as_numbers(indices: Any) -> list[int]:
    try:
        array = np.asarray(indices)
    except ValueError:  # rows of different lengths
        raise ConfigError("indices must be a one-dimensional sequence of integers") from None
    if array.size == 0:
        return []
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ConfigError(
            f"indices must be a one-dimensional sequence of integers, not {array.dtype} with shape "
            f"{array.shape}"
        )
    if array.max() >= 1 << 63:
        raise RangeError(f"record {array.max()} does not exist: the number is too large")
    numbers: list[int] = array.tolist()
    return numbers
