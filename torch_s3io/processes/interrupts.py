"""Acts that a KeyboardInterrupt, which may come anywhere, does not end halfway."""

from __future__ import annotations

import threading
from collections.abc import Callable


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
