"""``torch.distributed.checkpoint``'s StorageReader over any store."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from .. import _C
from ..errors import DataError, NotFoundError
from ..keywords import checks_keywords
from ..store.object_writer import as_bytes
from ..wording import short
from .layout import METADATA_NAME, MOST_METADATA_BYTES, Place, read_metadata, rows_of
from .transfer import Config, Folder, Range, bytes_of, read_all

_MOST_WAITING_BYTES = 1 << 30  # of memory beside the tensors that are loaded


class _Load(NamedTuple):
    """A part of a tensor that is asked for, and the memory that its rows are read to."""

    item: ReadItem
    place: Place
    rows: torch.Tensor  # uint8 [n]
    target: torch.Tensor
    is_direct: bool  # the memory is the target's


def stored_metadata(folder: Folder, name: str) -> Metadata:
    """Of the checkpoint that is there; its places are yet to be checked.

    Raises:
        NotFoundError: There is none.
        DataError: It is damaged, or not of ``Writer``.
    """
    path, store = folder.file(name), folder.store
    try:
        size = store.stat(path).size_bytes
    except NotFoundError:
        raise NotFoundError(
            f"{folder.path}: there is no checkpoint, or none that was completed: it has no {name}"
        ) from None
    if size > MOST_METADATA_BYTES:
        raise DataError(f"{path}: has {size} bytes, which is no metadata of a checkpoint")
    return read_metadata(bytes(as_bytes(store.get(path))), path)


@checks_keywords
class Reader(StorageReader):
    """Reads checkpoints that ``Writer`` wrote::

        dcp.load(state, storage_reader=s3io.checkpoint.Reader("checkpoints/step-100"))

    Of each tensor only the rows that the plan asks for are read, several ranges at once: straight
    into the tensor where that is contiguous and on the CPU, else through memory of at most 1 GiB,
    or of one tensor. The CRC-32C of a tensor that is read whole is compared.

    The metadata is a pickle, as DCP has it. It is read by an unpickler that knows the classes of
    such metadata alone. Objects that are no tensors are unpickled by DCP itself: load checkpoints
    of people whom you trust.

    Args:
        path: The folder, or ``s3://bucket/prefix``.
        store: How to read: a FileSystemConfig for a folder, an S3Config for a bucket, or what
            ``open_store`` gives. None: the defaults.

    DCP raises its own CheckpointException, with the error of each rank in it:

    Raises:
        NotFoundError: There is no checkpoint.
        DataError: It is damaged, or not of ``Writer``.
    """

    def __init__(self, path: str | os.PathLike[str], *, store: Config = None) -> None:
        super().__init__()
        self._config = store
        self._folder = Folder(path, store)
        self._load_id = str(uuid.uuid4())
        self._places: dict[Any, Any] = {}
        self._described: dict[str, Any] = {}
        self._versions: dict[str, Any] = {}  # of the files, for one plan

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        if checkpoint_id:
            self._folder = Folder(checkpoint_id, self._config)
        self._places, self._described = {}, {}
        self._load_id = str(uuid.uuid4())

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        rank = kwargs.get("rank")
        name = METADATA_NAME if rank is None else f"__{rank}{METADATA_NAME}"
        metadata = stored_metadata(self._folder, name)
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self._load_id
        return metadata

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        self._places, self._described = metadata.storage_data, metadata.state_dict_metadata

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        tensors = []
        self._versions = {}
        for item in plan.items:
            if item.type == LoadItemType.BYTE_IO:
                place = self._place(item)
                rows, path = torch.empty(place.length, dtype=torch.uint8), self._file(place)
                self._read([Range(path, place.offset, rows)])
                self._check(place, rows)
                planner.load_bytes(item, io.BytesIO(bytes(as_bytes(rows))))
            else:
                tensors.append(item)
        for loads in self._waves(tensors, planner):
            self._read(map(self._range, loads))
            for load in loads:
                self._complete(load, planner)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _place(self, item: ReadItem) -> Place:
        place = self._places.get(item.storage_index)
        if not isinstance(place, Place):
            raise DataError(
                f"{self._folder.path}/{METADATA_NAME}: {short(item.storage_index.fqn)} has no "
                "place that this reader knows; what torch's own FileSystemWriter wrote, its "
                "FileSystemReader reads"
            )
        place.check(self._folder.path)
        is_tensor = item.type != LoadItemType.BYTE_IO
        if is_tensor != (place.dtype is not None):
            raise DataError(
                f"{self._folder.path}/{METADATA_NAME}: {short(item.storage_index.fqn)} is "
                f"{'no' if is_tensor else 'a'} tensor in this checkpoint"
            )
        described = self._described.get(item.storage_index.fqn)
        dtype = described.properties.dtype if isinstance(described, TensorStorageMetadata) else None
        if place.dtype != dtype:
            raise DataError(
                f"{self._folder.path}/{METADATA_NAME}: {short(item.storage_index.fqn)} is of "
                f"{dtype}, and its bytes of {place.dtype}"
            )
        self._check_length(place)
        return place

    def _check_length(self, place: Place) -> None:
        """Before memory is taken for it."""
        path = self._file(place)
        if path not in self._versions:
            self._versions[path] = self._folder.store.stat(path)
        size = self._versions[path].size_bytes
        if place.offset + place.length > size:
            raise DataError(
                f"{path}: {place.length} bytes at {place.offset} lie beyond its end at {size}; "
                "copy the checkpoint again, or load an older one"
            )

    def _read(self, ranges: Iterable[Range]) -> None:
        read_all(self._folder.store, ranges, self._versions)

    def _waves(self, items: list[ReadItem], planner: LoadPlanner) -> Iterator[list[_Load]]:
        """Those whose memory is to be there at once."""
        wave: list[_Load] = []
        waiting_bytes = 0
        for item in items:
            load = self._load(item, planner)
            more = 0 if load.is_direct else load.rows.numel()
            if wave and waiting_bytes + more > _MOST_WAITING_BYTES:
                yield wave
                wave, waiting_bytes = [], 0
            wave.append(load)
            waiting_bytes += more
        if wave:
            yield wave

    def _load(self, item: ReadItem, planner: LoadPlanner) -> _Load:
        place = self._place(item)
        shape, offsets, lengths = place.shape, item.storage_offsets, item.lengths
        fits = len(offsets) == len(lengths) == len(shape) and all(
            offset >= 0 and length >= 0 and offset + length <= extent
            for offset, length, extent in zip(offsets, lengths, shape, strict=True)
        )
        target = planner.resolve_tensor(item).detach()
        if not fits or tuple(target.shape) != tuple(lengths):
            raise DataError(
                f"{self._folder.path}: {short(item.storage_index.fqn)} has shape {list(shape)} in "
                f"the checkpoint, from which {list(lengths)} at {list(offsets)} is wanted for a "
                f"tensor {list(target.shape)}"
            )
        begin, end = rows_of(place, offsets, lengths)
        is_whole_rows = tuple(lengths[1:]) == shape[1:]
        is_direct = (
            is_whole_rows
            and target.dtype == place.dtype
            and target.device.type == "cpu"
            and target.is_contiguous()
        )
        rows = bytes_of(target) if is_direct else torch.empty(end - begin, dtype=torch.uint8)
        return _Load(item, place, rows, target, is_direct)

    def _range(self, load: _Load) -> Range:
        begin, _ = rows_of(load.place, load.item.storage_offsets, load.item.lengths)
        return Range(self._file(load.place), load.place.offset + begin, load.rows)

    def _file(self, place: Place) -> str:
        return self._folder.file(place.file)

    def _complete(self, load: _Load, planner: LoadPlanner) -> None:
        place, item = load.place, load.item
        if load.rows.numel() == place.length:
            self._check(place, load.rows)
        if not load.is_direct:
            assert place.dtype is not None
            rows = load.rows.view(place.dtype)
            if place.shape:
                rows = rows.reshape(item.lengths[0], *place.shape[1:])
                for axis in range(1, len(place.shape)):
                    rows = rows.narrow(axis, item.storage_offsets[axis], item.lengths[axis])
            load.target.copy_(rows.reshape(load.target.shape))
        planner.commit_tensor(item, load.target)

    def _check(self, place: Place, data: torch.Tensor) -> None:
        found = _C.crc32c(as_bytes(data))
        if found != place.crc32c:
            raise DataError(
                f"{self._file(place)}, {place.length} bytes at {place.offset}: have the "
                f"CRC-32C {found:08x}, but {place.crc32c:08x} was written; copy the checkpoint "
                "again, or load an older one"
            )

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return isinstance(checkpoint_id, (str, os.PathLike))

    def __repr__(self) -> str:
        return f"Reader({self._folder.path!r})"
