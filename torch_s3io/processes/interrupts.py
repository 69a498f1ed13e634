"""What it takes to end torch's workers after a KeyboardInterrupt, which may come anywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

_LOCK_HELD_S = 2.0


def uninterrupted(act: Callable[[], None]) -> None:
    """Acts in a thread of its own, as interrupts come in the main thread only; another interrupt
    ends the wait for it, not the act. (An interrupted ``Thread.join`` would forget the thread.)"""
    running = threading.Lock()
    running.acquire()

    def run() -> None:
        try:
            act()
        finally:
            running.release()

    try:
        threading.Thread(target=run, name="s3io-uninterrupted").start()
    except RuntimeError:  # there are no more threads: then here
        run()
    with running:
        pass


def free_locks(batches: Any) -> None:
    """Frees what an interrupt may have left locked in the queues of torch's iterator.

    Python takes the lock of a ``threading.Condition`` in a method of its own, and an interrupt at
    the end of that method leaves it locked for ever. Nobody else holds one of these for longer than
    it takes to append a message.
    """
    queues = [*getattr(batches, "_index_queues", ()), getattr(batches, "_data_queue", None)]
    for queue in queues:
        lock = getattr(queue, "_notempty", None) or getattr(queue, "not_empty", None)
        if lock is not None:
            lock.acquire(timeout=_LOCK_HELD_S)
            lock.release()
