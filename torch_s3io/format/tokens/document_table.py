"""Where documents are, and the files beside tokens that say it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from ... import _C
from ...errors import DataError, FileChangedError
from ...store.store import Found, Identity
from ...store.stores import scheme_of, store_of
from ...wording import printable
from ..files import inspect
from ..objects import Column, Shard

# Smaller files are read: a mapped file that is cut off ends the process.
_MAPPED_FROM_BYTES = 1 << 20


class DocumentTable(NamedTuple):
    """The documents of one file. Arrays, which may be of a mapped file.

    Attributes:
        starts: uint64 [n]: bytes from the start of the file.
        lengths: uint32 or uint64 [n]: tokens.
    """

    starts: Column
    lengths: Column

    def facts(self) -> tuple[int, int, int]:
        """Tokens in all, tokens of the longest one, and a checksum of the lengths."""
        lengths = _C.sum_lengths(self.lengths.data)
        return lengths.total, lengths.longest, _C.crc32c(self.lengths.view(np.uint8).data)

    def file(self, shard: Shard, dtype: Any, load: Callable[[], DocumentTable]) -> TokenFile:
        """These documents of a file, up to the end of their last token."""
        total, longest, checksum = self.facts()
        return TokenFile(shard, dtype, total, longest, load, self, checksum)


@dataclass(frozen=True)
class TokenFile:
    """A file of tokens.

    Attributes:
        shard: It, with the number of its documents.
        dtype: Of a token.
        num_tokens: Of all documents.
        longest: Of the documents, in tokens.
        load: Finds the documents once more, in another process; pickled for it.
        table: Where they had to be found to say all this.
        identity: For JSON: tells its documents from others in a file of this name and size.
    """

    shard: Shard
    dtype: Any
    num_tokens: int
    longest: int
    load: Callable[[], DocumentTable]
    table: DocumentTable
    identity: Any


def found_beside(file: Found, path: str) -> Found:
    """A file that belongs to ``file``."""
    return Found(path, file.name + path.removeprefix(file.path))


def identity_of(path: str) -> Identity:
    """Raises as ``inspect``."""
    return inspect([Found(path, os.path.basename(path))])[0].identity


def bytes_beside(path: str, expected: Identity) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bytes of a file beside tokens: mapped, if there are many; else read.

    Raises:
        FileChangedError: It is not as it was.
        NotFoundError, AccessError, ReadError: It cannot be opened or read.
    """
    now = identity_of(path)
    size = now.size_bytes
    if (size, now.modified_ns) != (expected.size_bytes, expected.modified_ns):
        _refuse_changed(path)
    if scheme_of(path) or size < _MAPPED_FROM_BYTES:
        found = np.frombuffer(store_of(path).read(path), np.uint8)
    else:
        found = _mapped(path, size)
    if len(found) != size:
        _refuse_changed(path)
    return found


def _mapped(path: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Unlike mmap it keeps no descriptor: there may be thousands of such files."""
    try:
        return torch.from_file(path, shared=False, size=size, dtype=torch.uint8).numpy()
    except RuntimeError:  # a file system that maps none, or as many as it maps
        return np.frombuffer(store_of(path).read(path), np.uint8)


def _refuse_changed(path: str) -> NoReturn:
    raise FileChangedError(
        f"{printable(path)}: was written to, or touched, since the data set was made: make it anew"
    )


def fail(path: str, text: str) -> NoReturn:
    raise DataError(f"{printable(path)}: {text}")
