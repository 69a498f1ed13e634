"""Nothing stays in a bucket unsaid: uploads that nobody finished are aborted, or named."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from buckets import (
    BUCKET,
    config_of,
    deny,
    needs_s3,
    serving,
)
from object_servers.buckets import Reply, Request, error
from object_servers.fault_server import FaultServer
from programs import CLI, IN_A_GROUP, Running
from support import DEADLINE_S, holds_soon

import torch_s3io as s3io
from torch_s3io import cli
from torch_s3io.store import open_writers
from torch_s3io.store.s3_store import OpenUpload

pytestmark = needs_s3
MIB = 1 << 20
PATH = f"s3://{BUCKET}/a folder/it's.bin"
COMMAND = r"`python -m torch_s3io uploads 's3://tests/a folder/it'\''s.bin'` lists it"
FOLDER = f"s3://{BUCKET}/sets/train"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


def begin(path: str = PATH) -> s3io.ObjectWriter:
    """A writer with an upload at the server."""
    writer = s3io.open_store(path).writer(path)
    writer.write(bytes(20 * MIB))
    return writer


# What is left of an upload -----------------------------------------------------------------------


@pytest.mark.parametrize("comes_once", [True, False])
def test_an_upload_that_was_begun_without_a_reply_is_told_of(server: FaultServer, comes_once: bool):
    times = 0

    def lose(reply: Reply, request: Request) -> Reply:
        nonlocal times
        if "uploads" in request.query:
            times += 1
            reply.is_reset = times == 1 or not comes_once
        return reply

    server.fault = lose
    store = s3io.open_store(PATH, config_of(server.endpoint, max_attempts=2, retry_timeout_s=5.0))
    told = re.escape("may have begun an upload whose number it did not say: " + COMMAND)
    if comes_once:
        with pytest.warns(RuntimeWarning, match=told):
            store.put(PATH, bytes(20 * MIB))
    else:
        with pytest.raises(s3io.WriteError, match=told) as failed:
            store.put(PATH, bytes(20 * MIB))
        assert failed.value.is_undone
    server.fault = lambda reply, _request: reply
    assert len(store.uploads(PATH)) == (1 if comes_once else 2)


def test_a_writer_that_is_garbage_aborts_its_upload_or_warns_of_it(server: FaultServer):
    writer = begin()
    assert len(server.buckets.uploads) == 1
    del writer
    gc.collect()
    assert not server.buckets.uploads
    deny(server, "DELETE", "uploadId")
    writer = begin()
    told = "upload-2 could not be aborted .*AccessDenied.*" + re.escape(COMMAND)
    with pytest.warns(RuntimeWarning, match=told):
        del writer
    writer = begin(f"s3://{BUCKET}/a\n\x1b[2J")
    with pytest.warns(RuntimeWarning, match=re.escape(r"s3://tests/a\n\x1b[2J: ")) as caught:
        del writer
    assert str(caught[0].message).isprintable()


WRITES = """
    import signal, sys
    import numpy as np
    import torch_s3io as s3io

    how, path = sys.argv[1:]
    if how == "records":
        writer = s3io.RecordWriter(path, dtype="u1", shape=1 << 20, shard_bytes=12 << 20)
        writer.write(np.zeros((34, 1 << 20), "u1"))
    else:
        writer = s3io.open_store(path).writer(path)
        writer.write(bytes(20 << 20))
    writer.itself = writer  # a cycle that the interpreter may collect when connections are gone
    print("begun", flush=True)
    if how == "Ctrl-C":
        signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("how", ["object", "records", "Ctrl-C"])
@pytest.mark.parametrize("may_abort", [True, False])
def test_a_program_that_ends_with_an_open_writer_leaves_no_upload_or_says_so(
    server: FaultServer, how: str, may_abort: bool
):
    if not may_abort:
        deny(server, "DELETE", "uploadId")
    path = FOLDER if how == "records" else PATH
    program = Running(WRITES, how, path).ended()
    assert program.stdout == "begun\n"
    assert program.returncode == (-signal.SIGINT if how == "Ctrl-C" else 0), program.stderr
    assert not server.buckets.objects
    begun = sum("uploads" in request.query for request in server.requests)
    assert begun > 0
    if may_abort:
        assert not server.buckets.uploads
        assert "Warning" not in program.stderr
    else:
        (upload,) = server.buckets.uploads.values()
        assert f"s3://{BUCKET}/{upload.key}: the server may keep parts of it" in program.stderr


def ends_in_a_child(call: Callable[[], object]) -> bool:
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            call()
            os._exit(0)
        os._exit(1)
    statuses: list[int] = []

    def has_ended() -> bool:
        ended, status = os.waitpid(child, os.WNOHANG)
        statuses.extend([status] if ended else [])
        return bool(ended)

    if holds_soon(has_ended):
        return statuses == [0]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def test_a_child_that_was_forked_while_another_thread_finished_comes_to_its_end(
    server: FaultServer,
):
    asked, may_answer = threading.Event(), threading.Event()

    def hold(reply: Reply, request: Request) -> Reply:
        if request.method == "POST" and "uploadId" in request.query:
            asked.set()
            may_answer.wait(DEADLINE_S)
        return reply

    server.fault = hold
    writer = begin()
    with ThreadPoolExecutor(1) as thread:
        finishing = thread.submit(writer.finish)
        try:
            assert asked.wait(DEADLINE_S)
            assert ends_in_a_child(open_writers._cancel_all)
            assert ends_in_a_child(writer.cancel)
        finally:
            may_answer.set()
        assert finishing.result().size_bytes == 20 * MIB


class Cancelled:
    """A writer whose `cancel` waits for that."""

    def __init__(self, may_end: threading.Event | None = None) -> None:
        self.may_end, self.has_begun = may_end, threading.Event()
        open_writers.cancel_at_exit(self, PATH)

    def cancel(self) -> None:
        self.has_begun.set()
        if self.may_end is not None:
            self.may_end.wait(DEADLINE_S)


@pytest.fixture
def no_other_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_writers, "_open", None)


@pytest.mark.usefixtures("no_other_writers")
def test_the_exit_of_a_child_cancels_its_own_writers_alone():
    parents = Cancelled()

    def child() -> None:
        open_writers._cancel_all()
        own = Cancelled()
        open_writers._cancel_all()
        assert own.has_begun.is_set()
        assert not parents.has_begun.is_set()

    assert ends_in_a_child(child)
    open_writers._cancel_all()
    assert parents.has_begun.is_set()


@pytest.mark.usefixtures("no_other_writers")
def test_the_exit_waits_for_all_writers_together_and_names_those_that_go_on(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(open_writers, "_EXIT_S", 0.2)
    may_end = threading.Event()
    writers = [Cancelled(may_end), Cancelled(), Cancelled(may_end)]
    try:
        with pytest.warns(RuntimeWarning) as caught:
            open_writers._cancel_all()
        assert all(writer.has_begun.is_set() for writer in writers)
    finally:
        may_end.set()
    assert len(caught) == 2
    for warning in caught:
        assert str(warning.message).startswith(f"{PATH}: the writer is open, and could not be")


OPEN_WRITERS = """
    import atexit, sys, threading
    import torch_s3io as s3io

    def cannot_start(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")  # as Python 3.12

    store = s3io.open_store(sys.argv[1])
    writers = [store.writer(f"{sys.argv[1]}/{number}") for number in range(2)]
    for writer in writers:
        writer.write(bytes(20 << 20))
    atexit.register(setattr, threading.Thread, "start", cannot_start)
"""


def test_a_program_that_exits_cancels_all_its_writers_at_once(server: FaultServer):
    both = threading.Barrier(2)

    def wait_for_the_other(reply: Reply, request: Request) -> Reply:
        if request.method == "DELETE":
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(8.0)  # less than a writer waits for its server
        return reply

    server.fault = wait_for_the_other
    done = Running(OPEN_WRITERS, f"s3://{BUCKET}/open").ended()
    assert (done.returncode, done.stderr) == (0, "")
    assert sum(one.method == "DELETE" for one in server.requests) == 2
    assert not both.broken
    assert not server.buckets.uploads


# pack by several processes -----------------------------------------------------------------------


def pack_command(tmp_path: Path) -> list[str]:
    """Eight shards of two parts each."""
    np.save(tmp_path / "records.npy", np.zeros((8, 10 * MIB), "u1"))
    files = [str(tmp_path / "records.npy"), "-o", FOLDER]
    return ["pack", *files, "--shard-mib", "10", "--processes", "3"]


class Gate:
    """Shards other than two are not finished before it is opened."""

    def __init__(self, server: FaultServer) -> None:
        self._answer, self.opened, self.waiting = server.answer, threading.Event(), 0
        server.answer = self.answer
        self.server = server

    def answer(self, request: Request) -> Reply:
        is_late = request.method == "PUT" and "partNumber=2" in request.target
        if is_late and "-00000.bin" not in request.target:
            self.waiting += 1
            self.opened.wait(DEADLINE_S)
        return self._answer(request)

    def is_met(self) -> bool:
        """One shard is whole, and the others are half there."""
        return self.waiting >= 2 and len(self.server.buckets.objects) == 1


@contextlib.contextmanager
def gate(server: FaultServer) -> Iterator[Gate]:
    made = Gate(server)
    try:
        yield made
    finally:
        made.opened.set()


@pytest.mark.parametrize("may_list", [True, False])
def test_a_pack_that_fails_leaves_nothing_of_any_process_or_names_it(
    server: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], may_list: bool
):
    with gate(server) as closed:
        answer = server.answer

        def refuse(request: Request) -> Reply:
            if request.method == "PUT" and "-00003.bin" in request.target:
                assert holds_soon(closed.is_met)
                return error(403, "AccessDenied")
            return answer(request)

        server.answer = refuse
        if not may_list:
            deny(server, "GET", "uploads=")
        warned = contextlib.nullcontext() if may_list else pytest.warns(
            RuntimeWarning,
            match=rf"{FOLDER}/records-\w+\*: shards of a data set that was not finished may be left"
            rf".*python -m torch_s3io uploads {FOLDER}/records-\w+`",
        )  # fmt: skip
        with warned:
            assert cli.main(pack_command(tmp_path)) == 1
    assert "-00003.bin" in capsys.readouterr().err
    assert not server.buckets.uploads
    assert not server.buckets.objects


def test_a_pack_that_is_stopped_leaves_nothing_of_any_process(server: FaultServer, tmp_path: Path):
    with gate(server) as closed:
        with (tmp_path / "output").open("w") as file:
            source, command = IN_A_GROUP + CLI, pack_command(tmp_path)
            process = Running(source, *command, folder=tmp_path, stdout=file, stderr=file).program
        try:
            assert holds_soon(lambda: closed.is_met() or process.poll() is not None)
            os.killpg(process.pid, signal.SIGINT)
            process.wait(DEADLINE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    text = (tmp_path / "output").read_text()
    assert (process.returncode, "Traceback" in text) == (130, False), text
    assert f"interrupted; {FOLDER} has what it had before" in text
    assert not server.buckets.uploads
    assert not server.buckets.objects


# The command -------------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> list[str]:
    assert cli.main(["uploads", *arguments]) == status
    return capsys.readouterr().out.splitlines()


def test_uploads_are_listed_and_the_older_ones_aborted(
    server: FaultServer, capsys: pytest.CaptureFixture[str]
):
    assert shown(capsys, f"s3://{BUCKET}") == [f"s3://{BUCKET}: 0 uploads that nobody has finished"]
    writers = [begin(f"s3://{BUCKET}/train/{number}.bin") for number in range(3)]
    elsewhere = begin(f"s3://{BUCKET}/other.bin")
    for number, (upload_id, upload) in enumerate(list(server.buckets.uploads.items())):
        begun = upload.begun - timedelta(hours=10 * number)
        server.buckets.uploads[upload_id] = replace(upload, begun=begun)
    lines = shown(capsys, f"s3://{BUCKET}/train/")
    assert lines[0] == f"s3://{BUCKET}/train/: 3 uploads that nobody has finished"
    for number, age in enumerate([r"\d+ s", "10 h", "20 h"]):
        expected = rf" *{age}  s3://{BUCKET}/train/{number}.bin  id upload-{number + 1}"
        assert re.fullmatch(expected, lines[number + 1])
    assert lines[4].startswith("nothing was aborted: --abort-older 1d aborts")
    assert len(server.buckets.uploads) == 4
    lines = shown(capsys, f"s3://{BUCKET}/train/", "--abort-older", "15h")
    assert [line.split()[0] for line in lines[1:]] == ["kept", "kept", "aborted"]
    assert sorted(server.buckets.uploads) == ["upload-1", "upload-2", "upload-4"]
    deny(server, "DELETE", "upload-2")
    assert cli.main(["uploads", f"s3://{BUCKET}/train/", "--abort-older", "0s"]) == 1
    told = capsys.readouterr()
    assert f"s3://{BUCKET}/train/1.bin: the upload upload-2 is not aborted: " in told.err
    assert sorted(server.buckets.uploads) == ["upload-2", "upload-4"]
    with pytest.raises(s3io.NotFoundError, match="NoSuchUpload"):
        writers[0].finish()
    with pytest.warns(RuntimeWarning, match="upload-2 could not be aborted"):
        writers[1].cancel()
    writers[2].cancel()
    elsewhere.cancel()


def test_by_a_clock_that_is_not_the_servers_nothing_is_aborted(
    server: FaultServer, capsys: pytest.CaptureFixture[str]
):
    def without_date(reply: Reply, _request: Request) -> Reply:
        reply.headers = [pair for pair in reply.headers if pair[0] != "Date"]
        return reply

    server.fault = without_date
    writer = begin()
    (upload,) = s3io.open_store(PATH).uploads(PATH)
    assert upload.age_s is None
    assert re.fullmatch(rf" *\?  {PATH}  id upload-1", shown(capsys, PATH)[1])
    assert cli.main(["uploads", PATH, "--abort-older", "1d"]) == 1
    assert "nothing was aborted: the server does not say what time it is" in capsys.readouterr().err
    assert len(server.buckets.uploads) == 1
    assert writer.finish().size_bytes == 20 * MIB


@pytest.mark.parametrize(("path", "upload_id"), [(PATH, ""), (f"s3://{BUCKET}", "x"), ("", "x")])
def test_an_upload_without_a_key_or_an_id_is_not_aborted(server: FaultServer, path, upload_id):
    with pytest.raises(s3io.ConfigError):
        s3io.open_store(PATH).abort_upload(OpenUpload(path, upload_id, None))
    assert server.requests == []


def test_uploads_come_in_pages_and_hostile_lists_are_refused(server: FaultServer):
    keys = [f"many/{number:04d}&<'é" for number in range(1203)]
    for key in keys:
        server.answer(Request("POST", f"/{BUCKET}/{key.replace('&', '%26')}?uploads", {}, b""))
    store = s3io.open_store(PATH)
    uploads = store.uploads(f"s3://{BUCKET}/many/")
    assert [upload.path for upload in uploads] == [f"s3://{BUCKET}/{key}" for key in keys]
    assert len(server.requests) == 2
    for old, new in (
        (b"<Key>many/0003", b"<Key>much/0003"),
        (b"<IsTruncated>true</IsTruncated>", b""),
        (b"<UploadId>upload-4</UploadId>", b"<UploadId>upload-3</UploadId><Key>x</Key>"),
        (b"<Initiated>", b"<Initiated>x"),
    ):

        def spoil(reply: Reply, _request: Request, old: bytes = old, new: bytes = new) -> Reply:
            reply.body = reply.body.replace(old, new)
            return reply

        server.fault = spoil
        with pytest.raises(s3io.DataError, match=f"^s3://{BUCKET}/many/: the list"):
            store.uploads(f"s3://{BUCKET}/many/")


def test_who_may_not_list_uploads_is_told_what_is_needed(server: FaultServer):
    deny(server, "GET", "uploads=")
    with pytest.raises(s3io.AccessError, match=r"policy allows s3:ListBucketMultipartUploads$"):
        s3io.open_store(PATH).uploads(PATH)


def test_what_is_no_bucket_and_no_time_is_refused(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["uploads", "/tmp"]) == 1
    assert "/tmp: name a bucket, as s3://bucket/prefix" in capsys.readouterr().err
    for time_text in ("1", "1w", "-1d", "d", "1 d"):
        with pytest.raises(SystemExit):
            cli.main(["uploads", f"s3://{BUCKET}", f"--abort-older={time_text}"])
        assert "is no time such as 90s, 30m, 12h or 7d" in capsys.readouterr().err
