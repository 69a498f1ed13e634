"""Programs that run in a process of their own: Python's, and what such a process does to itself."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TextIO

from support import DEADLINE_S, holds_soon
from warm_python import RUN_FILE, STARTED, Program, WarmPython

import torch_s3io

IMPORT_PATH = str(Path(torch_s3io.__file__).parents[1])  # the package that is being tested

_libc = ctypes.CDLL(None, use_errno=True)


def run_program(source: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """What a Python program prints, run in a process of its own; it must succeed.

    It can import what the tests do; ``arguments`` are its sys.argv[1:]. With ``env``, it is a
    Python of its own from its first moment on.
    """
    if env is None:
        return printed_by(Running(source, *arguments).ended())
    process = subprocess.run(
        program_command(source, *arguments),
        env=program_env(env),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S * 2,
    )
    return printed_by(process)


def printed_by(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


class Running:
    """A program at work, that was forked from a Python that has imported these modules."""

    def __init__(
        self,
        source: str,
        *arguments: object,
        imported: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        folder: Path | None = None,
        stdout: IO[Any] | None = None,
        stderr: IO[Any] | None = None,
        spawns: bool = False,
    ) -> None:
        """What it prints is kept, where no stream is given for it. ``spawns``: what it spawns is
        forked, too, from what it was at its beginning."""
        streams = {"stdout": stdout, "stderr": stderr}
        self._kept = {
            name: os.fdopen(os.memfd_create(name), "w+b")
            for name, stream in streams.items()
            if stream is None
        }
        outputs = [stream or self._kept[name] for name, stream in streams.items()]
        texts, fds = [*map(str, arguments)], [output.fileno() for output in outputs]
        warm = warm_python(*imported)
        self.program = warm.start(source, texts, program_env(env), *fds, folder, spawns)

    def ended(self, timeout_s: float = DEADLINE_S * 2) -> subprocess.CompletedProcess[str]:
        status = self.program.wait(timeout_s)
        texts = {}
        for name, output in self._kept.items():
            with output:
                output.seek(0)
                texts[name] = output.read().decode(errors="replace")
        return subprocess.CompletedProcess([], status, texts.get("stdout"), texts.get("stderr"))


# Makes a program the first of a session, and of a process group that can be ended as a whole.
IN_A_GROUP = """
    import os
    os.setsid()
"""
# What is ``python -m torch_s3io ARGUMENTS``.
CLI = """
    import runpy
    runpy.run_module("torch_s3io", run_name="__main__", alter_sys=True)
"""


@contextlib.contextmanager
def until_nobody_has_it() -> Iterator[IO[bytes]]:
    """A stream for the output of a program and of its children. At the end all of them are gone."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading, "rb", buffering=0) as printed:
        with os.fdopen(writing, "wb") as output:
            yield output
        assert holds_soon(lambda: printed.read(4096) == b"")


def started(source: str, *arguments: object) -> tuple[Program, TextIO]:
    """A program at work, for one who ends it, and what it prints."""
    reading, writing = os.pipe()
    program = warm_python().start(source, [*map(str, arguments)], program_env(), writing, 2)
    os.close(writing)
    return program, os.fdopen(reading)


def run_file(
    path: Path,
    *arguments: object,
    folder: Path | None = None,
    imported: tuple[str, ...] = (),
    timeout_s: float = DEADLINE_S * 2,
    spawns: bool = False,
) -> subprocess.CompletedProcess[str]:
    """``python PATH ARGUMENTS``, which workers that are spawned can import."""
    options = {"imported": imported, "folder": folder, "spawns": spawns}
    return Running(RUN_FILE, path, *arguments, **options).ended(timeout_s)


def warm_python(*imported: str) -> WarmPython:
    if imported not in STARTED:
        STARTED[imported] = WarmPython.started(program_env({"HF_HUB_OFFLINE": "1"}), *imported)
    return STARTED[imported]


def end_warm_pythons() -> None:
    while STARTED:
        STARTED.popitem()[1].end()


def program_command(source: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]


def program_env(env: dict[str, str] | None = None) -> dict[str, str]:
    paths = os.pathsep.join([IMPORT_PATH, str(Path(__file__).parent)])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **(env or {})}


def is_killed_in(call: Callable[[], object]) -> bool:
    """Whether the call, made in a forked child, kills it; else it must come to its end there."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            call()
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    ended: list[int] = []

    def has_ended() -> bool:
        pid, status = os.waitpid(child, os.WNOHANG)
        ended.extend([os.waitstatus_to_exitcode(status)] if pid else [])
        return bool(ended)

    if not holds_soon(has_ended):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise AssertionError("the child hangs")
    assert ended[0] in (0, -signal.SIGKILL), "the child failed: see above"
    return ended[0] != 0


def become_nobody() -> None:
    """Gives up root and all its capabilities, for good. Import everything before."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def forbid_system_call(number: int, error_number: int) -> None:
    """Makes a system call fail in this process, as the seccomp profile of a container does."""

    class Instruction(ctypes.Structure):
        _fields_ = [
            ("code", ctypes.c_uint16),
            ("jump_if", ctypes.c_uint8),
            ("jump_else", ctypes.c_uint8),
            ("value", ctypes.c_uint32),
        ]

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint16), ("code", ctypes.c_void_p)]

    load_number, jump_if_equal, give_back = 0x20, 0x15, 0x06
    fail, allow = 0x00050000 | error_number, 0x7FFF0000
    code = (Instruction * 4)(
        Instruction(load_number, 0, 0, 0),
        Instruction(jump_if_equal, 0, 1, number),
        Instruction(give_back, 0, 0, fail),
        Instruction(give_back, 0, 0, allow),
    )
    program = Program(4, ctypes.addressof(code))
    set_no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    assert _libc.prctl(set_no_new_privileges, 1, 0, 0, 0) == 0
    assert _libc.prctl(set_seccomp, mode_filter, ctypes.byref(program), 0, 0) == 0, (
        "seccomp filters are not to be had here"
    )


IO_URING_SETUP, IO_URING_ENTER = 425, 426  # the same numbers on all architectures
