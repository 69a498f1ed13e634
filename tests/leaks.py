"""What every test is held to: it leaves no descriptor, thread or mapping of a pool behind."""

from __future__ import annotations

import atexit
import contextlib
import gc
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass

from support import holds_soon, open_files, pool_mappings, threads
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter


@dataclass(frozen=True)
class Resources:
    """What must be after a test as it was before."""

    files: dict[int, str]
    threads: dict[int, str]
    mappings: list[tuple[int, int]]

    @classmethod
    def now(cls) -> Resources:
        return cls(open_files(), threads(), pool_mappings())

    def left(self) -> str | None:
        """Threads and descriptors beside these; None where there are none."""
        # PyTorch gives a worker five seconds to end, then ends it and waits for it no more. This
        # waits for those that have ended, whose pipes are then closed.
        multiprocessing.active_children()
        now = self.now()
        if len(now.threads) > len(self.threads):  # another one may have taken an ended one's place
            new = {tid: name for tid, name in now.threads.items() if tid not in self.threads}
            return f"threads are left: {new}"
        new = {fd: name for fd, name in now.files.items() if self.files.get(fd) != name}
        if new:
            return f"file descriptors are left open: {new}"
        return None

    def has_all_mappings(self) -> bool:
        return set(pool_mappings()) <= set(self.mappings)


def forget_ended_workers() -> None:
    """PyTorch before 2.13 keeps every pinning loader's persistent workers until the program ends,
    and with each two descriptors."""
    at_exit = getattr(_MultiProcessingDataLoaderIter, "_clean_up_worker", None)
    if at_exit is not None:
        atexit.unregister(at_exit)


@contextlib.contextmanager
def nothing_leaked() -> Iterator[None]:
    """Descriptors, threads and mapped pools are at the end what they were at the beginning.

    Garbage that has none of them stays: what goes wrong as it is collected may show in a later
    test.
    """
    before = Resources.now()
    yield
    forget_ended_workers()
    last = before.left()
    if last is not None or not before.has_all_mappings():
        gc.collect()  # it takes longer than most tests do: only where something is to be found

    def nothing_is_left() -> bool:
        nonlocal last
        last = before.left()
        return last is None

    assert holds_soon(nothing_is_left), last  # some is about to end, or to close
    assert before.has_all_mappings(), "the mapping of a pool is left"
