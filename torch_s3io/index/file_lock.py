"""A lock that one process of a machine has at a time. It ends with the process, whatever children
that has forked."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator

from ..errors import ReadTimeoutError
from ..warning import warn
from ..wording import printable

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_LOOK_EVERY_S = 0.05
_SAID_AFTER_S = 10.0
_LONGEST_S = 4 * 3600.0

_held: set[int] = set()  # descriptors; a forked child has them, too, and would keep their locks


def _let_go_in_child() -> None:
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go_in_child)


def try_to_lock(fd: int) -> bool:
    """Whether this descriptor has the lock of its file now. Where the file system knows no locks,
    everybody has them."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


@contextlib.contextmanager
def file_lock(path: str, what: str) -> Iterator[None]:
    """Waits for the lock ``path``, a file that is removed in the end.

    Args:
        what: Whoever has it does, for those that wait: "builds the index x".

    Raises:
        ReadTimeoutError: Somebody had it for hours.
        OSError: The file cannot be made.
    """
    taken: list[int] = []  # a signal may raise between any two steps
    try:
        _take(path, what, taken)
        yield
    finally:
        if not taken:
            _remove_free(path)
        elif taken[0] in _held:  # not in a forked child
            with contextlib.suppress(OSError):
                os.unlink(path)
            _close(taken[0])


def _take(path: str, what: str, taken: list[int]) -> None:
    """Adds the descriptor that has the lock to ``taken``."""
    start, is_said = time.monotonic(), False
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        _held.add(fd)
        try:
            if try_to_lock(fd) and _is_named(fd, path):
                taken.append(fd)
                return
        finally:
            if not taken:
                _close(fd)
        waited_s = time.monotonic() - start
        if waited_s > _LONGEST_S:
            raise ReadTimeoutError(
                f"{printable(path)}: another process {what} for more than {waited_s / 3600:.0f} "
                "hours: end it; or give index=False, which needs no lock"
            )
        if waited_s > _SAID_AFTER_S and not is_said:
            is_said = True
            warn(f"another process {what}: waiting until it is done")
        time.sleep(_LOOK_EVERY_S)


def _remove_free(path: str) -> None:
    """Removes the file, unless another process has its lock."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if try_to_lock(fd) and _is_named(fd, path):
                os.unlink(path)
        finally:
            os.close(fd)


def _close(fd: int) -> None:
    _held.remove(fd)
    os.close(fd)


def _is_named(fd: int, path: str) -> bool:
    """Whether it still has this name: whoever had the lock before removed it."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
