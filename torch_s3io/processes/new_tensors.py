"""How a worker's new tensors, which lie in no pool, reach the main process.

A batch that was larger than a buffer, or that had to leave the pool, lies in memory with a
descriptor of its own, which is sent: nothing is copied. Other tensors torch puts into such memory
first. Who receives a tensor keeps no descriptor (torch_internals/shared_storage.py).
"""

from __future__ import annotations

import errno
import pickle
import resource

import torch

from .. import _C
from ..errors import DataError, Error, OutOfMemoryError

_PLENTY_OF_FILES = 65536


def is_shared(tensor: torch.Tensor) -> bool:
    """Whether it lies in memory that another process can map."""
    return _C.shared_storage(tensor) is not None


def received(data: bytes) -> torch.Tensor:
    """The tensor that ``shared_storage.pickled`` made it of in a worker.

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
