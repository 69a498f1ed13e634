"""datatrove's tokens: ``NAME.ds``, and where each document ends in ``NAME.ds.index``.

Layout: pipeline/tokens/tokenizer.py of https://github.com/huggingface/datatrove. The index is
uint64, little-endian, in tokens. A token has 2 bytes, or 4 where a vocabulary needs them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ...store.store import Found, Identity, Inspected
from ...wording import short
from ..objects import shard_of
from .document_table import DocumentTable, TokenFile, bytes_beside, fail, identity_of

_CHUNK = 1 << 16


def open_datatrove(file: Found, info: Inspected, dtype: np.dtype[Any] | None) -> TokenFile:
    """Raises DataError for files that do not belong together, and as ``inspect``."""
    path = f"{file.path}.index"
    identity = identity_of(path)
    ends = _read_ends(path, identity)
    count = int(ends[-1]) if len(ends) else 0
    sizes = [size for size in (2, 4) if count * size == info.size_bytes]
    if not sizes or (dtype is not None and count * dtype.itemsize != info.size_bytes):
        of = "2 or 4 bytes" if dtype is None else f"dtype={short(str(dtype))}"
        fail(
            file.path,
            f"has {info.size_bytes} bytes, but its index ends after {count} tokens, of {of}: one "
            "of them was cut off, or is of another data set; copy both again",
        )
    made = np.dtype(f"<u{sizes[0]}") if dtype is None else dtype
    table = _table_of(ends, made.itemsize)
    load = partial(_load, path, identity, made.itemsize)
    return table.file(shard_of(file, info, 0, len(ends)), made, load)


def _load(path: str, identity: Identity, token_bytes: int) -> DocumentTable:
    return _table_of(_read_ends(path, identity), token_bytes)


def _read_ends(path: str, identity: Identity) -> np.ndarray[Any, np.dtype[np.uint64]]:
    data = bytes_beside(path, identity)
    if len(data) % 8:
        fail(path, f"has {len(data)} bytes, no multiple of 8: it was cut off; copy it again")
    ends = data.view("<u8")
    last = 0
    for begin in range(0, len(ends), _CHUNK):
        part = ends[begin : begin + _CHUNK]
        if int(part[0]) < last or (part[1:] < part[:-1]).any():
            fail(path, "says that a document ends before it begins: it is damaged; copy it again")
        last = int(part[-1])
    if last > 1 << 60:
        fail(path, f"ends after {last} tokens, which no file has: it is damaged; copy it again")
    return ends


def _table_of(ends: np.ndarray[Any, np.dtype[np.uint64]], token_bytes: int) -> DocumentTable:
    starts = np.zeros(len(ends), np.uint64)
    starts[1:] = ends[:-1]
    lengths = ends - starts
    is_long = len(lengths) > 0 and int(lengths.max()) >> 32
    starts *= np.uint64(token_bytes)
    return DocumentTable(starts, lengths if is_long else lengths.astype(np.uint32))
