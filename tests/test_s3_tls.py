"""Object storage over TLS: whom it trusts, and what comes over connections that are used again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import BUCKET, config_of, named_by_environment, needs_s3
from object_servers.certificate import context_of, make_certificate
from object_servers.fault_server import FaultServer
from support import holds_soon, threads

import torch_s3io as s3io
from torch_s3io import _C, errors

pytestmark = needs_s3
if _C.built_with_s3:
    from test_s3_objects import DATA, objects_of

PATH = "s3://bucket/k"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server(certificate: tuple[Path, Path]) -> Iterator[FaultServer]:
    server = FaultServer(context_of(certificate))
    server.buckets.put("bucket", "k", DATA)
    yield server
    server.close()


def test_who_is_vouched_for_by_ca_file_is_trusted_and_nobody_else(
    server, certificate, monkeypatch, tmp_path
):
    trusting = objects_of(server, ca_file=str(certificate[0]))
    assert trusting.stat(PATH)[0][2] == len(DATA)
    assert server.requests[0].headers["user-agent"].startswith("torch_s3io/")
    count = len(server.requests)
    other = tmp_path / "other"
    other.mkdir()
    for ca_file in ("", str(make_certificate(other)[0])):
        with pytest.raises(errors.ConfigError, match=r"127\.0\.0\.1.*not trusted.*ca_file="):
            objects_of(server, ca_file=ca_file).stat(PATH)
    assert len(server.requests) == count


def test_over_tls_two_threads_share_the_connections(server, certificate):
    plain = FaultServer()
    plain.buckets.put("bucket", "k", DATA)
    try:
        for one, ca_file, expected in ((plain, "", 1), (server, str(certificate[0]), 2)):
            objects = objects_of(one, ca_file=ca_file, part_bytes=1000)
            reads = _C.S3Reads(objects=objects, buffer_pool=None, depth=8)
            assert bytes(reads.read(PATH, 0, 9000).numpy()) == DATA[:9000]
            assert list(threads().values()).count("s3io-http") == expected
            del reads, objects
            assert holds_soon(lambda: "s3io-http" not in threads().values())
    finally:
        plain.close()


def test_over_tls_ranges_have_one_connection_and_each_other_reply_its_own(server, certificate):
    objects = objects_of(server, ca_file=str(certificate[0]), max_idle_s=60)
    reads = _C.S3Reads(objects=objects, buffer_pool=None, depth=1)
    version, _ = objects.stat(PATH)
    counts = [server.num_connections]
    for act in "read", "read", "list", "read", "stat", "read":
        if act == "read":
            assert bytes(reads.read(PATH, 0, 9000, version=version).numpy()) == DATA[:9000]
        elif act == "list":
            assert len(objects.list_objects("s3://bucket/")) == 1
        else:
            assert objects.stat(PATH)[0] == version
        counts.append(server.num_connections)
    assert counts == [1, 2, 2, 3, 3, 4, 4]


def test_what_comes_behind_a_reply_is_never_the_next_one(server, certificate):
    """In the same record of TLS, which no socket shows."""
    evil = 'HTTP/1.1 {} OK\r\nETag: "evil"\r\nContent-Length: {}\r\n\r\n'
    lists = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"

    def with_surplus(reply: Any, request: Any) -> Any:
        text = (evil.format(200, 7), evil.format(200, len(lists)) + lists)
        reply.surplus = text[len(server.requests) % 2].encode()
        return reply

    server.fault = with_surplus
    objects = objects_of(server, ca_file=str(certificate[0]))
    reads = _C.S3Reads(objects=objects, buffer_pool=None, depth=1)
    version, _ = objects.stat(PATH)
    for _ in range(4):
        assert bytes(reads.read(PATH, 0, 5000, version=version).numpy()) == DATA[:5000]
        assert objects.stat(PATH)[0] == version
        assert objects.list_objects("s3://bucket/") == [(PATH, version, "")]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_workers_read_over_tls_in_the_midst_of_what_their_parent_reads(server, certificate):
    """Connections, and what OpenSSL knows of them, are the parent's."""
    records = np.arange(2000 * 4, dtype="<i4").reshape(-1, 4)
    for number, part in enumerate(np.split(records, 5)):
        server.buckets.put(BUCKET, f"{number}.bin", part.tobytes())
    config = config_of(server.endpoint, ca_file=str(certificate[0]))

    def rows(batches: Any) -> list[list[int]]:
        return sorted(row for batch in batches for row in batch.tolist())

    with named_by_environment(server.endpoint):
        dataset = s3io.RecordDataset(
            f"s3://{BUCKET}/*.bin", dtype="<i4", shape=4, batch_size=50, shuffle=True, store=config
        )
        own = iter(dataset)
        first = next(own).tolist()
        before = server.num_connections
        loader = s3io.DataLoader(dataset, num_workers=2, multiprocessing_context="fork")
        assert rows(loader) == records.tolist()
        assert server.num_connections >= before + 2  # of each worker
        assert sorted(first + rows(own)) == records.tolist()
        assert rows(dataset) == records.tolist()
