"""How a worker's new tensors, which lie in no pool, reach the main process.

A batch that was larger than a buffer, or that had to leave the pool, lies in memory with a
descriptor of its own, which is sent: nothing is copied. Other tensors torch puts into such memory
first. But torch keeps the descriptor as long as the tensor lives, so that a loop that keeps batches
runs into the limit of open files. Here it is closed once the memory is mapped, which needs it no
longer.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import resource
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
from ..errors import DataError, Error, OutOfMemoryError
from ..warning import warn

_PLENTY_OF_FILES = 65536
_said_copied = False


class _Pickler(ForkingPickler):
    def __init__(self, file: io.BytesIO, reduce: Callable[[torch.UntypedStorage], Any]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.dispatch_table[torch.UntypedStorage] = reduce


def is_shared(tensor: torch.Tensor) -> bool:
    """Whether it lies in memory that another process can map."""
    return _C.shared_storage(tensor) is not None


def pickled(tensor: torch.Tensor) -> bytes:
    """In a worker: what ``received`` makes the tensor of. torch moves the storage into its own
    shared memory, unless it ``is_shared``."""
    own = _C.shared_storage(tensor)
    into = io.BytesIO()
    _Pickler(into, _reduce_storage if own is None else partial(_reduce_own, own)).dump(
        reduce_tensor(tensor)
    )
    return into.getvalue()


def received(data: bytes) -> torch.Tensor:
    """The tensor.

    Raises:
        OutOfMemoryError: No descriptor, or no memory, is left.
        DataError: The worker is gone, and the tensor with it.
    """
    try:
        make, arguments = pickle.loads(data)
        tensor: torch.Tensor = make(*arguments)
        return tensor
    except Error:
        raise
    except Exception as error:
        raise _explained(error) from error


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


def _explained(error: Exception) -> Error:
    # Where the descriptor that was sent does not fit, Python says: "received 0 items of ancdata".
    is_descriptor = "ancdata" in str(error) or (
        isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
    )
    if is_descriptor:
        return OutOfMemoryError(
            "a tensor from a worker cannot be received: this process has no file descriptor left "
            f"({error}). Raise the limit of open files: {descriptor_hint()}; or call "
            "torch.multiprocessing.set_sharing_strategy('file_system'), which needs none"
        )
    if isinstance(error, MemoryError):
        return OutOfMemoryError(f"a tensor from a worker does not fit into memory ({error})")
    return DataError(
        f"a tensor from a worker is lost ({type(error).__name__}: {error}): did the worker end "
        "before it was received?"
    )


def descriptor_hint() -> str:
    """How to raise the limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"ulimit -n {max(_PLENTY_OF_FILES, 4 * soft)} (now {soft})"
