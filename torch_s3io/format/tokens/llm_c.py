"""The ``.bin`` files of llm.c and modded-nanogpt: a header of 256 int32, then tokens.

Layout: dev/data/data_common.py and llmc/dataloader.h of https://github.com/karpathy/llm.c. Of the
header the first three numbers count: a magic number, a version, and how many tokens there are.
"""

from __future__ import annotations

import numpy as np

from ...store.store import Found, Inspected
from ...store.stores import store_of
from .document_index import Sought
from .document_table import TokenFile, fail
from .raw import Documented, tokens_between

HEADER_BYTES = 1024
_KINDS = {20240520: (1, "<u2"), 20240801: (7, "<u4")}  # version, type
_EVALUATION = 20240522
MAGICS = (*_KINDS, _EVALUATION)


def magic_of(path: str) -> int:
    """The number that a file begins with; 0 if it has fewer than 4 bytes."""
    head = store_of(path).read(path, 0, 4)
    return int.from_bytes(head, "little") if len(head) == 4 else 0


def open_llm_c(file: Found, info: Inspected, documented: Documented) -> TokenFile | Sought:
    """Raises DataError for a file that is none, or was cut off."""
    path = file.path
    head = np.frombuffer(store_of(path).read(path, 0, HEADER_BYTES), np.uint8)
    magic = magic_of(path)
    if magic == _EVALUATION:
        fail(
            path,
            "is an evaluation file of llm.c (HellaSwag), which has questions in it: train on the "
            "others",
        )
    if magic not in _KINDS:
        fail(path, "is no file of llm.c: it does not begin with 20240520 or 20240801")
    if len(head) < HEADER_BYTES:
        fail(path, f"has {len(head)} bytes, fewer than its header: it was cut off; copy it again")
    _, version, count = head[:12].view("<i4").tolist()
    expected, kind = _KINDS[magic]
    if version != expected:
        fail(path, f"has version {version}, and only {expected} is known: it is damaged")
    dtype = np.dtype(kind)
    if count < 0 or info.size_bytes != HEADER_BYTES + count * dtype.itemsize:
        fail(
            path,
            f"has {info.size_bytes} bytes, but its header says {count} tokens of "
            f"{dtype.itemsize} bytes after {HEADER_BYTES}: it was cut off or appended to; copy it "
            "again",
        )
    return tokens_between(file, info, dtype, HEADER_BYTES, documented)
