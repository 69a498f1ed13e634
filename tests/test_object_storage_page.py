"""docs/object-storage.md: its snippets, run against a server on this machine."""

from __future__ import annotations

import tarfile

import numpy as np
from buckets import config_of, needs_s3, serving
from object_servers.fault_server import ACCESS_KEY, SECRET_KEY
from order_check import write_number_samples
from pages import Page
from record_sets import random_array

pytestmark = needs_s3
PAGE = Page("docs/object-storage.md")


def test_every_block_is_run():
    PAGE.check()


@PAGE.runs("Object storage", "python")
def test_the_first_snippet_reads_a_bucket(block):
    images = random_array("u1", 128, (3, 32, 32), 1)
    with serving() as server:
        for number, part in enumerate(np.split(images, 2)):
            server.buckets.put("data", f"train/{number}.bin", part.tobytes())
        names: dict[str, object] = {}
        keys = {"http://localhost:9000": server.endpoint, '"me"': repr(ACCESS_KEY)}
        PAGE.run(block, names, replaced={**keys, '"mine"': repr(SECRET_KEY)})
        assert names["images"].shape == (64, 3, 32, 32)
        assert len(names["dataset"]) == 2


@PAGE.runs("Object storage", "sh")
def test_the_commands_look_at_a_bucket(block, tmp_path, capsys):
    write_number_samples(tmp_path / "packed", 20)
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        archive.add(tmp_path / "packed" / "manifest.json", "0.json")
    with serving() as server:
        server.buckets.put("data", "train/0.bin", bytes(1 << 20))
        server.buckets.put("data", "shards/0.tar", (tmp_path / "0.tar").read_bytes())
        for file in (tmp_path / "packed").iterdir():
            server.buckets.put("data", f"packed/{file.name}", file.read_bytes())
        assert PAGE.run_commands(block, {"s3://data/train": "s3://data/train --quick"}) == [0] * 5
        assert "parts of 1 MiB at a time" in " ".join(capsys.readouterr().out.split())


@PAGE.runs("Single objects", "python")
def test_single_objects_are_written_and_read(block):
    data = random_array("u1", 10_000, (), 2)
    with serving() as server:
        names: dict[str, object] = {
            "config": config_of(server.endpoint),
            "chunks": [data[:3000], data[3000:]],
        }
        PAGE.run(block, names)
        assert names["head"].numpy().tobytes() == data[:4096].tobytes()
        assert names["target"].numpy().tobytes() == data[4096:8096].tobytes()
        assert names["names"] == ["s3://data/large.bin", "s3://data/notes.txt"]
        assert [key for _, key in server.buckets.objects] == ["large.bin"]
