"""Checkpoints and safetensors files in a bucket."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch
import torch.distributed.checkpoint as dcp
from buckets import BUCKET, config_of, lie, needs_s3, serving
from object_servers.buckets import Reply, Request, error
from object_servers.fault_server import FaultServer
from torch.distributed.checkpoint.api import CheckpointException

import torch_s3io as s3io

pytestmark = needs_s3
FOLDER = f"s3://{BUCKET}/run/step-100"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    logging.disable(
        logging.CRITICAL
    )  # DCP logs exceptions, and pytest keeps what their frames hold
    with serving() as server:
        yield server
    logging.disable(logging.NOTSET)


def state_of(seed: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(seed)
    large = torch.randn(1500, 1100, generator=generator)  # longer than a part
    return {
        "large": large,
        "turned": large[:50].clone().t(),
        "small": torch.tensor(seed),
        "n": seed,
    }


def keys(server: FaultServer) -> list[str]:
    return sorted(key for _, key in server.buckets.objects)


def test_a_checkpoint_is_its_metadata_which_comes_last(server: FaultServer):
    saved, loaded = state_of(1), state_of(2)
    store = config_of(server.endpoint, part_bytes=5 << 20)
    dcp.save(saved, storage_writer=s3io.checkpoint.Writer(FOLDER, store=store))
    puts = [one for one in server.requests if one.method in ("PUT", "POST")]
    assert puts[-1].target.endswith("/.metadata")
    assert len(keys(server)) == 2
    places = {name: tensor.data_ptr() for name, tensor in loaded.items() if name != "n"}
    server.requests.clear()
    dcp.load(loaded, storage_reader=s3io.checkpoint.Reader(FOLDER))
    assert loaded["n"] == 1
    assert all(torch.equal(loaded[name], saved[name]) for name in places)
    assert places == {name: loaded[name].data_ptr() for name in places}

    def deny(reply: Reply, request: Request) -> Reply:
        return error(403, "AccessDenied") if request.method == "POST" else reply

    server.fault = deny
    before = keys(server)
    with pytest.raises(CheckpointException, match="AccessError"):
        dcp.save(state_of(3), storage_writer=s3io.checkpoint.Writer(FOLDER, overwrite=True))
    assert keys(server) == before
    server.fault = lambda reply, _request: reply
    dcp.save(state_of(3), storage_writer=s3io.checkpoint.Writer(FOLDER, overwrite=True))
    assert len(keys(server)) == 2
    dcp.load(loaded, storage_reader=s3io.checkpoint.Reader(FOLDER))
    assert loaded["n"] == 3


def test_a_bucket_that_refuses_conditions_keeps_the_checkpoint_of_another_save(server: FaultServer):
    answer, path = server.answer, f"{FOLDER}/.metadata".removeprefix(f"s3://{BUCKET}/")

    def refuse(request: Request) -> Reply:
        if "if-none-match" not in request.headers:
            return answer(request)
        server.buckets.put(BUCKET, path, b"of another save")
        return error(400, "InvalidArgument")

    server.answer = refuse
    with pytest.raises(CheckpointException, match="ConfigError"):
        dcp.save(state_of(1), storage_writer=s3io.checkpoint.Writer(FOLDER))
    assert server.buckets.objects[BUCKET, path].data == b"of another save"


def test_where_conditions_are_ignored_a_save_that_another_one_replaced_fails(server: FaultServer):
    answer, path = server.answer, f"{FOLDER}/.metadata".removeprefix(f"s3://{BUCKET}/")

    def ignore(request: Request) -> Reply:
        request.headers.pop("if-none-match", None)
        reply = answer(request)
        if request.method == "PUT" and request.path.endswith("/.metadata") and is_replaced:
            server.buckets.put(BUCKET, path, b"of another save")
        return reply

    server.answer = ignore
    is_replaced = True
    with pytest.raises(CheckpointException, match=r"ExistsError.*another write has replaced it"):
        dcp.save(state_of(1), storage_writer=s3io.checkpoint.Writer(FOLDER))
    is_replaced = False
    server.buckets.objects.pop((BUCKET, path))
    dcp.save(state_of(1), storage_writer=s3io.checkpoint.Writer(FOLDER))


def test_a_save_whose_metadata_the_server_did_not_keep_fails_and_leaves_the_old_one(
    server: FaultServer,
):
    dcp.save(state_of(1), storage_writer=s3io.checkpoint.Writer(FOLDER))
    lie(server, "PUT", ".metadata")
    with pytest.raises(CheckpointException, match=r"WriteError.*, and has what was there before"):
        dcp.save(state_of(2), storage_writer=s3io.checkpoint.Writer(FOLDER, overwrite=True))
    loaded = state_of(3)
    dcp.load(loaded, storage_reader=s3io.checkpoint.Reader(FOLDER))
    assert loaded["n"] == 1


def test_safetensors_are_read_from_several_objects(server: FaultServer):
    weights = {name: value for name, value in state_of(1).items() if name != "n"}
    store = config_of(server.endpoint)
    for name, tensor in weights.items():
        path = f"s3://{BUCKET}/model-{name}.safetensors"
        s3io.save_safetensors({name: tensor}, path, store=store)
    loaded = s3io.load_safetensors(f"s3://{BUCKET}/model-*.safetensors", store=store)
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
