"""What goes wrong between an object store and its client: each spoils a right reply to a GET.

A client may answer with a typed error, or ask again; it must never take these bytes for the
object's. A flipped bit alone cannot be told from the headers.
"""

from __future__ import annotations

import time
from email.utils import formatdate

from .buckets import Reply, Request, error
from .fault_server import Fault


def without(reply: Reply, name: str) -> Reply:
    reply.headers = [pair for pair in reply.headers if pair[0] != name]
    return reply


def whole_object(reply: Reply, _request: Request) -> Reply:
    """As of a server that knows no ranges: 200, and no Content-Range."""
    without(reply, "Content-Range")
    reply.status, reply.body = 200, reply.body * 2
    return reply


def cut(reply: Reply, _request: Request) -> Reply:
    reply.sent_bytes = len(reply.body) // 2
    return reply


def cut_without_length(reply: Reply, request: Request) -> Reply:
    reply.has_length = False
    return cut(reply, request)


def error_with_200(reply: Reply, _request: Request) -> Reply:
    return error(200, "InternalError")


def error_with_206(reply: Reply, _request: Request) -> Reply:
    return Reply(206, reply.headers, error(500, "InternalError").body)


def flipped_bit(reply: Reply, _request: Request) -> Reply:
    middle = len(reply.body) // 2
    flipped = bytes([reply.body[middle] ^ 1]) if reply.body else b""
    reply.body = reply.body[:middle] + flipped + reply.body[middle + 1 :]
    return reply


def other_place(reply: Reply, _request: Request) -> Reply:
    """Content-Range of the bytes one further on."""
    value = dict(reply.headers).get("Content-Range", "bytes 0-0/1")
    first, last, size = value.removeprefix("bytes ").replace("/", "-").split("-")
    return reply.header("Content-Range", f"bytes {int(first) + 1}-{int(last) + 1}/{size}")


def other_size(reply: Reply, _request: Request) -> Reply:
    value = dict(reply.headers).get("Content-Range", "bytes 0-0/1")
    place, _, size = value.partition("/")
    return reply.header("Content-Range", f"{place}/{int(size) + 1}")


def no_place(reply: Reply, _request: Request) -> Reply:
    return without(reply, "Content-Range")


def other_etag(reply: Reply, _request: Request) -> Reply:
    return reply.header("ETag", '"0123456789abcdef0123456789abcdef"')


def weak_etag(reply: Reply, _request: Request) -> Reply:
    return reply.header("ETag", f"W/{dict(reply.headers).get('ETag', '')}")


def no_etag(reply: Reply, _request: Request) -> Reply:
    return without(reply, "ETag")


def compressed(reply: Reply, _request: Request) -> Reply:
    return reply.header("Content-Encoding", "gzip")


def chunked(reply: Reply, _request: Request) -> Reply:
    size = len(reply.body)
    reply.header("Transfer-Encoding", "chunked").header("Content-Length", str(size))
    reply.body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, reply.body)
    return reply


def two_lengths(reply: Reply, _request: Request) -> Reply:
    size = len(reply.body)
    reply.headers += [("Content-Length", str(size)), ("Content-Length", str(size + 1))]
    return reply


def _another(reply: Reply) -> bytes:
    """A reply with the same head, and other bytes."""
    head = "".join(f"{name}: {value}\r\n" for name, value in reply.headers)
    length = f"Content-Length: {len(reply.body)}\r\n\r\n"
    return f"HTTP/1.1 206 Reason\r\n{head}{length}".encode() + bytes(len(reply.body))


def surplus(reply: Reply, _request: Request) -> Reply:
    """The next reply on this connection begins with bytes that nobody asked for."""
    reply.surplus = _another(reply)
    return reply


def late_surplus(reply: Reply, _request: Request) -> Reply:
    """The same; they come when that has been asked for."""
    reply.late_surplus = _another(reply)
    return reply


def redirect(reply: Reply, _request: Request) -> Reply:
    return Reply(307, [("Location", "http://127.0.0.1:1/elsewhere")])


def moved(reply: Reply, _request: Request) -> Reply:
    """To a region where the bucket is as little."""
    return error(301, "PermanentRedirect").header("x-amz-bucket-region", "eu-nowhere-1")


def precondition_failed(reply: Reply, _request: Request) -> Reply:
    """Though the ETag is the one that was asked for, which it says."""
    return error(412, "PreconditionFailed").header("ETag", dict(reply.headers).get("ETag", ""))


def invalid_range(reply: Reply, _request: Request) -> Reply:
    return error(416, "InvalidRange").header("Content-Range", "bytes */1")


def expired_token(reply: Reply, _request: Request) -> Reply:
    return error(400, "ExpiredToken")


def skewed_clock(reply: Reply, _request: Request) -> Reply:
    """The server's is 20 minutes ahead."""
    return error(403, "RequestTimeTooSkewed").header(
        "Date", formatdate(time.time() + 1200, usegmt=True)
    )


def huge_headers(reply: Reply, _request: Request) -> Reply:
    reply.headers += [(f"x-amz-meta-{number}", "x" * 4000) for number in range(1000)]
    return reply


def reset(reply: Reply, _request: Request) -> Reply:
    reply.is_reset = True
    return reply


def slow_down(reply: Reply, _request: Request) -> Reply:
    return error(503, "SlowDown")


def internal_error(reply: Reply, _request: Request) -> Reply:
    return error(500, "InternalError")


def drip(reply: Reply, _request: Request) -> Reply:
    """A byte a second: it never ends in time."""
    reply.bytes_per_s = 1.0
    return reply


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        whole_object, cut, cut_without_length, error_with_200, error_with_206, flipped_bit,
        other_place, other_size, no_place, other_etag, weak_etag, no_etag, compressed, chunked,
        two_lengths, surplus, late_surplus, redirect, moved, precondition_failed, invalid_range,
        expired_token, skewed_clock, huge_headers, reset, slow_down, internal_error, drip,
    )
}  # fmt: skip


def every(number: int, fault: Fault) -> Fault:
    """Spoils each reply to a GET whose number is a multiple of this one; the others are right."""
    count = 0

    def spoil(reply: Reply, request: Request) -> Reply:
        nonlocal count
        if request.method != "GET":
            return reply
        count += 1
        return fault(reply, request) if count % number == 0 else reply

    return spoil
