"""What no input may do: run code, write files, take much memory or time, leave descriptors open."""

from __future__ import annotations

import os
import resource
import sys
import time
import warnings
from typing import Any

_MOST_SECONDS = 3.0  # of processor time
_MOST_MEMORY = 192 << 20
_MOST_ADDRESSES = 4 << 30
_MOST_DESCRIPTORS = 32
_FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "subprocess.Popen"),
    *("pickle.find_class", "socket.connect", "shutil.rmtree"),
)


class Broken(BaseException):
    """An input did what none may do. No handler of the package catches it."""


class Limits:
    """Watches one input after the other in a process that does nothing else.

    Args:
        allows: Events of Python's audit hooks that this target causes itself.
    """

    def __init__(self, allows: frozenset[str] = frozenset()) -> None:
        self._forbidden = frozenset(_FORBIDDEN) - allows
        self._is_on = False
        self._event = ""
        used = _kibibytes("VmSize") << 10
        resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_ADDRESSES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.simplefilter("error")  # what numpy warns of comes from a foreign text, too
        sys.addaudithook(self._on_event)
        self._descriptors = 0

    def __enter__(self) -> None:
        self._memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._event = ""
        self._is_on = True
        self._start = time.process_time()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        used_s = time.process_time() - self._start
        self._is_on = False
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._memory) << 10
        if self._event:
            raise Broken(f"it did what is forbidden: {self._event}")
        if used_s > _MOST_SECONDS:
            raise Broken(f"it took {used_s:.1f} s of processor time, more than {_MOST_SECONDS}")
        if more > _MOST_MEMORY:
            raise Broken(f"it took {more >> 20} MiB, more than {_MOST_MEMORY >> 20}")

    def check_descriptors(self) -> None:
        """After some inputs, first after the corpus: reading opens files that stay open."""
        self._descriptors = self._descriptors or _descriptors()
        if _descriptors() > self._descriptors + _MOST_DESCRIPTORS:
            raise Broken(f"{_descriptors() - self._descriptors} descriptors are left open")

    def _on_event(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._is_on:
            return
        is_text = event == "exec" and args[0].co_filename in ("<string>", "<unknown>")
        if is_text or event in self._forbidden:
            self._event = f"{event} {args!r:.200}"
            raise Broken(self._event)


def _kibibytes(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
