"""docs/data.md: its snippets do what it says."""

from __future__ import annotations

import csv
import glob
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pages import Page

import torch_s3io as s3io

PAGE = Page("docs/data.md")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(disk, monkeypatch):
    monkeypatch.chdir(disk)


def write_images() -> None:
    """Files of 1, 2 and 3 images, which are full of the number in the file's name."""
    Path("images").mkdir()
    for count, number in enumerate([2, 10, 1], start=1):
        np.full((count, 3, 32, 32), number, np.uint8).tofile(f"images/m{number}.bin")


def test_every_block_is_run():
    assert len(PAGE.blocks()) == 5
    PAGE.check()


@PAGE.runs("Your files", "python")
def test_the_other_snippets_have_the_imports_that_they_need(block, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", SimpleNamespace(Image=None))
    monkeypatch.setitem(sys.modules, "PIL.Image", SimpleNamespace())
    names: dict = {}
    PAGE.run(block, names)
    used = {name for text in PAGE.blocks().values() for name in re.findall(r"\b(\w+)\.\w", text)}
    modules = {"csv", "glob", "np", "os", "PIL", "s3io", "torch"}
    assert used & modules == modules
    assert modules <= names.keys()


@PAGE.runs("The order of files", "python", 0)
def test_files_are_listed_in_the_order_of_their_names(block, capsys):
    write_images()
    PAGE.run(block, {})
    lines = capsys.readouterr().out.splitlines()
    assert [os.path.basename(line) for line in lines[:3]] == ["m1.bin 3", "m10.bin 2", "m2.bin 1"]
    assert lines[3] == "6 torch.uint8 (3, 32, 32)"


@PAGE.runs("The order of files", "python", 1)
def test_labels_of_a_table_go_with_the_images_of_their_file(block):
    write_images()
    Path("labels.csv").write_text("m2.bin,2\nm10.bin,10\nm1.bin,1\n")
    images = s3io.RecordDataset("images/*.bin", dtype=np.uint8, shape=(3, 32, 32), batch_size=6)
    names = {"images": images, "csv": csv, "os": os}
    PAGE.run(block, names)
    (batch,) = names["pairs"]
    assert batch["labels"].tolist() == batch["images"][:, 0, 0, 0].tolist()
    assert sorted(batch["labels"].tolist()) == [1, 1, 1, 2, 10, 10]


@PAGE.runs("Arrays of bfloat16 and float8", "python")
def test_arrays_of_bfloat16_are_read(block):
    values = torch.arange(12.0).bfloat16().reshape(4, 3)
    Path("activations").mkdir()
    np.save("activations/0.npy", values.view(torch.int16).numpy().view("V2"))
    names: dict = {}
    PAGE.run(block, names)
    assert torch.equal(next(iter(names["dataset"])), values)


@PAGE.runs("Images and other samples of different sizes", "python")
def test_images_become_records_of_one_size(block):
    """Without Pillow: what the snippet uses of it is small."""

    class Image:
        def __init__(self, path: str) -> None:
            self.number = int(Path(path).stem)

        def convert(self, mode: str) -> Image:
            assert mode == "RGB"
            return self

        def resize(self, size: tuple[int, int]) -> np.ndarray:
            return np.full((size[1], size[0], 3), self.number, np.uint8)

    Path("photos").mkdir()
    for number in (1, 2, 3):
        Path(f"photos/{number}.jpg").write_bytes(bytes(number))
    names = {"glob": glob, "PIL": SimpleNamespace(Image=SimpleNamespace(open=Image))}
    PAGE.run(block, names)
    (batch,) = names["dataset"]
    assert batch.shape == (3, 224, 224, 3)
    assert batch[:, 0, 0, 0].tolist() == [1, 2, 3]
