"""The iterators of torch's DataLoader, and their workers.

Issue: pytorch/pytorch#36650 (a loader has no state: what it reads is its iterator's secret),
pytorch/pytorch#64766 and pytorch/pytorch#71383 (nothing ends workers).
"""

from __future__ import annotations

from typing import Any

_LOCK_HELD_S = 2.0


def iterator_read_here(batches: Any) -> Any:
    """The data set's own iterator, where torch's iterator reads it in this process."""
    return getattr(getattr(batches, "_dataset_fetcher", None), "dataset_iter", None)


def persistent_iterator(loader: Any) -> Any:
    """That has the loader's persistent workers, if there are any."""
    return getattr(loader, "_iterator", None)


def without_workers(attributes: dict[str, Any]) -> dict[str, Any]:
    """A loader's, for a copy of it."""
    return {**attributes, "_iterator": None}


def are_alive(batches: Any) -> bool:
    """None of the workers of torch's iterator was killed."""
    return all(worker.is_alive() for worker in getattr(batches, "_workers", ()))


def shut_down(loader: Any, batches: Any) -> None:
    """Ends the workers of torch's iterator; the loader's next epoch starts others."""
    if persistent_iterator(loader) is batches:
        loader._iterator = None
    _free_locks(batches)
    end = getattr(batches, "_shutdown_workers", None)
    if end is not None:
        end()


def _free_locks(batches: Any) -> None:
    """Frees what an interrupt may have left locked in the queues of torch's iterator.

    Python takes the lock of a ``threading.Condition`` in a method of its own, and an interrupt at
    the end of that method leaves it locked for ever. Nobody else holds one of these for longer than
    it takes to append a message.

    Issue: pytorch/pytorch#22924 (Ctrl-C does not end workers cleanly).
    """
    queues = [*getattr(batches, "_index_queues", ()), getattr(batches, "_data_queue", None)]
    for queue in queues:
        lock = getattr(queue, "_notempty", None) or getattr(queue, "not_empty", None)
        if lock is not None:
            lock.acquire(timeout=_LOCK_HELD_S)
            lock.release()
