"""A FUSE file system that shows a folder, and gives its files other inode numbers with every look.

So rclone, s3fs and others do once their caches expire. Needs root, and a process that may have a
mount namespace of its own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import struct
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_NEW_NAMESPACE, _PRIVATE = 0x20000, 0x44000
_NO_DEVICES_OR_SETUID = 6
_SET_PARENT_DEATH_SIGNAL = 1
_ROOT = 1

# FUSE's operations, as in linux/fuse.h.
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS, _RELEASE = 1, 2, 3, 14, 15, 17, 18
_FLUSH, _INIT, _OPENDIR, _READDIR, _RELEASEDIR = 25, 26, 27, 28, 29
_INTERRUPT, _BATCH_FORGET = 36, 42


def why_not() -> str:
    """Why such a file system is not to be had; empty where it is."""
    if os.geteuid() != 0:
        return "NEEDS ROOT to mount"
    return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "NO /dev/fuse HERE"


def show(folder: Path, at: Path) -> None:
    """Mounts it for this process, with which it ends, and for those that it starts."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    _check(_libc.unshare(_NEW_NAMESPACE))
    _check(_libc.mount(b"none", b"/", None, _PRIVATE, None))
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other"
    _check(_libc.mount(b"shown", os.fsencode(at), b"fuse", _NO_DEVICES_OR_SETUID, options.encode()))
    server = os.fork()
    if server == 0:
        _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        try:
            _Server(fd, folder).serve()
        finally:
            os._exit(0)
    os.close(fd)


def _check(status: int) -> None:
    assert status == 0, os.strerror(ctypes.get_errno())


class _Server:
    def __init__(self, fd: int, folder: Path) -> None:
        self._fd = fd
        self._folder = folder
        self._paths = {_ROOT: folder}

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self._fd, 1 << 21)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                return
            length, operation, unique, node = struct.unpack_from("<IIQQ", request)
            if operation in (_FORGET, _BATCH_FORGET, _INTERRUPT):
                continue
            try:
                status, data = 0, self._answer(operation, node, request[40:length])
            except OSError as error:
                status, data = -error.errno, b""
            os.write(self._fd, struct.pack("<IiQ", 16 + len(data), status, unique) + data)

    def _answer(self, operation: int, node: int, body: bytes) -> bytes:
        if operation == _INIT:
            return struct.pack("<IIIIHHIIHHII6I", 7, 31, 0, 0, 16, 12, 1 << 20, 1, *[0] * 10)
        if operation == _LOOKUP:
            path = self._paths[node] / os.fsdecode(body.split(b"\0")[0])
            path.stat()
            new = _ROOT + len(self._paths)  # nothing is cached, so every look asks
            self._paths[new] = path
            return struct.pack("<QQQQII", new, 0, 0, 0, 0, 0) + self._attributes(new)
        if operation == _GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self._attributes(node)
        if operation in (_OPEN, _OPENDIR):
            return struct.pack("<QII", node, 0, 0)
        if operation == _READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            with open(self._paths[node], "rb") as file:
                return os.pread(file.fileno(), size, offset)
        if operation == _READDIR:
            return self._entries(*struct.unpack_from("<QQI", body)[1:])
        if operation in (_FLUSH, _RELEASE, _RELEASEDIR):
            return b""
        if operation == _STATFS:
            return struct.pack("<5Q4I6I", 0, 0, 0, 0, 0, 512, 255, 512, 0, *[0] * 6)
        raise OSError(errno.ENOSYS, "")

    def _attributes(self, node: int) -> bytes:
        status = self._paths[node].stat()
        seconds, nanoseconds = divmod(status.st_mtime_ns, 1_000_000_000)
        mode = stat.S_IFMT(status.st_mode) | 0o755
        numbers = (node, status.st_size, -(-status.st_size // 512), *[seconds] * 3)
        return struct.pack("<6Q10I", *numbers, *[nanoseconds] * 3, mode, 1, 0, 0, 0, 4096, 0)

    def _entries(self, offset: int, size: int) -> bytes:
        out = b""
        for index, name in enumerate(sorted(os.listdir(self._folder))):
            raw = os.fsencode(name)
            entry = struct.pack("<QQII", 1000 + index, index + 1, len(raw), stat.S_IFREG >> 12)
            entry += raw + b"\0" * (-len(raw) % 8)
            if index >= offset and len(out) + len(entry) <= size:
                out += entry
        return out
