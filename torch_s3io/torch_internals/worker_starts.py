"""What starts a worker process.

Issue: pytorch/pytorch#97326. Workers are not told of a new epoch, and a data set is not told which
loader starts them. The frame that starts a process knows.
"""

from __future__ import annotations

from multiprocessing.popen_fork import Popen
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, NamedTuple

from .frames import find_caller_in, find_name


class Start(NamedTuple):
    """What starts workers.

    Attributes:
        iterator: Of torch's DataLoader, or of one that derives from it.
        loader: That it is an iterator of.
        is_persistent: Whether its workers read more than one pass.
        asked_ahead: Batches that it asks a worker for before its loop has taken one.
        samples: That it makes a batch of.
    """

    iterator: Any
    loader: Any
    is_persistent: bool
    asked_ahead: int
    samples: int


def find_start(caller: FrameType) -> Start | None:
    """What starts the process that is being started: an iterator of torch's, or None."""
    frame = find_caller_in(caller, BaseProcess.start.__code__)
    if frame is None or frame.f_back is None or frame.f_back.f_code.co_name != "__init__":
        return None
    kind = find_name("torch.utils.data.dataloader", "_BaseDataLoaderIter")
    names = frame.f_back.f_locals
    iterator, loader = names.get("self"), names.get("loader")
    if kind is None or not isinstance(iterator, kind) or loader is None:
        return None
    indices = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    return Start(
        iterator=iterator,
        loader=loader,
        is_persistent=loader.persistent_workers,
        asked_ahead=loader.prefetch_factor or 1,
        samples=getattr(indices, "batch_size", None) or 1,
    )


def forks_a_process(caller: FrameType) -> bool:
    """Whether multiprocessing is forking, as torch's loaders have it do."""
    return find_caller_in(caller, Popen.__init__.__code__) is not None
