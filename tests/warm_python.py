"""A Python that has imported torch, from which programs are forked: to import it takes two seconds,
and the suite runs hundreds of programs.

What runs is the program of ``python -c SOURCE ARGUMENTS``, from a ``__main__`` of its own to the
end of the interpreter, with nothing on stdin. Programs for which the environment must be another
one from their first moment on, such as a library to preload, are started by themselves.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

_NUMBER = struct.Struct("i")


class Program:
    """A program at work."""

    def __init__(self, status: int) -> None:
        self._status = status
        self.pid = self._read()

    def wait(self, timeout_s: float) -> int:
        """How it ended, as of subprocess. It is killed when it takes longer."""
        killer = threading.Timer(timeout_s, os.kill, (self.pid, signal.SIGKILL))
        killer.start()
        status = self._read()
        killer.cancel()
        killer.join()
        os.close(self._status)
        return os.waitstatus_to_exitcode(status)

    def _read(self) -> int:
        [number] = _NUMBER.unpack(os.read(self._status, _NUMBER.size))
        return int(number)


class WarmPython:
    """The process to fork from."""

    def __init__(self, env: dict[str, str]) -> None:
        self._socket, other = socket.socketpair()
        with other:
            command = [sys.executable, str(Path(__file__)), str(other.fileno())]
            self._process = subprocess.Popen(command, env=env, pass_fds=[other.fileno()])

    def start(
        self, source: str, arguments: list[str], env: dict[str, str], stdout: int, stderr: int
    ) -> Program:
        """A program at work in this process's folder."""
        request = json.dumps([textwrap.dedent(source), arguments, env, os.getcwd()]).encode()
        reading, writing = os.pipe()
        length = _NUMBER.pack(len(request))
        socket.send_fds(self._socket, [length], [stdout, stderr, writing])
        self._socket.sendall(request)
        os.close(writing)
        return Program(reading)

    def end(self) -> None:
        self._socket.close()
        self._process.wait(60)


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


if __name__ == "__main__":
    import torch  # noqa: F401

    source, arguments, env, folder = serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = ["-c", *arguments]
    sys.path[0] = ""
    own = sys.modules["__main__"]  # keeps what runs now
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(source, "<string>", "exec"), main.__dict__)
