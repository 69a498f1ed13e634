"""Mixtures: the share of each part, in its own order, shared out and resumed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from order_check import (
    Setting,
    check_read_and_resumed,
    numbers,
    read_through_workers,
    records_of,
    sent_to,
    write_numbers,
)

import torch_s3io as s3io
from torch_s3io.datasets.mix import whole_weights

RECORDS = 90
SETTING = Setting(records=RECORDS, batch=4, seed=3)
SHUFFLED = replace(SETTING, shuffle=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", RECORDS)


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Two files whose records are told apart by their numbers."""
    paths = []
    for name, first, count in (("a", 0, 300), ("b", 300, 100)):
        array = np.repeat(np.arange(first, first + count, dtype=np.int64), 2)
        array.tofile(tmp_path / f"{name}.bin")
        paths.append(tmp_path / f"{name}.bin")
    return paths


def mix_of(sources: list[Path], setting: Setting = SHUFFLED, **options: Any) -> s3io.Mix:
    parts = [replace(setting, seed=seed).dataset(path) for seed, path in enumerate(sources)]
    return s3io.Mix(parts, **{"seed": 9, **options})


def test_a_mixture_takes_its_share_of_each_part_in_the_parts_own_order(sources):
    assert mix_of(sources).num_records == 400
    mix = mix_of(sources, weights=[1, 3], num_records=1024)
    epochs = [records_of(mix) for _ in range(2)]
    assert [sum(record >= 300 for record in epoch) for epoch in epochs] == [768, 768]
    records = list(itertools.chain(*epochs))
    for part, path in enumerate(sources):
        alone = replace(SHUFFLED, seed=part, records=len(path.read_bytes()) // 16).dataset(path)
        turns = [record - 300 * part for record in records if (record >= 300) == (part == 1)]
        own = itertools.chain.from_iterable(own_numbers(alone) for _ in itertools.count())
        assert turns == list(itertools.islice(own, len(turns)))
    assert [records_of(sent_to(mix_of(sources, weights=[1, 3], num_records=1024), 1))] == epochs[1:]
    assert records_of(mix_of(sources, weights=[1, 3], num_records=1024, seed=8)) != epochs[0]


def own_numbers(dataset: s3io.RecordDataset) -> list[int]:
    return [record for _, index in dataset for record in index.tolist()]


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_mixture_is_shared_out_and_resumed_like_any_data_set(sources, world, workers):
    alone = records_of(mix_of(sources, weights=[0.7, 0.3], num_records=90))

    def make(rank: int) -> s3io.Mix:
        options = {"rank": rank, "world_size": world}
        return mix_of(sources, weights=[0.7, 0.3], num_records=90, **options)

    by_rank = [read_through_workers(make(rank), workers) for rank in range(world)]
    together = [record for step in zip(*by_rank, strict=True) for part in step for record in part]
    assert together == alone
    check_read_and_resumed(lambda: make(0), numbers, len(by_rank[0]))


def test_a_mixture_of_views_and_other_layouts(sources, path):
    train = SHUFFLED.dataset(sources[0]).subset(0, 10)
    mix = s3io.Mix([train, SHUFFLED.dataset(sources[1])], weights=[1, 3], num_records=40)
    assert set(records_of(mix)) <= {*range(10), *range(300, 400)}
    rows, index = mix.get_batch([299, 300])
    assert rows[:, 0].tolist() == [299, 300] == index.tolist()
    other = s3io.RecordDataset(path, dtype=np.int32, shape=4)
    with pytest.raises(s3io.ConfigError, match="one layout"):
        s3io.Mix([train, other])
    for call in (lambda: mix.subset(0, 1), lambda: mix.split([1]), mix.with_options):
        with pytest.raises(s3io.ConfigError, match="then mix"):
            call()
    with pytest.raises(s3io.ConfigError, match="Mix mixes RecordDatasets"):
        s3io.Mix([mix])


def test_parts_with_different_transforms_are_mixed_under_one_that_is_given(sources):
    plain = SHUFFLED.dataset(sources[0]).with_options(return_index=False)
    negated = SHUFFLED.dataset(sources[1]).with_options(return_index=False, transform=torch.neg)
    for parts in ([plain, negated], [negated, plain]):
        with pytest.raises(s3io.ConfigError, match="different transforms"):
            s3io.Mix(parts)
        assert all((batch >= 0).all() for batch in s3io.Mix(parts, transform=None))
        assert all((batch <= 0).all() for batch in s3io.Mix(parts, transform=torch.neg))
    assert all((batch <= 0).all() for batch in s3io.Mix([negated, negated]))


def test_mixtures_of_other_settings_are_told_apart(sources):
    state = mix_of(sources, weights=[1, 1]).state_dict()
    with pytest.raises(s3io.ConfigError, match="weights"):
        mix_of(sources, weights=[1, 2]).load_state_dict(state)
    with pytest.raises(s3io.ConfigError, match="mixture"):
        mix_of(sources, SETTING, weights=[1, 1]).load_state_dict(state)
    with pytest.raises(s3io.DataError, match="names or order"):
        mix_of(sources[::-1], weights=[1, 1]).load_state_dict(state)
    state["order"]["mixture"][0]["shuffle"] = 1
    with pytest.raises(s3io.ConfigError, match="mixture"):
        mix_of(sources, weights=[1, 1]).load_state_dict(state)


def test_an_epoch_of_a_mixture_lies_within_its_stream(sources):
    mix = mix_of(sources, num_records=1 << 30)
    last = (1 << 31) - 1
    with pytest.raises(s3io.ConfigError, match=f"epoch must be at most {last}"):
        mix.set_epoch(last + 1)
    mix.set_epoch(last)
    next(iter(mix))
    state = mix.state_dict()
    assert (state["epoch"], state["consumed"]) == (last, 4)
    mix.load_state_dict(state)
    assert mix.state_dict() == state
    with pytest.raises(s3io.DataError, match=f"epoch {last + 1}, and {last} is the last one"):
        mix.load_state_dict({**state, "epoch": last + 1})


def test_an_epoch_of_a_mixture_may_be_all_of_its_stream_and_no_more(sources):
    mix = mix_of(sources, num_records=2**61)
    next(iter(mix))
    with pytest.raises(s3io.ConfigError, match="epoch 0 is the last one"):
        next(iter(mix))
    with pytest.raises(s3io.ConfigError, match=f"num_records must be at most {2**61}"):
        mix_of(sources, num_records=2**61 + 1)


@pytest.mark.parametrize(
    "weights",
    [[1], [1, 0], [1, -1], [1, float("nan")], [1, 1e-6], [1e308, 1e308], "ab", 3],
)
def test_weights_that_are_none_are_refused(sources, weights):
    with pytest.raises(s3io.ConfigError, match="weight"):
        mix_of(sources, weights=weights)


def test_weights_become_the_smallest_whole_numbers():
    assert whole_weights([3, 1], 2) == (3, 1)
    assert whole_weights([0.25, 0.75], 2) == (1, 3)
    thirds = whole_weights([1, 2, 3], 3)
    assert [weight / sum(thirds) for weight in thirds] == pytest.approx([1 / 6, 1 / 3, 1 / 2])


def test_parts_of_different_kinds_are_told_what_would_be_one_kind(tmp_path):
    np.arange(100, dtype="<u2").tofile(tmp_path / "tokens.bin")
    tokens = s3io.TokenDataset(tmp_path / "tokens.bin", dtype="uint16", window=9)
    fixed = s3io.RecordDataset.from_tokens(tmp_path / "tokens.bin", window=9, as_dtype=torch.int64)
    for parts in ([tokens, fixed], [fixed, tokens]):
        with pytest.raises(s3io.ConfigError, match="give a TokenDataset for each of its parts"):
            s3io.Mix(parts, weights=[1, 1])
    (tmp_path / "a.jpg").write_bytes(b"a")
    samples = s3io.SampleDataset.from_files(f"{tmp_path}/*.jpg", labels=None)
    for parts in ([samples, fixed], [fixed, samples]):
        with pytest.raises(s3io.ConfigError, match="RecordDatasets, or SampleDatasets, or Token"):
            s3io.Mix(parts, weights=[1, 1])
