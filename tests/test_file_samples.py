"""SampleDataset.from_files: each file is a sample, as open().read() has it."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import torch
from support import ENGINES, write_file

import torch_s3io as s3io
from torch_s3io import (
    ConfigError,
    DataError,
    FileChangedError,
    Mix,
    NotFoundError,
    RecordMapDataset,
    SampleDataset,
)

CLASSES = ("cat", "dog", "x y")


def content(number: int) -> bytes:
    return bytes([number % 256]) * (number * 97 % 6000)  # number 0 is empty


@pytest.fixture
def train(disk):
    """60 files in three folders, some of them in a folder below."""
    for number in range(60):
        below = f"{CLASSES[number % 3]}/{'more/' if number % 5 == 0 else ''}{number:02}.jpg"
        path = disk / "train" / below
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content(number))
    write_file(disk / "train" / "cat" / "notes.txt", b"no image")
    write_file(disk / "train" / "cat" / ".hidden.jpg", b"no image")
    return disk / "train"


def number_in(path: str) -> int:
    return int(os.path.basename(path).removesuffix(".jpg"))


def check(batch, numbers) -> None:
    assert [bytes(sample.numpy()) for sample in batch["data"].unbind()] == list(
        map(content, numbers)
    )


@pytest.mark.parametrize("direct", ["auto", "off", "require"])
@pytest.mark.parametrize("engine", ENGINES)
def test_files_of_a_pattern_with_the_labels_of_their_folders(train, engine, direct):
    dataset = SampleDataset.from_files(
        f"{train}/**/*.jpg", labels="folder", batch_size=7, shuffle=True, seed=1,
        engine=engine, direct=direct, return_index=True,
    )  # fmt: skip
    files = [path for path, count in dataset.files]
    assert files == sorted(map(str, train.rglob("[0-9]*.jpg")))
    assert dataset.classes == CLASSES
    assert dataset.dtype == {"data": torch.uint8, "label": torch.int64}
    seen = []
    for batch, index in dataset:
        numbers = [number_in(files[one]) for one in index]
        check(batch, numbers)
        assert batch["label"].dtype == torch.int64
        assert batch["label"].tolist() == [number % 3 for number in numbers]
        seen += numbers
    assert sorted(seen) == list(range(60))


def test_a_list_in_any_order_with_labels_and_columns_of_ones_own(train):
    paths = sorted(train.rglob("[0-9]*.jpg"), key=lambda path: -number_in(str(path)))
    random = np.random.default_rng(0)
    boxes = random.random((60, 4)).astype(">f4")
    flags = random.random(60) < 0.5
    dataset = SampleDataset.from_files(
        paths, labels=np.arange(60, dtype=np.uint8)[::-1], batch_size=9,
        columns={"box": boxes, "flag": flags, "twice": torch.arange(60) * 2},
    )  # fmt: skip
    first = 0
    for batch in dataset:
        rows = slice(first, first + len(batch["label"]))
        check(batch, range(59, -1, -1)[rows])
        assert batch["label"].tolist() == list(range(59, -1, -1))[rows]
        np.testing.assert_array_equal(batch["box"].numpy(), boxes[rows])
        assert batch["box"].dtype == torch.float32
        np.testing.assert_array_equal(batch["flag"].numpy(), flags[rows])
        first = rows.stop
    assert first == 60
    assert dataset.classes == ()
    assert dataset.shape == {"data": (None,), "label": (), "box": (4,), "flag": (), "twice": ()}
    by_folder = SampleDataset.from_files(paths, labels="folder")
    assert by_folder.classes == ("cat", "dog", "more", "x y")  # the folder that a file lies in


def test_without_labels_there_is_nothing_but_the_bytes(train, monkeypatch):
    monkeypatch.chdir(train)
    (batch,) = SampleDataset.from_files(["cat/03.jpg", "./dog//01.jpg", "cat/../dog/04.jpg"])
    assert list(batch) == ["data"]
    check(batch, [3, 1, 4])
    (batch,) = SampleDataset.from_files(["cat/03.jpg", "dog/0[17].jpg", b"cat/06.jpg"])
    check(batch, [3, 1, 7, 6])
    monkeypatch.setenv("HOME", str(train))
    (batch,) = SampleDataset.from_files(["~/cat/03.jpg"])
    check(batch, [3])


def test_samples_are_decoded_padded_mixed_and_taken_by_number(train):
    for name in ("a", "b"):
        write_file(train / f"{name}.json", json.dumps({"name": name}).encode())
    dataset = SampleDataset.from_files(f"{train}/*.json", decode={"data": json.loads})
    (batch,) = dataset
    assert batch["data"] == [{"name": "a"}, {"name": "b"}]
    dataset = SampleDataset.from_files(f"{train}/**/0*.jpg", labels="folder", ragged="padded")
    assert dataset.get_batch([1])["data"].shape == (1, len(content(6)))
    assert len(RecordMapDataset(dataset)) == 10
    halves = dataset.split([0.5, 0.5])
    assert [half.classes for half in halves] == [CLASSES, CLASSES]
    assert Mix(halves).num_records == 10
    others = SampleDataset.from_files(f"{train}/cat/**/*.jpg", labels=[0] * 20, ragged="padded")
    with pytest.raises(ConfigError, match="classes"):
        Mix([dataset, others])


def test_resumed_after_every_batch_and_in_a_copy_of_the_folder(train, tmp_path):
    def make(folder, **options):
        return SampleDataset.from_files(
            f"{folder}/**/*.jpg", labels="folder", batch_size=16, shuffle=True, **options
        )

    whole = [batch["data"].packed().values.tolist() for batch in make(train)]
    dataset = make(train)
    states = [dataset.state_dict() for _ in dataset]
    copy = tmp_path / "elsewhere"
    os.system(f"cp -rp '{train}' '{copy}'")
    for number, state in enumerate(states[:-1], 1):
        other = make(copy, pool=None)
        other.load_state_dict(json.loads(json.dumps(state)))
        assert [batch["data"].packed().values.tolist() for batch in other] == whole[number:]
    (copy / "cat" / "03.jpg").rename(copy / "cat" / "zz.jpg")
    with pytest.raises(DataError, match="names or order"):
        make(copy).load_state_dict(states[0])


def test_workers_that_are_spawned_have_the_labels_too(train):
    dataset = SampleDataset.from_files(
        f"{train}/**/*.jpg", labels="folder", columns={"y": np.arange(60.0)}, batch_size=10
    )
    again = pickle.loads(pickle.dumps(dataset))
    for one, other in zip(dataset, again, strict=True):
        assert one["label"].tolist() == other["label"].tolist()
        assert one["y"].tolist() == other["y"].tolist()
        assert one["data"].packed().values.equal(other["data"].packed().values)
    assert again.classes == CLASSES


def test_keys_are_the_names_below_the_pattern_or_the_folder_of_all(train):
    write_file(train / "dog" / "new\nline \udcff.jpg", b"x")
    write_file(train / "dog" / ("x" * 251 + ".jpg"), b"y")
    (batch,) = SampleDataset.from_files(f"{train}/d*/**/*.jpg", return_key=True, batch_size=99)
    names = [str(path.relative_to(train)) for path in sorted(train.glob("dog/**/*.jpg"))]
    assert batch["key"] == sorted(names, key=os.fsencode)
    paths = [train / "dog" / "07.jpg", train / "cat" / "more" / "00.jpg"]
    dataset = SampleDataset.from_files(paths, return_key=True, return_index=True)
    ((batch, index),) = pickle.loads(pickle.dumps(dataset))
    assert batch["key"] == ["dog/07.jpg", "cat/more/00.jpg"]
    assert index.tolist() == [0, 1]
    (batch,) = SampleDataset.from_files(paths[:1], return_key=True)
    assert batch["key"] == ["07.jpg"]


# ---- What is not right.


def test_a_file_that_changes_after_it_was_listed_is_named(train):
    def make():
        return SampleDataset.from_files(f"{train}/**/*.jpg", batch_size=60)

    dataset = make()
    write_file(train / "cat" / "03.jpg", content(4), age_s=50)
    with pytest.raises(FileChangedError, match=r"cat/03\.jpg"):
        next(iter(dataset))
    dataset = make()
    write_file(train / "cat" / "more" / "00.jpg", b"it was empty")
    with pytest.raises(FileChangedError, match=r"more/00\.jpg"):
        next(iter(dataset))
    dataset = make()
    (train / "dog" / "07.jpg").unlink()
    with pytest.raises(NotFoundError, match=r"dog/07\.jpg"):
        next(iter(dataset))


def test_nothing_but_empty_files_are_empty_rows(disk):
    paths = [write_file(disk / f"{number}.bin", b"") for number in range(5)]
    (batch,) = SampleDataset.from_files(paths, labels=range(5), batch_size=8)
    assert batch["data"].lengths.tolist() == [0] * 5
    dataset = SampleDataset.from_files(paths)
    write_file(paths[2], b"no more")
    with pytest.raises(FileChangedError, match=r"2\.bin"):
        next(iter(dataset))


WRONG = {
    "a folder": (lambda train: (train,), {}, ConfigError, r"is a folder; name its files by"),
    "no files": (lambda train: ([],), {}, NotFoundError, "paths is empty"),
    "no match": (lambda train: (f"{train}/*.png",), {}, NotFoundError, "no file matches"),
    "braces": (lambda train: (f"{train}/*.{{jpg,png}}",), {}, NotFoundError, "make a list of two"),
    "missing": (lambda train: ([train / "no.jpg"],), {}, NotFoundError, r"no\.jpg.*name files"),
    "a folder in a list": (lambda train: ([train],), {}, ConfigError, "is a directory"),
    "a number": (lambda train: ([3],), {}, ConfigError, "3 is not a path"),
    "an empty name": (lambda train: ([""],), {}, ConfigError, "is not a path"),
    "NUL": (lambda train: (["a\0b"],), {}, ConfigError, "is not a path"),
    "a set": (lambda train: ({"a"},), {}, ConfigError, "make a list"),
    "no folder": (lambda train: (f"{train}/cat/*.jpg",), {"labels": "folder"}, DataError,
                  r"lies in no folder below the fixed part of the pattern.*labels=None"),
    "a word": (lambda train: (f"{train}/cat/*.jpg",), {"labels": "folders"}, ConfigError,
               "labels= is 'folder', None, or .* not 'folders'"),
    "large labels": (lambda train: (f"{train}/**/*.jpg",), {"labels": np.full(60, 2**64 - 1)},
                     ConfigError, "labels= has 18446744073709551615"),
    "a dict": (lambda train: (f"{train}/**/*.jpg",), {"labels": {"a": 1}}, ConfigError,
               r"not a dict: give \[labels\[path\] for path in paths\]"),
    "few labels": (lambda train: (f"{train}/**/*.jpg",), {"labels": [1, 2]}, ConfigError,
                   "labels= has 2 values, but there are 60 files"),
    "halves": (lambda train: (f"{train}/**/*.jpg",), {"labels": [0.5] * 60}, ConfigError,
               r"one integer for each file, not float64.*columns="),
    "a list of columns": (lambda train: (f"{train}/**/*.jpg",), {"columns": [1]}, ConfigError,
                          "columns= is a dict"),
    "data twice": (lambda train: (f"{train}/**/*.jpg",), {"columns": {"data": [1] * 60}},
                   ConfigError, "'data' is no name of a further field"),
    "texts": (lambda train: (f"{train}/**/*.jpg",), {"columns": {"y": ["a"] * 60}}, ConfigError,
              r"columns=\{'y': ...\}"),
    "bfloat16": (lambda train: (f"{train}/**/*.jpg",),
                 {"columns": {"y": torch.zeros(60, dtype=torch.bfloat16)}}, ConfigError,
                 r"of bfloat16, which numpy lacks: give values\.float\(\)"),
    "empty values": (lambda train: (f"{train}/**/*.jpg",), {"columns": {"y": np.ones((60, 0))}},
                     ConfigError, "which is empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_said(train, name):
    arguments, options, error, text = WRONG[name]
    with pytest.raises(error, match=text):
        SampleDataset.from_files(*arguments(train), **options)


def test_an_unknown_option_is_told_the_right_one(train):
    with pytest.raises(TypeError, match="did you mean 'labels'"):
        SampleDataset.from_files(f"{train}/**/*.jpg", label="folder")
    assert "labels" in s3io.SampleDataset.from_files.__doc__
