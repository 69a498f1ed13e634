"""Keys of object storage are in nothing that a data set, a loader, a store or a writer shows."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from buckets import BUCKET, needs_s3, serving
from object_servers.buckets import Reply, Request, error
from object_servers.fault_server import FaultServer

import torch_s3io as s3io

pytestmark = [
    needs_s3,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
ACCESS_KEY = "AKIACANARYACCESSKEY1"
SECRET_KEY = "Canary" + "s3cr3t/+" * 4 + "=="
TOKEN = "CanaryToken/" * 40
HIDDEN = ("hunter" + "2", ACCESS_KEY, SECRET_KEY[:10], SECRET_KEY[9:30], TOKEN[:12], TOKEN[100:130])
PATH = f"s3://{BUCKET}/train/0.bin"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving() as server:
        server.keys = {ACCESS_KEY: SECRET_KEY}
        server.buckets.put(BUCKET, "train/0.bin", bytes(800))
        yield server


@pytest.fixture
def config(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> s3io.S3Config:
    # As of another machine: so that a warning says that nothing is verified.
    monkeypatch.setattr("torch_s3io.store.s3_servers.is_plain", bool)
    return s3io.S3Config(
        endpoint=server.endpoint,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        session_token=TOKEN,
        max_attempts=2,
        retry_timeout_s=1,
        retries_per_s=1000,
    )


def records_of(config: s3io.S3Config, path: str = PATH) -> s3io.RecordDataset:
    return s3io.RecordDataset(path, dtype="u1", shape=8, batch_size=10, store=config)


def assert_hidden(*texts: Any) -> None:
    for text in texts:
        shown = text.decode("latin-1") if isinstance(text, bytes) else str(text)
        assert [hidden for hidden in HIDDEN if hidden in shown] == []


def test_data_sets_loaders_states_and_pickles_hide_them(server, config, caplog):
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = records_of(config)
        loader = s3io.DataLoader(dataset, num_workers=1)
        assert sum(len(batch) for batch in loader) == 100
        assert sum(len(batch) for batch in dataset) == 100
    assert any("nothing but TCP" in str(one.message) for one in caught)
    assert_hidden(*(one.message for one in caught))
    half, _ = dataset.split([0.5, 0.5])
    mixed = s3io.Mix([dataset, records_of(config)])
    store = s3io.open_store(PATH, config)
    assert_hidden(repr(config), str(config))
    for one in (dataset, half, mixed, loader, store):
        assert_hidden(repr(one), str(one), repr(one.__dict__))
    for one in (dataset, half, mixed, loader):
        assert_hidden(json.dumps(one.state_dict(), default=repr), one.stats())
    for one in (dataset, half, mixed, store, config):
        assert_hidden(pickle.dumps(one))
    assert_hidden(repr(dataset._own_runtime().__dict__), caplog.text)


ACTS: dict[str, Callable[[s3io.S3Config], Any]] = {
    "data set": lambda config: list(records_of(config)),
    "pattern": lambda config: records_of(config, f"s3://{BUCKET}/train/*.bin"),
    "get": lambda config: s3io.open_store(PATH, config).get(PATH),
    "list": lambda config: s3io.open_store(PATH, config).list(f"s3://{BUCKET}/"),
    "put": lambda config: s3io.open_store(PATH, config).put(PATH, b"x"),
    "upload": lambda config: s3io.open_store(PATH, config).put(PATH, bytes(9 << 20)),
    "remove": lambda config: s3io.open_store(PATH, config).remove(PATH),
    "samples": lambda config: write_samples(config),
}


def write_samples(config: s3io.S3Config) -> None:
    folder = f"s3://{BUCKET}/samples"
    with s3io.SampleWriter(folder, fields={"x": np.int64}, store=config) as writer:
        writer.write({"x": 1})


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("status", [400, 403, 500])
def test_errors_hide_what_a_server_repeats(server, config, act, status, caplog):
    caplog.set_level(logging.DEBUG)
    echoed = f"{ACCESS_KEY} {SECRET_KEY} {TOKEN} {SECRET_KEY[9:30]} {TOKEN[100:300]}"

    def echo(_reply: Reply, request: Request) -> Reply:
        assert request.headers["x-amz-security-token"] == TOKEN
        failed = error(status, "Denied", echoed)
        return failed.header("x-amz-request-id", SECRET_KEY).header("ETag", f'"{SECRET_KEY}"')

    server.fault = echo
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(s3io.Error) as raised:
            ACTS[act](config)
    text = "".join(traceback.format_exception(raised.value))
    assert PATH.split("/")[2] in text
    shown = text, repr(raised.value), pickle.dumps(raised.value), raised.value.args
    assert_hidden(*shown, *(one.message for one in caught), caplog.text)


AT_PASSWORD: dict[str, Callable[[], Any]] = {
    "data set": lambda: s3io.RecordDataset(PATH, dtype="u1", shape=8),
    "pattern": lambda: s3io.RecordDataset(f"s3://{BUCKET}/*.bin", dtype="u1", shape=8),
    "folder": lambda: s3io.SampleDataset(f"s3://{BUCKET}/samples"),
    "safetensors": lambda: s3io.load_safetensors(PATH),
    "tensors": lambda: s3io.save_safetensors({"x": torch.zeros(1)}, PATH),
    "checkpoint": lambda: s3io.checkpoint.Reader(f"s3://{BUCKET}/x").read_metadata(),
    "put": lambda: s3io.open_store(PATH).put(PATH, b"x"),
    "writer": lambda: s3io.open_store(PATH).writer(PATH),
    "get": lambda: s3io.open_store(PATH).get(PATH),
    "config": lambda: s3io.S3Config(endpoint=WITH_PASSWORD),
}
WITH_PASSWORD = "http://user:hunter2@10.0.0.9:9000"


@pytest.mark.parametrize("act", AT_PASSWORD)
@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_a_password_in_an_address_is_refused_and_not_shown(act, variable, caplog):
    caplog.set_level(logging.DEBUG)
    with serving(), pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_ENDPOINT_URL")
        patch.setenv(variable, WITH_PASSWORD)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(s3io.ConfigError, match="with a user's name or password") as raised:
                AT_PASSWORD[act]()
    assert not caught
    text = "".join(traceback.format_exception(raised.value))
    assert_hidden(text, repr(raised.value), pickle.dumps(raised.value), caplog.text)
