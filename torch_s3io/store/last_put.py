"""The object that comes last, and says which others count: a manifest, a checkpoint's metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _C
from ..errors import AccessError, Error, ExistsError, NotFoundError, WriteError
from ..warning import warn
from .file_store import FileStore

if TYPE_CHECKING:
    from .s3_store import S3Store


def put_last(store: FileStore | S3Store, path: str, data: bytes, **options: Any) -> None:
    """``store.put`` with these options. An object of a bucket is then read again, as a server may
    say that it has written what it has not, or replace what ``if_absent`` asks it to keep.

    Note: where ``if_absent`` is not asked for, another's object may have come since, and stays.
    What comes still later is not noticed.

    Raises:
        ExistsError: There is another one that was not to be replaced, now or in the meantime.
        WriteError: The server has what it had before, or nothing, or cannot be asked. Others: of
            ``store.put``.
    """
    if isinstance(store, FileStore):
        store.put(path, data, **options)
        return
    if_absent = options.get("if_absent", False)
    before = None if if_absent else _checksum(store, path)
    store.put(path, data, **options)
    try:
        there = _checksum(store, path)
    except Error as error:
        raise _unkept(path, f"but {error}") from None
    if there == _C.crc32c(data):
        return
    if there is None or there == before:
        what = "does not have it" if there is None else "has what was there before"
        raise _unkept(path, f"and {what}")
    if if_absent:
        raise ExistsError(
            f"{path}: another write has replaced it since, as the server ignores If-None-Match; "
            "give each a folder of its own"
        )


def check_last(store: FileStore | S3Store, path: str, crc32c: int | None) -> None:
    """Reads again what a writer of the store has finished, where that is an object of a bucket.

    Args:
        crc32c: Of its bytes, as ``finish`` says.

    Raises:
        WriteError: The server has something else, or nothing, or cannot be asked.

    Warns:
        It may not be read with these keys: they suffice to write it.
    """
    if isinstance(store, FileStore):
        return
    try:
        there = _checksum(store, path)
    except AccessError as error:
        warn(f"{error}; so it was not read again, to see whether the server has kept it")
        return
    except Error as error:
        raise _unkept(path, f"but {error}") from None
    if there != crc32c:
        what = (
            "does not have it"
            if there is None
            else "has something else, its old one or another run's"
        )
        raise _unkept(path, f"and {what}")


def _unkept(path: str, what: str) -> WriteError:
    return WriteError(f"{path}: the server says that it has written it, {what}")


def _checksum(store: S3Store, path: str) -> int | None:
    """Of the bytes that are there; None: there are none."""
    try:
        return store.checksum(path)
    except NotFoundError:
        return None
