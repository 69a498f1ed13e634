"""Fixed-size records of local files as an iterable data set of batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Self, Unpack

from ..config import check_choice, check_int
from ..errors import ConfigError
from ..format.files import (
    NpyRecords,
    count_manifests,
    count_npy,
    count_records,
    count_windows,
    looks_like_samples,
)
from ..format.layout import make_layout, make_window_layout
from ..format.paths import Paths, find_files, manifest_folders
from ..format.records import FixedRecords
from ..keywords import checks_keywords
from ..store.store import FileOrder
from ..store.stores import StoreSetting
from ..warning import warn
from ..wording import count_of
from .options import DatasetOptions, Options, takes_options
from .stored_dataset import StoredDataset


@checks_keywords
class RecordDataset(StoredDataset):
    """Batches of fixed-size records, read with O_DIRECT and io_uring into pooled buffers.

    Iterating yields the batches of an epoch, every record once over all ranks and workers, in an
    order that is a function of seed and epoch alone::

        dataset = RecordDataset(
            "train/*.bin", dtype=np.float32, shape=(3, 32, 32), batch_size=64, shuffle=True
        )
        loader = s3io.DataLoader(dataset, num_workers=2)
        for epoch in loader.epochs(10):
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
        paths: A file, a glob pattern, or a sequence of these. Matches of a pattern are sorted,
            and folders among them left out; a folder that is there is meant by its name, whatever
            characters that has. Or a folder that a RecordWriter wrote, whose manifest says dtype
            and shape; or several with the same layout. ``files`` says in which order they are read.
        file_order: Of the matches of a pattern: ``"name"``: by characters, so m10 comes before m2.
            ``"natural"``: by the numbers in them, so m2 comes before m10.
        dtype: Of the records: a numpy dtype, plain or structured, or a torch dtype such as
            ``torch.bfloat16``.
        shape: Shape of one record of a plain dtype.
        batch_size: Records per batch. None: single samples, without the batch dimension; neighbours
            then share a buffer, which is reused when all of them are gone.
        shuffle: False: in the order of the files. True: all records in random order,
            uniformly (from a key of 64 bits). ``"block"``: blocks of neighbouring records in random
            order, for devices that want large reads; inside a block the records keep the order of
            the file, unless ``window_blocks``.
        seed: Of the order, from 0 to 2**64 - 1; each epoch has an order of its own.
        block_records: Records per block; None: as many as make 128 KiB, or 4 MiB in a
            bucket.
        window_blocks: Mix the records of so many blocks that come one after the other; 1: do not.
            Blocks of small records (below 16 KiB) then come through the page cache, a window
            ahead, unless ``direct="require"``; but not in a split or a Mix, where they are read one
            by one, nor where a window has more than 2^20 records or a quarter of the free memory.
        rank, world_size: Which share of every step this process reads. None: as torch.distributed
            says where it is initialised, else torchrun's environment (RANK, WORLD_SIZE), else all.
            All ranks get equally many batches. With torch.distributed they compare where they are
            when an epoch begins: all must begin it. With ``rank=0, world_size=1`` one rank alone
            may read the data set, for an evaluation for instance.
        shard_by_worker: Whether the workers of a loader share the records, or each of them reads
            all of its rank's. None: they share those of the data set that the loader reads, itself
            or through an iterable data set around it. What is read for something else (in a
            ``transform``, a ``collate_fn``, a ``worker_init_fn``, a map-style ``__getitem__``) is
            read whole. Where an iterable data set reads several of ours, or one again and again,
            that cannot be told: they are shared, with a warning until this is set.
        drop_last: Leave out a last step in which not every rank's batch is full. Otherwise the
            ranks share what is left, evenly; where fewer records than ranks are left, the ranks
            without one get a record from the start of the epoch (``padded_records``).
        pad_last: Fill up the last step with records from the start of the epoch.
        header_bytes: Bytes to skip at the start of each file.
        store: An S3Config, how the buckets of ``s3://bucket/key`` in ``paths`` are reached, or what
            ``open_store`` gives. None: as the environment says. All living data sets that read
            a bucket have the same one. That of ``index=``, where there is one, is reached alike,
            unless it has a config already. Of a FileStore its ``direct_io`` and ``engine`` are
            ``direct=`` and ``engine=``; its other settings are for whole files.
        direct: ``"require"``: O_DIRECT, or DirectIOError. ``"off"``: through the page cache.
            ``"auto"``: from the page cache what is there, with O_DIRECT what is not; a set that
            fits in half of the free memory is brought into the page cache, which then keeps it:
            after the first whole epoch of a process, and small records (below 16 KiB) in random
            order from the first one on.
        engine: ``"uring"``, ``"threads"``, or ``"auto"``: io_uring where the kernel allows it.
        pool: ``"auto"``: sized from the batch within the available memory; a BufferPoolConfig; or
            None: an allocation per batch. Every process that iterates has its own pool, and so has
            every iterator that is alive at the same time. Batches from workers stay in the
            worker's pool; with None torch copies them on their way.
        transform: Called with every batch (every sample with ``batch_size=None``), where it is
            read.
        pass_position: Call ``transform(batch, index, epoch)``: with the numbers of the records,
            int64 [B], and the epoch; see ``record_generator``.
        as_dtype: Convert to this dtype while reading, where that keeps values; to float16,
            bfloat16, float32 and float64 from all real numbers, which are rounded, and infinite
            where they are too large. A dict by field name for a structured dtype.
        return_index: Yield ``(batch, index)``, index int64 [B]: the numbers of the records,
            counted through all files; in a view, those of the data set it is a view of.
        depth: Reads in flight, of at most 1 MiB each, in every process that iterates.
        read_timeout_s: Longest wait for one batch, in seconds; then ReadTimeoutError.
        strict_identity: ``load_state_dict`` refuses a state that was saved over files with other
            times of change, which else is warned of: for frameworks that call it themselves.
        rank_timeout_s: Longest wait for the other ranks of torch.distributed to begin an epoch, in
            seconds; then ReadTimeoutError, which names those that have not. A tenth of it is
            warned of.

    Raises:
        NotFoundError, AccessError: A file is missing or may not be read; a pattern matches nothing.
        DataError: A file is not a whole number of records, or there are no records at all.
        ConfigError: Arguments that cannot work.
    """

    @takes_options
    def __init__(
        self,
        paths: Paths,
        *,
        file_order: FileOrder = "name",
        dtype: Any = None,
        shape: int | Sequence[int] = (),
        header_bytes: int = 0,
        as_dtype: Any = None,
        store: StoreSetting = None,
        **options: Unpack[Options],
    ) -> None:
        checked = DatasetOptions(**options).reading(paths, store)
        header_bytes = check_int("header_bytes", header_bytes, 0)
        folders = manifest_folders(paths, file_order)
        if folders:
            if header_bytes:
                raise ConfigError(
                    f"{folders[0]}: files with a manifest have no header; leave header_bytes= out"
                )
            shards, layout = count_manifests(folders, dtype, shape, as_dtype)
        else:
            files = find_files(paths, file_order)
            layout = make_layout(dtype, shape, as_dtype)
            shards = count_records(files, layout, header_bytes)
        self._set_up(FixedRecords(shards, layout), checked)

    @classmethod
    @takes_options
    def from_npy(
        cls,
        paths: Paths,
        *,
        records: NpyRecords | None = None,
        file_order: FileOrder = "name",
        dtype: Any = None,
        as_dtype: Any = None,
        store: StoreSetting = None,
        **options: Unpack[Options],
    ) -> Self:
        """Records of ``.npy`` arrays (format versions 1 to 3), which all have one dtype.

        Args:
            paths: As for RecordDataset; or a folder, which stands for the ``.npy`` files in it and
                in the folders below it.
            records: ``"rows"``: along the first axis of each array. ``"files"``: every array is
                one record. None: rows, with a warning where the arrays look like one record each.
            file_order: As for RecordDataset, also of the files of a folder.
            dtype: Of the elements, for arrays of bfloat16 and float8, whose headers cannot say it:
                ``torch.bfloat16``.
            as_dtype: As for RecordDataset.
            store: As for RecordDataset.
            **options: As for RecordDataset, from ``batch_size`` to ``rank_timeout_s``; no
                ``header_bytes``.

        Raises:
            DataError: A damaged header, Fortran order, Python objects, arrays that do not match.
            ConfigError: ``dtype`` is needed, or is not what the headers say.
        """
        checked = DatasetOptions().changed(cls.from_npy, options).reading(paths, store)
        if records is not None:
            check_choice("records", records, NpyRecords)
        files = find_files(paths, file_order, ending=".npy")
        shards, layout = count_npy(files, dtype, as_dtype, records or "rows")
        if records is None and looks_like_samples(shards, layout):
            warn(
                f"{count_of(len(files), 'array')} of the same {shards[0].num_records} rows each, "
                f"the first being {files[0].path}: every row is a record. Where every file is one, "
                'say records="files"; records="rows" says that rows are meant'
            )
        return cls._of(FixedRecords(shards, layout), checked)

    @classmethod
    @takes_options
    def from_tokens(
        cls,
        paths: Paths,
        *,
        window: int,
        stride: int | None = None,
        file_order: FileOrder = "name",
        dtype: Any = "uint16",
        as_dtype: Any = None,
        store: StoreSetting = None,
        **options: Unpack[Options],
    ) -> Self:
        """Windows of token streams: ``window`` tokens every ``stride`` tokens, within each file.

        A batch is a tensor ``[B, window]``. With ``stride < window`` the rows overlap in memory
        where they were read in place: clone a batch before writing into it. Tokens at the end of a
        file that fill no window are left out; ``unused_tail_bytes`` counts them.

        Args:
            paths: As for RecordDataset: files that hold nothing but tokens.
            window: Tokens per record; for next-token prediction, context length + 1.
            stride: Tokens from one window's start to the next one's; None: ``window``.
            file_order: As for RecordDataset.
            dtype: Of the tokens, a plain numpy or torch dtype.
            as_dtype: For instance torch.int64, which embeddings want.
            store: As for RecordDataset.
            **options: As for ``from_npy``.
        """
        checked = DatasetOptions().changed(cls.from_tokens, options).reading(paths, store)
        layout, token_bytes = make_window_layout(dtype, window, stride, as_dtype)
        files = find_files(paths, file_order)
        shards = count_windows(files, layout, token_bytes)
        return cls._of(FixedRecords(shards, layout), checked)
