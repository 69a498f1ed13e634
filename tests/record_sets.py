"""Small data sets, of records of one value or of random ones, and what a folder holds of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from support import random_bytes

from torch_s3io import _C, Error, RecordDataset, RecordWriter

CIFAR10 = np.dtype([("label", "u1"), ("image", "u1", (3, 32, 32))])


def all_records(folder, **options) -> list:
    return list(RecordDataset(folder, batch_size=7, pool=None, **options))


def write_set(folder, value: int, **options) -> None:
    """In the place of what the folder holds."""
    options = {"overwrite": True, **options}
    with RecordWriter(folder, dtype="u1", shape=1000, shard_bytes=300_000, **options) as writer:
        for _ in range(5):
            writer.write(np.full((200, 1000), value, "u1"))


def check_set(folder, value: int) -> None:
    """The folder holds this data set and nothing else."""
    for batch in all_records(folder):
        assert (batch == value).all()
    check_clean(folder)


def check_clean(folder) -> None:
    """The folder holds a manifest, the shards that it names, and nothing else."""
    manifest = json.loads((folder / "manifest.json").read_text())
    names = {"manifest.json", *(shard["name"] for shard in manifest["shards"])}
    assert set(os.listdir(folder)) == names


def is_clean_after_a_start(folder) -> bool:
    """The same, once the next writer has removed what a killed one has left."""
    RecordWriter(folder, dtype="u1", overwrite=True).cancel()
    manifest = json.loads((folder / "manifest.json").read_text())
    return len(os.listdir(folder)) == len(manifest["shards"]) + 1


def values_in(folder) -> set[int]:
    return {int(value) for batch in all_records(folder) for value in batch.unique()}


def random_array(dtype, count: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    dtype = np.dtype(dtype)
    size = count * int(np.prod(shape, dtype=int)) * dtype.itemsize
    raw = np.frombuffer(bytearray(random_bytes(size, seed)), np.uint8)
    if dtype.kind == "b":
        raw &= 1
    return raw.view(dtype).reshape(count, *shape)


def write_cifar10() -> np.ndarray:
    """Three files of 200 records in train/, in the current folder."""
    records = random_array("u1", 600, (CIFAR10.itemsize,), 1)
    Path("train").mkdir()
    for number, part in enumerate(np.split(records, 3)):
        Path(f"train/{number}.bin").write_bytes(part.tobytes())
    return records.view(CIFAR10)[:, 0]


def bytes_of(folder, count: int, record_bytes: int) -> bytes:
    """The records by the manifest, read with nothing but json and open."""
    manifest = json.loads((folder / "manifest.json").read_text())
    records = []
    for shard in manifest["shards"]:
        data = (folder / shard["name"]).read_bytes()
        assert len(data) == shard["size_bytes"] == shard["num_records"] * manifest["stride_bytes"]
        assert f"{_C.crc32c(data):08x}" == shard["crc32c"]
        rows = np.frombuffer(data, np.uint8).reshape(shard["num_records"], -1)
        assert not rows[:, record_bytes:].any()
        records.append(rows[:, :record_bytes].tobytes())
    assert manifest["num_records"] == count
    return b"".join(records)


def error_text(call) -> str:
    """What the error says; nothing if there is none."""
    try:
        call()
    except Error as error:
        return str(error)
    return ""
