"""Tokens without anything that says what they are: raw ``.bin`` files, as nanoGPT has them, and
``.npy`` files without a header, as OLMo and Dolma have them.

Documents end with a token of their own (``eos``), or are listed in ``NAME.csv.gz``, of which each
line begins with the first token of a document and the one after its last.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...errors import ConfigError
from ...store.store import Found, Inspected
from ...store.stores import store_of
from ...wording import printable
from ..npy import is_of_numpy
from ..objects import shard_of
from .document_index import Sought
from .document_table import DocumentTable, TokenFile, fail, identity_of
from .spans import spans_path

_LFS = b"version https://git-lfs"


class Documented(NamedTuple):
    """How it is said where documents are.

    Attributes:
        eos: The token that ends them, or begins them; None: each file is one.
        spans: Whether lists of them are looked for.
    """

    eos: int | None
    spans: bool


def open_raw(
    file: Found, info: Inspected, dtype: Any, documented: Documented
) -> TokenFile | Sought:
    """Raises DataError for what is no whole number of tokens, or has a header of numpy's."""
    path, size = file.path, info.size_bytes
    if is_of_numpy(path):
        fail(
            path,
            "is an array of numpy with a header, which would pass for tokens: "
            'numpy.load(path).tofile("tokens.bin") writes the bare tokens',
        )
    if bytes(store_of(path).read(path, 0, len(_LFS))) == _LFS:
        fail(path, "is a pointer of git-lfs in the place of the file: run git lfs pull")
    if size % dtype.itemsize:
        fail(
            path,
            f"has {size} bytes, no multiple of the {dtype.itemsize} bytes of a token: another "
            "dtype= may be meant, or the file was cut off",
        )
    return tokens_between(file, info, dtype, 0, documented)


def tokens_between(
    file: Found, info: Inspected, dtype: Any, header_bytes: int, documented: Documented
) -> TokenFile | Sought:
    """The tokens from ``header_bytes`` to the end of the file."""
    spans = spans_path(file.path) if documented.spans else None
    if spans is not None and documented.eos is not None:
        raise ConfigError(
            f"{printable(file.path)}: {printable(spans)} lists its documents: leave eos= and bos= "
            "out"
        )
    if spans is not None:
        return Sought(file, info, dtype, header_bytes, spans, identity_of(spans))
    if documented.eos is not None:
        return Sought(file, info, dtype, header_bytes, file.path, info.identity)
    load = partial(_whole, header_bytes, (info.size_bytes - header_bytes) // dtype.itemsize)
    table = load()
    return table.file(shard_of(file, info, header_bytes, len(table.starts)), dtype, load)


def _whole(header_bytes: int, count: int) -> DocumentTable:
    """One document; of an empty file none."""
    number = 1 if count else 0
    return _table([header_bytes] * number, [count] * number)


def _table(starts: Any, lengths: Any) -> DocumentTable:
    lengths = np.array(lengths, np.uint64)
    is_long = len(lengths) > 0 and int(lengths.max()) >> 32
    return DocumentTable(
        np.array(starts, np.uint64), lengths if is_long else lengths.astype(np.uint32)
    )
