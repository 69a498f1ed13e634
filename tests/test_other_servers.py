"""Our client at real servers: what it writes it reads, and what cannot be right is refused."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import BUCKET, config_of, named_by_environment, needs_s3

import torch_s3io as s3io
from torch_s3io import cli

pytest.importorskip("botocore", reason="NEEDS BOTOCORE: nothing else makes buckets")
from test_object_servers import KEYS, SERVERS, client_of

pytestmark = [
    needs_s3,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
TOP = f"s3://{BUCKET}/other-servers"
MIB = 1 << 20


@pytest.fixture(params=SERVERS)
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    endpoint = request.getfixturevalue(SERVERS[request.param])
    client = client_of(endpoint)
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=BUCKET)
    client.close()
    with named_by_environment(endpoint), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # that it ignores If-Match, for instance
        yield endpoint


def test_what_is_written_is_read_in_any_order(endpoint):
    folder = f"{TOP}/samples"
    fields = {"number": np.int64, "bytes": bytes}
    with s3io.SampleWriter(folder, fields=fields, shard_bytes=20_000, overwrite=True) as writer:
        for number in range(300):
            writer.write({"number": number, "bytes": bytes([number % 256]) * number})
    dataset = s3io.SampleDataset(folder, batch_size=20, shuffle=True, verify=True)
    loader = s3io.DataLoader(dataset, num_workers=2)
    found = {}
    for batch in loader:
        for number, data in zip(batch["number"].tolist(), batch["bytes"], strict=True):
            found[number] = bytes(data.numpy())
    assert found == {number: bytes([number % 256]) * number for number in range(300)}
    stats = loader.stats()
    assert stats["verified_bytes"] > 0 == stats["unverified_bytes"]


def test_single_objects_are_put_listed_looked_at_and_removed(endpoint):
    store = s3io.open_store(TOP)
    paths = sorted(f"{TOP}/single/{key}" for key in KEYS)
    for path in paths:
        store.put(path, path.encode())
    assert store.list(f"{TOP}/single/") == paths
    for path in paths:
        info = store.stat(path)
        assert info.size_bytes == len(path.encode())
        assert bytes(store.get_range(path, 2, 9, version=info).numpy()) == path.encode()[2:11]
        store.remove(path)
    assert store.list(f"{TOP}/single/") == []
    with pytest.raises(s3io.NotFoundError):
        store.get(paths[0])


def test_large_objects_are_written_in_parts_and_never_over_another(endpoint):
    store = s3io.open_store(TOP)
    path = f"{TOP}/large"
    data = np.arange(11 * MIB // 4, dtype="<u4")
    store.remove(path)
    store.put(path, data, if_absent=True)
    assert store.get(path).numpy().view("<u4").tolist() == data.tolist()
    for size in (10, 11 * MIB):
        with pytest.raises(s3io.ExistsError):
            store.put(path, bytes(size), if_absent=True)
    assert store.stat(path).size_bytes == data.nbytes


def test_an_object_that_is_overwritten_is_never_a_mixture(endpoint):
    store = s3io.open_store(TOP)
    path = f"{TOP}/overwritten.bin"
    store.put(path, bytes(8000))
    dataset = s3io.RecordDataset(path, dtype="u1", shape=8, batch_size=10, pool=None)
    version = store.stat(path)
    store.put(path, bytes([1]) * 8000)
    with pytest.raises(s3io.ObjectChangedError, match="412"):
        list(dataset)
    with pytest.raises(s3io.ObjectChangedError, match="412"):
        store.get_range(path, 0, 10, version=version)


def test_rclone_which_answers_200_to_a_range_is_refused(rclone: tuple[str, Path]):
    endpoint, folder = rclone
    (folder / BUCKET).mkdir()
    (folder / BUCKET / "x.bin").write_bytes(bytes(8000))
    options: dict[str, Any] = {"dtype": "u1", "shape": 8, "batch_size": 10}
    path = f"s3://{BUCKET}/x.bin"
    with named_by_environment(endpoint):
        config = config_of(endpoint, retries_per_s=1000)
        for paths in (path, f"s3://{BUCKET}/*.bin"):  # its lists have ETags without quotes
            dataset = s3io.RecordDataset(paths, store=config, **options)
            with pytest.raises(s3io.ReadError, match=r"200, not 206: .* does not serve ranges"):
                list(dataset)
        store = s3io.open_store(path, config)
        for read in (store.get, lambda path: store.get_range(path, 0, 10)):
            with pytest.raises(s3io.ReadError, match="does not serve ranges"):
                read(path)


def test_uploads_that_nobody_has_finished_are_listed_and_aborted(endpoint, capsys):
    store, paths = s3io.open_store(TOP), [f"{TOP}/open/{name}" for name in ("a", "b", "b c+é")]
    writers = [store.writer(path) for path in paths]
    for writer in writers:
        writer.write(bytes(9 * MIB))
    uploads = store.uploads(f"{TOP}/open/")
    assert [upload.path for upload in uploads] == paths
    assert all(0 <= upload.age_s < 600 for upload in uploads)
    assert cli.main(["uploads", f"{TOP}/open/b", "--abort-older", "0s"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["aborted", "aborted"]
    (left,) = store.uploads(f"{TOP}/open/")
    assert (left.path, left.upload_id) == (paths[0], uploads[0].upload_id)
    store.abort_upload(left)
    store.abort_upload(left)  # nothing happens
    assert store.uploads(f"{TOP}/open/") == ()
    for writer in writers:
        writer.cancel()
