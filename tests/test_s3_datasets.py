"""Data sets in buckets: what they ask the server for, and what they say when something is wrong."""

from __future__ import annotations

import contextlib
import copy
import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from buckets import BUCKET, config_of, named_by_environment, needs_s3, serving
from object_servers.buckets import Reply, Request, error
from object_servers.fault_server import ACCESS_KEY, SECRET_KEY, FaultServer
from object_servers.faults import FAULTS, every

import torch_s3io as s3io
from torch_s3io.store.s3_objects import the_s3_objects

pytestmark = [
    needs_s3,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
# What nobody can tell, and what is after all that was asked for.
PASSING = {"flipped_bit", "surplus", "late_surplus"}
TRAIN = f"s3://{BUCKET}/train"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


def put_records(server: FaultServer, count: int, first: int = 0) -> np.ndarray[Any, Any]:
    """``count`` objects of 8 records each; all of them."""
    records = np.arange(first, first + count * 8 * 4, dtype="<i4").reshape(-1, 4)
    for number, part in enumerate(np.split(records, count)):
        server.buckets.put(BUCKET, f"train/{number:05}.bin", part.tobytes())
    return records


def records_of(path: str = f"{TRAIN}/*.bin", **options: Any) -> s3io.RecordDataset:
    return s3io.RecordDataset(path, dtype="<i4", shape=4, **options)


def asked(server: FaultServer) -> list[str]:
    """Methods, and the queries of lists, of all requests since the last call; but for the question
    whether the server heeds versions, which comes once for it."""
    shown = [
        f"{one.method} {'list' if 'prefix' in one.query else ''}".strip()
        for one in server.requests
        if one.headers.get("if-match") != '"of-no-version"'
    ]
    server.requests.clear()
    return shown


def test_a_pattern_costs_one_list_and_an_epoch_a_read_per_part(server):
    records = put_records(server, 2500)
    dataset = records_of(batch_size=80)
    assert asked(server) == ["GET list"] * 3
    records_of(f"{TRAIN}/00007.b*")
    assert not the_s3_objects()._found
    assert asked(server) == ["GET list"]
    read = [batch.tolist() for batch in dataset.subset(0, 240)]
    assert [row for rows in read for row in rows] == records[:240].tolist()
    assert all("if-match" in request.headers for request in server.requests)
    assert asked(server) == ["GET"] * 30


def test_blocks_of_a_bucket_have_4_mib_unless_another_length_is_given(server):
    records = np.random.default_rng(0).integers(0, 256, (600, 65536), dtype="u1")
    server.buckets.put(BUCKET, "large.bin", records.tobytes())
    path, layout = f"s3://{BUCKET}/large.bin", {"dtype": "u1", "shape": 65536}
    for more, gets in (({}, 10), ({"block_records": 10}, 60)):
        dataset = s3io.RecordDataset(path, **layout, batch_size=100, shuffle="block", **more)
        asked(server)
        read = np.concatenate([batch[:, :8].clone().numpy() for batch in dataset])
        assert sorted(map(bytes, read)) == sorted(map(bytes, records[:, :8]))
        # A block that lies in two batches is asked for in two parts.
        assert gets <= len(asked(server)) <= gets + 6


def test_many_names_cost_a_list_as_well(server):
    put_records(server, 1200)
    names = [f"{TRAIN}/{number:05}.bin" for number in range(1199, -1, -1)]
    assert records_of(names, batch_size=8)._records.objects.path(0) == names[0]
    assert asked(server) == ["HEAD"] + ["GET list"] * 2  # the first, and two pages
    put_records(server, 1, first=5)
    assert len(records_of(names, batch_size=8)) == 1200  # it is looked at anew
    with pytest.raises(s3io.NotFoundError, match=r"train/x\.bin: .*404"):
        records_of([*names, f"{TRAIN}/x.bin"])


def test_a_folder_with_a_manifest_costs_a_list_and_no_request_for_each_shard(server):
    folder = f"s3://{BUCKET}/written"
    with s3io.RecordWriter(folder, dtype="u1", shape=10, shard_bytes=4096) as writer:
        writer.write(np.arange(16_000).astype("u1").reshape(-1, 10).repeat(10, 0))
    server.requests.clear()
    assert len(s3io.RecordDataset(folder, batch_size=100).files) == 40
    of_shards = [one.method for one in server.requests if "records-" in one.target]
    assert sorted(of_shards) == ["GET", "GET"]  # a list, and whether it heeds versions
    with s3io.SampleWriter(
        f"{folder}-of-samples", fields={"x": bytes}, shard_bytes=4096
    ) as samples:
        for _ in range(40):
            samples.write({"x": bytes(4000)})
    server.requests.clear()
    assert len(s3io.SampleDataset(f"{folder}-of-samples", batch_size=1)) == 40
    of_shards = [one.method for one in server.requests if "samples-" in one.target]
    assert of_shards == ["GET"] * 41  # a list, and the tables


def test_named_objects_need_no_list(server):
    put_records(server, 40)
    forbidden = error(403, "AccessDenied")
    server.fault = lambda reply, request: forbidden if "prefix" in request.query else reply
    assert len(records_of(f"{TRAIN}/00003.bin", batch_size=8)) == 1
    assert asked(server) == ["HEAD"]
    assert len(records_of([f"{TRAIN}/{number:05}.bin" for number in range(30)], batch_size=8)) == 30
    assert asked(server) == ["HEAD", "GET list", *["HEAD"] * 29]
    server.fault = right
    few = [f"{TRAIN}/{number:05}.bin" for number in range(0, 40, 2)]
    for number in range(3000):
        server.buckets.put(BUCKET, f"train/000{number:05}", b"x")
    assert len(records_of(few, batch_size=8)) == 20
    assert asked(server) == ["HEAD", "GET list", *["HEAD"] * 19]


def test_names_folders_and_lists_of_names_are_found(server):
    records = put_records(server, 3)
    server.buckets.put(BUCKET, "train/", b"")  # a folder, as some programs mark it
    server.buckets.put(BUCKET, "train/.hidden.bin", b"x")
    names = [f"{TRAIN}/00001.bin", f"{TRAIN}/00000.bin"]
    read = np.concatenate([batch.numpy() for batch in records_of(names)])
    assert read.tolist() == [*records[8:16].tolist(), *records[:8].tolist()]
    assert len(records_of(f"s3://{BUCKET}/**/*.bin")) == len(records_of())
    with pytest.raises(s3io.NotFoundError, match=r"s3://tests/train/x\.bin.*404.*a pattern such"):
        records_of(f"{TRAIN}/x.bin")
    with pytest.raises(s3io.NotFoundError, match="no object matches this pattern"):
        records_of(f"{TRAIN}/*.npy")
    with pytest.raises(s3io.ConfigError, match=r"is a folder that neither RecordWriter nor pack"):
        records_of(TRAIN)


def test_an_object_that_is_overwritten_ends_the_epoch(server):
    put_records(server, 4)
    dataset = records_of(batch_size=8, depth=1)
    put = server.buckets.put

    def overwrite(reply: Reply, request: Request) -> Reply:
        if request.path.endswith("/00001.bin"):
            put(BUCKET, "train/00003.bin", bytes(8 * 16))
        return reply

    server.fault = overwrite
    batches = []
    with pytest.raises(s3io.ObjectChangedError, match=r"s3://tests/train/00003\.bin"):
        batches += (batch.tolist() for batch in dataset)
    assert len(batches) == 3
    state = dataset.state_dict()
    with pytest.warns(RuntimeWarning, match="times of change"):
        records_of(batch_size=8).load_state_dict(state)
    put(BUCKET, "train/00003.bin", bytes(16))
    with pytest.raises(s3io.DataError, match="sizes of files"):
        records_of(batch_size=8).load_state_dict(state)


def overwrite_empty(server: FaultServer) -> None:
    server.buckets.put(BUCKET, "files/2.bin", b"bytes")


def remove_empty(server: FaultServer) -> None:
    del server.buckets.objects[BUCKET, "files/2.bin"]


@pytest.mark.parametrize("heeds_versions", [True, False])
@pytest.mark.parametrize("change", [overwrite_empty, remove_empty])
def test_so_does_one_that_was_empty(server, change, heeds_versions):
    for number in range(6):
        server.buckets.put(BUCKET, f"files/{number}.bin", b"x" * (number % 2))
    if not heeds_versions:
        answer = server.answer
        server.answer = lambda request: answer(
            replace(request, headers=request.headers | {"if-match": "*"})
        )
    pattern = f"s3://{BUCKET}/files/*.bin"
    dataset = s3io.SampleDataset.from_files(pattern, batch_size=6)
    before = len(server.requests)
    (batch,) = dataset
    assert [sample.tolist() for sample in batch["data"]] == [[], [120]] * 3
    requests = [(request.method, request.path) for request in server.requests[before:]]
    assert sorted(requests) == sorted(
        ("GET" if number % 2 else "HEAD", f"/{BUCKET}/files/{number}.bin") for number in range(6)
    )
    change(server)
    with pytest.raises(s3io.ObjectChangedError, match=r"s3://tests/files/2\.bin: "):
        list(dataset)


def test_an_empty_part_of_a_key_is_told_of_where_the_server_leaves_it_out(server):
    put_records(server, 1)
    server.fault = lambda reply, request: replace(
        reply, body=reply.body.replace(b"<Key>/train", b"<Key>train")
    )
    server.buckets.put(BUCKET, "/train/00000.bin", bytes(16))
    for path in (f"s3://{BUCKET}//train/*.bin", f"s3://{BUCKET}//train"):
        with pytest.raises(s3io.DataError, match=r"which nobody asked for.*write one slash"):
            records_of(path)


def test_what_is_for_files_is_refused(server):
    put_records(server, 1)
    for options in ({"direct": "require"}, {"engine": "threads"}):
        with pytest.raises(s3io.ConfigError, match=f"{next(iter(options))}=.* is for files"):
            records_of(**options)


def test_the_config_of_a_bucket_is_one_that_fits_its_paths(server, tmp_path):
    put_records(server, 1)
    config = config_of(server.endpoint, part_bytes=64 << 10)
    assert len(records_of(store=config)) == len(records_of(store=config)) == len(records_of())
    (tmp_path / "x").write_bytes(bytes(16))
    with pytest.raises(s3io.ConfigError, match="for paths that begin with s3://"):
        records_of(str(tmp_path / "x"), store=config)
    with pytest.raises(s3io.ConfigError, match="must be an S3Config, what open_store"):
        records_of(store="http://localhost")


def test_keys_are_in_no_text_and_no_pickle(server, monkeypatch):
    put_records(server, 1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(s3io.ConfigError, match="no credentials for s3://"):
        records_of()
    config = config_of(server.endpoint, session_token="token-of-tests")
    dataset = records_of(store=config)
    shown = repr(config) + repr(dataset.__dict__) + repr(pickle.dumps([config, dataset]))
    for secret in (ACCESS_KEY, SECRET_KEY, "token-of-tests"):
        assert secret not in shown
    assert copy.deepcopy({"config": config})["config"] == copy.copy(config) == config
    assert copy.deepcopy(config).secret_key == SECRET_KEY
    address = "http://me:password-of-tests@host:1"
    with pytest.raises(s3io.ConfigError, match="a user's name or password") as caught:
        s3io.S3Config(endpoint=address)
    assert "password-of-tests" not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    with pytest.raises(s3io.ConfigError, match=r"AWS_ENDPOINT_URL.* must be a server") as caught:
        records_of(f"s3://other-{BUCKET}/*", store=s3io.S3Config(anonymous=True))
    assert "password-of-tests" not in str(caught.value)


def test_part_of_a_read_is_as_long_as_the_config_says(server):
    server.buckets.put(BUCKET, "one.bin", bytes(1 << 20))
    path = f"s3://{BUCKET}/one.bin"
    config = config_of(server.endpoint, part_bytes=256 << 10)
    dataset = s3io.RecordDataset(path, dtype="u1", shape=1 << 20, batch_size=1, store=config)
    asked(server)
    assert next(iter(dataset)).sum() == 0
    assert asked(server) == ["GET"] * 4


def right(reply: Reply, _request: Request) -> Reply:
    return reply


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_a_server_sends_is_right_or_an_error_that_names_the_bytes(server, fault):
    config = config_of(
        server.endpoint, max_attempts=2, stall_timeout_s=1, retries_per_s=1000, retry_timeout_s=1
    )
    for n in (1,) if fault == "drip" else (1, 2, 3):  # which takes seconds
        # Others each time. Else a late surplus is the reply to the same request in the next epoch.
        server.fault = right
        records = put_records(server, 3, first=1000 * n)
        dataset = records_of(batch_size=8, store=config)
        server.fault = every(n, FAULTS[fault])
        read, text = [], ""
        try:
            read += (row for batch in dataset for row in batch.tolist())
        except (s3io.ReadError, s3io.ReadTimeoutError, s3io.AccessError, s3io.ConfigError) as error:
            text = str(error)
        if text:
            assert re.search(r"s3://tests/train/0000\d\.bin, bytes 0-127: ", text)
        else:
            assert n > 1 or fault in PASSING
        if fault != "flipped_bit":
            assert read == records[: len(read)].tolist()


def test_two_workers_read_a_real_server_and_resume(real):
    pytest.importorskip("botocore", reason="NEEDS BOTOCORE: nothing else writes to the server")
    from test_object_servers import client_of

    records = np.arange(40 * 4, dtype="<i4").reshape(-1, 4)
    with named_by_environment(real):
        client = client_of(real)
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=BUCKET)
        for number, part in enumerate(np.split(records, 5)):
            client.put_object(Bucket=BUCKET, Key=f"train/a b+{number}=ä.bin", Body=part.tobytes())
        client.close()
        loader = s3io.DataLoader(records_of(batch_size=4, shuffle=True), num_workers=2)
        batches = iter(loader)
        rows = [row for _ in range(4) for row in next(batches).tolist()]
        state = loader.state_dict()
        del batches
        loader = s3io.DataLoader(records_of(batch_size=4, shuffle=True), num_workers=2)
        loader.load_state_dict(state)
        rows += [row for batch in loader for row in batch.tolist()]
        assert sorted(rows) == records.tolist()
        assert loader.stats()["engine"] == "s3"
