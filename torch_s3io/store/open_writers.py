"""Writers into buckets that are open when the interpreter exits. Connections end then, and a writer
that is cancelled later cannot have the server throw anything away."""

from __future__ import annotations

import atexit
import contextlib
import weakref
from typing import Protocol


class _Writer(Protocol):
    def cancel(self) -> None: ...


_writers: weakref.WeakSet[_Writer] = weakref.WeakSet()
_is_registered = False


def cancel_at_exit(writer: _Writer) -> None:
    """Cancels it if it is there still. Called once its store is made: what is registered last, at
    exit comes first."""
    global _is_registered
    if not _is_registered:
        atexit.register(_cancel_all)
        _is_registered = True
    _writers.add(writer)


def _cancel_all() -> None:
    with contextlib.ExitStack() as each:  # whatever becomes of the others
        for writer in list(_writers):
            each.callback(writer.cancel)
