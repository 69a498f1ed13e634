"""``store=`` takes a config, or a store, on every data set and writer."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from buckets import BUCKET, config_of, needs_s3, serving
from object_servers.fault_server import FaultServer
from support import end_workers
from tar_files import write_tar
from token_files import numbered, write_megatron

import torch_s3io as s3io
from torch_s3io.store.s3_objects import the_s3_objects

RECORDS = np.arange(4000, dtype=np.uint16).reshape(100, 40)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


def write_files(folder: Path) -> None:
    """Some for each kind of data set."""
    folder.mkdir()
    RECORDS.tofile(folder / "records.bin")
    np.save(folder / "rows.npy", RECORDS)
    np.savez(folder / "x.npz", x=RECORDS[0])
    write_tar(folder / "samples.tar", {"0.bin": b"a", "1.bin": b"bc"})
    write_megatron(folder / "corpus", numbered([5, 7]))


# What reads each kind of data set below a folder.
DATASETS: dict[str, Callable[..., Any]] = {
    "records": lambda at, **o: s3io.RecordDataset(f"{at}/records.bin", dtype="u2", shape=40, **o),
    "npy": lambda at, **o: s3io.RecordDataset.from_npy(f"{at}/rows.npy", **o),
    "tokens": lambda at, **o: s3io.RecordDataset.from_tokens(f"{at}/records.bin", window=9, **o),
    "files": lambda at, **o: s3io.SampleDataset.from_files(f"{at}/*.bin", index=False, **o),
    "npy_files": lambda at, **o: s3io.SampleDataset.from_npy_files(
        [f"{at}/rows.npy"], index=False, **o
    ),
    "npz": lambda at, **o: s3io.SampleDataset.from_npz(
        f"{at}/x.npz", fields=("x",), index=False, **o
    ),
    "tar": lambda at, **o: s3io.SampleDataset.from_tar(
        f"{at}/samples.tar", fields=("bin",), index=False, **o
    ),
    "documents": lambda at, **o: s3io.TokenDataset(f"{at}/corpus", documents="single", **o),
    "written records": lambda at, **o: s3io.RecordDataset(f"{at}/written", **o),
    "written samples": lambda at, **o: s3io.SampleDataset(f"{at}/samples", **o),
}


def write_both(at: str, store: Any) -> None:
    with s3io.RecordWriter(f"{at}/written", dtype="u2", shape=40, store=store) as records:
        records.write(RECORDS)
    with s3io.SampleWriter(f"{at}/samples", fields={"x": bytes}, store=store) as samples:
        samples.write({"x": b"abc"})


@needs_s3
@pytest.mark.parametrize("is_store", [False, True])
def test_a_bucket_is_reached_by_a_config_or_by_the_store_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_store: bool
):
    """The environment says nothing of the server. Each takes the setting by itself."""
    write_files(tmp_path / "files")
    at = f"s3://{BUCKET}{tmp_path}/files"
    with serving() as server:
        for file in (tmp_path / "files").iterdir():
            server.buckets.put(BUCKET, str(file)[1:], file.read_bytes())
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)

        def setting() -> Any:
            the_s3_objects().forget()
            config = config_of(server.endpoint)
            if not is_store:
                return config
            store = s3io.open_store(f"s3://elsewhere/{at}", config)
            assert store.config == config
            return store

        write_both(at, setting())
        for make in DATASETS.values():
            dataset = make(at, store=setting())
            assert next(iter(dataset)) is not None
        s3io.save_safetensors({"x": torch.ones(3)}, f"{at}/x.safetensors", store=setting())
        loaded = s3io.load_safetensors(f"{at}/x.safetensors", store=setting())
        assert loaded["x"].tolist() == [1, 1, 1]
        assert s3io.open_store(at, setting()).get(f"{at}/records.bin").numel() == RECORDS.nbytes
        the_s3_objects().forget()


def test_of_a_store_of_files_its_way_to_read_and_write_is_taken(tmp_path: Path):
    write_files(tmp_path / "files")
    store = s3io.FileStore(s3io.FileSystemConfig(direct_io="off"), engine="threads")
    at = str(tmp_path / "files")
    assert s3io.open_store(at, store) is store
    write_both(at, store)
    for make in DATASETS.values():
        dataset = make(at, store=store)
        assert next(iter(dataset)) is not None
        assert dataset.stats()["engine"] == "threads"
        assert dataset.stats()["direct"] == "off"
    with pytest.raises(s3io.ConfigError, match=r"engine='uring': store= is a FileStore with 'thr"):
        DATASETS["records"](at, store=store, engine="uring")
    with pytest.raises(s3io.ConfigError, match="leave config= and engine= out"):
        s3io.RecordWriter(f"{at}/more", dtype="u1", engine="threads", store=store)


@needs_s3
def test_a_store_of_another_kind_of_path_is_refused(server: FaultServer, tmp_path: Path):
    write_files(tmp_path / "files")
    at, bucket = str(tmp_path / "files"), s3io.open_store(f"s3://{BUCKET}")
    files = s3io.FileStore()
    for make in DATASETS.values():
        with pytest.raises(s3io.ConfigError, match="for paths that begin with s3://: leave it out"):
            make(at, store=bucket)
        with pytest.raises(s3io.ConfigError, match=r"store= is a FileStore, and 's3://.* in a buc"):
            make(f"s3://{BUCKET}/x", store=files)
    with pytest.raises(s3io.ConfigError, match="leave it out"):
        write_both(at, bucket)
    with pytest.raises(s3io.ConfigError, match="is in a bucket"):
        write_both(f"s3://{BUCKET}/x", files)
    with pytest.raises(s3io.ConfigError, match="what open_store gives, or None, not 'here'"):
        DATASETS["records"](at, store="here")
    copied = pickle.loads(pickle.dumps(bucket))
    assert copied.config == bucket.config


@needs_s3
@pytest.mark.parametrize("start", [None, "fork", "spawn"])
def test_a_data_set_reads_buckets_of_two_servers_each_by_its_own_config(
    server: FaultServer, tmp_path: Path, start: str | None
):
    """With other keys; in a Mix there are files beside them."""
    second = FaultServer()
    second.keys = {"other": "secret"}
    try:
        config = s3io.S3Config(endpoint=second.endpoint, access_key="other", secret_key="secret")
        paths = [f"s3://{BUCKET}/first.bin", "s3://second/second.bin", str(tmp_path / "third.bin")]
        server.buckets.put(BUCKET, "first.bin", RECORDS[:30].tobytes())
        second.buckets.put("second", "second.bin", RECORDS[30:60].tobytes())
        RECORDS[60:].tofile(paths[2])
        s3io.open_store(paths[1], config)
        options = {"dtype": "u2", "shape": 40, "batch_size": 7}
        together = s3io.RecordDataset(paths[:2], **options, shuffle=True, seed=3)
        parts = [s3io.RecordDataset(path, **options) for path in paths]
        workers = 0 if start is None else 2
        for dataset, count in ((together, 2), (s3io.Mix(parts), 3)):
            loader = s3io.DataLoader(dataset, num_workers=workers, multiprocessing_context=start)
            got = np.concatenate([batch.numpy() for batch in loader])
            numbers = got[:, 0] // 40  # a Mix repeats some
            np.testing.assert_array_equal(got, RECORDS[numbers])
            assert set(np.minimum(numbers // 30, 2)) == set(range(count))
            end_workers(loader._iterator)
        for one, name in ((server, "first"), (second, "second")):
            assert {request.path.split("/")[-1] for request in one.requests} == {f"{name}.bin"}
    finally:
        second.close()
