"""Objects of buckets for who reads and writes them whole or in ranges: FileStore's sister."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import torch

from .. import _C
from ..config import check_bool, check_int, check_seconds, path_text
from ..errors import ConfigError, RangeError
from ..wording import short
from .object_writer import Bytes, ObjectWriter, WrittenObject, as_bytes
from .open_writers import cancel_at_exit
from .s3_bucket import SCHEME, Bucket, Core
from .s3_buckets import bucket_of
from .s3_config import S3Config, without_keys
from .s3_objects import list_of, the_s3_objects
from .store import Identity


class S3ObjectInfo(NamedTuple):
    """What a bucket says of an object.

    Attributes:
        size_bytes: Its length.
        etag: Of this version of it.
    """

    size_bytes: int
    etag: str


class OpenUpload(NamedTuple):
    """An upload in parts that nobody has finished.

    Attributes:
        path: Of the object that it would become.
        upload_id: Its number at the server.
        age_s: Since it was begun, in seconds, by the server's clock; None where the reply does not
            tell its time (``Date``).
    """

    path: str
    upload_id: str
    age_s: int | None


class S3Store:
    """Reads the objects of buckets as tensors, and writes them whole or not at all; made by
    ``open_store``.

    Paths are ``s3://bucket/key``, in any bucket. Its own is reached with the S3Config that it was
    opened with, as long as it lives; others as data sets reach them. Every reply is compared with
    what was asked for, and every write is proven. Thread-safe. Works after fork, too. Nothing
    is opened or started before the first call.
    """

    def __init__(self, path: str) -> None:
        self._objects = the_s3_objects()
        self._path = path
        self._bucket = self._objects.buckets.at(path)

    @property
    def config(self) -> S3Config:
        """How the bucket is reached that the store was opened for."""
        return self._bucket.config

    def stat(self, path: str) -> S3ObjectInfo:
        """Size and version of the object, by one request.

        Raises:
            NotFoundError, AccessError: There is none, or it may not be looked at.
        """
        version, etag = self._core(path).stat(path)
        return S3ObjectInfo(Identity(*version).size_bytes, etag)

    def list(self, prefix: str) -> list[str]:
        """Every object whose path begins with ``prefix``, sorted; a request for each thousand."""
        return [path for path, *_ in list_of(self._core(prefix), prefix)]

    def get(self, path: str) -> torch.Tensor:
        """The whole object as a uint8 tensor [size]. Where the server keeps a CRC-32C of it, as of
        what ``put`` sent as one part, the bytes are compared with it.

        Raises:
            NotFoundError, AccessError: There is none, or it may not be read.
            DataError: Its bytes are not those of its checksum, twice.
            ReadError, ReadTimeoutError: The server cannot be reached, or sends something else.
            ObjectChangedError: It was replaced while it was read.
        """
        self._check(path)
        data: torch.Tensor = self._core_of(path).reads.read_whole(path)
        return data

    def get_range(
        self, path: str, offset: int, length: int, *, version: S3ObjectInfo | None = None
    ) -> torch.Tensor:
        """Bytes ``[offset, offset + length)`` of the object as a uint8 tensor [length].

        Args:
            version: What ``stat`` gave: another version is an ObjectChangedError, and no request is
                needed to look. None: the one that is there now.

        Raises:
            RangeError: The range does not lie within the object. Others: as ``get``.
        """
        for name, value in (("offset", offset), ("length", length)):
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise ConfigError(f"{name} must be an integer, not {short(value)}")
            if not 0 <= operator.index(value) < 1 << 63:
                raise RangeError(f"{path}: {name} {short(value)} is not within any object")
        self._check(path)
        data: torch.Tensor = self._core_of(path).reads.read(
            path, offset, length, version=self._numbers_of(path, version)
        )
        return data

    def read_into(
        self,
        path: str,
        offset: int,
        into: torch.Tensor | Bytes,
        *,
        version: S3ObjectInfo | None = None,
    ) -> None:
        """Fills contiguous memory, such as a tensor's, with the bytes from ``offset`` on, without a
        buffer between. After an error it holds anything.

        Args:
            into: Writable; a contiguous CPU tensor, an array, or a bytearray.
            version: As for ``get_range``.
        """
        self._check(path)
        check_int("offset", offset, 0)
        memory = as_bytes(into)
        if memory.readonly:
            raise ConfigError("into must be memory that may be written: a tensor, or a bytearray")
        if memory.nbytes:
            numbers = self._numbers_of(path, version)
            self._core_of(path).reads.read_into(path, offset, memory, version=numbers)

    def checksum(self, path: str) -> int:
        """The CRC-32C of the object, which is read for it. Raises as ``get``, which it is compared
        like.
        """
        self._check(path)
        return self._core_of(path).reads.checksum(path)

    def put(self, path: str, data: Bytes, *, if_absent: bool = False) -> WrittenObject:
        """Writes an object, whole or not at all: a write that fails leaves the old one, or none.

        What is longer than a part (``S3Config.part_bytes``, at least 5 MiB) goes out in parts,
        eight at a time, from where it lies. Where the server's reply is lost, it is asked whether
        the object is in place.

        Args:
            path: The object.
            data: Bytes, a contiguous array, or a contiguous CPU tensor, whose bytes are written.
            if_absent: ExistsError where there is an object of this name.

        Raises:
            ExistsError: See ``if_absent``.
            AccessError, NotFoundError: It may not be written, or there is no such bucket.
            WriteError, WriteTimeoutError: The text says so where the new object may be in place all
                the same, or may yet come there, as ``is_undone`` does; and where the server may
                have kept parts of it.
        """
        check_bool("if_absent", if_absent)
        core = self._core(path)
        written = _C.s3_put(
            core, path, as_bytes(data), if_absent=if_absent, **self._upload_options(path)
        )
        return WrittenObject(*written)

    def writer(
        self, path: str, *, size_bytes: int | None = None, if_absent: bool = False
    ) -> ObjectWriter:
        """An object to write in chunks, whole or not at all; see ObjectWriter, which works alike.

        It is put in place by ``finish``. A writer that is cancelled, or fails, has the server throw
        its parts away, and so has one that is open when the interpreter exits. One that is killed
        cannot: ``uploads`` finds what it left, and a rule of the bucket
        (AbortIncompleteMultipartUpload) removes it. ``write(chunk, copy=False)`` sends what fills a
        part from where it lies.

        Args:
            path: The object.
            size_bytes: How much will be written, where known: parts are then as long as 10,000 of
                them need. Without it an object has at most 37,500 times ``S3Config.part_bytes``.
            if_absent: ExistsError where there is an object of this name, now or when it is
                finished.
        """
        check_bool("if_absent", if_absent)
        if size_bytes is not None:
            check_int("size_bytes", size_bytes, 0)
        core = _C.s3_writer(
            self._core(path),
            path,
            size_bytes=size_bytes,
            if_absent=if_absent,
            **self._upload_options(path),
        )
        writer = ObjectWriter(core, path, lambda path: None)
        cancel_at_exit(writer, path)
        return writer

    def remove(self, path: str, *, timeout_s: float | None = None) -> None:
        """Removes an object; nothing happens where there is none.

        Raises:
            AccessError, WriteError, WriteTimeoutError: It may not be removed, or that failed, or
                took longer than ``timeout_s`` (None: than S3Config lets requests take).
        """
        _C.s3_remove(self._core(path), path, timeout_s=_limit(timeout_s))

    def uploads(self, prefix: str) -> tuple[OpenUpload, ...]:
        """Uploads in parts that nobody has finished, of objects whose path begins with ``prefix``,
        sorted; a request for each thousand. Some are of writers that are at work; the others were
        left by writers that were killed, or could not reach the server. Their parts cost money.

        Raises:
            AccessError: The policy of the keys does not allow s3:ListBucketMultipartUploads.
            DataError: What the server sends is no such list.
        """
        return tuple(OpenUpload(*one) for one in _C.s3_uploads(self._core(prefix), prefix))

    def abort_upload(self, upload: OpenUpload, *, timeout_s: float | None = None) -> None:
        """Has the server throw away the parts of an upload. Its writer fails, if it is at work.
        Nothing happens where there is no such upload any more.

        Raises:
            AccessError, Error: It may not be aborted, or that failed, or took longer than
                ``timeout_s`` (None: than S3Config lets requests take).
        """
        path, upload_id, _ = upload
        _C.s3_abort_upload(self._core(path), path, upload_id, timeout_s=_limit(timeout_s))

    def _check(self, path: str) -> None:
        if not isinstance(path, str) or not path.startswith(SCHEME):
            raise ConfigError(f"{short(path)} is no path in a bucket, as 's3://bucket/key'")
        path_text(path)

    def _core(self, path: str) -> _C.S3Objects:
        self._check(path)
        return self._core_of(path).objects

    def _core_of(self, path: str) -> Core:
        return self._objects.buckets.core_of(self._bucket_at(path))

    def _bucket_at(self, path: str) -> Bucket:
        is_own = bucket_of(path) == bucket_of(self._path)
        return self._bucket if is_own else self._objects.buckets.at(path)

    def _numbers_of(
        self, path: str, version: S3ObjectInfo | None
    ) -> tuple[int, int, int, int] | None:
        """The version as C++ has it."""
        if version is None:
            return None
        self._core(path).know_etags([version.etag])
        return _C.s3_version(size_bytes=version.size_bytes, etag=version.etag)

    def _upload_options(self, path: str) -> dict[str, Any]:
        config = self._bucket_at(path).config
        return {"checksums": config.upload_checksums, "headers": config.object_headers()}

    def __repr__(self) -> str:
        return f"open_store({self._path!r}, {self.config!r})"

    def __reduce__(self) -> Any:
        return _restored, (self._objects, self._path, self._bucket)


def _limit(timeout_s: float | None) -> float:
    if timeout_s is None:
        return math.inf
    check_seconds("timeout_s", timeout_s)
    return timeout_s


def _restored(objects: Any, path: str, bucket: Bucket) -> S3Store:
    """Where ``objects`` have joined those of this process. What this one reaches alike has keys."""
    store = S3Store(path)
    if without_keys(store.config) != without_keys(bucket.config):
        store._bucket = bucket
    return store
