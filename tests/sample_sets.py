"""Folders of samples, read with nothing but struct, json and open; and small ones that are written.

The reader follows docs/format.md and shares no code with the package."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np

from torch_s3io import _C
from torch_s3io.writing.sample_writer import SampleWriter

_SIZES = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "uint16": 2,
    "int16": 2,
    "float16": 2,
    "bfloat16": 2,
    "int32": 4,
}
_SIZES |= {"float32": 4, "int64": 8, "uint64": 8, "float64": 8, "complex64": 8, "complex128": 16}
_CRC = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ 0x82F63B78 * (_byte & 1)
    _CRC.append(_byte)


def crc32c(data: bytes) -> int:
    """By a table of its own; of long data, which that takes seconds for, by the package's."""
    if len(data) > 20_000:
        return _C.crc32c(data)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def read_samples(folder: Path) -> list[dict[str, tuple[bytes, tuple[int, ...]]]]:
    """Per sample, of each field its bytes as they are stored, and its shape; all is checked."""
    manifest = json.loads((folder / "manifest.json").read_text())
    samples = []
    for shard in manifest["shards"]:
        data = (folder / shard["name"]).read_bytes()
        samples += _read_shard(data, shard, manifest)
    assert len(samples) == manifest["num_samples"]
    return samples


def _read_shard(data: bytes, shard: dict, manifest: dict) -> list[dict]:
    assert (len(data), f"{crc32c(data):08x}") == (shard["size_bytes"], shard["crc32c"])
    count, at = shard["num_samples"], shard["table_offset"]
    assert (at % 4096, f"{crc32c(data[at:]):08x}") == (0, shard["table_crc32c"])

    def column(letter: str, number: int) -> tuple[int, ...]:
        nonlocal at
        at = -(-at // 8) * 8
        values = struct.unpack_from(f"<{number}{letter}", data, at)
        at += struct.calcsize(f"<{number}{letter}")
        return values

    letter = {4: "I", 8: "Q"}[shard["length_bytes"]]
    starts, lengths = column("Q", count), {}
    for field in manifest["fields"]:
        if num_open := field["shape"].count(None):
            flat = column(letter, count * num_open)
            lengths[field["name"]] = [flat[i * num_open : (i + 1) * num_open] for i in range(count)]
    crcs, last_end, samples = column("I", count), 0, []
    for number, start in enumerate(starts):
        assert (start % manifest["alignment"], any(data[last_end:start])) == (0, False)
        sample, end = {}, start + manifest["record_bytes"]
        for field in manifest["fields"]:
            name, item = field["name"], _SIZES[field["dtype"]]
            given = iter(lengths[name][number] if name in lengths else ())
            shape = tuple(next(given) if extent is None else extent for extent in field["shape"])
            size, begin = math.prod(shape) * item, start + field.get("offset", 0)
            if name in lengths:
                begin = -(-end // min(item, 16)) * min(item, 16)
                end = begin + size
            sample[name] = (data[begin : begin + size], shape)
        assert crc32c(data[start:end]) == crcs[number]
        assert end - start <= manifest["largest_sample_bytes"]
        samples.append(sample)
        last_end = end
    assert last_end <= shard["table_offset"]
    assert not any(data[last_end : shard["table_offset"]])
    return samples


FIELDS = {"data": bytes, "tokens": (np.uint16, (None,)), "label": np.int64}


def write_samples(folder, value: int, **options) -> None:
    """500 samples of one value, in several shards; in the place of what the folder holds."""
    options = {"overwrite": True, "shard_bytes": 100_000, **options}
    with SampleWriter(folder, fields=FIELDS, **options) as writer:
        for begin in range(0, 500, 100):
            writer.write_batch([sample_of(value, n) for n in range(begin, begin + 100)])


def sample_of(value: int, number: int) -> dict:
    return {
        "data": bytes([value]) * (number * 7 % 1500),
        "tokens": np.full(number % 5, value, "u2"),
        "label": number,
    }


def value_of_samples(folder) -> int:
    """The value of the 500 samples that are there, whole and in order."""
    samples = read_samples(folder)
    value = samples[1]["data"][0][0]
    expected = [sample_of(value, number) for number in range(500)]
    assert [sample["data"][0] for sample in samples] == [sample["data"] for sample in expected]
    for number, sample in enumerate(samples):
        assert sample["tokens"][0] == expected[number]["tokens"].tobytes()
        assert sample["label"][0] == number.to_bytes(8, "little")
    return value


class Lengths:
    """Samples of these lengths in bytes, each with its number."""

    def __init__(self, folder: Path, lengths, **options) -> None:
        self.folder = folder
        self.data = []
        blob = np.random.default_rng(0).bytes(max(lengths) + 256)
        with SampleWriter(folder, fields={"data": bytes, "number": np.int64}, **options) as writer:
            for number, length in enumerate(lengths):
                self.data.append(blob[number % 256 : number % 256 + length])
                writer.write({"data": self.data[-1], "number": number})

    def check(self, batch) -> list[int]:
        """The numbers of a batch whose bytes are those that were written."""
        numbers = batch["number"].tolist()
        assert len(numbers) == len(batch["data"])
        for number, sample in zip(numbers, batch["data"], strict=True):
            assert sample.numpy().tobytes() == self.data[number]
        return numbers

    def check_all(self, batches) -> list[int]:
        return [number for batch in batches for number in self.check(batch)]


def endless_samples():
    """For commands that are stopped."""
    while True:
        yield {"data": bytes(1 << 20)}
