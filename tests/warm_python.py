"""A Python that has imported torch and torch_s3io, from which programs are forked: to import them
takes two seconds, and the suite runs hundreds of programs.

What runs is the program of ``python -c SOURCE ARGUMENTS``, from a ``__main__`` of its own to the
end of the interpreter, with nothing on stdin. Programs for which the environment must be another
one from their first moment on, such as a library to preload, are started by themselves.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import types
from pathlib import Path

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
    ) -> Program:
        """A program at work in this folder, or this process's."""
        place = str(folder or Path.cwd())
        request = json.dumps([textwrap.dedent(source), arguments, env, place]).encode()
        reading, writing = os.pipe()
        length = _NUMBER.pack(len(request))
        socket.send_fds(self._socket, [length], [stdout, stderr, writing])
        self._socket.sendall(request)
        os.close(writing)
        return Program(reading)

    def fileno(self) -> int:
        return self._socket.fileno()

    def end(self) -> None:
        self._socket.close()
        if self._process is not None:
            self._process.wait(60)


# Those of this process, by what else they have imported.
STARTED: dict[tuple[str, ...], WarmPython] = {}


def serve(connection: socket.socket) -> list:
    """Comes back in every program, with the request that it is to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how the keepers ended
    while True:
        length, fds, _, _ = socket.recv_fds(connection, _NUMBER.size, 3)
        if not length:
            os._exit(0)
        request = bytearray()
        while len(request) < _NUMBER.unpack(length)[0]:
            request += connection.recv(_NUMBER.unpack(length)[0] - len(request))
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            connection.close()
            if is_program(*fds):
                return json.loads(request)
        for fd in fds:
            os.close(fd)


def is_program(stdout: int, stderr: int, status: int) -> bool:
    """True in the program; its keeper says its number and how it ended, and is gone."""
    program = os.fork()
    if program != 0:
        os.close(stdout)
        os.close(stderr)
        os.write(status, _NUMBER.pack(program))
        os.write(status, _NUMBER.pack(os.waitpid(program, 0)[1]))
        os._exit(0)
    os.close(status)
    for number, fd in enumerate((os.open(os.devnull, os.O_RDONLY), stdout, stderr)):
        os.dup2(fd, number)
        os.close(fd)
    return True


def run(source: str, arguments: list[str], env: dict[str, str], folder: str) -> None:
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
    multiprocessing.set_forkserver_preload([*IMPORTED])  # or every worker imports them
    for module in (*IMPORTED, *sys.argv[2:]):
        importlib.import_module(module)
    # What is here for good the end of a program need not go through, which takes half a second.
    gc.collect()
    gc.freeze()
    use_huge_pages()
    run(*serve(socket.socket(fileno=int(sys.argv[1]))))
