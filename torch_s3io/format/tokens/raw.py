"""Tokens without anything that says what they are: raw ``.bin`` files, as nanoGPT has them, and
``.npy`` files without a header, as OLMo and Dolma have them.

Documents end with a token of their own (``eos``), or are listed in ``NAME.csv.gz``, of which each
line begins with the first token of a document and the one after its last.
"""

from __future__ import annotations

import gzip
import io
import zlib
from array import array
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...errors import ConfigError
from ...store.store import Found, Identity, Inspected
from ...store.stores import store_of
from ...warning import warn
from ...wording import printable, short
from ..npy import is_of_numpy
from ..objects import shard_of
from .document_table import DocumentTable, TokenFile, bytes_beside, fail, identity_of
from .ends import EndedFile

_MOST_LINE_BYTES = 1 << 16
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
) -> TokenFile | EndedFile:
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
) -> TokenFile | EndedFile:
    """The tokens from ``header_bytes`` to the end of the file."""
    count = (info.size_bytes - header_bytes) // dtype.itemsize
    spans = spans_path(file.path) if documented.spans else None
    if spans is not None and documented.eos is not None:
        raise ConfigError(
            f"{printable(file.path)}: {printable(spans)} lists its documents: leave eos= and bos= "
            "out"
        )
    load = partial(_whole, header_bytes, count)
    if spans is not None:
        load = partial(_listed, spans, identity_of(spans), header_bytes, dtype.itemsize, count)
    elif documented.eos is not None:
        return EndedFile(file, info, dtype, header_bytes)
    table = load()
    made = table.file(shard_of(file, info, header_bytes, len(table.starts)), dtype, load)
    if made.num_tokens < count:
        warn(
            f"{printable(file.path)}: has {count} tokens, of which {printable(str(spans))} lists "
            f"{made.num_tokens}: the others are not read. It may be of another file"
        )
    return made


def spans_path(path: str) -> str | None:
    """``NAME.csv.gz`` of ``NAME.npy``, if it is there; or ``NAME.npy.csv.gz``."""
    stem = path.rsplit(".", 1)[0] if "." in path.rsplit("/", 1)[-1] else path
    names = (f"{stem}.csv.gz", f"{path}.csv.gz")
    return next((name for name in names if store_of(name).has(name)), None)


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


def _listed(
    path: str, identity: Identity, header_bytes: int, token_bytes: int, count: int
) -> DocumentTable:
    data = bytes_beside(path, identity)
    starts, lengths = array("Q"), array("Q")
    last = 0
    try:
        with gzip.open(io.BytesIO(data.data)) as lines:
            while line := lines.readline(_MOST_LINE_BYTES):
                begin, end = _span(path, len(starts), line)
                if not last <= begin <= end <= count or len(starts) > count:
                    fail(
                        path,
                        f"line {len(starts) + 1} says tokens {short(begin)} to {short(end)}, after "
                        f"{last} and of {count}: it is damaged, or of another file",
                    )
                starts.append(header_bytes + begin * token_bytes)
                lengths.append(end - begin)
                last = end
    except (OSError, EOFError, zlib.error) as error:
        fail(path, f"cannot be decompressed: {error}; copy it again")
    return _table(starts, lengths)


def _span(path: str, number: int, line: bytes) -> tuple[int, int]:
    fields = line.split(b",", 2)
    try:
        begin, end = (int(field) for field in fields[:2])
    except ValueError:
        fail(path, f"line {number + 1} is {short(line)}, and not first,last+1 of a document")
    return begin, end
