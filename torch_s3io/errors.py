"""What can go wrong. Every class takes one string, so that errors cross process borders unchanged.

Each class also derives from the built-in exception that fits, so ``except FileNotFoundError`` and
``except TimeoutError`` work as a user would expect.
"""


class Error(Exception):
    """Base of all errors that torch_s3io raises itself.

    Attributes:
        is_undone: Of a write that failed: True where nothing of it is in place, nor will be. False
            where that is unknown, and of errors that are of no write.
    """

    is_undone: bool = False


class ConfigError(Error, ValueError):
    """A setting, or a combination of settings, that cannot work. The text names the setting."""


class DataError(Error, ValueError):
    """Bytes on disk that are not what the layout says."""


class NotFoundError(Error, FileNotFoundError):
    """No such file, or a pattern that matches nothing."""


class AccessError(Error, PermissionError):
    """The file may not be read by this user, or a container forbids a system call."""


class ReadError(Error, OSError):
    """The device or the kernel failed a read. The text names the file and the bytes."""


class WriteError(Error, OSError):
    """The device or the kernel failed a write. The text names the file and the bytes."""


class NoSpaceError(WriteError):
    """The disk is full, or a quota or the limit of file sizes is reached."""


class ExistsError(WriteError, FileExistsError):
    """There is an object of this name, and ``if_absent=True`` leaves it as it is."""


class FileChangedError(ReadError):
    """A file was truncated, rewritten or replaced while it was in use."""


class ObjectChangedError(FileChangedError):
    """An object of a bucket was overwritten, or removed, while it was in use."""


class DirectIOError(Error, OSError):
    """``direct="require"`` on a file system that has no direct reads."""


class EngineError(Error, RuntimeError):
    """The I/O engine that was asked for is not to be had here. The text says why."""


class PoolTimeoutError(Error, TimeoutError):
    """No buffer became free in time: all are held."""


class ReadTimeoutError(Error, TimeoutError):
    """A read did not come back in time."""


class WriteTimeoutError(Error, TimeoutError):
    """A write did not come back in time."""


class RangeError(Error, IndexError):
    """A byte range or a record number outside of what exists."""


class OutOfMemoryError(Error, MemoryError, RuntimeError):
    """Memory, file descriptors, threads or another bounded resource ran out. The text names the
    limit. (A RuntimeError, as torch raises where descriptors run out.)"""
