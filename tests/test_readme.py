"""README.md: its snippets and commands, taken from it as they are now, do what it says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pages import Key, Page
from record_sets import random_array
from torch.utils.data import IterableDataset

import torch_s3io as s3io

CIFAR10 = np.dtype([("label", "u1"), ("image", "u1", (3, 32, 32))])

README = Page(
    "README.md",
    not_run={
        Key("On several machines", "python", 0): "Lightning: test_trainers.py",
        Key("On several machines", "python", 1): "Accelerate: test_trainers.py",
    },
    not_run_commands={
        "make train": "CI's own set-up; what it trains: test_examples.py",
        "make test": "this suite",
        "torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=host0:29500 "
        "--rdzv-id=run1 train.py": "two machines of 8 GPUs; of one rank each: test_trainers.py",
        "python -m torch_s3io bench resnet50": "minutes of reading; small ones: test_bench.py",
        "python -m torch_s3io bench seed-metrics": "minutes; small: test_bench_results.py",
        "pip install torch==2.13.0": "a download; the version: test_configuration_docs.py",
        "pip install 'setuptools>=77'": "a download",
        "apt install g++ pkg-config liburing-dev": "a download",
        "pip install --no-build-isolation .": "a build: scripts/check_wheels.sh",
        "pip install --no-build-isolation '.[bench]'": "a build, and a download",
    },
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(disk, monkeypatch):
    monkeypatch.chdir(disk)


def write_cifar10() -> np.ndarray:
    """Three files of 200 records in train/."""
    records = random_array("u1", 600, (CIFAR10.itemsize,), 1)
    Path("train").mkdir()
    for number, part in enumerate(np.split(records, 3)):
        Path(f"train/{number}.bin").write_bytes(part.tobytes())
    return records.view(CIFAR10)[:, 0]


def test_every_block_and_command_is_run_or_listed_with_a_reason():
    assert len(README.blocks()) >= 14
    README.check()


@README.runs("torch_s3io", "python")
def test_the_first_example_trains_on_every_record_in_every_epoch(block, capsys):
    records = write_cifar10()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    names = {"step": lambda images, labels: seen.append((images.clone(), labels.clone()))}
    README.run(block, names)
    assert len(seen) == 10 * 3
    assert seen[0][0].shape == (256, 3, 32, 32)
    for epoch in range(10):
        labels = torch.cat([labels for _, labels in seen[3 * epoch : 3 * epoch + 3]])
        np.testing.assert_array_equal(np.sort(labels.numpy()), np.sort(records["label"]))
    total = sum(float(images.double().sum()) for images, _ in seen[:3])
    assert total == pytest.approx(records["image"].sum() / 255, rel=1e-5)
    assert "'batches'" in capsys.readouterr().out


@README.runs("Reading records", "python")
def test_the_layouts_give_the_batches_that_the_comments_say(block):
    Path("train").mkdir()
    Path("corpus").mkdir()
    images = random_array("f4", 64, (3, 224, 224), 1)
    images.tofile("images.bin")
    pairs = random_array([("x", "f4", 16), ("y", "i8")], 64, (), 2)
    pairs.tofile("pairs.bin")
    wide = random_array("u1", 64, (8192,), 3)
    Path("wide.bin").write_bytes(bytes(512) + wide.tobytes())
    np.save("train/0.npy", pairs["x"])
    tokens = random_array("<u2", 1024 * 8 + 1, (), 4)
    tokens.tofile("corpus/0.bin")
    paths = ["images.bin", "pairs.bin", "wide.bin"]
    files = {number: {"paths": path} for number, path in enumerate(paths)}
    batches = [next(iter(dataset)) for dataset in README.run(block, {}, at=files)]
    windows = np.lib.stride_tricks.sliding_window_view(tokens, 1025)[::1024]
    assert [batch.dtype for batch in (batches[0], *batches[2:])] == [
        torch.float32, torch.bfloat16, torch.float32, torch.int64
    ]  # fmt: skip
    assert batches[0].numpy().tobytes() == images.tobytes()
    assert batches[1]["x"].numpy().tobytes() == pairs["x"].tobytes()
    assert batches[1]["y"].numpy().tobytes() == pairs["y"].tobytes()
    assert batches[2].view(torch.uint8).numpy().tobytes() == wide.tobytes()
    assert batches[3].numpy().tobytes() == pairs["x"].tobytes()
    np.testing.assert_array_equal(batches[4].numpy(), windows)


@README.runs("Workers and pinned memory", "python")
def test_the_prefetcher_steps_through_an_epoch_of_two_workers(block, capsys, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # else its own thread stays
    records = write_cifar10()
    dataset = s3io.RecordDataset("train/*.bin", dtype=CIFAR10, batch_size=100)
    labels: list[int] = []
    names = {"dataset": dataset, "step": lambda batch: labels.extend(batch["label"].tolist())}
    README.run(block, names, replaced={'"cuda"': '"cpu"'})
    assert labels == records["label"].tolist()
    assert 0 <= float(capsys.readouterr().out) <= 1


@README.runs("Order, shards and resume", "python", 0)
def test_a_loop_that_goes_on_from_its_state_sees_every_record_once_an_epoch(block):
    records = write_cifar10()
    labels: list[int] = []
    saved_at = 3 * 600 + 256  # a batch of the fourth epoch

    def step(batch):
        labels.extend(batch["label"].tolist())
        names["time_to_save"] = len(labels) == saved_at

    names = {
        "paths": "train/*.bin",
        "record": CIFAR10,
        "checkpoint": None,
        "path": "checkpoint.pt",
        "model": SimpleNamespace(state_dict=dict),
        "step": step,
    }
    README.run(block, names, replaced={"epochs(10)": "epochs(4)"})
    assert len(labels) == 4 * 600
    del labels[saved_at:]
    names["checkpoint"] = torch.load("checkpoint.pt")
    README.run(block, names)
    for epoch in np.reshape(labels, (10, 600)):
        np.testing.assert_array_equal(np.sort(epoch), np.sort(records["label"]))


@README.runs("Order, shards and resume", "python", 1)
def test_views_mixtures_pairs_and_augmented_records_are_what_the_comments_say(block):
    def numbers(first: int, count: int) -> s3io.RecordDataset:
        np.arange(first, first + count, dtype="i4").tofile(f"{first}.bin")
        return s3io.RecordDataset(f"{first}.bin", dtype="i4", batch_size=64, shuffle=True)

    names = {
        "dataset": numbers(0, 1000),
        "web": numbers(10_000, 9216),
        "books": numbers(20_000, 1024),
        "images": numbers(30_000, 500),
        "labels": numbers(40_000, 500),
    }
    names["record"] = CIFAR10
    stored = write_cifar10()["image"]
    README.run(block, names, replaced={"RecordDataset(..., ": 'RecordDataset("train/*.bin", '})

    def all_of(dataset: IterableDataset) -> list[int]:
        return [number for batch in dataset for number in batch.tolist()]

    train, test = all_of(names["train"]), all_of(names["test"])
    assert (len(train), len(test)) == (900, 100)
    assert sorted(train + test) == list(range(1000))
    mixed = all_of(names["mix"])
    assert abs(sum(number < 20_000 for number in mixed[:1024]) - 0.9 * 1024) < 1
    for pair in names["pairs"]:
        assert torch.equal(pair["images"] + 10_000, pair["labels"])
    assert [int(names["records"][number]) for number in (7, 0, 999)] == [7, 0, 999]
    images = np.concatenate([batch["image"].numpy() for batch in names["flipped"]])
    same, flipped = ((images == one).all((1, 2, 3)) for one in (stored, stored[..., ::-1]))
    assert (same ^ flipped).all()
    assert 200 < flipped.sum() < 400


@README.runs("Writing shards", "sh")
def test_the_commands_pack_describe_and_verify_what_lies_in_the_folder(block, capsys):
    images = random_array("u1", 50, (3, 32, 32), 1)
    np.save("train.npy", images)
    tokens = random_array("<u2", 20_000, (), 2)
    tokens.tofile("corpus.bin")
    assert README.run_commands(block) == [0, 0, 0, 0]
    output = capsys.readouterr().out
    assert "records      50" in output
    assert output.count("all as they were written") == 2
    got = next(iter(s3io.RecordDataset("packed", batch_size=50)))
    np.testing.assert_array_equal(got.numpy(), images)
    got = next(iter(s3io.RecordDataset("corpus", batch_size=50)))
    np.testing.assert_array_equal(got.numpy(), tokens[: 19 * 1025].reshape(19, 1025))


@README.runs("Writing shards", "python")
def test_the_writer_writes_what_the_data_set_then_reads(block):
    x, y = random_array("f4", 200, (16,), 1), np.arange(200)
    names = {"batches": [(x[:150], y[:150]), (torch.from_numpy(x[150:].copy()), y[150:])]}
    README.run(block, names)
    batches = list(names["dataset"])
    assert torch.cat([batch["x"] for batch in batches]).numpy().tobytes() == x.tobytes()
    assert torch.cat([batch["y"] for batch in batches]).tolist() == y.tolist()


@README.runs("Reading and writing whole files", "python")
def test_files_are_read_whole_in_ranges_and_written(block):
    content = random_array("u1", 100_000, (), 1)
    content.tofile("checkpoint.bin")
    names = {"chunks": [content[:30_000], content[30_000:]]}
    README.run(block, names)
    np.testing.assert_array_equal(names["data"].numpy(), content)
    np.testing.assert_array_equal(names["head"].numpy(), content[:4096])
    assert np.fromfile("small.bin", "i8").tolist() == list(range(10))
    assert Path("large.bin").read_bytes() == content.tobytes()


@README.runs("Looking at the machine, measuring epochs", "sh")
def test_the_machine_is_examined_and_the_benchmarks_are_listed(block, capsys):
    Path("train.bin").write_bytes(bytes(16 << 20))
    statuses = README.run_commands(block, {"/data/train": "train.bin --quick"})
    assert statuses[0] in (0, 3)
    assert statuses[1:] == [0]
    output = capsys.readouterr().out
    assert "io_uring" in output
    assert "resnet50" in output
