"""Documents of tokens: what an index says that is accepted lies within the file of tokens.

The first byte of an input is the format, the next two are the size of the file of tokens; the rest
is what lies beside it, or the beginning of the file itself.
"""

from __future__ import annotations

import gzip
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

from engine.checks import naming

from torch_s3io.format.tokens.token_format import TokenOptions, open_tokens

TOKENS = [
    *(b"MMIDIDX\0\0\1\0\0\0\0\0\0\0", b"TNTIDX\0\0", b"\4\2" + b"\0" * 7 + b"\3" + b"\0" * 7),
    *(b"\0\0\0\0", b"\1\0\0\0", b"\0" * 8, b"\1" + b"\0" * 7, b"\xff" * 4, b"\xff" * 8),
    *(struct.pack("<i", magic) for magic in (20240520, 20240801, 20240522)),
    *(b"0,3\n", b"3,7,id\n", b"-1,2\n", b",", b"\n", b"99999999999999999999,"),
]


# The file of tokens, what lies beside it, and what a data set is told.
_KINDS = [
    ("m.bin", "m.idx", TokenOptions("megatron")),
    ("m.bin", "m.idx", TokenOptions("megatron", repair="recompute")),
    ("d.ds", "d.ds.index", TokenOptions("datatrove")),
    ("r.npy", "r.csv.gz", TokenOptions("raw", dtype="u2", index=False)),
    ("c.bin", None, TokenOptions("llm.c", eos=7, index=False)),
]


def make(folder: Path) -> Callable[[bytes], None]:
    names = {name for kind in _KINDS for name in kind[:2] if name}
    files = {name: os.open(folder / name, os.O_RDWR | os.O_CREAT) for name in names}

    def write(name: str, data: bytes) -> None:
        os.ftruncate(files[name], 0)
        os.pwrite(files[name], data, 0)

    def read(data: bytes) -> None:
        name, beside, options = _KINDS[data[0] % len(_KINDS) if data else 0]
        size, rest = int.from_bytes(data[1:3], "little"), data[3:]
        write(name, rest if beside is None else bytes(size))
        if beside is not None:
            write(beside, gzip.compress(rest, 1) if beside.endswith(".gz") else rest)
        # Tokens that no document has are warned of.
        with naming(folder), warnings.catch_warnings(action="ignore"):
            [found] = open_tokens(folder / name, "name", options.checked())
        _check(found)

    return read


def _check(found) -> None:
    """Number by number, in Python's integers."""
    table, item, total = found.table, found.dtype.itemsize, 0
    assert len(table.starts) == len(table.lengths) == found.shard.num_records
    for start, length in zip(table.starts.tolist(), table.lengths.tolist(), strict=True):
        assert start + length * item <= found.shard.size_bytes
        assert start >= found.shard.header_bytes
        total += length
        assert length <= found.longest
    assert total == found.num_tokens
