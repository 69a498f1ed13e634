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


def forget_ended_workers() -> None:
    """PyTorch before 2.13 keeps every pinning loader's persistent workers until the program ends,
    and with each two descriptors."""
    at_exit = getattr(_MultiProcessingDataLoaderIter, "_clean_up_worker", None)
    if at_exit is not None:
        atexit.unregister(at_exit)


@contextlib.contextmanager
def nothing_leaked() -> Iterator[None]:
    """Descriptors, threads and mapped pools are at the end what they were at the beginning."""
    gc.collect()
    before = Resources.now()
    yield
    forget_ended_workers()
    gc.collect()

    def left_running() -> dict[int, str]:
        return {tid: name for tid, name in threads().items() if tid not in before.threads}

    def left_open() -> dict[int, str]:
        # PyTorch gives a worker five seconds to end, then ends it and waits for it no more. This
        # waits for those that have ended, whose pipes are then closed.
        multiprocessing.active_children()
        now = open_files()
        return {fd: name for fd, name in now.items() if before.files.get(fd) != name}

    # Another one may have ended meanwhile, and been replaced: the number counts.
    assert holds_soon(lambda: len(threads()) <= len(before.threads)), (
        f"threads are left: {left_running()}"
    )
    # The threads of multiprocessing's queues close their pipes, and one may still be about to.
    assert holds_soon(lambda: not left_open()), f"file descriptors are left open: {left_open()}"
    after = Resources.now()
    assert set(after.mappings) <= set(before.mappings), "the mapping of a pool is left"
