"""Samples of any length as an iterable data set of batches."""

from __future__ import annotations

from collections.abc import Mapping

from typing_extensions import Unpack

from ..config import check_bool
from ..errors import ConfigError
from ..format.delivery import Decode, RaggedMode, make_delivery
from ..format.paths import Paths
from ..format.registry import format_of
from ..format.sample_records import SampleRecords
from ..store.store import FileOrder
from .options import DatasetOptions, Options, takes_options
from .stored_dataset import StoredDataset


class SampleDataset(StoredDataset):
    """Batches of samples that differ in length, read like records: with O_DIRECT and io_uring into
    pooled buffers, and delivered where they landed.

    ::

        dataset = s3io.SampleDataset("train", batch_size=256, shuffle=True)
        for batch in s3io.DataLoader(dataset, num_workers=2):
            batch["image"]  # Ragged of uint8: batch["image"][0] is the first sample's
            batch["label"]  # int64 [256]

    A batch is a dict by field. A field that is an array of one shape in all samples is a tensor
    ``[B, ...]``, gathered by a copy. One whose samples differ in length is a ``Ragged``: views of
    the samples in the buffer that they were read into. Where a field has several axes, its
    samples have the shapes of ``Ragged.shapes``.

    Order, shares of ranks and workers, views, states, ``Mix``, ``Zip`` and ``RecordMapDataset`` are
    those of a RecordDataset.

    Buffers are not as large as the largest batch could be, but as nearly all batches are: one that
    is larger gets memory of its own, which ``stats()`` counts as ``oversize_batches``.

    Args:
        paths: A folder that a SampleWriter wrote; a pattern of such folders; or a sequence of
            these. Several need the same fields.
        file_order: Of the matches of a pattern, as for RecordDataset.
        format: What the paths hold; None: found out. There is ``"samples"``, what a SampleWriter
            writes.
        ragged: How fields whose samples differ in length are delivered, or a dict of that by
            field. ``"views"``: where they landed. ``"packed"``: one after the other, which is a
            copy, as ``Ragged.packed()`` makes it. ``"padded"``: a tensor [B, L, ...] of the length
            of the longest sample, with zeros after the others; for fields that differ in their
            first axis alone.
        decode: Functions by field, called with the bytes of each sample where it is read, as in
            ``{"json": json.loads}``: the field is then a list of what they return. Only for fields
            of bytes. This is Python, for every sample: for small fields.
        verify: Compare every sample that is read with the checksum it was written with, and raise
            DataError where it is another one.
        **options: As for RecordDataset, from ``batch_size`` to ``rank_timeout_s``; no
            ``header_bytes`` and ``as_dtype``.

    Raises:
        NotFoundError, AccessError: A folder, its manifest or a shard is missing or may not be read.
        DataError: A manifest, or the table of a shard, is damaged or of other data.
        ConfigError: Arguments that cannot work.
    """

    @takes_options
    def __init__(
        self,
        paths: Paths,
        *,
        file_order: FileOrder = "name",
        format: str | None = None,
        ragged: RaggedMode | Mapping[str, RaggedMode] = "views",
        decode: Mapping[str, Decode] | None = None,
        verify: bool = False,
        **options: Unpack[Options],
    ) -> None:
        checked = DatasetOptions().changed(SampleDataset, options)
        check_bool("verify", verify)
        found_by = format_of(paths, file_order, format)
        layout, objects, places, tables, sizes = found_by.open(paths, file_order)
        delivery = make_delivery(layout, ragged, decode)
        records = SampleRecords(layout, objects, places, sizes, delivery, verify, tables)
        # What is wrong with a table is an error of whoever opens it.
        if verify and any(table.crc32c is None for table in records.tables()):
            raise ConfigError(
                f"verify=True: samples of format {found_by.name!r} have no checksums: leave it out"
            )
        self._set_up(records, checked)
