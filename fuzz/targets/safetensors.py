"""Safetensors files: what is accepted is what their header says, byte by byte."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from engine.checks import naming

from torch_s3io import BufferPoolConfig, FileSystemConfig, load_safetensors

TOKENS = [
    *(b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b'"F32"', b'"BF16"', b'"BOOL"'),
    *(b'"F8_E4M3"', b'"C64"', b'"U64"', b"[]", b"[0]", b"[0,0]", b"[2,3]", b"{}", b"null", b"NaN"),
    *(b"9223372036854775807", b"-1", b"1e3", b"\xff" * 8, b"\x00" * 8),
]
_STORE = FileSystemConfig(buffer_pool=BufferPoolConfig(capacity=4, buffer_size=1 << 16))


def make(folder: Path) -> Callable[[bytes], None]:
    path = folder / "x.safetensors"
    file = os.open(path, os.O_RDWR | os.O_CREAT)

    def read(data: bytes) -> None:
        os.ftruncate(file, 0)
        os.pwrite(file, data, 0)
        with naming(path):
            tensors = load_safetensors(path, store=_STORE)
        begins = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:begins])
        header.pop("__metadata__", None)
        assert tensors.keys() == header.keys()
        places = []
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            places.append((begin, end))
            assert list(tensors[name].shape) == entry["shape"], name
            assert _bytes_of(tensors[name]) == data[begins + begin : begins + end], name
        ends = [0, *(end for _, end in sorted(places))]
        assert [begin for begin, _ in sorted(places)] == ends[:-1]
        assert begins + ends[-1] == len(data)

    return read


def _bytes_of(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().flatten().view(torch.uint8).numpy())
