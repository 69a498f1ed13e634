"""The commands that read data, on data in a bucket."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import BUCKET, needs_s3, path_of, put_files, serving
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
    data = bytearray(server.buckets.objects[BUCKET, key].data)
    data[200] ^= 1
    server.buckets.put(BUCKET, key, bytes(data))
    assert cli.main(["verify", path]) == 1
    assert f"s3://{BUCKET}/{key}: DAMAGED: its checksum is" in capsys.readouterr().out


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


def test_doctor_tells_what_a_server_heeds(server, capsys):
    server.buckets.put(BUCKET, "train/small", bytes(100))
    server.buckets.put(BUCKET, "train/large", bytes(100_000))
    assert cli.main(["doctor", f"s3://{BUCKET}/train", "--quick", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    found = {one["topic"]: one for one in shown["findings"]}
    assert found["If-Match"]["data"] == {"honours_if_match": True}
    assert found["objects"]["data"]["path"] == f"s3://{BUCKET}/train/large"
    assert min(found["objects"]["data"]["gb_per_s"].values()) > 0
    assert cli.main(["doctor", f"s3://{BUCKET}/none"]) == 1
    assert "no object begins with this name" in capsys.readouterr().err
