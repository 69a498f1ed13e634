"""Object storage over TLS: whom it trusts, and what comes over connections that are used again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buckets import needs_s3
from object_servers.certificate import context_of, make_certificate
from object_servers.fault_server import FaultServer
from support import holds_soon, threads

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
