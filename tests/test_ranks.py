"""Ranks: who this process is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from order_check import Setting, Wrapped, numbers, order_of_epoch, steps_of, write_numbers
from support import end_workers
from torch.utils.data import DataLoader

import torch_s3io as s3io
from torch_s3io.processes.ranks import find_ranks

SETTING = Setting(records=45, batch=4, seed=3, shuffle=True)


def test_what_was_given_goes_before_the_environment(monkeypatch):
    assert find_ranks(None, None).source == "default"
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    found = find_ranks(None, None)
    assert (found.rank, found.world_size, found.source) == (2, 4, "environment")
    found = find_ranks(0, 3)
    assert (found.rank, found.world_size, found.source) == (0, 3, "arguments")


def test_ranks_of_the_environment_are_asked_for_when_needed(tmp_path, monkeypatch):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    dataset = SETTING.dataset(path).with_options(rank=None, world_size=None)
    assert len(dataset) == 12
    order = order_of_epoch(path, SETTING, 0)
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        dataset.set_epoch(0)
        world = Setting(45, 4, world=3)
        loader = s3io.DataLoader(dataset, num_workers=1)
        assert len(loader) == 4
        assert numbers(loader) == [step[rank] for step in steps_of(order, 0, world)]


@pytest.mark.parametrize(
    ("rank", "world"), [("3", "3"), ("-1", "2"), ("x", "2"), ("0", "0"), ("", "1"), ("0", "1.0")]
)
def test_an_environment_that_names_no_rank_is_refused(monkeypatch, rank, world):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(s3io.ConfigError, match="the environment says RANK="):
        find_ranks(None, None)


@pytest.mark.parametrize(("there", "missing"), [("RANK", "WORLD_SIZE"), ("WORLD_SIZE", "RANK")])
def test_half_a_rank_in_the_environment_is_refused(monkeypatch, there, missing):
    monkeypatch.setenv(there, "1")
    with pytest.raises(s3io.ConfigError, match=f"says {there}='1' but has no {missing}"):
        find_ranks(None, None)
    assert find_ranks(0, 1).source == "arguments"


def test_workers_that_are_alive_cannot_become_another_rank(tmp_path, monkeypatch):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    dataset = SETTING.dataset(path).with_options(rank=None, world_size=None)
    loader = s3io.DataLoader(dataset, num_workers=1)
    order = order_of_epoch(path, SETTING, 0)
    assert numbers(loader) == [step[0] for step in steps_of(order, 0, SETTING)]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for _ in range(2):
        with pytest.raises(s3io.ConfigError, match=r"rank 0 of 1, but .* rank 1 of 2 .*anew"):
            next(iter(loader))
    state = loader.state_dict()
    assert (state["epoch"], state["consumed"]) == (1, 0)
    anew = s3io.DataLoader(dataset, num_workers=1)
    order = order_of_epoch(path, SETTING, 1)
    steps = steps_of(order, 0, Setting(45, 4, world=2))
    assert numbers(anew) == [step[1] for step in steps]


@pytest.mark.parametrize("pool", ["auto", None])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("kind", ["torch", "set_epoch", "wrapped"])
def test_workers_that_nobody_asks_cannot_become_another_rank_either(
    tmp_path, monkeypatch, kind, shuffle, pool
):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    dataset = SETTING.dataset(path).with_options(
        rank=None, world_size=None, shuffle=shuffle, pool=pool
    )

    def make_loader() -> Any:
        if kind == "wrapped":
            return s3io.DataLoader(Wrapped(dataset), num_workers=2)
        return DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)

    loader = make_loader()
    setting = replace(SETTING, shuffle=shuffle)
    order = order_of_epoch(path, setting, 0)
    assert numbers(loader) == [step[0] for step in steps_of(order, 0, setting)]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    if kind == "set_epoch":
        dataset.set_epoch(1)
        order = order_of_epoch(path, setting, 1)
    batches = iter(loader)
    for _ in range(2):  # of each worker
        with pytest.raises(s3io.ConfigError, match=r"rank 0 of 1, but .* rank 1 of 2 .*anew"):
            next(batches)
    end_workers(batches)
    del batches
    steps = steps_of(order, 0, replace(setting, world=2))
    assert numbers(make_loader()) == [step[1] for step in steps]


def test_workers_of_a_rank_that_was_given_keep_it(tmp_path, monkeypatch):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    dataset = SETTING.dataset(path)  # rank 0 of 1
    loader = DataLoader(dataset, batch_size=None, num_workers=1, persistent_workers=True)
    first = numbers(loader)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    dataset.set_epoch(0)
    assert numbers(loader) == first


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0},
        {"world_size": 2},
        {"rank": 2, "world_size": 2},
        {"rank": -1, "world_size": 2},
        {"rank": 0, "world_size": 0},
        {"rank": 0.0, "world_size": 1},
        {"drop_last": True, "pad_last": True},
    ],
)
def test_arguments_that_name_no_rank_are_refused(tmp_path, options):
    path = write_numbers(tmp_path / "numbers.bin", 8)
    with pytest.raises(s3io.ConfigError, match=r"rank|world_size|pad_last"):
        s3io.RecordDataset(path, dtype="i8", shape=2, **options)


def test_more_ranks_than_records_get_equally_many_batches(tmp_path):
    path = write_numbers(tmp_path / "numbers.bin", 3)
    setting = Setting(3, batch=2, world=5)
    datasets = [setting.dataset(path, rank) for rank in range(5)]
    assert [numbers(dataset) for dataset in datasets] == [[[0]], [[1]], [[2]], [[0]], [[1]]]
    assert {dataset.padded_records for dataset in datasets} == {2}
    assert datasets[0].stats()["padded_records"] == 2
    dropping = Setting(3, batch=2, world=5, drop_last=True).dataset(path)
    assert (len(dropping), dropping.dropped_records, numbers(dropping)) == (0, 3, [])
