"""Documents that end, or begin, with a token of their own: found by looking at all tokens, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...errors import ConfigError, FileChangedError
from ...index.place import Where
from ...store.stores import store_of
from ...warning import warn
from ...wording import count_of, printable
from .document_index import Sought, find_documents
from .document_table import DocumentTable, TokenFile

_READ_BYTES = 4 << 20


def find_ended(files: Sequence[Sought], eos: int, begins: bool, where: Where) -> list[TokenFile]:
    """The documents of files with tokens of one type, each up to and with ``eos``; what remains
    behind the last one is one, too.

    Args:
        begins: The token begins documents; what precedes the first one is one, too.
        where: The index is.

    Raises:
        FileChangedError: One is cut off meanwhile.
        ConfigError, AccessError, ReadTimeoutError: As for ``indexed``.
    """
    option = f"{'bos' if begins else 'eos'}={eos}"
    _refuse_no_token(option, eos, files[0].dtype)
    look = partial(_look_through, eos, begins)
    found, count = find_documents(files, {"token": eos, "begins": begins}, look, where)
    if not count:
        warn(
            f"{option} is in none of {count_of(len(files), 'file')}, the first being "
            f"{printable(min(one.file.path for one in files))}: each is one document. Where it is "
            "another token, say which"
        )
    return found


def _refuse_no_token(option: str, eos: int, dtype: np.dtype[Any]) -> None:
    most = np.iinfo(dtype).max
    if eos > most:
        raise ConfigError(f"{option} is no {dtype.name}, which ends at {most}: give another token")


def _look_through(
    eos: int, begins: bool, one: Sought, on_bytes: Callable[[int], object]
) -> tuple[DocumentTable, int]:
    """Its documents, and how often the token is there."""
    path, size, item = one.file.path, one.info.size_bytes, one.dtype.itemsize
    store, found = store_of(path), [np.zeros(1, np.uint64)]
    for begin in range(one.header_bytes, size, _READ_BYTES):
        end = min(begin + _READ_BYTES, size)
        part = store.read(path, begin, end)
        if len(part) != end - begin:
            raise FileChangedError(
                f"{printable(path)}: was cut off while it was read: make the data set anew"
            )
        ends = np.flatnonzero(np.frombuffer(part, one.dtype) == eos).astype(np.uint64)
        found.append(ends + np.uint64((begin - one.header_bytes) // item + (not begins)))
        on_bytes(end)
    bounds = np.concatenate(found)
    if len(bounds) > 1 and bounds[1] == 0:  # the first document begins as it should
        bounds = bounds[1:]
    if int(bounds[-1]) < one.num_tokens:
        bounds = np.append(bounds, np.uint64(one.num_tokens))
    starts = bounds[:-1] * np.uint64(item) + np.uint64(one.header_bytes)
    return DocumentTable(starts, np.diff(bounds)), sum(map(len, found)) - 1
