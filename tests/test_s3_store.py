"""Objects of buckets, written and read whole or in ranges: S3Store."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from buckets import (
    BUCKET,
    config_of,
    create_bucket,
    deny,
    named_by_environment,
    needs_s3,
    needs_seaweed,
    serving,
)
from object_servers import faults
from object_servers.buckets import Reply, Request, error
from object_servers.fault_server import FaultServer
from object_servers.seaweed import seaweed

import torch_s3io as s3io
from torch_s3io import _C

pytestmark = needs_s3
MIB = 1 << 20
PATH = f"s3://{BUCKET}/a folder/key+ä"
OLD = b"what was there before"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


def content(server: FaultServer, path: str = PATH) -> bytes | None:
    stored = server.buckets.objects.get(tuple(path.removeprefix("s3://").split("/", 1)))
    return None if stored is None else stored.data


def data_of(size: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def store_of(server: FaultServer, **options: Any) -> Any:
    return s3io.open_store(PATH, config_of(server.endpoint, retry_timeout_s=5.0, **options))


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * MIB + 1, 13 * MIB])
def test_what_is_put_or_written_in_chunks_is_the_object(server: FaultServer, size: int):
    store, data = store_of(server, part_bytes=MIB), data_of(size)
    written = store.put(PATH, data)
    assert content(server) == data.tobytes()
    assert written == (size, _C.crc32c(data), False)
    assert not server.buckets.uploads
    assert len(server.requests) == (1 if size <= 5 * MIB else 3 + -(-size // (5 * MIB)))
    with store.writer(PATH + "2", size_bytes=size) as writer:
        for begin in range(0, size, 3 * MIB):
            writer.write(torch.from_numpy(data[begin : begin + 3 * MIB]), copy=begin % 2 == 0)
    assert writer.finish().crc32c == written.crc32c
    assert store.checksum(PATH + "2") == written.crc32c
    assert store.stat(PATH + "2").size_bytes == size
    assert store.list(f"s3://{BUCKET}/a") == [PATH, PATH + "2"]
    assert store.get(PATH + "2").numpy().tobytes() == data.tobytes()
    store.remove(PATH + "2")
    store.remove(PATH + "2")
    assert store.list(f"s3://{BUCKET}/a") == [PATH]


def flipped(server: FaultServer, replies: int) -> Any:
    """The server flips a bit of the bodies of its next GETs."""
    left = iter(range(replies))

    def flip(reply: Reply, request: Request) -> Reply:
        if request.method == "GET" and reply.status == 206 and next(left, None) is not None:
            return faults.flipped_bit(reply, request)
        return reply

    server.fault = flip
    return store_of(server)


def test_a_whole_object_is_compared_with_the_checksum_that_the_server_keeps(server: FaultServer):
    data = data_of(100_000)
    store_of(server).put(PATH, data)
    for read in (lambda one: _C.crc32c(one.get(PATH).numpy()), lambda one: one.checksum(PATH)):
        assert read(flipped(server, replies=1)) == _C.crc32c(data)  # asked for once more
        with pytest.raises(s3io.DataError, match=r"the server says .*: the object is damaged"):
            read(flipped(server, replies=2))
    requests = server.requests
    server.fault = lambda reply, _request: reply
    store_of(server).get(PATH)
    assert [one.method for one in requests[-2:]] == ["HEAD", "GET"]

    data = data_of(6 * MIB)  # in two parts: what the server keeps is of their checksums
    store = s3io.open_store(f"s3://{BUCKET}-2/x", config_of(server.endpoint, part_bytes=5 * MIB))
    store.put(f"s3://{BUCKET}-2/x", data)
    assert server.buckets.objects[f"{BUCKET}-2", "x"].checksum.endswith("==-2")
    server.requests.clear()
    assert store.get(f"s3://{BUCKET}-2/x").numpy().tobytes() == data.tobytes()
    assert [one.method for one in server.requests] == ["HEAD", "GET", "GET"]

    server.buckets.put(BUCKET, "other", bytes(100))  # whoever put it sent no checksum
    assert flipped(server, replies=1).get(f"s3://{BUCKET}/other").sum() == 1


def test_ranges_are_read_and_memory_is_filled_from_one_version(server: FaultServer):
    store, data = store_of(server), data_of(100_000)
    store.put(PATH, data)
    version = store.stat(PATH)
    assert store.get_range(PATH, 5, 700).numpy().tobytes() == data[5:705].tobytes()
    target = torch.zeros(300, 100, dtype=torch.int16)
    store.read_into(PATH, 1000, target, version=version)
    assert target.numpy().tobytes() == data[1000:61_000].tobytes()
    with pytest.raises(s3io.RangeError, match="beyond its end at 100000"):
        store.read_into(PATH, 99_999, bytearray(2))
    with pytest.raises(s3io.ConfigError, match="may be written"):
        store.read_into(PATH, 0, bytes(2))
    store.put(PATH, data[::-1].copy())
    for read in (
        lambda: store.read_into(PATH, 0, target, version=version),
        lambda: store.get_range(PATH, 0, 5, version=version),
    ):
        with pytest.raises(s3io.ObjectChangedError):
            read()
    with pytest.raises(s3io.NotFoundError):
        store.get(PATH + "other")


def test_an_object_that_is_there_stays_where_that_is_asked_for(server: FaultServer):
    store = store_of(server)
    store.put(PATH, OLD, if_absent=True)
    with pytest.raises(s3io.ExistsError, match="already"):
        store.put(PATH, b"new", if_absent=True)
    with pytest.raises(FileExistsError):
        store.writer(PATH, if_absent=True)
    assert content(server) == OLD


def hit(at: str, fault: Any) -> Any:
    """Spoils the replies to one kind of request."""

    def spoil(reply: Reply, request: Request) -> Reply:
        kind = request.method + "".join(f" {name}" for name in sorted(request.query))
        return fault(reply) if kind == at else reply

    return spoil


def reset(reply: Reply) -> Reply:
    reply.is_reset = True
    return reply


def error_of_put(store: Any, data: Any) -> s3io.Error | None:
    try:
        store.put(PATH, data)
    except (s3io.WriteError, s3io.AccessError) as error:
        return error
    return None


STEPS = ["PUT", "POST uploads", "PUT partNumber uploadId", "POST uploadId", "HEAD"]


@pytest.mark.parametrize("step", STEPS)
def test_a_write_that_fails_at_any_step_leaves_the_old_object_or_proves_the_new_one(
    server: FaultServer, step: str
):
    """The server does what it is asked for, and its replies are lost or are errors."""
    store = store_of(server, max_attempts=2)
    data = data_of(100 if step == "PUT" else 11 * MIB)
    faults = (reset, lambda _: error(500, "InternalError"), lambda _: error(403, "Denied"))
    for number, fault in enumerate(faults):
        server.buckets.put(BUCKET, PATH.split("/", 3)[3], OLD)
        server.fault = hit(step, fault)
        failed = error_of_put(store, data)
        assert content(server) in ([OLD, data.tobytes()] if failed else [data.tobytes()])
        if failed:
            is_lie = number == 2  # it did what it says that it refused
            assert is_lie or not (failed.is_undone and content(server) == data.tobytes())
            # Before that no object was asked for.
            assert failed.is_undone or step in ("PUT", "POST uploadId", "HEAD")
        if step != "POST uploads":  # an upload without a number belongs to nobody
            assert not server.buckets.uploads


def test_an_exception_and_a_cancel_leave_the_old_object_and_no_upload(server: FaultServer):
    store = store_of(server)
    store.put(PATH, OLD)
    writer = store.writer(PATH)

    def fail() -> None:
        with writer:
            writer.write(data_of(20 * MIB))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert content(server) == OLD
    assert not server.buckets.uploads
    writer = store.writer(PATH)
    writer.write(data_of(20 * MIB), copy=False)
    writer.cancel()
    assert not server.buckets.uploads
    with pytest.raises(s3io.ConfigError, match="cancelled"):
        writer.write(b"more")
    server.fault = hit("DELETE uploadId", lambda _: error(403, "AccessDenied"))
    writer = store.writer(PATH)
    writer.write(data_of(20 * MIB))
    with pytest.warns(RuntimeWarning, match="the upload upload-3 could not be aborted"):
        writer.cancel()


def test_what_is_no_path_of_a_bucket_and_no_config_of_it_is_refused(server: FaultServer):
    store = store_of(server)
    for path in ("/tmp/x", b"s3://b/k", Path("x"), "s3://", "s3://b/\udcff.jpg"):
        with pytest.raises(s3io.ConfigError):
            store.put(path, b"")
    with pytest.raises(s3io.ConfigError, match="takes an S3Config"):
        s3io.open_store(PATH, s3io.FileSystemConfig())
    with pytest.raises(s3io.ConfigError, match="takes a FileSystemConfig"):
        s3io.open_store("/tmp", s3io.S3Config())
    with pytest.raises(s3io.ConfigError, match="names a bucket"):
        store.put(f"s3://{BUCKET}", b"")
    assert isinstance(s3io.open_store("/tmp"), s3io.FileStore)
    copied = pickle.loads(pickle.dumps(store))
    copied.put(PATH, OLD)
    assert content(server) == OLD


@pytest.mark.parametrize("kind", ["COMPOSITE", "FULL_OBJECT"])
def test_a_checksum_of_checksums_is_none_of_the_bytes(server: FaultServer, kind: str):
    store = s3io.open_store(PATH)
    store.put(PATH, OLD)
    assert store.get(PATH).numpy().tobytes() == OLD

    def say_another(reply: Reply, request: Request) -> Reply:
        if request.method != "HEAD":
            return reply
        return reply.header("x-amz-checksum-crc32c", "AAAAAA==").header("x-amz-checksum-type", kind)

    server.fault = say_another
    if kind == "COMPOSITE":
        assert store.get(PATH).numpy().tobytes() == OLD
    else:
        with pytest.raises(s3io.DataError, match="the server says another one"):
            store.get(PATH)


def test_an_object_of_which_a_server_keeps_less_is_an_error(server: FaultServer):
    answer = server.answer

    def answer_without_checksums(request: Request) -> Reply:
        headers = {name: one for name, one in request.headers.items() if "checksum" not in name}
        return answer(replace(request, headers=headers, body=request.body[:keeps]))

    server.answer = answer_without_checksums
    store = s3io.open_store(PATH)
    keeps = 1000
    assert store.put(PATH, bytes(1000)).size_bytes == 1000
    assert [request.method for request in server.requests] == ["PUT", "HEAD"]
    keeps = 10
    with pytest.raises(s3io.WriteError, match="was sent 1000 bytes, and has 10") as raised:
        store.put(PATH, bytes(1000))
    assert not raised.value.is_undone
    deny(server, "HEAD", "key")  # who may write, and not read, has the server's word
    assert store.put(PATH, bytes(1000)).size_bytes == 1000


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a b", "a\n", "\x1b", "\xe4", "\0"])
@pytest.mark.parametrize(
    "name", ["region", "access_key", "secret_key", "session_token", "sse_kms_key_id"]
)
def test_what_no_header_may_have_is_refused_when_the_config_is_made(name, value):
    keys = {"access_key": "a", "secret_key": "s", "sse": "aws:kms", name: "well"}
    s3io.S3Config(**keys)
    with pytest.raises(s3io.ConfigError, match=rf"S3Config\.{name} must have no blank") as raised:
        s3io.S3Config(**{**keys, name: value})
    is_secret = name not in ("region", "sse_kms_key_id")
    assert ("something else" in str(raised.value)) == is_secret
    assert str(raised.value).isprintable()


def test_every_rate_and_time_of_a_config_is_one_that_the_client_takes(server: FaultServer):
    server.buckets.put(BUCKET, "x", b"1")
    for rate in (0, 1e-12, -1, float("nan"), True, "1"):
        with pytest.raises(s3io.ConfigError, match=r"retries_per_s must be "):
            s3io.S3Config(retries_per_s=rate)
    short = {"connect_timeout_s": 1e-9, "stall_timeout_s": 1e-9, "retry_timeout_s": 1e-9}
    config = config_of(server.endpoint, retries_per_s=0.001, **short)
    with contextlib.suppress(s3io.ReadError, s3io.ReadTimeoutError):  # a millisecond is short
        s3io.open_store(PATH, config).get(f"s3://{BUCKET}/x")


@needs_seaweed
def test_seaweedfs_takes_what_is_written():
    data = data_of(12 * MIB)
    with seaweed() as endpoint, named_by_environment(endpoint):
        store = s3io.open_store(PATH)
        create_bucket(endpoint)
        assert store.put(PATH, OLD).size_bytes == len(OLD)
        assert store.get(PATH).numpy().tobytes() == OLD
        with pytest.raises(s3io.ExistsError):
            store.put(PATH, data, if_absent=True)
        assert store.put(PATH, data).crc32c == store.checksum(PATH)
        writer = store.writer(PATH)
        writer.write(data)
        writer.cancel()
        assert store.get_range(PATH, 12 * MIB - 3, 3).tolist() == data[-3:].tolist()
        store.remove(PATH)
        assert store.list(f"s3://{BUCKET}/") == []
