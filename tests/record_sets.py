"""Small data sets, each of records of one value, and what a folder holds of them."""

from __future__ import annotations

import json
import os

import numpy as np

from torch_s3io import RecordDataset, RecordWriter


def all_records(folder, **options) -> list:
    return list(RecordDataset(folder, batch_size=7, pool=None, **options))


def write_set(folder, value: int, **options) -> None:
    with RecordWriter(folder, dtype="u1", shape=1000, shard_bytes=300_000, **options) as writer:
        for _ in range(5):
            writer.write(np.full((200, 1000), value, "u1"))


def check_set(folder, value: int) -> None:
    """The folder holds this data set and nothing else."""
    for batch in all_records(folder):
        assert (batch == value).all()
    manifest = json.loads((folder / "manifest.json").read_text())
    names = {"manifest.json", *(shard["name"] for shard in manifest["shards"])}
    assert set(os.listdir(folder)) == names


def values_in(folder) -> set[int]:
    return {int(value) for batch in all_records(folder) for value in batch.unique()}
