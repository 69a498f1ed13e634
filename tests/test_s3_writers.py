"""Data sets that are written into buckets: RecordWriter and SampleWriter on s3://."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import BUCKET, config_of, deny, lie, needs_s3, serving
from object_servers.buckets import Reply, Request, error
from object_servers.fault_server import FaultServer
from support import DEADLINE_S, holds_soon

import torch_s3io as s3io
from torch_s3io import cli

pytestmark = needs_s3
FOLDER = f"s3://{BUCKET}/sets/train"
RECORDS = np.arange(30_000, dtype=np.int32).reshape(1000, 30)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


def keys(server: FaultServer) -> list[str]:
    """Of a data set under the prefix: its manifest and its shards."""
    return sorted(key.removeprefix("sets/train/") for _, key in server.buckets.objects)


def write(count: int, **options: bool) -> s3io.RecordWriter:
    with s3io.RecordWriter(FOLDER, dtype="i4", shape=30, shard_bytes=50_000, **options) as writer:
        for begin in range(0, count, 300):
            writer.write(RECORDS[begin : min(count, begin + 300)])
    return writer


def read(count: int) -> None:
    dataset = s3io.RecordDataset(FOLDER, batch_size=100)
    batches = np.concatenate([batch.numpy() for batch in dataset])
    np.testing.assert_array_equal(batches, RECORDS[:count])


def test_records_are_there_once_the_manifest_is_and_take_the_place_of_others(server: FaultServer):
    write(1000)
    assert len(keys(server)) == 4
    assert keys(server)[0] == "manifest.json"
    assert server.requests[-1].target.endswith("manifest.json")
    read(1000)
    before = server.buckets.objects.copy()
    with pytest.raises(s3io.ConfigError, match="holds a data set of 1000 records in 3 shards"):
        write(200)
    assert server.buckets.objects == before
    server.buckets.put(BUCKET, "sets/train/records-00000000-00000.bin", b"a dead writer's")
    writer = write(200, overwrite=True)
    assert writer.replaced_records == 1000
    assert len(keys(server)) == 3  # two of the data set; who is dead is not known here
    read(200)


def test_samples_go_there_too(server: FaultServer):
    fields = {"text": str, "values": (np.float32, (None,))}
    samples = [{"text": "x" * n, "values": np.full(n, n, np.float32)} for n in range(50)]
    store = config_of(server.endpoint)
    with s3io.SampleWriter(FOLDER, fields=fields, store=store, shard_bytes=2000) as writer:
        writer.write_batch(samples[:20])
        for sample in samples[20:]:
            writer.write(sample)
    dataset = s3io.SampleDataset(FOLDER, batch_size=50, store=store)
    (batch,) = dataset
    for sample, values in zip(samples, batch["values"].unbind(), strict=True):
        assert values.tolist() == sample["values"].tolist()


@pytest.mark.parametrize("at", ["records-", "manifest.json"])
def test_a_writer_that_fails_leaves_the_old_data_set(server: FaultServer, at: str):
    write(300)
    before = server.buckets.objects.copy()
    deny(server, "PUT", at)
    with pytest.raises(s3io.AccessError, match="it is not in place") as failed:
        write(1000, overwrite=True)
    assert failed.value.is_undone
    assert server.buckets.objects == before
    read(300)


def test_shards_that_cannot_be_removed_are_named(server: FaultServer):
    deny(server, "PUT", "manifest.json")
    deny(server, "DELETE", "-00001.bin")
    with (
        pytest.warns(
            RuntimeWarning, match=rf"{FOLDER}/records-\w+-\*.bin \(2 shards\): belong to no"
        ),
        pytest.raises(s3io.AccessError),
    ):
        write(1000)
    assert [key[-9:] for key in keys(server)] == ["00001.bin", "00002.bin"]


def test_a_pack_by_one_process_removes_the_shard_that_ctrl_c_met(server, tmp_path, monkeypatch):
    """It came in place, and nobody was told."""
    finish = s3io.ObjectWriter.finish

    def interrupted(writer: s3io.ObjectWriter) -> Any:
        written = finish(writer)
        if writer.path.endswith("-00001.bin"):
            assert len(keys(server)) == 2
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(s3io.ObjectWriter, "finish", interrupted)
    np.save(tmp_path / "records.npy", RECORDS)
    command = ["pack", str(tmp_path / "records.npy"), "-o", FOLDER, "--shard-mib", "0.05"]
    assert cli.main([*command, "--processes", "1"]) == 130
    assert keys(server) == []


def error_of(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a writer that replaces the data set says."""
    if kind == "pack":
        np.save(tmp_path / "records.npy", RECORDS)
        command = ["pack", str(tmp_path / "records.npy"), "-o", FOLDER, "--shard-mib", "0.05"]
        assert cli.main([*command, "--processes", "1", "--overwrite"]) != 0
        return capsys.readouterr().err
    if kind == "records":
        with pytest.raises(s3io.Error) as failed:
            write(1000, overwrite=True)
        return str(failed.value)
    writer = s3io.SampleWriter(FOLDER, fields={"text": str}, overwrite=True)
    writer.write({"text": "x"})
    with pytest.raises(s3io.Error) as failed:
        writer.finish()
    return str(failed.value)


@pytest.mark.parametrize("kind", ["records", "samples", "pack"])
def test_a_manifest_that_the_server_did_not_keep_is_an_error(server, tmp_path, capsys, kind):
    write(300)
    lie(server, "PUT", "manifest.json")
    text = error_of(kind, tmp_path, capsys)
    assert f"{FOLDER}/manifest.json: the server says that it has written it, and has what" in text
    assert "its shards stay beside it" in text
    read(300)
    server.buckets.objects.clear()
    assert "says that it has written it, and does not have it" in error_of(kind, tmp_path, capsys)


def test_where_conditions_are_ignored_a_writer_that_another_one_replaced_fails(server):
    answer, path = server.answer, "sets/train/manifest.json"

    def ignore(request: Request) -> Reply:
        request.headers.pop("if-none-match", None)
        reply = answer(request)
        if request.method == "PUT" and request.path.endswith(path):
            server.buckets.put(BUCKET, path, b"another's")
        return reply

    server.answer = ignore
    with pytest.raises(s3io.ExistsError, match="another write has replaced it since"):
        write(300)
    server.buckets.objects.clear()
    write(300, overwrite=True)  # the one that ends last wins


@pytest.mark.parametrize("kind", ["records", "samples", "pack"])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_manifest_that_may_yet_be_taken_keeps_its_shards(
    server: FaultServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    is_late: bool,
):
    """Its reply is lost, and nobody says what is there; or a gateway gives up before the server."""
    write(300)
    s3io.open_store(FOLDER, config_of(server.endpoint, max_attempts=2, retry_timeout_s=2.0))
    answer, late = server.answer, []

    def gateway(request: Request) -> Reply:
        if request.method != "PUT" or "manifest" not in request.target:
            is_blind = late and not is_late and request.method in ("GET", "HEAD")
            return error(403, "AccessDenied") if is_blind else answer(request)
        late.append(request)
        return error(504, "GatewayTimeout") if is_late else replace(answer(request), is_reset=True)

    server.answer = gateway
    text = error_of(kind, tmp_path, capsys)
    stem = "samples" if kind == "samples" else "records"
    assert re.search(
        rf"its shards stay beside it, {FOLDER}/{stem}-\w+-\*.bin \(\d shards?\): `", text
    )
    server.answer = answer
    if is_late:
        read(300)
        answer(late[0])
    manifest = json.loads(server.buckets.objects[BUCKET, "sets/train/manifest.json"].data)
    assert {shard["name"] for shard in manifest["shards"]} <= set(keys(server))
    if kind != "samples":
        read(1000)


@pytest.mark.parametrize("kind", ["records", "pack"])
def test_ctrl_c_while_the_manifest_is_on_its_way_keeps_its_shards_and_says_so(
    server: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
):
    answer, given_up = server.answer, threading.Event()

    def interrupt(request: Request) -> Reply:
        if request.method == "PUT" and "manifest" in request.target:
            os.kill(os.getpid(), signal.SIGINT)
            given_up.wait(DEADLINE_S)
        return answer(request)

    server.answer = interrupt
    told = f"{FOLDER}/manifest.json: whether it is in place is unknown; its shards stay beside it, "
    try:
        if kind == "pack":
            np.save(tmp_path / "records.npy", RECORDS)
            command = ["pack", str(tmp_path / "records.npy"), "-o", FOLDER, "--processes", "1"]
            assert cli.main(command) == 130
            assert f"interrupted; {told}{FOLDER}/records-" in capsys.readouterr().err
        else:
            with pytest.raises(KeyboardInterrupt, match=re.escape(told)):
                write(1000)
    finally:
        given_up.set()
    assert holds_soon(lambda: "manifest.json" in keys(server))  # the server takes it late
    read(1000)


def test_a_writer_that_is_killed_leaves_no_data_set(server: FaultServer):
    child = os.fork()
    if child == 0:
        try:
            writer = s3io.RecordWriter(FOLDER, dtype="i4", shape=30, shard_bytes=50_000)
            writer.write(RECORDS)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(keys(server)) > 0
    assert "manifest.json" not in keys(server)
    write(300)
    read(300)


def test_of_two_that_write_at_once_one_fails(server: FaultServer):
    writer = s3io.RecordWriter(FOLDER, dtype="i4", shape=30)
    writer.write(RECORDS[:10])
    write(200)
    with pytest.raises(s3io.ExistsError, match="already"):
        writer.finish()
    read(200)


def test_what_is_for_files_alone_is_refused(server: FaultServer):
    for options in ({"config": s3io.FileSystemConfig()}, {"engine": "threads"}):
        with pytest.raises(s3io.ConfigError, match="are for files"):
            s3io.RecordWriter(FOLDER, dtype="i4", **options)
    with pytest.raises(s3io.ConfigError, match="leave it out"):
        s3io.RecordWriter("folder", dtype="i4", store=s3io.S3Config())
    server.buckets.put(BUCKET, "sets/train/manifest.json", b"{}")
    with pytest.raises(s3io.ConfigError, match="another program's"):
        write(10, overwrite=True)


def test_pack_goes_there_by_several_processes_and_begins_anew(server: FaultServer, tmp_path: Path):
    np.save(tmp_path / "records.npy", RECORDS)
    command = ["pack", str(tmp_path / "records.npy"), "-o", FOLDER, "--shard-mib", "0.05"]
    assert cli.main([*command, "--processes", "2"]) == 0
    read(1000)
    before = keys(server)
    assert cli.main([*command, "--processes", "1"]) != 0  # it is there
    assert keys(server) == before
    assert cli.main([*command, "--processes", "1", "--overwrite"]) == 0
    assert len(keys(server)) == len(before)
    assert not set(keys(server)[1:]) & set(before)
    read(1000)
