"""Processes that end with their parent, and commands that clean up when they are told to end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SET_PARENT_DEATH_SIGNAL = 1
_SENT_AGAIN_AFTER_S = 0.01


def end_with(parent: int) -> None:
    """Kills this process as soon as ``parent``, which started it, is gone, however that died."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before
        os._exit(1)


@contextlib.contextmanager
def cleaning_up_on_sigterm() -> Iterator[None]:
    """SIGTERM unwinds the block and ends the process with status 143, as a shell would have it;
    neither it nor Ctrl-C is lost.

    Where SIGTERM has a handler already, and outside of the main thread, nothing changes.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        with _sending_again_what_is_lost():
            yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _sending_again_what_is_lost() -> Iterator[None]:
    """Python drops what a signal's handler raises while a weak reference is told of a death, or in
    a ``__del__``, as happens at the end of every import: that signal comes once more, a moment
    later."""
    report, before = sys.unraisablehook, signal.getsignal(signal.SIGALRM)

    def send_again(lost: Any) -> None:
        raised = lost.exc_value
        if not isinstance(raised, (KeyboardInterrupt, SystemExit)):
            report(lost)
            return
        number = signal.SIGINT if isinstance(raised, KeyboardInterrupt) else signal.SIGTERM
        # Not now: what it raises would be lost here as well.
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
        signal.setitimer(signal.ITIMER_REAL, _SENT_AGAIN_AFTER_S)

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
