"""Index files: what is accepted lies within the file, and is read without harm.

An input is the head of a file and what follows it, up to which there is no zero byte. Its checksums
are made right, so that what lies behind them is reached.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from engine.checks import naming

from torch_s3io import _C
from torch_s3io.cli.index_facts import index_as_json
from torch_s3io.errors import Error
from torch_s3io.format.tar.tar_index import TarIndex
from torch_s3io.index.column_file import MAGIC, START, VERSION, ColumnFile, map_columns

TOKENS = [
    *(b'"uid"', b'"size_bytes"', b'"head"', b'"columns"', b'"name"', b'"dtype"', b'"shape"'),
    *(b'"offset"', b'"crc32c"', b'"<u8"', b'"<u4"', b'"|u1"', b'"<i8"', b'"|b1"', b'"<f2"'),
    *(b'"names"', b'"name_ends"', b'"versions"', b'"shard_ends"', b'"begins"', b'"stops"'),
    *(b'"extensions"', b'"extension_ends"', b'"counts"', b'"dense"', b'"starts"', b'"lengths"'),
    *(b'"recipe"', b'"kind"', b'"tar"', b'"folder"', b'"arrays"', b'"tokens"', b'"of"', b"null"),
    *(b'"fields"', b'"M8[s]"', b'"\\u0000"', b'"\\ud800"', b'"s3://a"'),
    *(b'"is_packed"', b'"classes"', b'"labels"', b'"above"', b'"a4"', b'"O"'),
    *(b'"sparse_ends"', b'"sparse_samples"', b'"keys"', b'"key_ends"', b"[]", b"[0]", b"[1,2]"),
    *(b"64", b"128", b"4096", b"\xff" * 8, b"\1" + b"\0" * 7, b"{", b"}", b"[", b"]", b",", b":"),
]
_MOST_ROWS = 1000


def make(folder: Path) -> Callable[[bytes], None]:
    path = folder / "a.idx"

    def read(data: bytes) -> None:
        text, zero, rest = data.partition(b"\0")
        rest = zero + rest
        text = _with_right_checksums(text, rest)
        path.write_bytes(START.pack(MAGIC, VERSION, _C.crc32c(text), len(text)) + text + rest)
        with naming(path):
            file = map_columns(str(path))
            _check_columns(file, path.stat().st_size)
        with contextlib.suppress(Error), naming(path):
            _read_all(TarIndex(file))
        with naming(path):
            json.dumps(index_as_json(file))  # by its kind

    return read


def _with_right_checksums(text: bytes, rest: bytes) -> bytes:
    """In as many bytes: the offsets of the columns count them."""
    try:
        root = json.loads(text)
        before = START.size + len(text)
        root["size_bytes"] = before + len(rest)
        for entry in root["columns"]:
            size = int(entry["dtype"][2:])
            for extent in entry["shape"]:
                size *= extent
            begin = entry["offset"] - before
            entry["crc32c"] = _C.crc32c(rest[begin : begin + size])
        made = json.dumps(root, separators=(",", ":")).encode()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        return text
    return made.ljust(len(text)) if len(made) <= len(text) else text


def _check_columns(file: ColumnFile, size_bytes: int) -> None:
    for column in file.columns.values():
        assert column.nbytes <= size_bytes
        assert not column.flags.writeable
        column.tobytes()


def _read_all(index: TarIndex) -> None:
    extensions = len(index.columns["extension_ends"])
    assert index.num_samples == len(index.columns["key_ends"])
    assert len(index.names) == len(index.shard_ends)
    assert len(index.extensions) == extensions
    for shard in range(len(index.names)):
        rows = index.rows(shard)
        for extension in range(extensions):
            starts, lengths = index.members(extension, shard)
            assert len(starts) == len(lengths) == len(rows)
    some = np.arange(min(index.num_samples, _MOST_ROWS))
    assert len(index.keys(some)) == len(some)
