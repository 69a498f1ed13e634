"""``torch.distributed.checkpoint``'s StorageWriter over any store."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import secrets
import uuid
from dataclasses import replace
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from .. import _C
from ..config import check_bool
from ..errors import ConfigError, DataError, Error, NotFoundError
from ..keywords import checks_keywords
from ..store.file_store import FileStore
from ..store.last_put import put_last
from ..store.object_writer import as_bytes
from ..warning import warn
from .layout import ALIGNMENT, METADATA_NAME, Place, data_name, is_data_name
from .reader import stored_metadata
from .transfer import Config, Folder, bytes_of


@checks_keywords
class Writer(StorageWriter):
    """Writes checkpoints of ``torch.distributed.checkpoint`` into a folder, or under a prefix::

        dcp.save(state, storage_writer=s3io.checkpoint.Writer("checkpoints/step-100"))

    Each rank writes one file, from the memory of its tensors where that is on the CPU.
    ``.metadata`` comes last: until then the old checkpoint is there, or none. The files of the
    checkpoint that it replaces are removed after it. A save that fails or is killed leaves at most
    files that no ``.metadata`` names. Nobody removes these: another save may be at work on them.

    ``Reader`` reads it. torch's own FileSystemReader does not.

    Note: a server that ignores If-None-Match (``doctor s3://bucket`` tells) replaces what it is
    asked to keep. So the metadata of a bucket is read again: where another save's is there, or none
    of this one, this one has failed. A save that comes still later is not noticed: give each a
    folder of its own.

    Args:
        path: The folder, which is made where it is missing; or ``s3://bucket/prefix``.
        store: How to write: a FileSystemConfig for a folder, an S3Config for a bucket, or what
            ``open_store`` gives. None: the defaults.
        overwrite: False refuses to replace a checkpoint, also one that appears meanwhile. A file
            system that can only replace files (no renameat2, no links) allows a look before alone,
            which a RuntimeWarning says.

    DCP raises its own CheckpointException, with the error of each rank in it:

    Raises:
        ConfigError: There is a checkpoint already.
        ExistsError: Another save completed one meanwhile.
        NoSpaceError, WriteError, WriteTimeoutError, AccessError: As of FileStore.writer.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, store: Config = None, overwrite: bool = False
    ) -> None:
        super().__init__()
        check_bool("overwrite", overwrite)
        self._config = store
        self._overwrite = overwrite
        self._folder = Folder(path, store)
        self._save_id = str(uuid.uuid4())
        self._own_metadata = ""  # the file of this rank, where ranks do not meet
        self._replaced: set[str] = set()  # files of the checkpoint that was there before

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        if checkpoint_id:
            self._folder = Folder(checkpoint_id, self._config)
        self._save_id = str(uuid.uuid4())

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        meet, rank = kwargs.get("use_collectives", True), kwargs.get("rank")
        self._own_metadata = "" if meet or rank is None else f"__{rank}{METADATA_NAME}"

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        self._folder.make()
        if self._own_metadata:
            self._look_at_old()
            rank = int(self._own_metadata[2 : -len(METADATA_NAME)])
            return replace(plan, storage_data=data_name(rank, secrets.token_hex(8)))
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        self._look_at_old()
        return [
            replace(plan, storage_data=data_name(rank, secrets.token_hex(8)))
            for rank, plan in enumerate(plans)
        ]

    def _look_at_old(self) -> None:
        """Before anything is written."""
        self._replaced = set()
        if not self._overwrite:
            self._refuse_to_replace()
            return
        with contextlib.suppress(NotFoundError, DataError):  # of a damaged one nothing is known
            old = stored_metadata(self._folder, self._own_metadata or METADATA_NAME)
            names = {getattr(place, "file", "") for place in old.storage_data.values()}
            self._replaced = set(filter(is_data_name, names))

    def _refuse_to_replace(self) -> None:
        try:
            self._folder.store.stat(self._folder.file(self._own_metadata or METADATA_NAME))
        except NotFoundError:
            return
        raise ConfigError(
            f"{self._folder.path}: holds a checkpoint already; overwrite=True replaces it once the "
            "new one is whole, or name another folder"
        )

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results: list[WriteResult] = []
        name = plan.storage_data
        if plan.items:
            with self._folder.store.writer(self._folder.file(name)) as file:
                for item in plan.items:
                    file.write(bytes(-file.size_bytes % ALIGNMENT))
                    results.append(_write_item(file, name, item, planner))
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Puts the metadata in place, and removes the files of the checkpoint before."""
        places = {one.index: one.storage_data for of_rank in results for one in of_rank}
        metadata.storage_data = places
        metadata.storage_meta = self.storage_meta()
        path = self._folder.file(self._own_metadata or METADATA_NAME)
        if not self._overwrite:
            self._refuse_to_replace()
        data = pickle.dumps(metadata)
        try:
            put_last(self._folder.store, path, data, if_absent=not self._overwrite)
        except ConfigError:
            if self._overwrite or not isinstance(self._folder.store, FileStore):
                raise
            self._folder.store.put(path, data)
            warn(
                f"{path}: its file system can only replace files: a checkpoint that another save "
                "completed in the meantime is lost"
            )
        for name in sorted(self._replaced - {place.file for place in places.values()}):
            try:
                self._folder.store.remove(self._folder.file(name))
            except Error as error:
                if not isinstance(error, NotFoundError):
                    warn(f"the checkpoint is whole, but a file of the old one stays: {error}")

    def storage_meta(self) -> StorageMeta | None:
        return StorageMeta(checkpoint_id=self._folder.path, save_id=self._save_id)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return isinstance(checkpoint_id, (str, os.PathLike))

    def __repr__(self) -> str:
        return f"Writer({self._folder.path!r})"


def _write_item(file: Any, name: str, item: WriteItem, planner: SavePlanner) -> WriteResult:
    data = planner.resolve_data(item)
    offset = file.size_bytes
    dtype: torch.dtype | None = None
    shape: tuple[int, ...] = ()
    if isinstance(data, io.BytesIO):
        view = data.getbuffer()
    else:
        assert isinstance(data, torch.Tensor)
        tensor = data.detach().cpu().contiguous()
        view, dtype, shape = as_bytes(bytes_of(tensor)), tensor.dtype, tuple(tensor.shape)
    # The memory stays as it is until the save is over, as DCP promises.
    file.write(view, copy=False)
    place = Place(name, offset, view.nbytes, dtype, shape, _C.crc32c(view))
    return WriteResult(index=item.index, size_in_bytes=view.nbytes, storage_data=place)
