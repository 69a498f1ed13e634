"""Nothing stays in a bucket unsaid: uploads that nobody finished are aborted, or named."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
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
from object_servers.buckets import Reply, Request
from object_servers.fault_server import FaultServer
from object_servers.seaweed import seaweed
from support import DEADLINE_S

import torch_s3io as s3io
from torch_s3io import cli

pytestmark = needs_s3
MIB = 1 << 20
PATH = f"s3://{BUCKET}/a folder/it's.bin"
COMMAND = r"`python -m torch_s3io uploads 's3://tests/a folder/it'\''s.bin'` lists it"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


def begin(path: str = PATH) -> s3io.ObjectWriter:
    """A writer with an upload at the server."""
    writer = s3io.open_store(path).writer(path)
    writer.write(bytes(20 * MIB))
    return writer


# What is left of an upload -----------------------------------------------------------------------


@pytest.mark.parametrize("comes_once", [True, False])
def test_an_upload_that_was_begun_without_a_reply_is_told_of(server: FaultServer, comes_once: bool):
    times = 0

    def lose(reply: Reply, request: Request) -> Reply:
        nonlocal times
        if "uploads" in request.query:
            times += 1
            reply.is_reset = times == 1 or not comes_once
        return reply

    server.fault = lose
    store = s3io.open_store(PATH, config_of(server.endpoint, max_attempts=2, retry_timeout_s=5.0))
    told = re.escape("may have begun an upload whose number it did not say: " + COMMAND)
    if comes_once:
        with pytest.warns(RuntimeWarning, match=told):
            store.put(PATH, bytes(20 * MIB))
    else:
        with pytest.raises(s3io.WriteError, match=told) as failed:
            store.put(PATH, bytes(20 * MIB))
        assert failed.value.is_undone
    server.fault = lambda reply, _request: reply
    assert len(store.uploads(PATH)) == (1 if comes_once else 2)


def test_a_writer_that_is_garbage_aborts_its_upload_or_warns_of_it(server: FaultServer):
    writer = begin()
    assert len(server.buckets.uploads) == 1
    del writer
    gc.collect()
    assert not server.buckets.uploads
    deny(server, "DELETE", "uploadId")
    writer = begin()
    told = "upload-2 could not be aborted .*AccessDenied.*" + re.escape(COMMAND)
    with pytest.warns(RuntimeWarning, match=told):
        del writer


# The command -------------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> list[str]:
    assert cli.main(["uploads", *arguments]) == status
    return capsys.readouterr().out.splitlines()


def test_uploads_are_listed_and_the_older_ones_aborted(
    server: FaultServer, capsys: pytest.CaptureFixture[str]
):
    assert shown(capsys, f"s3://{BUCKET}") == [f"s3://{BUCKET}: 0 uploads that nobody has finished"]
    writers = [begin(f"s3://{BUCKET}/train/{number}.bin") for number in range(3)]
    elsewhere = begin(f"s3://{BUCKET}/other.bin")
    for number, (upload_id, upload) in enumerate(list(server.buckets.uploads.items())):
        begun = upload.begun - timedelta(hours=10 * number)
        server.buckets.uploads[upload_id] = replace(upload, begun=begun)
    lines = shown(capsys, f"s3://{BUCKET}/train/")
    assert lines[0] == f"s3://{BUCKET}/train/: 3 uploads that nobody has finished"
    for number, age in enumerate([r"\d+ s", "10 h", "20 h"]):
        expected = rf" *{age}  s3://{BUCKET}/train/{number}.bin  id upload-{number + 1}"
        assert re.fullmatch(expected, lines[number + 1])
    assert lines[4].startswith("nothing was aborted: --abort-older 1d aborts")
    assert len(server.buckets.uploads) == 4
    lines = shown(capsys, f"s3://{BUCKET}/train/", "--abort-older", "15h")
    assert [line.split()[0] for line in lines[1:]] == ["kept", "kept", "aborted"]
    assert sorted(server.buckets.uploads) == ["upload-1", "upload-2", "upload-4"]
    deny(server, "DELETE", "upload-2")
    assert cli.main(["uploads", f"s3://{BUCKET}/train/", "--abort-older", "0s"]) == 1
    told = capsys.readouterr()
    assert f"s3://{BUCKET}/train/1.bin: the upload upload-2 is not aborted: " in told.err
    assert sorted(server.buckets.uploads) == ["upload-2", "upload-4"]
    with pytest.raises(s3io.NotFoundError, match="NoSuchUpload"):
        writers[0].finish()
    with pytest.warns(RuntimeWarning, match="upload-2 could not be aborted"):
        writers[1].cancel()
    writers[2].cancel()
    elsewhere.cancel()


def test_uploads_come_in_pages_and_hostile_lists_are_refused(server: FaultServer):
    keys = [f"many/{number:04d}&<'é" for number in range(1203)]
    for key in keys:
        server.buckets.answer(
            Request("POST", f"/{BUCKET}/{key.replace('&', '%26')}?uploads", {}, b"")
        )
    store = s3io.open_store(PATH)
    uploads = store.uploads(f"s3://{BUCKET}/many/")
    assert [upload.path for upload in uploads] == [f"s3://{BUCKET}/{key}" for key in keys]
    assert len(server.requests) == 2
    for old, new in (
        (b"<Key>many/0003", b"<Key>much/0003"),
        (b"<IsTruncated>true</IsTruncated>", b""),
        (b"<UploadId>upload-4</UploadId>", b"<UploadId>upload-3</UploadId><Key>x</Key>"),
        (b"<Initiated>", b"<Initiated>x"),
    ):

        def spoil(reply: Reply, _request: Request, old: bytes = old, new: bytes = new) -> Reply:
            reply.body = reply.body.replace(old, new)
            return reply

        server.fault = spoil
        with pytest.raises(s3io.DataError, match=f"^s3://{BUCKET}/many/: the list"):
            store.uploads(f"s3://{BUCKET}/many/")


def test_what_is_no_bucket_and_no_time_is_refused(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["uploads", "/tmp"]) == 1
    assert "/tmp: name a bucket, as s3://bucket/prefix" in capsys.readouterr().err
    for time_text in ("1", "1w", "-1d", "d", "1 d"):
        with pytest.raises(SystemExit):
            cli.main(["uploads", f"s3://{BUCKET}", f"--abort-older={time_text}"])
        assert "is no time such as 90s, 30m, 12h or 7d" in capsys.readouterr().err


@needs_seaweed
def test_seaweedfs_tells_of_uploads_and_aborts_them(capsys: pytest.CaptureFixture[str]):
    with seaweed() as endpoint, named_by_environment(endpoint):
        create_bucket(endpoint)
        writers = [begin(f"s3://{BUCKET}/train/{name}") for name in ("a", "b", "b c+é")]
        store = s3io.open_store(PATH)
        uploads = store.uploads(f"s3://{BUCKET}/train/")
        assert [upload.path for upload in uploads] == [
            f"s3://{BUCKET}/train/{name}" for name in ("a", "b", "b c+é")
        ]
        assert all(0 <= upload.age_s < DEADLINE_S for upload in uploads)
        assert len(store.uploads(f"s3://{BUCKET}/train/b")) == 2
        lines = shown(capsys, f"s3://{BUCKET}/train/b", "--abort-older", "0s")
        assert [line.split()[0] for line in lines[1:]] == ["aborted", "aborted"]
        (left,) = store.uploads(f"s3://{BUCKET}/")
        assert left == uploads[0]._replace(age_s=left.age_s)
        store.abort_upload(left)
        store.abort_upload(left)
        assert store.uploads(f"s3://{BUCKET}/") == ()
        for writer in writers:
            writer.cancel()
