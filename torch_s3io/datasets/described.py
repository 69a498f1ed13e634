"""What a data set says of its files, of its records, and of what was read."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any, TypeVar

import torch

from ..format.files import DataFile
from ..format.records import FieldInfo, Records
from ..processes.handover import Arena
from ..wording import count_of, printable
from .runtime import Runtime
from .views import ViewedDataset

_T = TypeVar("_T")


class DescribedDataset(ViewedDataset):
    """A data set over files of records; a view has the files of what it is a view of."""

    _records: Records
    _num_numbers: int
    _arena: Arena | None

    @abstractmethod
    def _own_runtime(self) -> Runtime:
        """The files, buffers and counters of this process; never those of a parent."""

    @property
    def files(self) -> tuple[DataFile, ...]:
        """The files in the order of their records: record 0 is the first one of ``files[0]``.

        A view has the files, and their counts, of what it is a view of; a Mix those of its parts,
        one part after the other.
        """
        objects = self._records.objects
        counts = zip(objects.all_paths(), objects.num_records.tolist(), strict=True)
        return tuple(DataFile(path, count) for path, count in counts)

    @property
    def dtype(self) -> torch.dtype | dict[str, torch.dtype]:
        """Of a batch's tensor; of a structured dtype, of the tensors of its dict."""
        return self._of_fields([field.dtype for field in self._records.fields])

    @property
    def shape(self) -> tuple[int | None, ...] | dict[str, tuple[int | None, ...]]:
        """Of one record; of a structured dtype, and of samples, of its fields. None: an axis that
        may have any length."""
        return self._of_fields([field.shape for field in self._records.fields])

    def _of_fields(self, values: list[_T]) -> _T | dict[str, _T]:
        names = [field.name for field in self._records.fields]
        return values[0] if names == [""] else dict(zip(names, values, strict=True))

    @property
    def unused_tail_bytes(self) -> int:
        """Bytes at the ends of files that are too few for a record, in all files together.

        Padding, or tokens left out, between records and after the last one do not count.
        """
        return self._records.unused_bytes

    def stats(self) -> dict[str, Any]:
        """What this process and its workers read so far, and how.

        ``batches``, ``batch_bytes``: delivered. ``direct_bytes``, ``cached_bytes``,
        ``buffered_bytes``: read from the device (over-read included); copied out of the page cache,
        where they were known to be; read through the page cache without asking what it holds,
        after many ranges that it held, or while it is being filled.
        ``requests``: reads submitted; ``retries``, ``short_reads``: of those, repeated or
        continued. ``direct_refused``: fell back because O_DIRECT failed.
        ``verified_bytes``, ``unverified_bytes``: of objects of a bucket, what comes with checksums
        that are compared (``verify=True``), and what nothing verifies but TCP, or TLS.
        ``copied_bytes``: written by copies in memory, of which ``converted_bytes`` for dtype, byte
        order or alignment. ``spilled_batches``: copied out of the pool. ``oversize_batches``: of
        samples that together were larger than a buffer, and got memory of their own.
        ``filled_bytes``: brought into the page cache before they were read.
        ``quarantined_buffers``: lost to reads that never came back. ``reader_wait_s``: the reader
        waited for a free buffer, because the consumer is slower. ``consumer_wait_s``: the consumer
        waited for data.
        ``engine``: in use, "uring" or "threads". ``page_size``: behind the buffers, "2 MiB" or
        "4 KiB". Both may be "mixed" or "none yet". ``direct``: in use; ``huge_pages``,
        ``small_pages``, ``pool_*``: of the pools (see BufferPool.stats); all these of this process
        alone.

        ``dropped_records``, ``padded_records``: of the epoch that began last, over all ranks, as
        the properties say.

        Once there were workers: ``received_tensors``, ``received_bytes``: from them, without a
        copy but for ``held_out_tensors``, ``held_out_bytes`` (copied, because the batches held here
        left the worker too few buffers) and ``unmapped_tensors`` (read, because their memory could
        not be mapped). ``stale_tensors``: refused. ``held_buffers``: now held by tensors here.
        ``refused_workers``: found no room in the shared memory; torch copies their batches.
        """
        stats = self._own_runtime().stats()
        stats["dropped_records"] = self.dropped_records
        stats["padded_records"] = self.padded_records
        board = self._clock.board
        if board is not None and self._clock.owner == os.getpid():
            for key, value in board.worker_stats().items():
                stats[key] += value
            kinds = set(board.worker_kinds())
            stats["engine"] = _in_use(stats["engine"], kinds & {"uring", "threads", "s3"})
            stats["page_size"] = _in_use(stats["page_size"], kinds & {"2 MiB", "4 KiB"})
        if self._arena is not None and self._arena.owner == os.getpid():
            stats.update(self._arena.stats())
        return stats

    def __repr__(self) -> str:
        described = ", ".join(
            f"{printable(field.name) or 'record'}: {_type_text(field)}"
            for field in self._records.fields
        )
        records = self._records
        return (
            f"{type(self).__name__}({count_of(self._num_records, records.noun)} of "
            f"{records.described} in {count_of(len(records.objects), 'file')}, "
            f"{{{described}}}, batch_size={self._options.batch_size}, "
            f"shuffle={self._options.shuffle!r})"
        )


def _type_text(field: FieldInfo) -> str:
    """``uint8[n, n, 3]``."""
    extents = ", ".join("n" if extent is None else str(extent) for extent in field.shape)
    return f"{str(field.dtype).removeprefix('torch.')}[{extents}]"


def _in_use(here: str, in_workers: set[str]) -> str:
    """One of the kinds in use, where there is one."""
    kinds = in_workers | ({here} - {"none yet"})
    if not kinds:
        return here
    return kinds.pop() if len(kinds) == 1 else "mixed"
