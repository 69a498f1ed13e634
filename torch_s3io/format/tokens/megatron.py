"""Megatron's indexed data sets: tokens in ``NAME.bin``, and in ``NAME.idx`` where each sequence is,
and which sequences are a document.

Layout: megatron/core/datasets/indexed_dataset.py of https://github.com/NVIDIA/Megatron-LM. All
numbers are little-endian, and lie at any address::

    0   "MMIDIDX\\0\\0", uint64 version 1, uint8 type of a token
    18  uint64 S, uint64 D
    34  int32 [S]: tokens of each sequence
        int64 [S]: where it begins in the .bin, in bytes
        int64 [D]: of each document the first sequence, and at last S
        int8 [S], of multimodal data sets alone
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NoReturn

import numpy as np

from ... import _C
from ...errors import DataError
from ...store.store import Found, Identity, Inspected
from ...warning import warn
from ...wording import printable
from ..objects import Column, shard_of
from .document_table import DocumentTable, TokenFile, bytes_beside, fail, identity_of

Repair = Literal["recompute"]

MAGIC = b"MMIDIDX\0\0"
_OLD_MAGIC = b"TNTIDX\0\0"
HEAD = struct.Struct("<9sQBQQ")
TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}
_CHUNK = 1 << 16  # documents that are checked at once: they stay in the processor's cache


@dataclass(frozen=True)
class _Index:
    """An ``.idx`` file, as it lies in memory."""

    path: str
    dtype: np.dtype[Any]
    lengths: Column
    offsets: Column
    documents: Column


def open_megatron(file: Found, info: Inspected, repair: Repair | None) -> TokenFile:
    """The documents of a ``.bin`` file, as its ``.idx`` says.

    Args:
        file: The ``.bin``.

    Raises:
        NotFoundError, AccessError: There is no ``.idx``, or it may not be read.
        DataError: It is damaged, or of another ``.bin``.
    """
    path = index_path(file.path)
    identity = identity_of(path)
    load = partial(_load, path, identity, info.size_bytes, repair)
    table, dtype = _read(path, identity, info.size_bytes, repair)
    return table.file(shard_of(file, info, 0, len(table.starts)), dtype, load)


def index_path(path: str) -> str:
    return path.removesuffix(".bin") + ".idx"


def _load(path: str, identity: Identity, bin_bytes: int, repair: Repair | None) -> DocumentTable:
    return _read(path, identity, bin_bytes, repair)[0]


def _read(
    path: str, identity: Identity, bin_bytes: int, repair: Repair | None
) -> tuple[DocumentTable, np.dtype[Any]]:
    index = _parse(path, bytes_beside(path, identity))
    total = _check_sequences(index, bin_bytes, repair is not None)
    offsets = index.offsets
    if total is None:
        sizes = index.lengths.astype(np.uint64) * np.uint64(index.dtype.itemsize)
        ends = np.cumsum(sizes, dtype=np.uint64)
        offsets, total = ends - sizes, int(ends[-1])
    if _check_documents(index):
        return DocumentTable(offsets, index.lengths), index.dtype
    bounds = np.append(offsets, np.uint64(total))[index.documents]
    lengths = np.diff(bounds) // np.uint64(index.dtype.itemsize)
    return DocumentTable(bounds[:-1].copy(), lengths), index.dtype


def _parse(path: str, data: np.ndarray[Any, np.dtype[np.uint8]]) -> _Index:
    head = data[: HEAD.size].tobytes()
    if head.startswith(_OLD_MAGIC):
        fail(path, "is of fairseq or an old Megatron (TNTIDX), which is not read: tokenize anew")
    if not head.startswith(MAGIC):
        fail(path, "is no index of Megatron's: it does not begin with MMIDIDX")
    if len(head) < HEAD.size:
        fail(path, f"has {len(data)} bytes, fewer than its head: it was cut off; copy it again")
    _, version, code, sequences, documents = HEAD.unpack(head)
    if version != 1:
        fail(path, f"has version {version}, and only 1 is known: it is damaged; copy it again")
    if code not in TYPES:
        fail(path, f"has tokens of type {code}, and 1 to 8 are known: it is damaged")
    size = HEAD.size + 12 * sequences + 8 * documents
    if len(data) not in (size, size + sequences):
        fail(
            path,
            f"has {len(data)} bytes, but {sequences} sequences and {documents} documents take "
            f"{size}: it was cut off or appended to; copy it again",
        )
    if documents < 1:
        fail(path, "does not say where its documents end: it is damaged; write it anew")
    at = HEAD.size
    columns = []
    for kind, count in (("<u4", sequences), ("<u8", sequences), ("<u8", documents)):
        columns.append(np.frombuffer(data.data, kind, count, at))
        at += columns[-1].nbytes
    return _Index(path, np.dtype(TYPES[code]), *columns)


def _check_sequences(index: _Index, bin_bytes: int, repairs: bool) -> int | None:
    """Each sequence begins where the one before it ends, and the last one ends within the .bin.
    Gives that end; None: the offsets are wrong, and to be made from the lengths.
    """
    found = _C.check_sequences(
        lengths=index.lengths.data, offsets=index.offsets.data, token_bytes=index.dtype.itemsize
    )
    if found.too_long >= 0:
        fail(
            index.path,
            f"sequence {found.too_long} has a negative length: it is damaged; copy it again",
        )
    if found.is_endless:
        fail(index.path, "its sequences have more tokens than any file: it is damaged")
    end, wrong = found.end_bytes, found.displaced if found.displaced >= 0 else None
    if wrong is None and end <= bin_bytes:
        if end < bin_bytes:
            warn(
                f"{printable(index.path)}: its sequences have {end} bytes, and the .bin has "
                f"{bin_bytes - end} more, which are not read: one may be of another data set"
            )
        return end
    if wrong is not None and end == bin_bytes:
        if repairs:
            return None
        _refuse_offset(index, wrong)
    _refuse_other_bin(index, end, bin_bytes, wrong)


def _refuse_offset(index: _Index, number: int) -> NoReturn:
    found = int(index.offsets[number].astype(np.int64))
    raise DataError(
        f"{printable(index.path)}: says that sequence {number} begins at byte {found}, which is "
        "not where the one before it ends. Its lengths add up to the size of the .bin: they are "
        "right, and the offsets wrapped around, as numpy 2 and an older Megatron make them. "
        'repair="recompute" takes the lengths'
    )


def _refuse_other_bin(index: _Index, end: int, bin_bytes: int, wrong: int | None) -> NoReturn:
    also = "" if wrong is None else f", and the offset of sequence {wrong} is wrong"
    raise DataError(
        f"{printable(index.path)}: its sequences have {end} bytes, but the .bin has {bin_bytes}"
        f"{also}: one of them was cut off, or is of another data set; copy both again"
    )


def _check_documents(index: _Index) -> bool:
    """Whether every sequence is a document."""
    documents, count = index.documents, len(index.lengths)
    is_each = len(documents) == count + 1 and _C.counts_up(documents.data)
    last = count if is_each else _last_document(index)
    if last != count:
        fail(
            index.path,
            f"its documents have {last} sequences, but there are {count}: it is damaged; copy it "
            "again",
        )
    return is_each


def _last_document(index: _Index) -> int:
    """The end of the last one. They follow each other."""
    last = 0
    for begin in range(0, len(index.documents), _CHUNK):
        part = index.documents[begin : begin + _CHUNK].astype(np.uint64)
        if int(part[0]) < last or (part[1:] < part[:-1]).any() or (begin == 0 and part[0]):
            fail(index.path, "its documents do not follow each other: it is damaged; copy it again")
        last = int(part[-1])
    return last
