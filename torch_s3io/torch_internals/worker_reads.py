"""Who in a worker asks a data set for its batches.

No issue known. torch tells a data set in a worker neither that its loader begins a pass nor for
what it is read: for that pass, or for something else, such as references for a transform.
The frame that calls ``iter(dataset)`` knows.
"""

from __future__ import annotations

import weakref
from types import CodeType, FrameType
from typing import Any, Literal, NamedTuple

from torch.utils.data import IterableDataset, get_worker_info

from .frames import callers, code_called_by, find_name

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
    if info.dataset is dataset:
        return _caller_within(frame, dataset, "loader")
    if not isinstance(info.dataset, IterableDataset) or isinstance(info.dataset, ours):
        return Caller("other")
    return _caller_within(frame, info.dataset, "wrapper")


def _caller_within(frame: FrameType, read: Any, kind: Kind) -> Caller:
    """While the loader reads its data set: that, or what collates its samples. Before: what the
    loader was told to call in its workers."""
    fetcher = find_name("torch.utils.data._utils.fetch", "_IterableDatasetFetcher")
    if fetcher is None:
        return Caller(kind)
    of_fetcher = (fetcher.fetch.__code__, fetcher.__init__.__code__)
    called: FrameType | None = None
    for caller in callers(frame):
        if caller.f_code in of_fetcher and (found := caller.f_locals["self"]).dataset is read:
            collates = called is not None and called.f_code is code_called_by(found.collate_fn)
            return Caller("other") if collates else Caller(kind, weakref.ref(found))
        if called is not None and caller.f_code in _worker_loops():
            begins = called.f_code is code_called_by(caller.f_locals["init_fn"])
            return Caller("other" if begins else kind)
        called = caller
    return Caller(kind)  # in a thread of its own, for instance


def _worker_loops() -> set[CodeType]:
    """Of torch and torchdata."""
    loops = (
        find_name("torch.utils.data._utils.worker", "_worker_loop"),
        find_name("torchdata.stateful_dataloader.worker", "_worker_loop"),
    )
    return {loop.__code__ for loop in loops if loop is not None}
