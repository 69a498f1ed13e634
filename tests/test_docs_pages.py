"""The pages of docs/: their snippets and commands, taken from them as they are now."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from pages import ROOT, Key, Page
from record_sets import CIFAR10, random_array, write_cifar10
from support import end_workers, lies_in_a_pool
from torch.utils.data import IterableDataset

import torch_s3io as s3io
from torch_s3io.format.delivery import RaggedMode
from torch_s3io.format.sample_layout import make_sample_layout

READING = Page("docs/reading.md")
SAMPLES = Page("docs/samples.md")
RAGGED = Page("docs/ragged.md")
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
FOLDERS = Page("docs/folders.md")
PAGES = [READING, SAMPLES, RAGGED, ORDER, WORKERS, MACHINES, WRITING, FILES, FOLDERS]
OTHERS = {  # pages whose snippets other tests run, or that show none to be run
    "docs/configuration.md": "test_configuration_docs.py",
    "docs/data.md": "test_data_page.py",
    "docs/design.md": "no snippets",
    "docs/format.md": "test_manifest.py",
    "docs/frameworks.md": "test_frameworks.py, test_lightning.py, test_accelerate.py, "
    "test_hf_trainer.py",
    "docs/fuzzing.md": "commands that take minutes to hours",
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


SAMPLES.runs("Samples of any length", "python")
SAMPLES.runs("Write them", "python")
SAMPLES.runs("Read them", "python")


def write_samples() -> tuple[list[dict], dict]:
    """2000 samples, written as the page does; and the names that it has made."""
    random = np.random.default_rng(6)
    samples = [
        {
            "image": random.bytes(int(random.integers(0, 2000))),
            "tokens": random.integers(0, 1 << 16, int(random.integers(1, 50)), np.uint16),
            "about": json.dumps({"number": number}),
            "label": number,
            "box": random.random(4, np.float32),
        }
        for number in range(2000)
    ]
    names: dict = {"source": samples}
    for heading in ("Samples of any length", "Write them"):
        SAMPLES.run(Key(heading, "python"), names)
    return samples, names


def rows_of(sample: np.ndarray, width: int) -> list[int]:
    return [*sample.tolist(), *[0] * (width - len(sample))]


def test_samples_come_back_as_the_comments_say():
    samples, names = write_samples()
    label, tokens, first, padded = SAMPLES.run(Key("Read them", "python"), names)
    assert (label.dtype, tokens.values.dtype, padded.dtype) == (
        torch.int64, torch.uint16, torch.uint16
    )  # fmt: skip
    drawn = [samples[number] for number in label.tolist()]
    assert len(tokens) == len(set(label.tolist())) == 256
    assert lies_in_a_pool(tokens.values)
    assert first.tolist() == drawn[0]["tokens"].tolist()
    width = max(len(sample["tokens"]) for sample in drawn)
    assert padded.tolist() == [rows_of(sample["tokens"], width) for sample in drawn]
    for image, sample in zip(names["batch"]["image"], drawn, strict=True):
        assert image.numpy().tobytes() == sample["image"]


@SAMPLES.runs("Padded, packed, decoded", "python")
def test_a_data_set_delivers_the_forms_that_the_comments_say(block):
    samples, names = write_samples()
    tokens, ends, about = SAMPLES.run(block, names)
    samples = samples[:64]
    width = max(len(sample["tokens"]) for sample in samples)
    assert tokens.dtype is torch.uint16
    assert tokens.tolist() == [rows_of(sample["tokens"], width) for sample in samples]
    assert ends.dtype is torch.int32
    lengths = [len(sample["image"]) for sample in samples]
    assert ends.tolist() == np.cumsum([0, *lengths]).tolist()
    image = names["batch"]["image"].values.numpy().tobytes()
    assert image == b"".join(sample["image"] for sample in samples)
    assert list(about) == [{"number": number} for number in range(64)]


def write_shards(count: int) -> None:
    """Archives of 40 samples each. The label of a sample is its number, and its image as long."""
    Path("shards").mkdir()
    for shard in range(count):
        with tarfile.open(f"shards/{shard:03}.tar", "w") as archive:
            for number in range(40 * shard, 40 * shard + 40):
                files = {"jpg": b"j" * number, "cls": str(number).encode()}
                for name, data in files.items() | ({("json", b"[]")} if number % 3 == 0 else set()):
                    info = tarfile.TarInfo(f"{number:04}.{name}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


@SAMPLES.runs("Tar archives", "python")
def test_archives_are_read_as_the_comments_say(block):
    write_shards(3)
    images, labels, texts = SAMPLES.run(block, {})
    assert (images.values.dtype, labels.dtype, len(labels)) == (torch.uint8, torch.int64, 64)
    assert [len(image) for image in images] == labels.tolist()
    assert [len(text) for text in texts] == [2 * (label % 3 == 0) for label in labels.tolist()]


@SAMPLES.runs("Tar archives", "sh")
def test_the_index_of_archives_is_made_ahead(block, capsys):
    write_shards(3)
    assert SAMPLES.run_commands(block) == [0]
    assert "samples      120" in capsys.readouterr().out
    assert len(list(Path("shards").glob(".torch_s3io-tar-*.idx"))) == 1


def test_the_page_about_samples_says_what_the_code_has():
    """Its words for ``ragged=``, the fields of its first table, and the bytes of an index."""
    text = (ROOT / SAMPLES.name).read_text()
    forms = re.findall(r'^\| `"(\w+)"` \|', text, re.M)
    assert tuple(forms) == get_args(RaggedMode)
    kinds = re.findall(r"^\| `([^`]+)`(?:, any [\w ]+)? \| [^|]+ \| a (tensor|`Ragged)", text, re.M)
    assert len(kinds) == 6
    for kind, delivered in kinds:
        layout = make_sample_layout({"x": eval(kind, {"np": np})})
        (field,) = layout.fields
        assert field.is_ragged == (delivered != "tensor"), kind
        assert layout.index_bytes(4) == 12 + 4 * len(field.open_axes)


RAGGED.runs("Ragged batches", "python")
RAGGED.runs("Ragged batches", "python")
RAGGED.runs("Make one", "python")


@RAGGED.runs("Give it to a model", "python")
def test_a_ragged_batch_of_a_worker_has_the_forms_that_the_comments_say(block):
    generator = np.random.default_rng(5)
    records = generator.integers(0, 1 << 16, (40, 513), np.uint16)
    records[:, 0] = lengths = generator.integers(0, 513, 40)
    records.tofile("documents.bin")
    names: dict = {}
    for each in RAGGED.blocks():
        values = RAGGED.run(each, names)
    assert each == block
    tokens = names["tokens"]
    wanted = [record[1 : 1 + length] for record, length in zip(records, lengths, strict=True)][:8]
    assert lies_in_a_pool(tokens.values)
    for sample, right in zip(tokens, wanted, strict=True):
        np.testing.assert_array_equal(sample, right)
    ids, mask = names["ids"].numpy(), names["mask"].numpy()
    assert (ids.shape, mask.shape) == ((8, 256), (8, 256))
    np.testing.assert_array_equal(ids[mask], np.concatenate([r[:256] for r in wanted]))
    np.testing.assert_array_equal(values[0], np.concatenate(wanted))
    ends = np.cumsum([0, *map(len, wanted)])
    for found, dtype in ((values[1], torch.int32), (values[2], torch.int64)):
        assert found.dtype is dtype
        np.testing.assert_array_equal(found, ends)
    for sample, right in zip(names["nested"].unbind(), wanted, strict=True):
        np.testing.assert_array_equal(sample, right)
    np.testing.assert_array_equal(names["last"], wanted[-1])


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

FOLDERS.runs("Folders of files", "python")


def write_images() -> None:
    """300 in two folders."""
    for number in range(300):
        path = Path("train", ("cat", "dog")[number % 2], f"{number}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(number).encode())


@FOLDERS.runs("Files of a pattern", "python")
def test_folders_of_images_are_read_with_the_labels_that_the_comments_say(block):
    write_images()
    names: dict = {}
    FOLDERS.run(Key("Folders of files", "python"), names)
    data, label, name = FOLDERS.run(block, names)
    assert label.dtype is torch.int64
    assert len(data) == len(label) == 256
    numbers = [int(bytes(sample.numpy())) for sample in data.unbind()]
    assert label.tolist() == [number % 2 for number in numbers]
    assert name == ("cat", "dog")[int(label[0])]


@FOLDERS.runs("Files of a list", "python")
def test_files_of_a_list_come_with_labels_and_columns(block):
    for name in ("a", "b"):
        Path(f"{name}.json").write_text(f'"{name}"')
    names: dict = {}
    FOLDERS.run(Key("Folders of files", "python"), names)
    FOLDERS.run(block, names)
    (batch,) = names["dataset"]
    assert batch["data"] == ["b", "a"]
    assert batch["label"].tolist() == [1, 0]
    assert batch["box"].shape == (2, 4)


@FOLDERS.runs("Arrays", "python")
def test_arrays_are_delivered_as_the_comments_say(block):
    for folder in ("waves", "volumes"):
        Path(folder).mkdir()
    for number in range(2):
        np.save(f"waves/{number}.npy", np.full(3 + number, number, "f4"))
        np.savez(f"volumes/{number}.npz", x=np.zeros((2, 3 + number)), y=number)
    wave, shapes, y = FOLDERS.run(block, {})
    assert wave.tolist() == [0.0] * 3
    assert shapes.tolist() == [[2, 3], [2, 4]]
    assert y.tolist() == [0, 1]
