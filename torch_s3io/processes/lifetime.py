"""Processes that end with their parent, and commands that clean up when they are told to end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SET_PARENT_DEATH_SIGNAL = 1


def end_with(parent: int) -> None:
    """Kills this process as soon as ``parent``, which started it, is gone, however that died."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before
        os._exit(1)


@contextlib.contextmanager
def cleaning_up_on_sigterm() -> Iterator[None]:
    """SIGTERM unwinds the block and ends the process with status 143, as a shell would have it.

    Where SIGTERM has a handler already, and outside of the main thread, nothing changes.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
