"""Objects in memory, and the operations of S3 on them that torch_s3io uses."""

from __future__ import annotations

import hashlib
import re
import threading
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import formatdate
from xml.sax.saxutils import escape

MOST_KEYS = 1000
_CHECKSUM = "x-amz-checksum-crc32c"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Request:
    method: str
    target: str  # path and query, as they came
    headers: dict[str, str]  # by names in lower case
    body: bytes

    @property
    def path(self) -> str:
        return urllib.parse.unquote(self.target.partition("?")[0], errors="surrogateescape")

    @property
    def query(self) -> dict[str, str]:
        text = self.target.partition("?")[2]
        return dict(urllib.parse.parse_qsl(text, keep_blank_values=True, errors="surrogateescape"))


@dataclass
class Reply:
    """What goes over the wire. A fault changes it."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    has_length: bool = True  # else the end of the connection is the end of the body
    sent_bytes: int | None = None  # of the body, before the connection is cut
    surplus: bytes = b""  # after the body, as if the next reply began with it
    late_surplus: bytes = b""  # the same, sent when the next request has come
    bytes_per_s: float | None = None
    is_reset: bool = False  # the connection ends before a byte of the reply

    def header(self, name: str, value: str) -> Reply:
        """With this value in place of what it has."""
        self.headers = [pair for pair in self.headers if pair[0].lower() != name.lower()]
        self.headers.append((name, value))
        return self


def error(status: int, code: str, message: str = "") -> Reply:
    text = f"<Error><Code>{code}</Code><Message>{escape(message or code)}</Message></Error>"
    return Reply(status, [("Content-Type", "application/xml")], text.encode())


def _xml(text: str) -> Reply:
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return Reply(200, [("Content-Type", "application/xml")], (head + text).encode())


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, errors="surrogateescape")


def etag_of(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@dataclass(frozen=True)
class Stored:
    data: bytes
    etag: str
    metadata: tuple[tuple[str, str], ...] = ()  # headers, which come back with it
    checksum: str = ""  # CRC-32C as it was sent with it, for who asks a HEAD for it. Of an object
    # in parts it has the form of a checksum of their checksums, "...==-3", and is none.


def _metadata(request: Request) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in request.headers.items() if pair[0].startswith("x-amz-meta-"))


@dataclass(frozen=True)
class Upload:
    bucket: str
    key: str
    metadata: tuple[tuple[str, str], ...]
    parts: dict[int, bytes] = field(default_factory=dict)
    checksums: dict[int, str] = field(default_factory=dict)  # as parts came with them
    begun: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


class Buckets:
    """Thread-safe. A bucket is made by the first object that is put there.

    Attributes:
        etag_of: Makes the ETags of objects that are put whole.
        etag_in_lists: As lists write it.
    """

    def __init__(self) -> None:
        self.etag_of = etag_of
        self.etag_in_lists = '"{}"'.format
        self.objects: dict[tuple[str, str], Stored] = {}
        self.uploads: dict[str, Upload] = {}
        self._begun = 0
        self._lock = threading.Lock()

    def put(self, bucket: str, key: str, data: bytes) -> str:
        stored = Stored(data, self.etag_of(data))
        with self._lock:
            self.objects[bucket, key] = stored
        return stored.etag

    def answer(self, request: Request) -> Reply:
        bucket, _, key = request.path[1:].partition("/")
        operation: Callable[[Request, str, str], Reply] | None = None
        if not key:
            lists = self._list_uploads if "uploads" in request.query else self._list
            operation = {"GET": lists, "PUT": lambda *_: Reply(200)}.get(request.method)
        elif "uploads" in request.query and request.method == "POST":
            operation = self._begin_upload
        elif "uploadId" in request.query:
            operation = {
                "PUT": self._put_part, "POST": self._complete, "DELETE": self._abort,
            }.get(request.method)  # fmt: skip
        else:
            operation = {
                "GET": self._get, "HEAD": self._get, "PUT": self._put, "DELETE": self._delete,
            }.get(request.method)  # fmt: skip
        if operation is None:
            return error(405, "MethodNotAllowed")
        with self._lock:
            return operation(request, bucket, key)

    def _get(self, request: Request, bucket: str, key: str) -> Reply:
        stored = self.objects.get((bucket, key))
        if stored is None:
            return error(404, "NoSuchKey")
        wanted = request.headers.get("if-match")
        if wanted is not None and wanted.strip('"') not in (stored.etag, "*"):
            return error(412, "PreconditionFailed")
        size = len(stored.data)
        reply = Reply(200, [("ETag", f'"{stored.etag}"'), ("Accept-Ranges", "bytes")], stored.data)
        reply.headers += stored.metadata
        if stored.checksum and request.headers.get("x-amz-checksum-mode") == "ENABLED":
            kind = "COMPOSITE" if "-" in stored.checksum else "FULL_OBJECT"
            reply.header(_CHECKSUM, stored.checksum).header("x-amz-checksum-type", kind)
        match = _RANGE.fullmatch(request.headers.get("range", ""))
        if match is not None:
            first, last = int(match[1]), min(int(match[2] or size), size - 1)
            if first > last:
                return error(416, "InvalidRange").header("Content-Range", f"bytes */{size}")
            reply.status, reply.body = 206, stored.data[first : last + 1]
            reply.header("Content-Range", f"bytes {first}-{last}/{size}")
        return reply

    def _put(self, request: Request, bucket: str, key: str) -> Reply:
        if not self._may_put(request, bucket, key):
            return error(412, "PreconditionFailed")
        checksum = request.headers.get(_CHECKSUM, "")
        stored = Stored(request.body, self.etag_of(request.body), _metadata(request), checksum)
        self.objects[bucket, key] = stored
        reply = Reply(200, [("ETag", f'"{stored.etag}"')])
        return reply.header(_CHECKSUM, checksum) if checksum else reply

    def _may_put(self, request: Request, bucket: str, key: str) -> bool:
        return request.headers.get("if-none-match") != "*" or (bucket, key) not in self.objects

    def _delete(self, request: Request, bucket: str, key: str) -> Reply:
        self.objects.pop((bucket, key), None)
        return Reply(204)

    def _list(self, request: Request, bucket: str, key: str) -> Reply:
        query = request.query
        prefix = query.get("prefix", "")
        after = query.get("continuation-token", query.get("start-after", ""))
        most = min(int(query.get("max-keys", MOST_KEYS)), MOST_KEYS)
        names = sorted(
            (name for place, name in self.objects if place == bucket and name.startswith(prefix)),
            key=lambda name: name.encode(errors="surrogateescape"),
        )
        names = [name for name in names if name > after]
        is_truncated, names = len(names) > most, names[:most]
        is_encoded = query.get("encoding-type") == "url"
        encode = _quoted if is_encoded else escape
        entries = []
        for name in names:
            stored = self.objects[bucket, name]
            entries.append(
                f"<Contents><Key>{encode(name)}</Key><LastModified>2026-01-01T00:00:00.000Z"
                f"</LastModified><ETag>{escape(self.etag_in_lists(stored.etag))}</ETag>"
                f"<Size>{len(stored.data)}"
                "</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
        last = escape(names[-1]) if names else ""
        token = f"<NextContinuationToken>{last}</NextContinuationToken>"
        return _xml(
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{escape(bucket)}</Name><Prefix>{encode(prefix)}</Prefix>"
            f"<KeyCount>{len(names)}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"{'<EncodingType>url</EncodingType>' * is_encoded}"
            f"<IsTruncated>{str(is_truncated).lower()}</IsTruncated>"
            f"{token if is_truncated else ''}{''.join(entries)}</ListBucketResult>"
        )

    def _list_uploads(self, request: Request, bucket: str, key: str) -> Reply:
        query = request.query
        prefix, most = query.get("prefix", ""), min(int(query.get("max-uploads", 1000)), MOST_KEYS)
        after = (query.get("key-marker", ""), query.get("upload-id-marker", ""))
        found = sorted(
            (upload.key, number)
            for number, upload in self.uploads.items()
            if upload.bucket == bucket and upload.key.startswith(prefix)
        )
        found = [one for one in found if one > after]
        is_truncated, found = len(found) > most, found[:most]
        next_key, next_number = found[-1] if is_truncated else ("", "")
        entries = (
            f"<Upload><Key>{escape(name)}</Key><UploadId>{number}</UploadId><Initiated>"
            f"{self.uploads[number].begun:%Y-%m-%dT%H:%M:%S.000Z}</Initiated></Upload>"
            for name, number in found
        )
        return _xml(
            '<ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Bucket>{escape(bucket)}</Bucket><NextKeyMarker>{escape(next_key)}</NextKeyMarker>"
            f"<NextUploadIdMarker>{next_number}</NextUploadIdMarker><MaxUploads>{most}</MaxUploads>"
            f"<IsTruncated>{str(is_truncated).lower()}</IsTruncated>{''.join(entries)}"
            "</ListMultipartUploadsResult>"
        ).header("Date", formatdate(usegmt=True))

    def _begin_upload(self, request: Request, bucket: str, key: str) -> Reply:
        self._begun += 1
        number = f"upload-{self._begun}"
        self.uploads[number] = Upload(bucket, key, _metadata(request))
        return _xml(
            f"<InitiateMultipartUploadResult><Bucket>{escape(bucket)}</Bucket>"
            f"<Key>{escape(key)}</Key><UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
        )

    def _put_part(self, request: Request, bucket: str, key: str) -> Reply:
        upload = self.uploads.get(request.query["uploadId"])
        if upload is None:
            return error(404, "NoSuchUpload")
        number = int(request.query["partNumber"])
        upload.parts[number] = request.body
        if _CHECKSUM in request.headers:
            upload.checksums[number] = request.headers[_CHECKSUM]
        return Reply(200, [("ETag", f'"{etag_of(request.body)}"')])

    def _complete(self, request: Request, bucket: str, key: str) -> Reply:
        upload = self.uploads.get(request.query["uploadId"])
        if upload is None:
            return error(404, "NoSuchUpload")
        if not self._may_put(request, bucket, key):
            return error(412, "PreconditionFailed")
        parts = upload.parts
        numbers: list[int] = []
        tags: list[str] = []
        for part in ElementTree.fromstring(request.body).iter():
            tag = part.tag.rpartition("}")[2]
            if tag == "PartNumber":
                numbers.append(int(part.text or 0))
            elif tag == "ETag":
                tags.append((part.text or "").strip('"'))
        if numbers != sorted(set(numbers)):
            return error(400, "InvalidPartOrder")
        if [etag_of(parts.get(number, b"\0")) for number in numbers] != tags:
            return error(400, "InvalidPart")
        data = b"".join(parts[number] for number in numbers)
        digests = b"".join(hashlib.md5(parts[number]).digest() for number in numbers)
        etag = f"{hashlib.md5(digests).hexdigest()}-{len(numbers)}"
        in_parts = f"{upload.checksums[numbers[0]]}-{len(numbers)}" if upload.checksums else ""
        self.objects[bucket, key] = Stored(data, etag, upload.metadata, in_parts)
        del self.uploads[request.query["uploadId"]]
        return _xml(
            f"<CompleteMultipartUploadResult><Bucket>{escape(bucket)}</Bucket><Key>{escape(key)}"
            f"</Key><ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"
        )

    def _abort(self, request: Request, bucket: str, key: str) -> Reply:
        if self.uploads.pop(request.query["uploadId"], None) is None:
            return error(404, "NoSuchUpload")
        return Reply(204)
