"""How a bucket is reached, in a process that first had it wrong, and in several."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from buckets import BUCKET, config_of, needs_s3, serving
from object_servers.fault_server import SECRET_KEY, FaultServer

import torch_s3io as s3io

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
