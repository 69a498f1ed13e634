"""Writers into buckets that are open when the interpreter exits. Connections end then, and a writer
that is cancelled later cannot have the server throw anything away."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from ..warning import warn

# Of all together. A writer of a data set gives its server 10 s for each of three steps: to throw
# away the parts of two shards, and to remove one that is whole.
_EXIT_S = 32.0
_MOST_THREADS = 16


class _Writer(Protocol):
    def cancel(self) -> None: ...


class _Cancelling(NamedTuple):
    writer: _Writer
    path: str
    has_ended: threading.Event

    def run(self) -> None:
        try:
            self.writer.cancel()
        except Exception as error:
            warn(f"{self.path}: the writer is open, and could not be cancelled: {error!r}")
        finally:
            self.has_ended.set()


class _OpenWriters:
    """Of one process: a forked child's are its own, and its parent's are left alone.

    Each has a thread that waits to cancel it, but no more than 16: Python 3.12 starts none when it
    exits.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.paths: weakref.WeakKeyDictionary[_Writer, str] = weakref.WeakKeyDictionary()
        self._tasks: SimpleQueue[_Cancelling | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def add(self, writer: _Writer, path: str) -> None:
        # Before the other reference, so that it is called after that: when the path is gone.
        weakref.finalize(writer, self._end_a_thread).atexit = False
        self.paths[writer] = path
        if len(self._threads) < min(len(self.paths), _MOST_THREADS):
            thread = threading.Thread(
                target=_cancel_next, args=(self._tasks,), name="torch_s3io-exit", daemon=True
            )
            with contextlib.suppress(RuntimeError):  # no thread is to be had
                thread.start()
                self._threads.append(thread)

    def _end_a_thread(self) -> None:
        """Any thread's, at any moment: a writer is gone."""
        if len(self._threads) > len(self.paths):
            self._threads.pop()
            self._tasks.put(None)

    def begin_to_cancel(self) -> list[_Cancelling]:
        tasks = [_Cancelling(*one, threading.Event()) for one in list(self.paths.items())]
        for task in tasks:
            if self._threads:
                self._tasks.put(task)
            else:
                task.run()
        return tasks


_open: _OpenWriters | None = None


def cancel_at_exit(writer: _Writer, path: str) -> None:
    """Cancels it if it is there still. Called once its store is made: what is registered last, at
    exit comes first.

    Args:
        path: What it writes, for a warning where the exit does not wait for it any longer.
    """
    global _open
    if _open is None or _open.process != os.getpid():
        atexit.unregister(_cancel_all)  # as the parent registered it
        atexit.register(_cancel_all)
        _open = _OpenWriters()
    _open.add(writer, path)


def _cancel_all() -> None:
    """All at once: none waits for the server of another one."""
    if _open is None or _open.process != os.getpid():
        return
    deadline_s = time.monotonic() + _EXIT_S
    for task in _open.begin_to_cancel():
        if not task.has_ended.wait(max(0.0, deadline_s - time.monotonic())):
            warn(
                f"{task.path}: the writer is open, and could not be cancelled within "
                f"{_EXIT_S:.0f} s of the exit: the server may keep parts of it, which cost money; "
                "`python -m torch_s3io uploads` lists them, and aborts them with --abort-older"
            )


def _cancel_next(tasks: SimpleQueue[_Cancelling | None]) -> None:
    while (task := tasks.get()) is not None:
        task.run()
        del task  # and with it the writer
