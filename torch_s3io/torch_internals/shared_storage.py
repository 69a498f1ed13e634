"""Storages in shared memory, sent by a descriptor that nobody keeps.

torch keeps the descriptor as long as the tensor lives, so that a loop that keeps batches runs into
the limit of open files. Here it is closed once the memory is mapped, which needs it no longer.

Issue: pytorch/pytorch#973 and pytorch/pytorch#11201 ("too many open files").
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import Any

import torch
from torch.multiprocessing.reductions import (
    StorageWeakRef,
    fd_id,
    rebuild_storage_fd,
    reduce_storage,
    reduce_tensor,
    shared_cache,
    storage_from_cache,
)

from .. import _C
from ..warning import warn

_said_copied = False


class _Pickler(ForkingPickler):
    def __init__(self, file: io.BytesIO, reduce: Callable[[torch.UntypedStorage], Any]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.dispatch_table[torch.UntypedStorage] = reduce


def pickled(tensor: torch.Tensor) -> bytes:
    """A function and its arguments, which make the tensor in another process. torch moves the
    storage into its own shared memory, unless it lies in such memory of ours."""
    own = _C.shared_storage(tensor)
    into = io.BytesIO()
    _Pickler(into, _reduce_storage if own is None else partial(_reduce_own, own)).dump(
        reduce_tensor(tensor)
    )
    return into.getvalue()


def _reduce_storage(storage: torch.UntypedStorage) -> Any:
    make, arguments = reduce_storage(storage)
    # The other strategy, "file_system", sends a name and keeps no descriptor.
    return (_open_storage if make is rebuild_storage_fd else make), arguments


def _reduce_own(own: tuple[int, int, int], storage: torch.UntypedStorage) -> Any:
    fd, offset, size = own
    return _open_storage, (type(storage), DupFd(fd), size, offset)


def _open_storage(kind: Any, descriptor: Any, size: int, offset: int = 0) -> Any:
    """As torch's rebuild_storage_fd, but that the descriptor is not kept."""
    fd = descriptor.detach()
    try:
        key = fd_id(fd)
        known = storage_from_cache(kind, key)  # tensors that shared memory do so here
        if known is not None:
            return known
        tensor, is_mapped = _C.open_shared(fd=fd, offset=offset, length=size)
        storage = tensor.untyped_storage()
        if is_mapped:
            shared_cache[key] = StorageWeakRef(storage)
        else:
            _say_copied()
        return storage
    finally:
        os.close(fd)


def _say_copied() -> None:
    global _said_copied
    if _said_copied:
        return
    _said_copied = True
    with suppress(Exception):  # unpickling must not raise, not even where warnings are errors
        warn(
            f"{_C.mapped_files()} tensors of kept batches are mapped here, and no more can be: new "
            "ones are copied from here on, which is slower. Keep fewer batches"
        )
