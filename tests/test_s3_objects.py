"""The C++ store of objects in S3, as Python has it, over our own server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from buckets import needs_s3
from object_servers.buckets import Reply, Request
from object_servers.fault_server import ACCESS_KEY, SECRET_KEY, FaultServer

from torch_s3io import _C, errors

pytestmark = needs_s3
DATA = bytes(range(256)) * 100
OPTIONS = {
    **{"region": "us-east-1", "addressing": "auto", "requester_pays": False, "ca_file": ""},
    **{"connect_timeout_s": 10.0, "stall_timeout_s": 20.0, "max_idle_s": 3, "max_attempts": 3},
    **{"retry_timeout_s": 10.0, "retries_per_s": 1000.0, "part_bytes": 4096, "connections": 4},
}


def objects_of(server: FaultServer, **options: Any) -> _C.S3Objects:
    keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "session_token": ""}
    credentials = _C.fixed_credentials(**keys)
    settings = {**OPTIONS, "endpoint": server.endpoint, **options}
    return _C.S3Objects(**settings, credentials=credentials)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    server = FaultServer()
    yield server
    server.close()


def test_objects_are_listed_looked_at_and_read(server):
    server.buckets.put("bucket", "x/1", DATA)
    server.buckets.put("bucket", "x/2 ä", b"")
    objects = objects_of(server)
    listed = objects.list_objects("s3://bucket/x/")
    assert [(path, version[2]) for path, version, _ in listed] == [
        ("s3://bucket/x/1", len(DATA)), ("s3://bucket/x/2 ä", 0)
    ]  # fmt: skip
    version, etag = objects.stat("s3://bucket/x/1")
    assert version == listed[0][1] == _C.s3_version(size_bytes=len(DATA), etag=etag)
    assert etag == server.buckets.objects["bucket", "x/1"].etag
    reads = _C.S3Reads(objects=objects, buffer_pool=(2, 1 << 16, 4096), depth=3)
    assert bytes(reads.read("s3://bucket/x/1", 1, 20000).numpy()) == DATA[1:20001]
    assert bytes(reads.read("s3://bucket/x/1", 25000, None, clips=True).numpy()) == DATA[25000:]
    assert reads.read("s3://bucket/x/2 ä", 0, 5, clips=True).numel() == 0
    with pytest.raises(errors.RangeError, match="lie beyond its end at 25600"):
        reads.read("s3://bucket/x/1", 25000, 601)
    assert objects.list_objects("s3://bucket/x/", most=1) == listed[:1]


def test_another_version_is_an_object_that_changed(server):
    server.buckets.put("bucket", "k", DATA)
    objects = objects_of(server)
    reads = _C.S3Reads(objects=objects, buffer_pool=None, depth=3)
    version = objects.stat("s3://bucket/k")[0]
    server.buckets.put("bucket", "k", DATA[::-1])
    with pytest.raises(errors.ObjectChangedError, match="s3://bucket/k"):
        reads.read("s3://bucket/k", 0, 10, version=version)
    assert issubclass(errors.ObjectChangedError, errors.FileChangedError)
    assert bytes(reads.read("s3://bucket/k", 0, 2).numpy()) == DATA[::-1][:2]


def test_ctrl_c_ends_each_wait(server):
    server.buckets.put("bucket", "k", DATA)
    objects = objects_of(server)
    reads = _C.S3Reads(objects=objects, buffer_pool=None, depth=2)
    version, ends = objects.stat("s3://bucket/k")[0], threading.Event()

    def interrupt(reply: Reply, _request: Request) -> Reply:
        os.kill(os.getpid(), signal.SIGINT)
        ends.wait(60)
        return reply

    server.fault = interrupt
    for call in (
        lambda: objects.stat("s3://bucket/k"),
        lambda: objects.list_objects("s3://bucket/"),
        lambda: reads.read("s3://bucket/k", 0, 10, version=version),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()
    ends.set()
    server.fault = lambda reply, _request: reply
    assert bytes(reads.read("s3://bucket/k", 0, 10).numpy()) == DATA[:10]


def test_a_process_ends_while_its_connections_are_open(server):
    """The store lives as long as the module, so nobody lets go of it before OpenSSL does."""
    server.buckets.put("bucket", "k", DATA)
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "import test_s3_objects as t, types\n"
        "store = t.objects_of(types.SimpleNamespace(endpoint=sys.argv[1]))\n"
        "print(store.stat('s3://bucket/k')[0][2])\n"
    )
    command = [sys.executable, "-c", code, server.endpoint, "tests"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{len(DATA)}\n", "")
