"""The commands that read data, on data in a bucket."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from buckets import BUCKET, deny, needs_s3, path_of, put_files, serving
from object_servers.buckets import Reply, Request
from object_servers.fault_server import FaultServer
from order_check import write_number_samples

import torch_s3io as s3io
from torch_s3io import cli

pytestmark = needs_s3


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


def test_info_and_verify_look_at_a_folder(server, tmp_path, capsys):
    folder = Path(write_number_samples(tmp_path / "packed", 20))
    put_files(server, folder)
    path = path_of(folder)
    assert cli.main(["info", path]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [path, "  samples      20"]
    assert cli.main(["verify", path]) == 0
    assert "all as they were written" in capsys.readouterr().out
    key = next(key for _, key in server.buckets.objects if not key.endswith(".json"))
    data = server.buckets.objects[BUCKET, key].data
    s3io.open_store(path).put(f"s3://{BUCKET}/{key}", data)
    stored = server.buckets.objects[BUCKET, key]
    assert stored.checksum
    damaged = replace(stored, data=data[:200] + bytes([data[200] ^ 1]) + data[201:])
    for one in (damaged, replace(damaged, checksum="")):
        server.buckets.objects[BUCKET, key] = one
        assert cli.main(["verify", path]) == 1
        shown = capsys.readouterr().out
        assert f"s3://{BUCKET}/{key}: DAMAGED: its checksum is" in shown
        assert f"{key}: its samples and its table are as they were written; zeros between" in shown
    assert cli.main(["verify", f"s3://{BUCKET}/{key}"]) == 1
    assert "is a single object, and only those of a folder" in capsys.readouterr().out
    assert cli.main(["verify", f"{path}/*.tar"]) == 1
    assert "*.tar: is a pattern; name folders" in capsys.readouterr().out


def test_index_finds_samples_ahead(server, tmp_path, capsys):
    for number in range(2):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            info = tarfile.TarInfo(f"{number}.txt")
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
        server.buckets.put(BUCKET, f"shards/{number}.tar", archive.getvalue())
    pattern = f"s3://{BUCKET}/shards/*.tar"
    assert cli.main(["index", pattern]) == 0
    shown = capsys.readouterr().out
    assert "of tar archives" in shown
    assert "as the data are" in shown
    server.requests.clear()
    assert len(s3io.SampleDataset.from_tar(pattern, batch_size=1)) == 2
    # A list, and the question whether the server heeds versions.
    assert ["prefix" in one.query for one in server.requests] == [True, False]


def test_store_says_how_buckets_are_reached(server, tmp_path, capsys, monkeypatch):
    folder = Path(write_number_samples(tmp_path / "packed", 20))
    put_files(server, folder)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody listens

    def serve_anybody(reply: Reply, request: Request) -> Reply:
        is_signed = "authorization" in request.headers
        return reply if is_signed else server.buckets.answer(request)

    server.fault = serve_anybody
    store = f"anonymous=true,endpoint={server.endpoint},max_attempts=2,stall_timeout_s=1.5"
    for command in ("info", "verify"):
        assert cli.main([command, path_of(folder), "--store", store]) == 0
    server.buckets.put(BUCKET, "raw/0.bin", bytes(range(40)))
    layout = ["--format", "records", "--dtype", "uint8", "--shape", "4", "--store", store]
    source = f"s3://{BUCKET}/raw/*.bin"
    assert cli.main(["pack", source, "-o", str(tmp_path / "copy"), *layout]) == 0
    assert s3io.RecordDataset(str(tmp_path / "copy")).num_records == 10
    config = s3io.open_store(f"s3://{BUCKET}").config
    assert (config.anonymous, config.max_attempts, config.stall_timeout_s) == (True, 2, 1.5)
    assert all("authorization" not in request.headers for request in server.requests)
    assert cli.main(["info", str(folder), "--store", "anonymous=true"]) == 1
    assert "--store is for paths that begin with s3://" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["index"], ["doctor", "--quick"]])
def test_index_and_doctor_reach_buckets_as_store_says(server, command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody listens
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("0.txt"))
    server.buckets.put(BUCKET, "shards/0.tar", archive.getvalue())
    options = ["--store", f"endpoint={server.endpoint},max_attempts=2"]
    assert cli.main([*command, f"s3://{BUCKET}/shards/0.tar", *options]) == 0
    assert server.requests


@pytest.mark.parametrize(
    "command", ["doctor", "info", "verify", "index", "uploads", "pack", "bench"]
)
@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("anonymos=true", "S3Config has no field 'anonymos': did you mean anonymous?"),
        ("anonymous=yes", "anonymous is true or false, not 'yes'"),
        ("part_bytes=8MiB", "part_bytes is a number, not '8MiB'"),
        ("connections=0", "S3Config.connections must be"),
        ("region=a,region=b", "region comes twice"),
        ("endpoint=http://me:geheim@host", "not an address with a user's name or password"),
        ("secret_key=geheim", "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TO"),
        ("", "S3Config has no field ''"),
    ],
)
def test_a_store_that_cannot_be_is_wrong_usage(command, store, said, capsys):
    output = ["-o", "x"] if command == "pack" else []
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "s3://bucket/x", *output, "--store", store])
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in shown
    assert "geheim" not in shown


def test_doctor_tells_what_a_server_heeds(server, capsys):
    server.buckets.put(BUCKET, "train/small", bytes(100))
    server.buckets.put(BUCKET, "train/large", bytes(100_000))

    def found() -> dict[str, Any]:
        assert cli.main(["doctor", f"s3://{BUCKET}/train", "--quick", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert len(server.buckets.objects) == 2
        return {one["topic"]: one for one in shown["findings"]}

    told = found()
    assert told["If-Match"]["data"] == {"honours_if_match": True}
    assert told["If-None-Match"]["data"] == {"honours_if_none_match": True}
    assert told["objects"]["data"]["path"] == f"s3://{BUCKET}/train/large"
    assert min(told["objects"]["data"]["gb_per_s"].values()) > 0
    answer = server.answer

    def ignore(request: Request) -> Reply:
        request.headers.pop("if-none-match", None)
        return answer(request)

    server.answer = ignore
    assert found()["If-None-Match"]["data"] == {"honours_if_none_match": False}
    deny(server, "PUT", "doctor")
    assert "cannot be told: s3://" in found()["If-None-Match"]["found"]
    assert cli.main(["doctor", f"s3://{BUCKET}/none"]) == 1
    assert "no object begins with this name" in capsys.readouterr().err
