"""Who starts workers, and who in a worker asks a data set for its batches.

Note: why frames. torch tells a data set neither which loader starts a worker nor for what it is
read there: for the loader's own pass, or for something else, such as references for a transform.
What calls knows. Where another torch has no such callers, what is said here is "not known".
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from types import CodeType, FrameType
from typing import Any, Literal, NamedTuple

from torch.utils.data import IterableDataset, _utils, get_worker_info
from torch.utils.data.dataloader import _BaseDataLoaderIter

from ..order.teams import Start

_Fetcher: Any = getattr(_utils.fetch, "_IterableDatasetFetcher", None)


class _Running(threading.local):
    transforms = 0


_running = _Running()


# ---- In the main process.


def find_start() -> Start | None:
    """What starts the process that is being started: an iterator of torch's, or None."""
    frame = _found(sys._getframe(1), BaseProcess.start.__code__)
    if frame is None or frame.f_back is None or frame.f_back.f_code.co_name != "__init__":
        return None
    names = frame.f_back.f_locals
    iterator, loader = names.get("self"), names.get("loader")
    if not isinstance(iterator, _BaseDataLoaderIter) or loader is None:
        return None
    return Start(
        iterator=iterator,
        loader=loader,
        is_persistent=iterator._persistent_workers,
        asked_ahead=getattr(iterator, "_prefetch_factor", None) or 1,
        samples=getattr(iterator._index_sampler, "batch_size", None) or 1,
    )


# ---- In a worker.

Kind = Literal["loader", "wrapper", "other"]


class Caller(NamedTuple):
    """Who asks a data set for its batches.

    Attributes:
        kind: "loader": the loader, which has the data set itself. "wrapper": somebody's iterable
            data set, which the loader has. "other": nobody whose batches workers share.
        fetcher: Of the loader's pass, where it is known.
    """

    kind: Kind
    fetcher: weakref.ref[Any] | None = None


def find_caller(dataset: Any, frame: FrameType, ours: type) -> Caller:
    """Who calls ``iter(dataset)`` in this worker.

    Args:
        frame: The caller's.
        ours: The class of data sets that are shared out among workers.
    """
    info = get_worker_info()
    assert info is not None
    if _running.transforms > 0:
        return Caller("other")
    if info.dataset is dataset:
        return _caller_within(frame, dataset, "loader")
    if not isinstance(info.dataset, IterableDataset) or isinstance(info.dataset, ours):
        return Caller("other")
    return _caller_within(frame, info.dataset, "wrapper")


def _caller_within(frame: FrameType | None, read: Any, kind: Kind) -> Caller:
    """While the loader reads its data set: that, or what collates its samples. Before: what the
    loader was told to call in its workers."""
    if _Fetcher is None:
        return Caller(kind)
    of_fetcher = (_Fetcher.fetch.__code__, _Fetcher.__init__.__code__)
    called: FrameType | None = None
    while frame is not None:
        # Of no other frame: asking for its variables would keep them, and so its batches, alive.
        if frame.f_code in of_fetcher and (found := frame.f_locals["self"]).dataset is read:
            collates = called is not None and called.f_code is _code_of(found.collate_fn)
            return Caller("other") if collates else Caller(kind, weakref.ref(found))
        if called is not None and frame.f_code in _worker_loops():
            begins = called.f_code is _code_of(frame.f_locals["init_fn"])
            return Caller("other" if begins else kind)
        called, frame = frame, frame.f_back
    return Caller(kind)  # in a thread of its own, for instance


def _worker_loops() -> set[CodeType]:
    """Of torch and torchdata."""
    modules = _utils.worker, sys.modules.get("torchdata.stateful_dataloader.worker")
    loops = [getattr(module, "_worker_loop", None) for module in modules]
    return {loop.__code__ for loop in loops if loop is not None}


def _code_of(function: Any) -> CodeType | None:
    """Of what runs when it is called."""
    while isinstance(function, functools.partial):
        function = function.func
    called = function if hasattr(function, "__code__") else type(function).__call__
    code: CodeType | None = getattr(called, "__code__", None)
    return code


def run_transform(transform: Callable[..., Any], *arguments: Any) -> Any:
    """What it reads is read for it."""
    _running.transforms += 1
    try:
        return transform(*arguments)
    finally:
        _running.transforms -= 1


def _found(frame: FrameType | None, code: CodeType) -> FrameType | None:
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame
