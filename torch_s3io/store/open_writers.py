"""Writers into buckets that are open when the interpreter exits. Connections end then, and a writer
that is cancelled later cannot have the server throw anything away."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from typing import Protocol

from ..warning import warn

_EXIT_S = 12.0  # of all together; a writer gives its server 10 s


class _Writer(Protocol):
    def cancel(self) -> None: ...


class _OpenWriters:
    """Of one process: a forked child's are its own, and its parent's are left alone."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.paths: weakref.WeakKeyDictionary[_Writer, str] = weakref.WeakKeyDictionary()


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
    _open.paths[writer] = path


def _cancel_all() -> None:
    """All at once: none waits for the server of another one."""
    if _open is None or _open.process != os.getpid():
        return
    deadline_s = time.monotonic() + _EXIT_S
    cancelling = [(path, _begin(writer)) for writer, path in list(_open.paths.items())]
    for path, thread in cancelling:
        if thread is not None:
            thread.join(max(0.0, deadline_s - time.monotonic()))
            if thread.is_alive():
                warn(
                    f"{path}: the writer is open, and could not be cancelled within {_EXIT_S:.0f} "
                    "s of the exit: the server may keep parts of it, which cost money; `python -m "
                    "torch_s3io uploads` lists them, and aborts them with --abort-older"
                )


def _begin(writer: _Writer) -> threading.Thread | None:
    """None: it is cancelled already, as no more threads start."""
    thread = threading.Thread(target=writer.cancel, name="torch_s3io-cancel", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        writer.cancel()
        return None
    return thread
