"""The pages about samples, ragged batches and folders: what their snippets do is what they say."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from pages import ROOT, Key, Page
from support import lies_in_a_pool

from torch_s3io.format.delivery import RaggedMode
from torch_s3io.format.sample_layout import make_sample_layout

SAMPLES = Page("docs/samples.md")
RAGGED = Page("docs/ragged.md")
FOLDERS = Page("docs/folders.md")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(disk, monkeypatch):
    monkeypatch.chdir(disk)


@pytest.mark.parametrize("page", [SAMPLES, RAGGED, FOLDERS], ids=lambda page: page.name)
def test_every_block_and_command_is_run_or_listed_with_a_reason(page):
    assert page.blocks()
    page.check()


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
