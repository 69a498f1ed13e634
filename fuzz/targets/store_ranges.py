"""Ranges of files, and the checksums that files keep, by any numbers and texts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from torch_s3io import FileStore, RangeError

TOKENS = [
    *(b'"offset"', b'"length"', b'"kept"', b"4095", b"4096", b"4097", b"9223372036854775807"),
    *(b'"000000ab 10000"', b'"000000AB 10000"', b'"000000ab -1"', b"-1", b"true", b"null"),
]
_SIZE = 10_000
_ATTRIBUTE = "user.torch_s3io.crc32c"  # docs/format.md


def make(folder: Path) -> Callable[[bytes], None]:
    path = folder / "x.bin"
    content = bytes(number % 251 for number in range(_SIZE))
    path.write_bytes(content)
    store = FileStore()

    def read(data: bytes) -> None:
        try:
            given = json.loads(data)
        except (ValueError, RecursionError):
            return
        if not isinstance(given, dict):
            return
        _check_kept(store, path, given.get("kept"))
        offset, length = given.get("offset", 0), given.get("length", 0)
        try:
            found = store.get_range(path, offset, length)
        except RangeError:
            is_range = type(offset) is int and type(length) is int
            assert not is_range or not 0 <= offset <= offset + length <= _SIZE
            raise
        assert bytes(found.numpy()) == content[offset : offset + length]
        assert len(found) == length

    return read


def _check_kept(store: FileStore, path: Path, kept: object) -> None:
    """What the file's attribute says is its checksum, if it is one of a file of this size."""
    if not isinstance(kept, str) or not 0 < len(kept.encode("utf-8", "replace")) < 4096:
        return
    try:
        os.setxattr(path, _ATTRIBUTE, kept.encode("utf-8", "replace"))
    except OSError:
        return
    found = store.kept_checksum(path)
    assert found is None or kept == f"{found:08x} {_SIZE}"
