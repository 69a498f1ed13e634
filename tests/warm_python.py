"""A Python that has imported torch and torch_s3io, from which programs are forked: to import them
takes two seconds, and the suite runs hundreds of programs.

What runs is the program of ``python -c SOURCE ARGUMENTS``, from a ``__main__`` of its own to the
end of the interpreter, with nothing on stdin. Programs for which the environment must be another
one from their first moment on, such as a library to preload, are started by themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import multiprocessing.util
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from huge_pages import use_huge_pages

# A program that is ``python FILE ARGUMENTS``.
RUN_FILE = """
    import os, runpy, sys
    del sys.argv[0]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
"""

# What programs and their workers import; torch's workers the last one, for their seeds.
IMPORTED = ("torch", "torch_s3io", "numpy.random")

_NUMBER = struct.Struct("i")
_MOST_FDS = 253  # that the kernel sends at once
_SPAWN_S = 60.0


class Program:
    """A program at work. How it ended is told as subprocess does."""

    def __init__(self, status: int) -> None:
        self._status = status
        self.pid = self._read()
        self.returncode: int | None = None

    def wait(self, timeout_s: float) -> int:
        """It is killed when it takes longer."""
        if self.poll(timeout_s) is None:
            os.kill(self.pid, signal.SIGKILL)
        while (returncode := self.poll(60)) is None:
            pass
        return returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self, timeout_s: float = 0) -> int | None:
        """None while it runs."""
        if self.returncode is None and select.select([self._status], [], [], timeout_s)[0]:
            self.returncode = os.waitstatus_to_exitcode(self._read())
            os.close(self._status)
        return self.returncode

    def _read(self) -> int:
        [number] = _NUMBER.unpack(os.read(self._status, _NUMBER.size))
        return int(number)


class WarmPython:
    """The process to fork from."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes] | None) -> None:
        self._socket = connection
        self._process = process

    @classmethod
    def started(cls, env: dict[str, str], *imported: str) -> WarmPython:
        """One that has imported these modules, too."""
        own, other = socket.socketpair()
        with other:
            command = [sys.executable, str(Path(__file__)), str(other.fileno()), *imported]
            return cls(own, subprocess.Popen(command, env=env, pass_fds=[other.fileno()]))

    @classmethod
    def forked(cls) -> WarmPython:
        """One that has imported what this process has, which has one thread. It ends with it."""
        own, other = socket.socketpair()
        if os.fork() == 0:
            own.close()
            run(*serve(other))
            sys.exit()
        other.close()
        return cls(own, None)

    def start(
        self,
        source: str,
        arguments: list[str],
        env: dict[str, str],
        stdout: int,
        stderr: int,
        folder: Path | None = None,
        spawns: bool = False,
    ) -> Program:
        """A program at work in this folder, or this process's. ``spawns``: see ``spawn_from``."""
        program = [textwrap.dedent(source), arguments, env, str(folder or Path.cwd()), spawns]
        return Program(self._ask_for(program, {1: stdout, 2: stderr}, is_kept=True))

    def spawn(self, source: str, arguments: list[str], fds: list[int]) -> int:
        """The number of a program that is this process's child, with its environment, folder,
        limits and output, and these descriptors."""
        deadline = time.monotonic() + _SPAWN_S
        with _SPAWNING, _getting_orphans():
            program = [source, arguments, dict(os.environ), str(Path.cwd()), False]
            status = self._ask_for(program, {fd: fd for fd in (1, 2, *fds)}, is_kept=False)
            try:
                assert select.select([status], [], [], _SPAWN_S)[0], "nothing is spawned"
                [pid] = _NUMBER.unpack(os.read(status, _NUMBER.size))
            finally:
                os.close(status)
            while parent_of(pid) != os.getpid():
                assert time.monotonic() < deadline, "the spawned program has another parent"
                time.sleep(0.0002)
        for limit in _LIMITS:
            if resource.prlimit(pid, limit) != resource.getrlimit(limit):
                resource.prlimit(pid, limit, resource.getrlimit(limit))
        return int(pid)

    def _ask_for(self, program: list[Any], fds: dict[int, int], *, is_kept: bool) -> int:
        """The descriptor that tells the status. ``fds``: those of the program, and here."""
        wanted = {"program": program, "fds": [*fds], "is_kept": is_kept}
        request = json.dumps(wanted).encode()
        reading, writing = os.pipe()
        with _ASKING:
            try:
                length = _NUMBER.pack(len(request))
                socket.send_fds(self._socket, [length], [*fds.values(), writing])
                self._socket.sendall(request)
            except BaseException:
                os.close(reading)
                raise
            finally:
                os.close(writing)
        return reading

    def fileno(self) -> int:
        return self._socket.fileno()

    def end(self) -> None:
        self._socket.close()
        if self._process is not None:
            self._process.wait(60)


# Those of this process, by what else they have imported.
STARTED: dict[tuple[str, ...], WarmPython] = {}


_ASKING, _SPAWNING = threading.Lock(), threading.Lock()
# What ``prlimit`` sets before a spawned program has got what it is to do.
_LIMITS = [getattr(resource, f"RLIMIT_{name}") for name in ("AS", "FSIZE", "MEMLOCK", "NOFILE")]


@contextlib.contextmanager
def _getting_orphans() -> Iterator[None]:
    """Processes below this one whose parent ends become its children, not init's."""
    set_child_subreaper = 36  # of <linux/prctl.h>
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(set_child_subreaper, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        prctl(set_child_subreaper, 0, 0, 0, 0)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def serve(connection: socket.socket) -> list:
    """Comes back in every program, with the request that it is to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how the programs' parents ended
    while True:
        length, fds, flags, _ = socket.recv_fds(connection, _NUMBER.size, _MOST_FDS)
        if not length or flags & socket.MSG_CTRUNC:
            os._exit(0)
        request = bytearray()
        while len(request) < _NUMBER.unpack(length)[0]:
            part = connection.recv(_NUMBER.unpack(length)[0] - len(request))
            if not part:  # who asked is gone
                os._exit(0)
            request += part
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            connection.close()
            wanted = json.loads(request)
            if is_program(wanted, fds):
                return wanted["program"]
        for fd in fds:
            os.close(fd)


def is_program(wanted: dict[str, Any], received: list[int]) -> bool:
    """True in the program. Its parent says its number, and ends, or keeps it until it can say how
    it ended."""
    *fds, status = received
    program = os.fork()
    if program != 0:
        for fd in fds:
            os.close(fd)
        os.write(status, _NUMBER.pack(program))
        if wanted["is_kept"]:
            os.write(status, _NUMBER.pack(os.waitpid(program, 0)[1]))
        os._exit(0)
    os.close(status)
    fds.append(os.open(os.devnull, os.O_RDONLY))
    places = [*wanted["fds"], 0]
    free = 1 + max(*places, *fds)
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, free) for fd in fds]
    for fd in fds:
        os.close(fd)
    for fd, place in zip(moved, places, strict=True):
        os.dup2(fd, place)
        os.close(fd)
    return True


# Of multiprocessing: starts a new interpreter.
new_interpreter = multiprocessing.util.spawnv_passfds


def spawn_from(warm: Callable[[], WarmPython]) -> None:
    """What this process's multiprocessing spawns is forked from there from now on: a new Python
    takes seconds to import torch.

    Unlike a new one it has the warm one's hash seed, addresses, seeds of random numbers, imports,
    signal mask, user and namespaces. The fixture ``new_interpreters`` is for tests of these.
    """
    owner = os.getpid()

    def spawn(path: bytes, arguments: Sequence[str | bytes], fds: Sequence[int]) -> int:
        texts = [*map(os.fsdecode, arguments)]
        source, *rest = texts[texts.index("-c") + 1 :]
        # The tracker imports nothing. What is forked cannot get orphans of its parent's.
        if "from multiprocessing.resource_tracker " in source or os.getpid() != owner:
            return new_interpreter(path, arguments, fds)
        return warm().spawn(source, rest, [*fds])

    multiprocessing.util.spawnv_passfds = spawn


def run(source: str, arguments: list[str], env: dict[str, str], folder: str, spawns: bool) -> None:
    if spawns:
        warm = WarmPython.forked()
        spawn_from(lambda: warm)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = ["-c", *arguments]
    sys.path[0] = ""
    _WAS_MAIN.append(sys.modules["__main__"])  # or what it holds would go
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(source, "<string>", "exec"), main.__dict__)


_WAS_MAIN: list[types.ModuleType] = []

if __name__ == "__main__":
    gc.disable()  # imports leave little to collect, and to look for it takes a fifth of their time
    multiprocessing.set_forkserver_preload([*IMPORTED])  # or every worker imports them
    for module in (*IMPORTED, *sys.argv[2:]):
        importlib.import_module(module)
    # What is here for good the end of a program need not go through, which takes half a second.
    gc.collect()
    gc.freeze()
    gc.enable()
    use_huge_pages()
    run(*serve(socket.socket(fileno=int(sys.argv[1]))))
