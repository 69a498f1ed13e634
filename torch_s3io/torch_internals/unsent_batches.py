"""Batches that a worker cannot pickle: an error where the loop waits for them.

Issue: pytorch/pytorch#142884 (a batch that fails while it is pickled is printed and gone). The main
process then waits for it for ever; or, where no later batch of that worker comes, ends the epoch
without it.
"""

from __future__ import annotations

import inspect
import multiprocessing
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info

from .frames import find_name

_HOOK = "_on_queue_feeder_error"  # of a multiprocessing.Queue; it is there to be overridden
_PARTS = (_HOOK, "_thread", "_buffer", "_sem", "_notempty")
_MESSAGE_PARTS = 2

Tell = Callable[[Exception], Exception]  # of what went wrong: the error for the loop


class _Results(NamedTuple):
    """The queue by which a worker sends batches.

    Attributes:
        is_nested: A message is (number, (batch, ...)), not (number, batch).
    """

    queue: Any
    is_nested: bool


def report_unsent(begin: Callable[[], None], tell: Tell) -> None:
    """In a worker of torch's or torchdata's loader, before it has sent anything.

    Args:
        begin: Called before each batch is pickled, by the thread that does it.
        tell: Called where that fails, by the same.
    """
    results = _find_results()
    wrapper = find_name("torch._utils", "ExceptionWrapper")
    if results is None or wrapper is None:
        return
    if not all(hasattr(results.queue, name) for name in _PARTS):
        return
    original = getattr(results.queue, _HOOK)
    if results.queue._thread is not None or isinstance(original, partial):
        return  # it has sent something; or this was done
    setattr(results.queue, _HOOK, partial(_report, results, wrapper, tell, original))
    results.queue._buffer = _Waiting(begin)


class _Waiting(deque[Any]):
    """Messages that the queue's thread will pickle."""

    def __init__(self, begin: Callable[[], None]) -> None:
        super().__init__()
        self._begin = begin

    def popleft(self) -> Any:
        message = super().popleft()
        self._begin()
        return message


def _find_results() -> _Results | None:
    """From what the process was started with. Its frames are not asked: that would keep alive what
    they hold."""
    process = multiprocessing.current_process()
    loops = (
        find_name("torch.utils.data._utils.worker", "_worker_loop"),
        find_name("torchdata.stateful_dataloader.worker", "_worker_loop"),
    )
    target, arguments = getattr(process, "_target", None), getattr(process, "_args", ())
    if target is None or target not in loops:
        return None
    named = dict(zip(inspect.signature(target).parameters, arguments, strict=False))
    queue = named.get("data_queue")
    return None if queue is None else _Results(queue, is_nested=target is loops[1])


def _report(
    results: _Results, wrapper: Any, tell: Tell, original: Any, error: Exception, message: Any
) -> None:
    """Called by the thread that pickles, which has dropped the message."""
    is_known = isinstance(message, tuple) and len(message) == _MESSAGE_PARTS
    number, sent = message if is_known else (None, None)
    batch, *rest = sent if results.is_nested and isinstance(sent, tuple) else (sent,)
    if not isinstance(number, int) or isinstance(batch, wrapper):
        original(error, message)
        return
    told = tell(error)
    info = get_worker_info()
    place = f"in DataLoader worker process {'?' if info is None else info.id}"
    instead = wrapper((type(told), told, told.__traceback__), where=place)
    _put_first(results.queue, (number, (instead, *rest) if results.is_nested else instead))


def _put_first(queue: Any, message: Any) -> None:
    """Before what is waiting to be sent: that may be the end of the worker's epoch, after which
    nobody looks for its batches. Otherwise as ``put`` does."""
    queue._sem.acquire()
    with queue._notempty:
        queue._buffer.appendleft(message)
        queue._notempty.notify()
