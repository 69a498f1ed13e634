"""Packing existing files into a data set of records: shard after shard."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..config import MIB
from ..datasets.options import DatasetOptions
from ..datasets.record_dataset import RecordDataset
from ..format.layout import make_layout
from ..format.manifest import Manifest, ShardEntry
from ..format.records import FixedRecords
from .folder_writer import place_of, shard_name
from .record_writer import AlignRecords, stride_for
from .sources import Sources

_BATCH_BYTES = 8 * MIB


@dataclass(frozen=True)
class PackJob:
    """Everything that decides the bytes of the shards; the same in every process.

    Attributes:
        folder: Where they go; or ``s3://bucket/prefix``.
        generation: The digits in their names.
        stride_bytes: Of the packed records.
        per_shard: Records per shard.
    """

    sources: Sources
    folder: str
    generation: str
    stride_bytes: int
    per_shard: int

    @classmethod
    def of(
        cls, sources: Sources, folder: str, shard_bytes: int, align_records: AlignRecords
    ) -> PackJob:
        stride = stride_for(sources.layout.record_bytes, align_records)
        job = cls(sources, folder, "", stride, max(1, shard_bytes // stride))
        # The same sources packed in the same way give the same names: so a job can be resumed.
        return replace(job, generation=job.fingerprint()[:8])

    @property
    def num_shards(self) -> int:
        return -(-self.sources.num_records // self.per_shard)

    @property
    def total_bytes(self) -> int:
        return self.sources.num_records * self.sources.layout.record_bytes

    def fingerprint(self) -> str:
        """Changes with any source file, the layout, and how it is packed."""
        # Size and time: a mount that comes back may give its files other inode numbers.
        files = [
            (shard.path, shard.header_bytes, shard.num_records, shard.identity[2:])
            for shard in self.sources.shards
        ]
        text = json.dumps(
            [files, repr(self.sources.layout), self.stride_bytes, self.per_shard],
            ensure_ascii=True,
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def manifest(self, shards: tuple[ShardEntry, ...]) -> Manifest:
        layout = self.sources.layout
        return Manifest(layout.fields, layout.record_bytes, self.stride_bytes, shards)

    def name(self, number: int) -> str:
        return shard_name("records", self.generation, number)

    def records_of(self, number: int) -> range:
        """The records that go into a shard."""
        begin = number * self.per_shard
        return range(begin, min(begin + self.per_shard, self.sources.num_records))

    def pack_shard(self, number: int, on_bytes: Callable[[int], None]) -> ShardEntry:
        """Writes one shard; ``on_bytes`` hears of progress."""
        records = self.records_of(number)
        size, layout = self.sources.layout.record_bytes, self.sources.layout
        raw = make_layout("u1", (size,), stride_bytes=layout.stride_bytes)
        # Every process packs all of its shard, whatever ranks the environment speaks of.
        options = DatasetOptions(batch_size=max(1, _BATCH_BYTES // size), rank=0, world_size=1)
        batches = RecordDataset._of(
            FixedRecords(self.sources.part(records.start, records.stop), raw), options
        )
        place = place_of(self.folder)
        path = os.path.join(self.folder, self.name(number))
        size_bytes = len(records) * self.stride_bytes
        with place.store.writer(path, size_bytes=size_bytes, **place.shard_options) as writer:
            for rows in batches:
                self._write(writer, rows)
                on_bytes(rows.numel())
                del rows
        written = writer.finish()
        assert written.crc32c is not None
        return ShardEntry(self.name(number), len(records), written.size_bytes, written.crc32c)

    def _write(self, writer: Any, rows: torch.Tensor) -> None:
        size = self.sources.layout.record_bytes
        if self.stride_bytes == size:
            writer.write(rows.contiguous(), copy=False)
        else:
            writer.write_rows(rows.contiguous(), size, self.stride_bytes)
