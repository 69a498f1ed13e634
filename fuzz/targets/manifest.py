"""Manifests: one that is accepted is consistent, and the folder is read as it says."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from engine.checks import naming

from torch_s3io import RecordDataset
from torch_s3io.format.manifest import MANIFEST_NAME, Manifest, parse_manifest

TOKENS = [
    *(b'"format"', b'"torch_s3io.records"', b'"version"', b'"num_records"', b'"record_bytes"'),
    *(b'"stride_bytes"', b'"checksum"', b'"crc32c"', b'"fields"', b'"shards"', b'"name"'),
    *(b'"dtype"', b'"byte_order"', b'"big"', b'"little"', b'"offset"', b'"shape"', b'"size_bytes"'),
    *(b'"uint8"', b'"float32"', b'"bfloat16"', b'"complex128"', b'"float8_e4m3fn"', b'"bool"'),
    *(b'"records-0123abcd-00000.bin"', b'"manifest.json"', b'"00000000"', b'"ffffffff"'),
    *(b'"onnx"', b'"_dynamo"', b'"qint8"', b'"quint4x2"', b'"bits8"', b'"float4_e2m1fn_x2"'),
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\ud800", b"NaN", b"1e400", b"null", b"true"),
]
ALLOWS = ["os.remove"]  # of the files that this target has made
_MOST_READ = 1 << 16


def make(folder: Path) -> Callable[[bytes], None]:
    path = folder / MANIFEST_NAME

    def read(data: bytes) -> None:
        with naming(path):
            manifest = parse_manifest(data, str(path))
        assert parse_manifest(manifest.to_json(), str(path)) == manifest
        total = sum(shard.size_bytes for shard in manifest.shards)
        assert total == manifest.num_records * manifest.stride_bytes
        if total <= _MOST_READ and len(manifest.shards) <= 64:
            with _written(folder, data, manifest) as shards:
                _compare(RecordDataset(folder, batch_size=manifest.num_records), manifest, shards)

    return read


class _written:
    """The folder that the manifest speaks of, with random bytes in its shards."""

    def __init__(self, folder: Path, data: bytes, manifest: Manifest) -> None:
        self._contents = {
            os.path.join(folder, shard.name): random.Random(shard.crc32c).randbytes(
                shard.size_bytes
            )
            for shard in manifest.shards
        }
        self._contents[str(folder / MANIFEST_NAME)] = data
        self._paths: list[str] = []

    def __enter__(self) -> list[bytes]:
        for path, content in self._contents.items():
            with open(path, "wb") as file:
                file.write(content)
            self._paths.append(path)
        return list(self._contents.values())[:-1]

    def __exit__(self, *_: object) -> None:
        for path in self._paths:
            os.unlink(path)


def _compare(dataset: RecordDataset, manifest: Manifest, shards: list[bytes]) -> None:
    (batch,) = dataset
    tensors = batch if isinstance(batch, dict) else {"": batch}
    assert list(tensors) == [field.name for field in manifest.fields]
    for field in manifest.fields:
        tensor = tensors[field.name]
        assert tensor.shape == (manifest.num_records, *field.shape)
        swapped = tensor.element_size() if field.swap_bytes else 1
        if tensor.is_complex():
            swapped = max(1, swapped // 2)
        wanted = b"".join(_field_bytes(manifest, shards, field.offset, tensor[0].nbytes, swapped))
        if tensor.dtype == torch.bool:
            tensor = tensor.view(torch.uint8)  # a copy of bools would change bytes
        found = tensor.contiguous().view(torch.uint8).numpy() if tensor.numel() else b""
        assert bytes(found) == wanted, field.name


def _field_bytes(
    manifest: Manifest, shards: list[bytes], offset: int, size: int, swapped: int
) -> Iterator[bytes]:
    for shard in shards:
        for begin in range(offset, len(shard), manifest.stride_bytes):
            row = shard[begin : begin + size]
            yield b"".join(row[at : at + swapped][::-1] for at in range(0, size, swapped))
