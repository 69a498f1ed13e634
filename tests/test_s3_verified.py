"""What is verified of what comes from a bucket, and what is said of a server that is not."""

from __future__ import annotations

import io
import multiprocessing
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from buckets import BUCKET, config_of, needs_s3, path_of, put_files, serving
from object_servers.fault_server import FaultServer
from object_servers.faults import every, flipped_bit
from order_check import write_number_samples
from tar_files import write_tar

import torch_s3io as s3io
from torch_s3io.store.s3_servers import Servers, is_plain

pytestmark = [
    needs_s3,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


@pytest.fixture
def _seems_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server is taken for another machine's."""
    monkeypatch.setattr("torch_s3io.store.s3_servers.is_plain", bool)


@pytest.fixture
def folder(server: FaultServer, tmp_path: Path) -> Path:
    folder = write_number_samples(tmp_path / "samples", 200)
    put_files(server, folder)
    return folder


def numbers_of(batches: Any) -> list[int]:
    return [int(number) for batch in batches for number in batch["number"]]


def counted(dataset: Any) -> tuple[int, int]:
    stats = dataset.stats()
    return stats["verified_bytes"], stats["unverified_bytes"]


def samples_of(path: Any, **options: Any) -> s3io.SampleDataset:
    return s3io.SampleDataset(path, batch_size=20, **options)


def test_a_flipped_bit_is_caught_by_a_checksum_and_else_counted_as_unverified(server, folder):
    path = path_of(folder)
    for verify in (True, False):
        dataset = samples_of(path, verify=verify)
        assert numbers_of(dataset) == list(range(200))
        read = counted(dataset)
        assert read[verify] == 0
        # What lies between samples comes with them, and their tables do not come with batches.
        sizes = sum(8 + number for number in range(200))
        assert sizes <= read[not verify] < sizes + 200 * 64
        assert sum(read) == dataset.stats()["direct_bytes"]
        server.fault = every(1, flipped_bit)
        if verify:
            with pytest.raises(s3io.DataError, match=r"s3://tests/.*: sample \d+, .* checksum"):
                numbers_of(dataset)
        else:
            numbers_of(dataset)
            verified, unverified = counted(dataset)
            assert verified == 0
            assert unverified >= 2 * read[1]  # the third epoch has begun
        server.fault = lambda reply, _request: reply


def test_workers_count_and_files_do_not(server, folder):
    loader = s3io.DataLoader(samples_of(path_of(folder), verify=True), num_workers=2)
    assert sorted(numbers_of(loader)) == list(range(200))
    verified, unverified = counted(loader)
    assert verified > 0 == unverified
    files = samples_of(folder, verify=True)
    assert numbers_of(files) == list(range(200))
    assert counted(files) == (0, 0)
    mixed = s3io.Mix([samples_of(folder), samples_of(path_of(folder), verify=True)], pool=None)
    assert len(numbers_of(mixed)) == 400
    verified, unverified = counted(mixed)
    assert mixed.stats()["batch_bytes"] > verified > 0 == unverified


def test_records_have_no_checksums(server):
    server.buckets.put(BUCKET, "x.bin", bytes(1000))
    dataset = s3io.RecordDataset(f"s3://{BUCKET}/x.bin", dtype="u1", shape=10, batch_size=100)
    assert next(iter(dataset)).sum() == 0
    assert counted(dataset) == (0, 1000)


@pytest.mark.parametrize(
    ("endpoint", "says_so"),
    [
        ("", False),
        ("https://10.0.0.1", False),
        ("HTTP://10.0.0.1:9000", True),
        ("http://store.local/", True),
        ("http://localhost:9000", False),
        ("http://x.localhost", False),
        ("http://127.0.0.2:9000", False),
        ("http://[::1]:9000", False),
        ("http://0.0.0.0:9000", False),
        ("http://[::]:9000", False),
        ("http://[::ffff:127.0.0.1]:9000", False),
        ("http://[fd00::1]", True),
    ],
)
def test_another_machine_without_tls_is_told_from_the_rest(endpoint, says_so):
    assert is_plain(endpoint) is says_so


def num_warned() -> int:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Servers().warn_if_nothing_verifies("http://10.0.0.1:9000")
    return len(caught)


@pytest.mark.parametrize("name", ["RANK", "SLURM_PROCID"])
def test_other_ranks_warn_of_nothing(name, monkeypatch):
    assert num_warned() == 1
    monkeypatch.setenv(name, "1")
    assert num_warned() == 0


def test_of_ranks_that_somebody_started_the_first_one_warns_and_none_of_its_workers(monkeypatch):
    """As by torch.multiprocessing.spawn, whatever the environment says."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "somebody")
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    for rank, expected in ((0, 1), (1, 0)):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        assert num_warned() == expected
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr("torch_s3io.store.s3_servers.get_worker_info", lambda: "a worker's")
    assert num_warned() == 0


def test_a_child_warns_of_nothing():
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as child:
        assert child.submit(num_warned).result() == 0


@pytest.mark.usefixtures("_seems_far")
def test_what_nothing_verifies_is_warned_of_once_for_a_server(server, folder):
    config = config_of(server.endpoint)
    server.buckets.put("other", "x.npy", array_file())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        verified = samples_of(path_of(folder), verify=True, store=config)
        assert numbers_of(verified) == list(range(200))
        assert not caught
        samples_of(path_of(folder), store=config).split([0.5, 0.5])
        s3io.RecordDataset.from_npy("s3://other/x.npy", batch_size=1, store=config)
    assert [one.category for one in caught] == [RuntimeWarning]
    assert caught[0].filename == __file__
    text = str(caught[0].message)
    assert text.startswith(f"{server.endpoint}: ")
    assert "https://" in text
    assert "verify=True" in text


@pytest.mark.usefixtures("_seems_far")
def test_of_a_mix_only_the_servers_are_warned_of_whose_part_nothing_verifies(server, tmp_path):
    tar = write_tar(tmp_path / "x.tar", {f"{one}.bytes": b"of a tar" for one in range(9)})
    with s3io.SampleWriter(tmp_path / "samples", fields={"bytes": bytes}) as writer:
        writer.write({"bytes": b"of a bucket"})
    put_files(server, tmp_path / "samples")
    verified = samples_of(path_of(tmp_path / "samples"), verify=True)
    with warnings.catch_warnings(record=True) as caught, closing(FaultServer()) as other:
        warnings.simplefilter("always")
        s3io.Mix([samples_from_tar(tar), verified]).get_batch([0])
        assert not caught
        other.buckets.put("other", "x.tar", tar.read_bytes())
        tars = samples_from_tar("s3://other/x.tar", store=config_of(other.endpoint))
        s3io.Mix([verified, tars]).get_batch([0])
    assert [str(one.message).partition(": nothing but TCP")[0] for one in caught] == [
        other.endpoint
    ]


def samples_from_tar(path: Any, **options: Any) -> s3io.SampleDataset:
    return s3io.SampleDataset.from_tar(path, batch_size=1, index=False, **options)


@pytest.mark.usefixtures("_seems_far")
def test_safetensors_files_have_no_checksums(server):
    config = config_of(server.endpoint)
    path = f"s3://{BUCKET}/x.safetensors"
    s3io.save_safetensors({"x": torch.zeros(3)}, path, store=config)
    for expected in (1, 0):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert s3io.load_safetensors(path, store=config)["x"].tolist() == [0, 0, 0]
        assert len(caught) == expected
        assert all("nothing but TCP" in str(one.message) for one in caught)


def array_file() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((4, 2), np.uint8))
    return file.getvalue()
