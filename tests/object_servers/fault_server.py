"""An S3 server in this process, whose replies a test may spoil one by one."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from .buckets import Buckets, Reply, Request, error
from .signature import problem

Answer = Callable[[Request], Reply]
Fault = Callable[[Reply, Request], Reply]

ACCESS_KEY, SECRET_KEY = "access-key-of-tests", "secret-key-of-tests"
_MOST_HEAD_BYTES = 1 << 20


class FaultServer:
    """Serves ``buckets`` at ``endpoint`` until it is closed.

    ``answer`` gives the right reply to a request. ``fault`` gets it, and the request, and returns
    what is sent. ``requests`` has all requests, in the order in which they came.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.buckets = Buckets()
        self.requests: list[Request] = []
        self.answer: Answer = self.buckets.answer
        self.fault: Fault = lambda reply, _request: reply
        self.keys = {ACCESS_KEY: SECRET_KEY}
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        scheme = "http" if context is None else "https"
        self.endpoint = f"{scheme}://127.0.0.1:{self._listening.getsockname()[1]}"
        self.num_connections = 0
        self._start(self._accept)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name="fault-server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            # A body is sent after its head: not only when that is acknowledged, 40 ms later.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
                self.num_connections += 1
            self._start(partial(self._serve, connection))

    def _serve(self, connection: socket.socket) -> None:
        wire = connection
        try:
            if self._context is not None:
                wire = self._context.wrap_socket(connection, server_side=True)
            late = b""
            for request in _requests(wire):
                with self._lock:
                    self.requests.append(request)
                reply = self._answer(request)
                wire.sendall(late)
                late = reply.late_surplus
                if not _send(wire, request, reply):
                    return
        except OSError:
            pass  # the client went away
        finally:
            with self._lock:
                self._open.discard(connection)
            wire.close()

    def _answer(self, request: Request) -> Reply:
        code = problem(request.method, request.target, request.headers, request.body, self.keys)
        reply = error(403, code) if code else self.answer(request)
        reply.headers += [("x-amz-request-id", f"request-{len(self.requests)}")]
        return self.fault(replace(reply, headers=list(reply.headers)), request)


def _requests(wire: socket.socket) -> Iterator[Request]:
    """What comes over one connection."""
    received = b""
    while True:
        while b"\r\n\r\n" not in received:
            more = wire.recv(1 << 16)
            if not more or len(received) > _MOST_HEAD_BYTES:
                return
            received += more
        head, _, received = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            wire.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = int(headers.get("content-length", 0))
        parts = [received[:length]]
        missing = length - len(parts[0])
        received = received[length:]
        while missing:
            more = wire.recv(min(missing, 1 << 20))
            if not more:
                return
            parts.append(more)
            missing -= len(more)
        yield Request(method, target, headers, b"".join(parts))


def _send(wire: socket.socket, request: Request, reply: Reply) -> bool:
    """Whether the connection is kept."""
    if reply.is_reset:
        now = struct.pack("ii", 1, 0)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        return False
    headers = list(reply.headers)
    names = [name.lower() for name, _ in headers]
    has_body = request.method != "HEAD" and reply.status not in (204, 304)
    if reply.has_length and "content-length" not in names and reply.status != 204:
        headers.append(("Content-Length", str(len(reply.body))))
    if not reply.has_length:
        headers.append(("Connection", "close"))
    lines = [f"HTTP/1.1 {reply.status} Reason", *(f"{name}: {value}" for name, value in headers)]
    wire.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    if has_body:
        body = reply.body if reply.sent_bytes is None else reply.body[: reply.sent_bytes]
        if reply.bytes_per_s is None:
            wire.sendall(body + reply.surplus)  # at once: TLS makes one record of their ends
        else:
            for place in range(len(body)):
                wire.sendall(body[place : place + 1])
                time.sleep(1 / reply.bytes_per_s)
    elif reply.surplus:
        wire.sendall(reply.surplus)
    return reply.has_length and reply.sent_bytes is None
