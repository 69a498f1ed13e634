"""The pages of docs/: their snippets and commands, taken from them as they are now."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from buckets import needs_s3, serving
from pages import ROOT, Key, Page
from record_sets import CIFAR10, random_array, write_cifar10
from support import end_workers
from torch.utils.data import IterableDataset

import torch_s3io as s3io

READING = Page("docs/reading.md")
ORDER = Page("docs/order-and-resume.md")
WORKERS = Page("docs/workers-and-gpus.md")
MACHINES = Page(
    "docs/several-machines.md",
    not_run_commands={
        "torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=host0:29500 "
        "--rdzv-id=run1 train.py": "two machines of 8 GPUs; of one rank each: test_trainers.py",
    },
)
WRITING = Page("docs/writing.md")
FILES = Page("docs/files.md")
PAGES = [READING, ORDER, WORKERS, MACHINES, WRITING, FILES]
OTHERS = {  # pages whose snippets other tests run, or that show none to be run
    "docs/checkpoints.md": "test_checkpoints_page.py",
    "docs/configuration.md": "test_configuration_docs.py",
    "docs/data.md": "test_data_page.py",
    "docs/design.md": "no snippets",
    "docs/folders.md": "test_sample_pages.py",
    "docs/format.md": "test_manifest.py",
    "docs/frameworks.md": "test_frameworks.py, test_lightning.py, test_accelerate.py, "
    "test_hf_trainer.py",
    "docs/fuzzing.md": "commands that take minutes to hours",
    "docs/object-storage.md": "test_object_storage_page.py",
    "docs/ragged.md": "test_sample_pages.py",
    "docs/samples.md": "test_sample_pages.py",
    "docs/tokens.md": "test_tokens_page.py",
    "docs/webdataset.md": "test_webdataset_page.py",
    "docs/tuning.md": "test_configuration_docs.py, test_doctor.py, test_bench.py",
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(disk, monkeypatch):
    monkeypatch.chdir(disk)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_and_command_is_run_or_listed_with_a_reason(page):
    assert page.blocks()
    page.check()


def test_every_page_is_tested():
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")}
    pages -= {name for name in pages if name.startswith("docs/release-")}
    assert pages == {page.name for page in PAGES} | set(OTHERS)


def test_links_lead_to_files_and_headings_that_are_there():
    checked = 0
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for file, heading in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", page.read_text()):
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), f"{page.name}: {file}"
            if heading:
                assert heading in anchors(target), f"{page.name}: {file}#{heading}"
            checked += 1
    assert checked > 30


def anchors(page: Path) -> set[str]:
    """As GitHub names the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@READING.runs("Reading records", "python")
def test_the_imports_are_those_of_the_snippets(block):
    names: dict = {}
    READING.run(block, names)
    assert (names["np"], names["torch"], names["s3io"]) == (np, torch, s3io)


@READING.runs("What the files hold", "python")
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
    with s3io.RecordWriter("packed", dtype=np.uint8, shape=8192) as writer:
        writer.write(wide)
    paths = ["images.bin", "pairs.bin", "wide.bin"]
    files = {number: {"paths": path} for number, path in enumerate(paths)}
    batches = [next(iter(dataset)) for dataset in READING.run(block, {}, at=files)]
    windows = np.lib.stride_tricks.sliding_window_view(tokens, 1025)[::1024]
    assert [batch.dtype for batch in (batches[0], *batches[2:])] == [
        torch.float32, torch.bfloat16, torch.float32, torch.int64, torch.uint8
    ]  # fmt: skip
    assert batches[0].numpy().tobytes() == images.tobytes()
    assert batches[1]["x"].numpy().tobytes() == pairs["x"].tobytes()
    assert batches[1]["y"].numpy().tobytes() == pairs["y"].tobytes()
    assert batches[2].view(torch.uint8).numpy().tobytes() == wide.tobytes()
    assert batches[3].numpy().tobytes() == pairs["x"].tobytes()
    np.testing.assert_array_equal(batches[4].numpy(), windows)
    np.testing.assert_array_equal(batches[5].numpy(), wide)


@ORDER.runs("A loop that can be stopped", "python")
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
    ORDER.run(block, names, replaced={"loader.epochs(10)": "loader.epochs(4)"})
    assert len(labels) == 4 * 600
    del labels[saved_at:]
    names["checkpoint"] = torch.load("checkpoint.pt")
    ORDER.run(block, names)
    for epoch in np.reshape(labels, (10, 600)):
        np.testing.assert_array_equal(np.sort(epoch), np.sort(records["label"]))


@ORDER.runs("Parts, mixtures and pairs", "python")
def test_views_mixtures_and_pairs_are_what_the_comments_say(block):
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
    ORDER.run(block, names)

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


@WORKERS.runs("When to use workers", "python", 0)
def test_the_prefetcher_steps_through_an_epoch_of_two_workers(block, capsys, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # else its own thread stays
    records = write_cifar10()
    dataset = s3io.RecordDataset("train/*.bin", dtype=CIFAR10, batch_size=100)
    labels: list[int] = []
    names = {"dataset": dataset, "step": lambda batch: labels.extend(batch["label"].tolist())}
    WORKERS.run(block, names, replaced={'"cuda"': '"cpu"'})
    assert labels == records["label"].tolist()
    assert 0 <= float(capsys.readouterr().out) <= 1


@WORKERS.runs("When to use workers", "python", 1)
def test_the_augmentation_flips_the_same_images_whoever_reads_them(block):
    records = write_cifar10()
    names = {"record": CIFAR10}
    WORKERS.run(block, names)

    def images(workers: int) -> np.ndarray:
        loader = s3io.DataLoader(names["noisy"], num_workers=workers)
        loader.set_epoch(0)
        images = np.concatenate([batch["image"].numpy().copy() for batch in loader])
        end_workers(loader._iterator)
        return images

    alone = images(0)
    np.testing.assert_array_equal(images(2), alone)
    stored = records["image"]
    is_flipped = (alone == stored[..., ::-1]).all((1, 2, 3))
    assert (is_flipped | (alone == stored).all((1, 2, 3))).all()
    assert 200 < is_flipped.sum() < 400


@WRITING.runs("Convert", "sh")
def test_the_commands_pack_describe_and_verify_what_lies_in_the_folder(block, capsys):
    images = random_array("u1", 50, (3, 32, 32), 1)
    np.save("train.npy", images)
    tokens = random_array("<u2", 20_000, (), 2)
    tokens.tofile("corpus.bin")
    assert WRITING.run_commands(block) == [0, 0, 0, 0]
    output = capsys.readouterr().out
    assert "records      50" in output
    assert output.count("all as they were written") == 2
    got = next(iter(s3io.RecordDataset("packed", batch_size=50)))
    np.testing.assert_array_equal(got.numpy(), images)
    got = next(iter(s3io.RecordDataset("corpus", batch_size=50)))
    np.testing.assert_array_equal(got.numpy(), tokens[: 19 * 1025].reshape(19, 1025))


@needs_s3
@WRITING.runs("Uploads that nobody has finished", "sh")
def test_the_commands_list_uploads_and_abort_the_old_ones(block, capsys):
    with serving() as server:
        writer = s3io.open_store("s3://bucket").writer("s3://bucket/train/x.bin")
        writer.write(bytes(20 << 20))
        assert WRITING.run_commands(block) == [0, 0]
        output = capsys.readouterr().out
        assert output.count("s3://bucket/train/x.bin  id upload-1") == 2
        assert "kept " in output
        assert len(server.buckets.uploads) == 1
        writer.cancel()


WRITING.runs("Convert samples of any length", "sh")
WRITING.runs("Write", "python", 1)


@WRITING.runs("Convert samples of any length", "python")
def test_samples_are_packed_and_written_as_the_page_says(block, monkeypatch):
    Path("photos").mkdir()
    for number in range(5):
        Path(f"photos/{number}.jpg").write_bytes(bytes([number]) * number)
        about = {"label": number, "tokens": [number] * number, "box": [0, 1, 2, number]}
        Path(f"photos/{number}.json").write_text(json.dumps(about))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    Path("mydata.py").write_text(WRITING.blocks()[block])
    assert WRITING.run_commands(block._replace(language="sh")) == [0]
    names: dict = {}
    WRITING.run(block, names)
    boxes, one, other = np.ones((2, 4), "f4"), np.ones(3, "u2"), np.ones(2, "u2")
    names |= {"boxes": boxes, "one": one, "other": other}
    shutil.move("photos-packed", "packed")  # the next block writes into the folder of the files
    WRITING.run(Key("Write", "python", 1), names)
    for folder, count in (("packed", 5), ("photos", 7)):
        (batch,) = s3io.SampleDataset(folder, batch_size=count)
        assert batch["label"].tolist()[:5] == list(range(5))
        assert batch["box"][:5, 3].tolist() == list(range(5))
        assert [bytes(image.numpy()) for image in batch["image"]][:5] == [
            bytes([number]) * number for number in range(5)
        ]


@WRITING.runs("Write", "python")
def test_the_writer_writes_what_the_data_set_then_reads(block):
    x, y = random_array("f4", 200, (16,), 1), np.arange(200)
    names = {"batches": [(x[:150], y[:150]), (torch.from_numpy(x[150:].copy()), y[150:])]}
    WRITING.run(block, names)
    batches = list(names["dataset"])
    assert torch.cat([batch["x"] for batch in batches]).numpy().tobytes() == x.tobytes()
    assert torch.cat([batch["y"] for batch in batches]).tolist() == y.tolist()


@FILES.runs("Whole files, and buffers of your own", "python")
def test_files_are_read_whole_in_ranges_and_written(block):
    content = random_array("u1", 100_000, (), 1)
    content.tofile("checkpoint.bin")
    names = {"chunks": [content[:30_000], content[30_000:]]}
    FILES.run(block, names)
    np.testing.assert_array_equal(names["data"].numpy(), content)
    np.testing.assert_array_equal(names["head"].numpy(), content[:4096])
    assert np.fromfile("small.bin", "i8").tolist() == list(range(10))
    assert Path("large.bin").read_bytes() == content.tobytes()


# ---- docs/folders.md
