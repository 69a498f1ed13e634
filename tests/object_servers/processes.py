"""Servers of others, in processes of their own."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_STARTS_WITHIN_S = 60.0


def program_of(wheel: str, name: str) -> Path | None:
    """The program of this wheel; None where that is not installed."""
    try:
        files = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(file.locate()).resolve() for file in files if file.name == name), None)


@contextlib.contextmanager
def folder_of_its_own(name: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, folder: Path, environment: Mapping[str, str] = os.environ
) -> Iterator[None]:
    """The program, which listens at the port of this machine. It is killed in the end.

    Args:
        folder: Where it works, and which has its log.
    """
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd=folder, env=environment
        )
    try:
        _wait_for(process, command[0], port, log)
        yield
    finally:
        process.kill()  # what it has is thrown away
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], name: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{name} does not start: {log.read_text()}")
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Each is free now, and so is the one 10,000 above, which SeaweedFS takes for gRPC."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in (port, port + 10_000):
                stack.enter_context(socket.create_server(("127.0.0.1", number)))
            if port not in ports:
                ports.append(port)
    return ports
