"""README.md: its snippets and commands, taken from it as they are now, do what it says."""

from __future__ import annotations

import io
import os
import re
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pages import Page
from record_sets import CIFAR10, random_array, write_cifar10

import torch_s3io as s3io

README = Page(
    "README.md",
    not_run_commands={
        "make train": "CI's own set-up; what it trains: test_examples.py",
        "make test": "this suite",
        "make peers ARGS='--only shuffled --size-gib 0.5 --rounds 3'": "hours of other loaders",
        "apt install g++ pkg-config liburing-dev libcurl4-openssl-dev libssl-dev": "a download",
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
    assert len(README.text().split()) <= MOST_WORDS


def test_each_line_for_what_people_have_reads_it():
    """Every line of the table, on files of its kind: its first batch has the samples of these."""
    table = re.findall(r"^\| ([^|]+) \| `(s3io\.[^`]+)` \|$", README.text(), re.M)
    read = {}
    for number, (what, code) in enumerate(table):
        os.mkdir(str(number))
        os.chdir(str(number))
        WRITTEN[what]()
        read[what] = next(iter(eval(code, {"s3io": s3io, "record": CIFAR10})))
        os.chdir("..")
    assert set(read) == set(WRITTEN)
    assert read["arrays of samples"].tolist() == [[0, 1], [2, 3]]
    assert read["raw records, any numpy dtype"]["image"].shape == (64, 3, 32, 32)
    for what in ("folders of JPEGs, sound, texts", "WebDataset tars"):
        batch = read[what]
        images = batch.get("data", batch.get("jpg"))
        assert [bytes(image.tolist()) for image in images] == [b"a cat", b"dog", b"no dog"]
    assert read["folders of JPEGs, sound, texts"]["label"].tolist() == [0, 1, 1]
    classes = read["WebDataset tars"]["cls"]
    assert [bytes(number.tolist()) for number in classes] == [b"0", b"1", b"1"]
    assert [wave.tolist() for wave in read["an array per file"]["data"]] == [[0.0], [0.0, 1.0]]
    volumes = read["archives of arrays"]
    assert [x.tolist() for x in volumes["x"]] == [[1, 1], [2, 2, 2]]
    assert volumes["y"].tolist() == [1, 2]
    for what in ("tokens of Megatron, llm.c", "tokens of datatrove", "tokens of nanoGPT, OLMo"):
        assert torch.equal(read[what], torch.arange(2049).reshape(1, -1))


def write_arrays():
    os.mkdir("images")
    np.save("images/a.npy", np.arange(4).reshape(2, 2))


def write_images():
    for number, (folder, text) in enumerate(IMAGES):
        os.makedirs(f"train/{folder}/more", exist_ok=True)
        Path(f"train/{folder}/more/{number}.jpg").write_bytes(text)


def write_tars():
    for number, (folder, text) in enumerate(IMAGES):
        with tarfile.open(f"{number:03}.tar", "w") as tar:
            for ending, content in (("jpg", text), ("cls", b"01"[folder == "dog" :][:1])):
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_waves():
    os.mkdir("waves")
    for count in (1, 2):
        np.save(f"waves/{count}.npy", np.arange(count, dtype=np.float32))


def write_volumes():
    os.mkdir("volumes")
    for number in (1, 2):
        np.savez(f"volumes/{number}.npz", x=np.full(number + 1, number), y=number)


def write_llm_c():
    os.mkdir("corpus")
    header = np.zeros(256, np.int32)
    header[:3] = 20240520, 1, 2049
    Path("corpus/a.bin").write_bytes(header.tobytes() + TOKENS.tobytes())


def write_datatrove():
    os.mkdir("corpus")
    TOKENS.tofile("corpus/a.ds")
    np.array([1000, 2049], np.uint64).tofile("corpus/a.ds.index")


TOKENS = np.arange(2049, dtype=np.uint16)
IMAGES = (("cat", b"a cat"), ("dog", b"dog"), ("dog", b"no dog"))
WRITTEN = {
    "arrays of samples": write_arrays,
    "raw records, any numpy dtype": write_cifar10,
    "folders of JPEGs, sound, texts": write_images,
    "WebDataset tars": write_tars,
    "an array per file": write_waves,
    "archives of arrays": write_volumes,
    "tokens of Megatron, llm.c": write_llm_c,
    "tokens of datatrove": write_datatrove,
    "tokens of nanoGPT, OLMo": lambda: TOKENS.tofile("train.bin"),
}


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
