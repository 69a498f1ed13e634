"""Data sets of fixed-size records, written as shards and a manifest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from ..config import MIB, EngineKind, FileSystemConfig, check_alignment, check_int
from ..errors import WriteError
from ..format.layout import make_layout
from ..format.manifest import Manifest, ShardEntry
from ..keywords import checks_keywords
from ..store.object_writer import ObjectWriter, WrittenObject
from ..store.stores import StoreSetting
from .folder_writer import FolderWriter
from .record_rows import rows_of

AlignRecords = Literal["auto"] | int | None

# What the padding of "auto" may cost at most, and what it pads to: blocks of any disk, or of most.
MOST_PADDING_PERCENT = 3
BLOCKS = (4096, 512)


def stride_for(record_bytes: int, align_records: AlignRecords) -> int:
    """From one record's start to the next one's; see RecordWriter."""
    if align_records is None:
        return record_bytes
    if align_records == "auto":
        for block in BLOCKS:
            stride = -(-record_bytes // block) * block
            if 100 * (stride - record_bytes) < MOST_PADDING_PERCENT * record_bytes:
                return stride
        return record_bytes
    check_alignment("align_records", align_records)
    return -(-record_bytes // align_records) * align_records


@checks_keywords
class RecordWriter(FolderWriter[Manifest]):
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
            Or ``s3://bucket/prefix``: there are no locks there, and what a killed writer left
            stays. Of two that write there at once without ``overwrite``, one fails.
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
        store: An S3Config, how the bucket of ``s3://bucket/prefix`` is reached, or what
            ``open_store`` gives. None: as the environment says. A FileStore stands for its
            ``config`` and ``engine``.

    Raises:
        ConfigError: Arguments that cannot work; a data set is there already; another writer is at
            work in the folder, or another program's manifest.json lies there.
        AccessError, NoSpaceError, WriteError: As for ``FileStore.put``.
    """

    _kind = "records"

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
        store: StoreSetting = None,
    ) -> None:
        check_int("shard_bytes", shard_bytes, 1)
        self._layout = make_layout(dtype, shape)
        self._stride = stride_for(self._layout.record_bytes, align_records)
        self._per_shard = max(1, shard_bytes // self._stride)
        self._shards: list[ShardEntry] = []
        self._in_shard = 0  # records
        self._num_records = 0
        super().__init__(folder, config, engine, overwrite, store)

    @property
    def num_records(self) -> int:
        """Records written so far."""
        return self._num_records

    @property
    def replaced_records(self) -> int:
        """Records of the data set that this one takes the place of; 0 where none can be read."""
        return self.replaced.num_records if isinstance(self.replaced, Manifest) else 0

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
        with self._turn():
            self._append(rows, count)

    def _append(self, rows: memoryview, count: int) -> None:
        size = self._layout.record_bytes
        begin = 0
        while begin < count:
            self._check_open()
            shard = self._open_shard()
            end = min(count, begin + self._per_shard - self._in_shard)
            part = rows[begin * size : end * size]
            if self._stride == size:
                shard.write(part)
            else:
                shard.write_rows(part, size, self._stride)
            self._in_shard += end - begin
            self._num_records += end - begin
            begin = end
            if self._in_shard == self._per_shard:
                self._end_shard()

    def _end_shard(self) -> None:
        self._finish_shard(self._in_shard)
        self._in_shard = 0

    def _add_shard(self, shard: ObjectWriter, contents: int, written: WrittenObject) -> None:
        assert written.crc32c is not None
        if written.size_bytes != contents * self._stride:
            raise WriteError(
                f"{shard.path}: has {written.size_bytes} bytes, but its {contents} records take "
                f"{contents * self._stride}; the data set is not put in place"
            )
        name = os.path.basename(shard.path)
        self._shards.append(ShardEntry(name, contents, written.size_bytes, written.crc32c))

    def _has_any(self) -> bool:
        return self._num_records > 0

    def _manifest(self) -> Manifest:
        layout = self._layout
        return Manifest(layout.fields, layout.record_bytes, self._stride, tuple(self._shards))

    def __repr__(self) -> str:
        return f"RecordWriter({self._folder.path!r}, {self.num_records} records)"
