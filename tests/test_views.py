"""Views: subsets, splits, and the same records under other options."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from order_check import (
    Setting,
    check_goes_on_elsewhere,
    check_read_and_resumed,
    check_shared_out_and_resumed,
    numbers,
    records_of,
    together,
    write_numbers,
)

import torch_s3io as s3io
from torch_s3io.datasets.views import split_sizes

RECORDS = 90
SETTING = Setting(records=RECORDS, batch=4, seed=3)
SHUFFLED = replace(SETTING, shuffle=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", RECORDS)


def test_a_subset_has_the_records_of_its_range(path):
    dataset = SETTING.dataset(path)
    assert records_of(dataset.subset(10, 25)) == list(range(10, 25))
    assert records_of(dataset.subset(10, 60).subset(5, 9)) == list(range(15, 19))
    shuffled = SHUFFLED.dataset(path).subset(10, 25)
    assert sorted(records_of(shuffled)) == list(range(10, 25))
    assert shuffled.num_records == 15
    check_read_and_resumed(lambda: SHUFFLED.dataset(path).subset(10, 25), numbers, 4)


@pytest.mark.parametrize("setting", [SETTING, SHUFFLED])
def test_the_parts_of_a_split_are_disjoint_and_stable(path, setting):
    parts = setting.dataset(path).split([0.5, 0.3, 0.2], seed=1)
    assert [part.num_records for part in parts] == [45, 27, 18]
    records = [records_of(part) for part in parts]
    assert sorted(itertools.chain(*records)) == list(range(RECORDS))
    again = setting.dataset(path).split([0.5, 0.3, 0.2], seed=1)
    assert [records_of(part) for part in again] == records
    other = setting.dataset(path).split([0.5, 0.3, 0.2], seed=2)
    assert set(records_of(other[0])) != set(records[0])
    check_read_and_resumed(lambda: setting.dataset(path).split([0.5, 0.5], seed=1)[1], numbers, 12)


def test_what_a_split_leaves_over_belongs_to_no_part_and_parts_split_again(path):
    part, rest = SETTING.dataset(path).split([0.4, 0.2])
    assert (part.num_records, rest.num_records) == (36, 18)
    inner = part.split([0.5, 0.5])
    records = [records_of(one) for one in inner]
    assert sorted(itertools.chain(*records)) == sorted(records_of(part))
    assert records_of(inner[1].subset(3, 6)) == records[1][3:6]


def test_splitting_is_the_same_on_every_machine(path):
    first, _ = SETTING.dataset(path).split([0.1, 0.9], seed=42)
    assert records_of(first) == FIRST_OF_SPLIT


FIRST_OF_SPLIT = [7, 2, 25, 56, 40, 75, 24, 68, 45]


@given(
    st.integers(0, 2**62),
    st.lists(st.fractions(Fraction(1, 1000), 1), min_size=1, max_size=6),
)
def test_split_sizes_are_as_near_as_whole_records_allow(records, fractions):
    total = sum(fractions)
    parts = [float(fraction / total) for fraction in fractions]
    sizes = split_sizes(records, parts)
    assert sum(sizes) == records
    slack = records >> 50  # of parts as floats
    for size, part in zip(sizes, parts, strict=True):
        assert abs(size - Fraction(part) * records) <= 1 + slack


@pytest.mark.parametrize(
    "fractions", [[], [0.5, 0.6], [0], [-1], [1.5], ["x"], None, [float("nan")], [1e-9]]
)
def test_fractions_that_are_none_are_refused(path, fractions):
    with pytest.raises(s3io.ConfigError, match="split"):
        SETTING.dataset(path).split(fractions)


@pytest.mark.parametrize("bounds", [(0, 0), (5, 3), (0, RECORDS + 1), (-1, 3), (0.5, 2)])
def test_ranges_that_are_none_are_refused(path, bounds):
    with pytest.raises(s3io.ConfigError, match=r"start|stop"):
        SETTING.dataset(path).subset(*bounds)


def test_records_of_a_view_are_fetched_by_its_numbers(path):
    view = SETTING.dataset(path).split([0.5, 0.5], seed=1)[1]
    order = records_of(view)
    rows, index = view.get_batch([7, 0, 44, 7])
    assert index.tolist() == [order[7], order[0], order[44], order[7]]
    assert rows[:, 0].tolist() == index.tolist()
    for number in (-1, 45, 2**62):
        with pytest.raises(s3io.RangeError, match="this view has 45 records"):
            view.get_batch([number])


def test_options_of_a_view_may_differ(path):
    train, test = SHUFFLED.dataset(path).split([0.8, 0.2])
    test = test.with_options(shuffle=False, batch_size=5)
    assert numbers(test) == numbers(test)
    assert [len(batch) for batch in numbers(test)] == [5, 5, 5, 3]
    assert numbers(train) != numbers(train)
    with pytest.raises(TypeError, match="with_options"):
        test.with_options(dtype="u1")


@pytest.mark.parametrize("shuffle", [False, True, "block", "windows"])
@pytest.mark.parametrize("part", ["subset", "split", "part of a part"])
def test_a_view_is_shared_out_and_resumed_like_any_data_set(path, shuffle, part):
    setting = replace(SETTING, shuffle=shuffle)
    check_shared_out_and_resumed(lambda *ranks: view_of(path, setting, part, *ranks), numbers)


def view_of(path: Path, setting: Setting, part: str, rank: int, world: int) -> s3io.RecordDataset:
    dataset = replace(setting, world=world).dataset(path, rank)
    if part == "subset":
        return dataset.subset(10, 55)
    larger, smaller = dataset.split([0.7, 0.3], seed=1)
    return larger if part == "split" else smaller.subset(1, 26)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_view_goes_on_under_other_ranks_with_other_workers(path):
    def make(rank: int, world: int, num_workers: int) -> s3io.DataLoader:
        view = view_of(path, SHUFFLED, "split", rank, world)
        return s3io.DataLoader(view, num_workers=num_workers)

    order = together([numbers(view_of(path, SHUFFLED, "split", 0, 1))])
    check_goes_on_elsewhere(make, numbers, order)
