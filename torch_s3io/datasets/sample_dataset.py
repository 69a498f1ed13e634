"""Samples of any length as an iterable data set of batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import Self, Unpack

from ..config import check_bool
from ..errors import ConfigError
from ..format.delivery import Decode, RaggedMode, make_delivery
from ..format.folder.array_samples import Compressed, npy_samples, npz_samples
from ..format.folder.file_samples import file_samples
from ..format.folder.table_fields import Labels
from ..format.paths import Paths
from ..format.registry import format_of
from ..format.sample_format import Samples
from ..format.sample_records import SampleRecords
from ..format.tar.tar_format import open_tars
from ..format.tar.tar_samples import Missing
from ..index.place import Where
from ..store.store import FileOrder
from ..store.stores import StoreSetting
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
            these. Several need the same fields. Or tar archives, with all fields that they have,
            and that each sample has: see ``from_tar``.
        file_order: Of the matches of a pattern, as for RecordDataset.
        format: What the paths hold; None: found out. There are ``"samples"``, what a SampleWriter
            writes, and ``"tar"``.
        ragged: How fields whose samples differ in length are delivered, or a dict of that by
            field. ``"views"``: where they landed. ``"packed"``: one after the other, which is a
            copy, as ``Ragged.packed()`` makes it. ``"padded"``: a tensor [B, L, ...] of the length
            of the longest sample, with zeros after the others; for fields that differ in their
            first axis alone.
        decode: Functions by field, called with the bytes of each sample where it is read, as in
            ``{"json": json.loads}``: the field is then a list of what they return; of ``int`` and
            ``float`` it is a tensor [B], int64 or float64. Only for fields of bytes. This is
            Python, for every sample: for small fields.
        verify: Compare every sample that is read with the checksum it was written with, and raise
            DataError where it is another one.
        store: As for RecordDataset.
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
        store: StoreSetting = None,
        **options: Unpack[Options],
    ) -> None:
        checked = DatasetOptions().changed(SampleDataset, options).reading(paths, store)
        check_bool("verify", verify)
        found_by = format_of(paths, file_order, format)
        records = _records_of(found_by.open(paths, file_order), ragged, decode, verify)
        # What is wrong with a table is an error of whoever opens it.
        if verify and any(table.crc32c is None for table in records.tables()):
            raise ConfigError(
                f"verify=True: samples of format {found_by.name!r} have no checksums: leave it out"
            )
        self._set_up(records, checked)

    @classmethod
    @takes_options
    def from_files(
        cls,
        paths: Paths,
        *,
        labels: Labels = None,
        columns: Mapping[str, Any] | None = None,
        return_key: bool = False,
        index: Where = True,
        ragged: RaggedMode | Mapping[str, RaggedMode] = "views",
        decode: Mapping[str, Decode] | None = None,
        store: StoreSetting = None,
        **options: Unpack[Options],
    ) -> Self:
        """Whole files as they lie, one a sample: images that are encoded, sound, texts.

        ::

            dataset = s3io.SampleDataset.from_files(
                "train/**/*.jpg", labels="folder", batch_size=256, shuffle=True
            )
            # a batch is {"data": Ragged of uint8, "label": int64 [B]}

        Args:
            paths: A pattern: its files, by the bytes of their names, without hidden ones. Or a
                sequence of paths, in its order.
            labels: ``"folder"``: the number of the first folder below the fixed part of the
                pattern; of a sequence, of the folder that a file lies in. ``classes`` has their
                names, sorted. Or one integer for each file. None: there is no label.
            columns: Further fields by name: arrays with a value for each file, [n, ...], in the
                order of ``files``. They are not copied: leave them as they are.
            return_key: Batches have the names of their files under ``"key"``: a list of str. A name
                is what follows the fixed part of the pattern; of a sequence, the folder that holds
                all files.
            index: Where the listing of a pattern is kept, for the next time and for other
                processes. True: of 10,000 files and more, in a hidden file beside the folder that
                the pattern begins with, or in the user's cache folder; a path; False: nowhere. It
                is made anew where a folder has changed.
            ragged, decode: As for SampleDataset.
            store: As for RecordDataset.
            **options: As for SampleDataset.

        Raises:
            NotFoundError: A file is missing; a pattern matches nothing.
            AccessError: A folder cannot be listed, or a file may not be looked at.
            DataError: ``labels="folder"``, and a file lies in no folder.
            ConfigError: Arguments that cannot work; a FIFO or a device is among the files.
        """
        checked = DatasetOptions().changed(cls.from_files, options).reading(paths, store, index)
        check_bool("return_key", return_key)
        samples = file_samples(paths, labels, columns, index)
        return cls._of(_records_of(samples, ragged, decode, return_key=return_key), checked)

    @classmethod
    @takes_options
    def from_npy_files(
        cls,
        paths: Paths,
        *,
        dtype: Any = None,
        shape: tuple[int | None, ...] | None = None,
        labels: Labels = None,
        columns: Mapping[str, Any] | None = None,
        return_key: bool = False,
        index: Where = True,
        ragged: RaggedMode | Mapping[str, RaggedMode] = "views",
        store: StoreSetting = None,
        **options: Unpack[Options],
    ) -> Self:
        """Arrays of different shapes, one in each ``.npy`` file.

        A batch is a dict: ``"data"``, a ``Ragged`` of all arrays, whose ``shapes`` differ; and
        ``"label"``, as ``from_files`` has it. The arrays have one dtype and one number of axes.
        Where numpy wrote an array at a place where its elements are not aligned, it is copied once.

        Args:
            paths, labels, columns, return_key: As for ``from_files``.
            dtype: Of the elements, for arrays of bfloat16 and float8, whose headers cannot say it.
            shape: Of the arrays, None for an axis of any length, as in ``(None, None, 3)``. None:
                found out; axes that differ may have any length, and so may the first one.
            index: As for ``from_files``. It has what the headers say as well, which are read once.
            ragged: As for SampleDataset.
            store: As for RecordDataset.
            **options: As for SampleDataset.

        Raises:
            DataError: A damaged header, Fortran order, Python objects, arrays that do not match.
            Others: As for ``from_files``.
        """
        checked = DatasetOptions().changed(cls.from_npy_files, options).reading(paths, store, index)
        check_bool("return_key", return_key)
        samples = npy_samples(paths, dtype, shape, labels, columns, index)
        return cls._of(_records_of(samples, ragged, None, return_key=return_key), checked)

    @classmethod
    @takes_options
    def from_npz(
        cls,
        paths: Paths,
        *,
        fields: Sequence[str],
        compressed: Compressed = "error",
        labels: Labels = None,
        columns: Mapping[str, Any] | None = None,
        return_key: bool = False,
        index: Where = True,
        ragged: RaggedMode | Mapping[str, RaggedMode] = "views",
        store: StoreSetting = None,
        **options: Unpack[Options],
    ) -> Self:
        """Arrays in ``.npz`` archives that ``numpy.savez`` wrote, one archive a sample.

        A batch is a dict by field: a ``Ragged`` of arrays, as ``from_npy_files`` has them; of
        single numbers a tensor [B]. numpy does not align the elements in archives: they are copied
        once, but for bytes.

        Args:
            paths, labels, columns, return_key: As for ``from_files``.
            fields: The names of the arrays, which every archive has.
            compressed: What becomes of arrays that ``numpy.savez_compressed`` wrote. ``"error"``:
                they are refused. ``"read"``: zlib inflates each where it is read, into memory of
                its own, and its checksum is compared. This is Python, for every sample: workers
                share it. Arrays are at most 4 GiB.
            index: As for ``from_npy_files``.
            ragged: As for SampleDataset.
            store: As for RecordDataset.
            **options: As for SampleDataset.

        Raises:
            DataError: An archive is damaged or compressed; it lacks an array; arrays do not match.
            Others: As for ``from_files``.
        """
        checked = DatasetOptions().changed(cls.from_npz, options).reading(paths, store, index)
        check_bool("return_key", return_key)
        samples = npz_samples(paths, fields, labels, columns, index, compressed)
        return cls._of(_records_of(samples, ragged, None, return_key=return_key), checked)

    @classmethod
    @takes_options
    def from_tar(
        cls,
        paths: Paths,
        *,
        fields: Sequence[str] | None = None,
        missing: Missing = "error",
        return_key: bool = False,
        file_order: FileOrder = "name",
        ragged: RaggedMode | Mapping[str, RaggedMode] = "views",
        decode: Mapping[str, Decode] | None = None,
        index: Where = True,
        store: StoreSetting = None,
        **options: Unpack[Options],
    ) -> Self:
        """Samples of tar archives, as webdataset writes and groups them, in any order.

        ::

            dataset = s3io.SampleDataset.from_tar(
                "shards/{000..999}.tar", fields=("jpg", "cls"), decode={"cls": int}, shuffle=True
            )
            # a batch is {"jpg": Ragged of uint8, "cls": int64 [B]}

        Members that follow one another and have one name up to the first dot of the base name, the
        key, are a sample. The rest of the name, in lower case, is the field: ``a/7.seg.png`` is the
        field ``seg.png`` of the sample ``a/7``. Archives are ustar, GNU, pax or V7, not compressed.

        Args:
            paths: An archive, a pattern, a folder of ``.tar`` files, or a sequence of these.
                ``{000..999}`` and ``{train,test}`` stand for names, as in shells.
            fields: Of each sample. One that ends in ``?`` may be missing, and is empty then. None:
                all that there are.
            missing: What becomes of samples without another field, which without ``fields`` may be
                any that one of them has: ``"error"``; ``"skip"``: they are left out; ``"empty"``:
                the field is empty.
            return_key: Batches have the keys of their samples under ``"key"``: a list of str.
            file_order: As for RecordDataset, of the archives.
            ragged, decode: As for SampleDataset.
            index: Where the index of the archives lies, which is made when it is not there: True:
                in a hidden file beside them, or in the user's cache folder; of archives in a bucket
                there, as a copy of the object that the command ``index`` put beside them. A path,
                or a folder of a bucket. False: nowhere, the archives are read through each time.
            store: As for RecordDataset.
            **options: As for SampleDataset.

        Raises:
            DataError: An archive is damaged, cut off or compressed; it has symbolic links or sparse
                files in it; a key comes again in one; a field is missing.
            NotFoundError, AccessError, ReadError: An archive cannot be read.
            FileChangedError: One was changed meanwhile.
            ConfigError: Arguments that cannot work.
        """
        checked = DatasetOptions().changed(cls.from_tar, options).reading(paths, store, index)
        check_bool("return_key", return_key)
        samples = open_tars(paths, file_order, fields, missing, index)
        return cls._of(_records_of(samples, ragged, decode, return_key=return_key), checked)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels where these are folders, ``classes[label]``; else none."""
        assert isinstance(self._records, SampleRecords)
        return self._records.classes


def _records_of(
    samples: Samples, ragged: Any, decode: Any, verify: bool = False, return_key: bool = False
) -> SampleRecords:
    return SampleRecords(
        samples.layout,
        samples.objects,
        samples.places,
        samples.sizes,
        make_delivery(samples.layout, ragged, decode, return_key, samples.unpack),
        verify,
        samples.tables,
        samples.classes,
        samples.keys,
    )
