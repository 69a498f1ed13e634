"""Configurations of benchmarks: YAML files, and ``--set KEY=VALUE`` after each NUL byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml
from engine.checks import naming

from torch_s3io.bench.config import BenchConfig
from torch_s3io.bench.load import load
from torch_s3io.bench.parse import from_mapping, to_mapping

TOKENS = [
    *(b"name: ", b"description: ", b"data:", b"storage:", b"loader:", b"pool:", b"range_engine:"),
    *(b"files: ", b"record_bytes: ", b"records_per_file: ", b"compute_s_per_step: ", b"epochs: "),
    *(b"8 MiB", b"1.5KiB", b"0x7fffffffffffffff", b"1:30:59", b"1:1:1:1:1:1:1:1", b"0o17", b"0b1"),
    *(b".inf", b".nan", b"~", b"2020-01-01", b"!!python/object/apply:os.system [true]", b"!!set"),
    *(b"&a ", b"*a", b"<<: *a", b"!!binary ", b"? ", b"- ", b"|\n", b">\n", b"---\n", b"...", b"%"),
    *(b"\0storage.depth=64", b"\0storage.pool.capacity=3", b"\0a.b.c=[1]", b"\0=", b"\0name=x"),
    b"&a [*a]",
]


def make(folder: Path) -> Callable[[bytes], None]:
    path = folder / "x.yaml"
    path.write_text("""
data: {record_bytes: 8 MB}
storage: {pool: {capacity: 2}, range_engine: {chunk_size: 4096}}
loader: {reader: files}
""")
    load(str(path), [])  # evaluates the types of the configuration, once

    def read(data: bytes) -> None:
        text, *settings = data.split(b"\0")
        path.write_bytes(text)
        with naming(path):
            config = load(str(path), [part.decode("utf-8", "surrogateescape") for part in settings])
        assert from_mapping(BenchConfig, to_mapping(config)) == config
        path.write_text(yaml.safe_dump(to_mapping(config)))
        assert load(str(path), []) == config

    return read
