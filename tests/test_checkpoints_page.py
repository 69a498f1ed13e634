"""docs/checkpoints.md: its snippets, taken from it as they are now."""

from __future__ import annotations

import pytest
import torch
from pages import Page

PAGE = Page("docs/checkpoints.md")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_block_is_run():
    assert PAGE.blocks()
    PAGE.check()


def model_and_copy() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    model = torch.nn.Linear(5, 3)
    return model, {name: value.clone() for name, value in model.state_dict().items()}


@PAGE.runs("torch.distributed.checkpoint", "python")
def test_what_dcp_saved_is_loaded(block):
    model, before = model_and_copy()
    names = {"model": model}
    PAGE.run(block, names)
    assert names["state"]["step"] == 100
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@PAGE.runs("Safetensors", "python")
def test_safetensors_bring_the_weights_back(block):
    model, before = model_and_copy()
    names = {"model": model}
    PAGE.run(block, names)
    assert names["weights"].keys() == before.keys()
    assert all(torch.equal(names["weights"][name], value) for name, value in before.items())
