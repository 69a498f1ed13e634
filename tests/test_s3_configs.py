"""How a bucket is reached, in a process that first had it wrong, in several, and by threads."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from buckets import BUCKET, config_of, needs_s3, serving
from object_servers.fault_server import ACCESS_KEY, SECRET_KEY, FaultServer
from support import holds_soon

import torch_s3io as s3io
from torch_s3io import _C
from torch_s3io.store.s3_buckets import Buckets
from torch_s3io.store.s3_objects import S3Objects, the_s3_objects

pytestmark = [
    needs_s3,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
PATH = f"s3://{BUCKET}/a.bin"
NOWHERE = "http://127.0.0.1:1"
_AT_ONCE = {"retry_timeout_s": 0.1, "max_attempts": 1}


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving() as server:
        server.buckets.put(BUCKET, "a.bin", bytes(range(64)))
        yield server


def dataset_of(store: Any = None) -> s3io.RecordDataset:
    return s3io.RecordDataset(PATH, dtype="u1", shape=8, batch_size=8, store=store)


def test_a_config_that_was_wrong_is_replaced_in_the_same_process(server):
    right = config_of(server.endpoint)
    with pytest.raises(s3io.ReadError):
        dataset_of(config_of(NOWHERE, **_AT_ONCE))
    assert len(list(dataset_of(right))) == 1
    wrong = s3io.S3Config(endpoint=server.endpoint, access_key="wrong", secret_key="wrong")
    store = s3io.open_store(PATH, wrong)
    with pytest.raises(s3io.AccessError):
        store.get(PATH)
    mended = s3io.open_store(PATH, right)
    assert mended.get(PATH).tolist() == list(range(64))
    with pytest.raises(s3io.AccessError):
        store.get(PATH)  # what it was opened with
    assert (store.config, mended.config) == (wrong, right)
    assert len(list(dataset_of())) == 1


def test_a_data_set_that_lives_keeps_its_bucket_and_the_error_names_what_differs(server):
    dataset = dataset_of(config_of(server.endpoint, retry_timeout_s=5.0))
    other = s3io.S3Config(endpoint=server.endpoint, access_key="wrong", secret_key="secret-of-it")
    with pytest.raises(s3io.ConfigError) as caught:
        dataset_of(other)
    text = str(caught.value)
    assert "retry_timeout_s is 60.0 here, and 5.0 there, it has other keys" in text
    assert "drop the others (del dataset)" in text
    for hidden in ("endpoint", "secret-of-it", SECRET_KEY):
        assert hidden not in text
    with pytest.raises(s3io.ConfigError):
        s3io.open_store(PATH, other)
    assert len(list(dataset)) == 1
    del dataset
    assert len(list(dataset_of(config_of(server.endpoint)))) == 1


@pytest.mark.parametrize(
    ("name", "wrong"), [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ENDPOINT_URL", NOWHERE)]
)
def test_variables_that_were_wrong_are_read_anew(server, monkeypatch, name, wrong):
    config = s3io.S3Config(**_AT_ONCE)
    for store in (None, config):
        with monkeypatch.context() as patch:
            patch.setenv(name, wrong)
            with pytest.raises(s3io.Error):
                s3io.open_store(PATH, config).get(PATH)
        dataset = dataset_of(store)
        assert len(list(dataset)) == 1
        with monkeypatch.context() as patch:
            patch.setenv(name, wrong)
            assert len(list(dataset_of(store))) == 1  # as the one that lives
        del dataset


def test_keys_that_were_wrong_in_a_file_are_read_anew(server, monkeypatch, tmp_path):
    pytest.importorskip("botocore")
    write_keys(monkeypatch, tmp_path, "wrong")
    with pytest.raises(s3io.AccessError):
        dataset_of()
    write_keys(monkeypatch, tmp_path, SECRET_KEY)
    assert len(list(dataset_of())) == 1


def test_keys_of_a_file_that_change_come_to_the_stores_that_live(server, monkeypatch, tmp_path):
    pytest.importorskip("botocore")
    monkeypatch.setattr("torch_s3io.store.s3_renewal._LOOK_S", 0.01)
    write_keys(monkeypatch, tmp_path, "wrong")
    store = s3io.open_store(PATH)

    def is_served() -> bool:
        with contextlib.suppress(s3io.AccessError):
            return store.get(PATH).numel() == 64
        return False

    assert not is_served()
    write_keys(monkeypatch, tmp_path, SECRET_KEY)
    assert holds_soon(is_served)


def write_keys(monkeypatch: pytest.MonkeyPatch, folder: Path, secret_key: str) -> None:
    """Into a file, which alone has some."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    file = folder / "credentials"
    text = f"aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {secret_key}\n"
    file.write_text(f"[default]\n{text}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))


def test_a_copy_of_a_store_reads_as_it_does(server):
    store = s3io.open_store(PATH, config_of(server.endpoint))
    s3io.open_store(PATH, config_of(NOWHERE, **_AT_ONCE))
    assert copy.deepcopy(store).get(PATH).numel() == 64
    assert pickle.loads(pickle.dumps(store)).config.endpoint == server.endpoint


def _in_child(given: Any, endpoint: str, said: Any) -> None:
    try:
        first = given.get(PATH) if hasattr(given, "get") else next(iter(given))
        again = s3io.open_store(PATH, config_of(endpoint)).get(PATH)
        said.send([first.numel(), again.numel(), len(list(dataset_of(config_of(endpoint))))])
    except s3io.Error as error:
        said.send(repr(error))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("make", [lambda config: s3io.open_store(PATH, config), dataset_of])
def test_a_child_uses_the_same_config_again(server, monkeypatch, method, make):
    config = config_of(server.endpoint)
    given = make(config)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(given, server.endpoint, theirs))
    child.start()
    try:
        assert ours.poll(60)
        assert ours.recv() == [64, 64, 1]
    finally:
        child.join(60)
    assert child.exitcode == 0


def test_threads_ask_for_objects_at_once(monkeypatch):
    """The server is a stub, so that they meet often."""
    version = _C.s3_version(size_bytes=8, etag="e")
    core = SimpleNamespace(stat=lambda path: (version, "e"))
    monkeypatch.setattr(Buckets, "core_store", lambda self, path: core)
    monkeypatch.setattr(Buckets, "know_etags", lambda self, path, etags: None)
    objects, errors = S3Objects(), []
    for number in range(2000):  # which each look at what is expected goes over
        objects.is_folder(f"s3://{BUCKET}/many/{number}")
    until = time.monotonic() + 2.0

    def work(number: int) -> None:
        count = 0
        while time.monotonic() < until and not errors:
            expected = f"s3://{BUCKET}/{number}/{count}"
            path = f"s3://{BUCKET}/{count % 4}"  # that others ask for, too
            count += 1
            try:
                assert not objects.is_folder(expected)
                [found] = objects.find(path, "name")
                [inspected] = objects.inspect([found.path])
                assert inspected.size_bytes == 8
            except Exception as error:
                errors.append(error)

    switches_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switches_s)
    assert errors == []


def test_nothing_is_kept_of_what_safetensors_were_found(server):
    for number in range(3):
        path = f"s3://{BUCKET}/model/{number}.safetensors"
        s3io.save_safetensors({f"w{number}": torch.arange(4)}, path)
    assert len(s3io.load_safetensors(f"s3://{BUCKET}/model/*.safetensors")) == 3
    assert not the_s3_objects()._found
