"""README.md: its snippets and commands, taken from it as they are now, do what it says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pages import ROOT, Page
from record_sets import CIFAR10, random_array, write_cifar10

import torch_s3io as s3io

README = Page(
    "README.md",
    not_run_commands={
        "make train": "CI's own set-up; what it trains: test_examples.py",
        "make test": "this suite",
        "make peers ARGS='--only shuffled --size-gib 0.5 --rounds 3'": "hours of other loaders",
        "apt install g++ pkg-config liburing-dev": "a download",
        "pip install torch==2.13.0 'setuptools>=77'": "a download; the version: "
        "test_configuration_docs.py",
        "pip install --no-build-isolation .": "a build: scripts/check_wheels.sh",
    },
)
MOST_WORDS = 1200
OWN_ARRAYS = "Your own arrays, in one line"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(disk, monkeypatch):
    monkeypatch.chdir(disk)


def test_every_block_and_command_is_run_or_listed_with_a_reason():
    assert len(README.blocks()) >= 8
    README.check()


def test_it_is_short():
    assert len((ROOT / README.name).read_text().split()) <= MOST_WORDS


@README.runs(OWN_ARRAYS, "python", 0)
def test_own_arrays_come_back_as_shuffled_batches(block):
    images = random_array("u1", 600, (3, 32, 32), 1)
    seen: list[torch.Tensor] = []
    README.run(block, {"images": images, "step": lambda batch: seen.append(batch.clone())})
    assert seen[0].dtype == torch.uint8
    assert [len(batch) for batch in seen] == [256, 256, 88]
    assert seen[0].shape == (256, 3, 32, 32)
    got = np.concatenate([batch.numpy() for batch in seen]).reshape(600, -1)
    assert not np.array_equal(got, images.reshape(600, -1))
    assert sorted(row.tobytes() for row in got) == sorted(row.tobytes() for row in images)


@README.runs(OWN_ARRAYS, "python", 1)
def test_a_structured_dtype_gives_the_dict_that_the_comment_says(block):
    records = write_cifar10()
    names: dict = {}
    README.run(block, names)
    batch = next(iter(names["dataset"]))
    assert {name: (field.dtype, tuple(field.shape)) for name, field in batch.items()} == {
        "label": (torch.uint8, (256,)),
        "image": (torch.uint8, (256, 3, 32, 32)),
    }
    labels = torch.cat([batch["label"].clone() for batch in names["dataset"]])
    np.testing.assert_array_equal(np.sort(labels.numpy()), np.sort(records["label"]))


@README.runs("Samples of any length", "python")
def test_samples_of_any_length_come_back_as_they_were_written(block):
    random = np.random.default_rng(3)
    images = [random.bytes(int(length)) for length in random.integers(0, 3000, 600)]
    seen: dict[int, bytes] = {}
    sizes = []

    def step(batch):
        assert (batch["image"].values.dtype, batch["label"].dtype) == (torch.uint8, torch.int64)
        sizes.append(len(batch["image"]))
        for image, label in zip(batch["image"], batch["label"].tolist(), strict=True):
            seen[label] = image.numpy().tobytes()

    README.run(block, {"samples": zip(images, range(600), strict=True), "step": step})
    assert sizes == [256, 256, 88]
    assert list(seen) != sorted(seen)
    assert [seen[number] for number in range(600)] == images


@README.runs("The training loop, with resume", "python")
def test_a_loop_that_goes_on_from_its_state_sees_every_record_once_an_epoch(block):
    records = write_cifar10()
    labels: list[int] = []
    saved_at = 3 * 600 + 256  # a batch of the fourth epoch

    def step(batch):
        labels.extend(batch["label"].tolist())
        names["time_to_save"] = len(labels) == saved_at

    def dataset():
        return s3io.RecordDataset("train/*.bin", dtype=CIFAR10, batch_size=256, shuffle=True)

    names = {
        "dataset": dataset(),
        "checkpoint": None,
        "path": "checkpoint.pt",
        "model": SimpleNamespace(state_dict=dict),
        "step": step,
    }
    README.run(block, names, replaced={"loader.epochs(10)": "loader.epochs(4)"})
    assert len(labels) == 4 * 600
    del labels[saved_at:]
    names |= {"checkpoint": torch.load("checkpoint.pt"), "dataset": dataset()}
    README.run(block, names)
    epochs = np.reshape(labels, (10, 600))
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.sort(records["label"]))
    assert len({epoch.tobytes() for epoch in epochs}) == 10


@README.runs("Workers and a GPU", "python")
def test_the_prefetcher_steps_through_an_epoch_of_two_workers(block, capsys, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # else its own thread stays
    records = write_cifar10()

    def augment(batch):
        batch["label"] += 1
        return batch

    labels: list[int] = []
    names = {
        "dataset": s3io.RecordDataset("train/*.bin", dtype=CIFAR10, batch_size=100),
        "augment": augment,
        "step": lambda batch: labels.extend(batch["label"].tolist()),
    }
    README.run(block, names, replaced={'"cuda"': '"cpu"'})
    np.testing.assert_array_equal(np.array(labels, "u1"), records["label"] + np.uint8(1))
    assert 0 <= float(capsys.readouterr().out) <= 1
