"""Requests say which version of an object they want; a server that ignores that is told of."""

from __future__ import annotations

import base64
import hashlib
import pickle
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from buckets import BUCKET, config_of, needs_s3, serving
from object_servers.buckets import Reply, Request, error
from object_servers.fault_server import Fault, FaultServer
from object_servers.faults import whole_object
from support import CONTEXTS, DEADLINE_S

import torch_s3io as s3io
from torch_s3io.store import s3_access
from torch_s3io.store.s3_objects import the_s3_objects
from torch_s3io.store.stores import reach_buckets

pytestmark = [
    needs_s3,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
PATTERN = f"s3://{BUCKET}/train/*.bin"
NAMES = [f"s3://{BUCKET}/train/{number}.bin" for number in range(3)]
OF_NO_VERSION = '"of-no-version"'


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


def md5(data: bytes) -> bytes:
    return hashlib.md5(data).digest()


ETAGS = {
    "MD5": lambda data: md5(data).hex(),
    "in capitals": lambda data: md5(data).hex().upper(),
    "base64": lambda data: base64.b64encode(md5(data)).decode(),
    "of a version": lambda data: f"v:{len(data)}/{md5(data).hex()[:6]}",
}


def put(server: FaultServer) -> list[int]:
    for number in range(3):
        server.buckets.put(BUCKET, f"train/{number}.bin", bytes([number]) * 8)
    return sorted(number for number in range(3) for _ in range(8))


def records_of(paths: Any = PATTERN, **options: Any) -> s3io.RecordDataset:
    return s3io.RecordDataset(paths, dtype="u1", shape=1, batch_size=8, **options)


def read(batches: Any) -> list[int]:
    return sorted(int(number) for batch in batches for number in batch.flatten())


def is_read(request: Request) -> bool:
    return request.method == "GET" and "prefix" not in request.query


def asked_for(server: FaultServer) -> list[tuple[str, str]]:
    """Paths and If-Match of reads."""
    return [(one.path, one.headers.get("if-match", "")) for one in server.requests if is_read(one)]


def wanted(server: FaultServer) -> set[tuple[str, str]]:
    return {
        (f"/{bucket}/{key}", f'"{stored.etag}"')
        for (bucket, key), stored in server.buckets.objects.items()
    }


@pytest.mark.parametrize("kind", ETAGS)
@pytest.mark.parametrize("paths", [PATTERN, NAMES], ids=["pattern", "names"])
@pytest.mark.parametrize("quotes", ['"{}"', "{}"])
def test_the_first_request_of_an_object_says_which_version_it_wants(server, kind, paths, quotes):
    server.buckets.etag_of = ETAGS[kind]
    server.buckets.etag_in_lists = quotes.format
    records = put(server)
    dataset = records_of(paths)
    server.requests.clear()
    assert read(dataset) == records
    assert set(asked_for(server)) == wanted(server)
    put_again = {"train/1.bin": bytes([7]) * 8}
    for key, data in put_again.items():
        server.buckets.put(BUCKET, key, data)
    with pytest.raises(s3io.ObjectChangedError, match=r"train/1\.bin.*412"):
        read(dataset)


@pytest.mark.parametrize("context", CONTEXTS)
def test_so_does_that_of_each_worker(server, context):
    server.buckets.etag_of = ETAGS["base64"]
    records = put(server)
    dataset = records_of(store=config_of(server.endpoint))
    server.requests.clear()
    loader = s3io.DataLoader(dataset, num_workers=2, multiprocessing_context=context)
    assert read(loader) == records
    assert set(asked_for(server)) == wanted(server)


def test_so_does_that_of_a_store_for_a_version_that_another_one_looked_up(server):
    server.buckets.etag_of = ETAGS["base64"]
    put(server)
    version = s3io.open_store(NAMES[0]).stat(NAMES[0])
    the_s3_objects().forget()
    store = s3io.open_store(NAMES[0])
    server.requests.clear()
    assert bytes(store.get_range(NAMES[0], 1, 4, version=version).numpy()) == bytes(4)
    into = np.ones(8, np.uint8)
    store.read_into(NAMES[0], 0, into, version=version)
    assert not into.any()
    assert [etag for _, etag in asked_for(server)] == [f'"{version.etag}"'] * 2


def test_so_does_that_of_a_process_that_has_read_other_objects(server):
    server.buckets.etag_of = ETAGS["base64"]
    records = put(server)
    sent = pickle.dumps(records_of())
    the_s3_objects().forget()
    the_s3_objects().buckets.core_store(NAMES[0])
    dataset = pickle.loads(sent)
    server.requests.clear()
    assert read(dataset) == records
    asked = {one for one in asked_for(server) if one[1] != OF_NO_VERSION}
    assert asked == wanted(server)


def ignoring(server: FaultServer) -> Fault:
    """A server that sends an object whatever version is asked for."""

    def fault(reply: Reply, request: Request) -> Reply:
        if reply.status != 412:
            return reply
        headers = {name: value for name, value in request.headers.items() if name != "if-match"}
        return server.answer(Request(request.method, request.target, headers, b""))

    return fault


def made(server: FaultServer, count: int = 1) -> tuple[list[str], int]:
    """What is warned of as data sets are made and read, and how often the server was asked."""
    records = put(server)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(count):
            dataset = records_of()
            dataset.split([0.5, 0.5])
            assert read(dataset) == records
    assert {one.filename for one in caught} <= {__file__}
    etags = [etag for _, etag in asked_for(server)]
    return [str(one.message) for one in caught], etags.count(OF_NO_VERSION)


def test_a_server_is_asked_once_whether_it_heeds_versions(server):
    assert made(server, 2) == ([], 1)
    assert asked_for(server)[0] == ("/tests/train/0.bin", OF_NO_VERSION)


def test_one_that_ignores_versions_is_warned_of_once(server):
    server.fault = ignoring(server)
    texts, asked = made(server, 2)
    assert (len(texts), asked) == (1, 1)
    assert texts[0].startswith(f"{server.endpoint}: the server ignores If-Match")
    dataset = records_of()
    server.buckets.put(BUCKET, "train/1.bin", bytes([7]) * 8)
    with pytest.raises(s3io.ObjectChangedError, match=r"train/1\.bin.* another ETag"):
        read(dataset)


def test_one_that_sends_whole_objects_is_refused_by_the_first_read(server):
    server.fault = lambda reply, request: (
        whole_object(reply, request) if is_read(request) else reply
    )
    put(server)
    server.buckets.put(BUCKET, "train/0.bin", bytes(8))
    dataset = records_of()
    with pytest.raises(s3io.ReadError, match="200, not 206: the server does not serve ranges"):
        read(dataset)


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
def test_a_question_that_fails_fails_nothing(server, status):
    def fault(reply: Reply, request: Request) -> Reply:
        is_question = request.headers.get("if-match") == OF_NO_VERSION
        return error(status, "Whatever") if is_question else reply

    server.fault = fault
    assert made(server) == ([], 1)


def test_a_question_that_is_not_answered_is_soon_given_up_in_silence(server, monkeypatch):
    monkeypatch.setattr(s3_access, "_MOST_ASKED_S", 0.2)
    may_answer = threading.Event()

    def fault(reply: Reply, request: Request) -> Reply:
        if request.headers.get("if-match") == OF_NO_VERSION:
            may_answer.wait(DEADLINE_S)
        return reply

    server.fault = fault
    records = put(server)
    begun_s = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = records_of()
    assert time.monotonic() - begun_s < s3io.S3Config().stall_timeout_s / 2
    may_answer.set()
    assert read(dataset) == records


def test_a_question_that_reaches_nobody_is_given_up_in_time(server):
    put(server)
    objects = the_s3_objects().buckets.core_store(NAMES[0])
    (version, _) = objects.stat(NAMES[0])
    server.close()
    with pytest.raises(s3io.ReadTimeoutError, match=r"did not answer within 0\.2 s"):
        objects.honours_if_match(NAMES[0], version, timeout_s=0.2)


def test_other_ranks_ask_nothing(server, monkeypatch):
    put(server)
    with monkeypatch.context() as patch:
        patch.setattr(dist, "is_initialized", lambda: True)
        patch.setattr(dist, "get_rank", lambda: 1)
        records_of(NAMES)
    with monkeypatch.context() as patch:
        patch.setenv("RANK", "1")
        patch.setenv("WORLD_SIZE", "2")
        records_of(NAMES)
    assert not asked_for(server)
    records_of(NAMES)
    assert asked_for(server) == [("/tests/train/0.bin", OF_NO_VERSION)]


@pytest.mark.parametrize("name", ["RANK", "SLURM_PROCID"])
def test_ranks_that_the_environment_counts_ask_nothing(server, monkeypatch, name):
    put(server)
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    records_of(NAMES, rank=0, world_size=1)
    assert not asked_for(server)


def test_buckets_without_a_config_of_their_own_have_one_server(server):
    records = put(server)
    server.buckets.put("other", "0.bin", bytes([9]) * 8)
    paths = [*NAMES, "s3://other/0.bin"]
    for dataset in (records_of(paths), s3io.Mix([records_of(NAMES), records_of(paths[3:])])):
        assert set(read(dataset)) == {*records, 9}
    etags = [etag for _, etag in asked_for(server)]
    assert etags.count(OF_NO_VERSION) == 1


def test_a_bucket_with_the_config_of_all_others_shares_their_connections(server):
    config = config_of(server.endpoint)
    reach_buckets(config)
    s3io.open_store("s3://own", config)
    buckets = the_s3_objects().buckets
    assert buckets.core_store("s3://own/x") is buckets.core_store("s3://any/x")


def test_another_config_for_all_others_has_connections_of_its_own(server):
    buckets, cores = the_s3_objects().buckets, []
    for number in range(20):
        for _ in range(2):  # the second may lie where the one before them lay
            reach_buckets(config_of(server.endpoint, max_attempts=2 + number))
        cores.append(buckets.core_store("s3://any/x"))
    assert len(set(map(id, cores))) == 20


def test_each_server_is_asked_however_late_its_objects_come(server):
    for number in range(120):
        server.buckets.put(BUCKET, f"train/{number:03}.bin", bytes(8))
    second = FaultServer()
    try:
        second.buckets.put("second", "x.bin", bytes(8))
        s3io.open_store("s3://second", config_of(second.endpoint))
        records_of([PATTERN, "s3://second/x.bin"])
        for one, path in ((server, f"/{BUCKET}/train/000.bin"), (second, "/second/x.bin")):
            assert asked_for(one) == [(path, OF_NO_VERSION)]
    finally:
        second.close()


def test_an_object_that_is_too_short_is_not_asked_for(server):
    put(server)
    server.buckets.put(BUCKET, "train/0.bin", b"")
    server.buckets.put(BUCKET, "train/1.bin", b"x")
    records_of(NAMES)
    assert asked_for(server) == [("/tests/train/2.bin", OF_NO_VERSION)]


def test_workers_ask_nothing(server):
    put(server)
    loader = s3io.DataLoader(records_of(), num_workers=1)
    the_s3_objects().buckets.servers._asked.clear()  # so that a worker that would ask does
    server.requests.clear()
    read(loader)
    assert OF_NO_VERSION not in [etag for _, etag in asked_for(server)]
