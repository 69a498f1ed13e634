"""docs/tokens.md: its snippets do what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pages import Page
from token_files import numbered, write_megatron

import torch_s3io as s3io

PAGE = Page("docs/tokens.md")
LENGTHS = [3000, 1, 0, 50_000, 700, 9000]


@pytest.fixture(autouse=True)
def _beside_a_corpus(disk, monkeypatch):
    monkeypatch.chdir(disk)
    Path("corpus").mkdir()
    write_megatron(Path("corpus/part"), numbered(LENGTHS))


def test_every_block_is_run():
    assert len(PAGE.blocks()) == 5
    PAGE.check()


@PAGE.runs("Documents of tokens", "python")
def test_the_imports_are_those_of_the_snippets(block):
    names: dict = {}
    PAGE.run(block, names)
    assert (names["torch"], names["s3io"]) == (torch, s3io)


@PAGE.runs("Windows over all documents", "python")
def test_windows_arrive_from_workers(block):
    names: dict = {}
    PAGE.run(block, names)
    assert names["batch"].shape == (8, 2049)
    assert torch.equal(names["inputs"][:, 1:], names["targets"][:, :-1])


@PAGE.runs("Files of your own", "sh")
def test_documents_are_written(block, capsys):
    np.array([5, 6, 0, 7, 0], "<u2").tofile("raw.bin")
    assert PAGE.run_commands(block) == [0, 0]
    assert "documents    2" in capsys.readouterr().out


@PAGE.runs("Masks by document", "python")
def test_masks_have_the_shapes_that_the_comments_say(block):
    ids, positions, ends, longest = PAGE.run(block, {})
    assert ids.shape == positions.shape == (1, 8 * 2049)
    assert ends.dtype == torch.int32
    assert ends[-1] == 8 * 2049
    assert isinstance(longest, int)


@PAGE.runs("One document a sample", "python")
def test_documents_are_samples(block):
    names: dict = {}
    first, padded = PAGE.run(block, names)
    assert (len(first), len(names["batch"])) == (3000, 6)
    assert padded.shape == (6, 50_000)
