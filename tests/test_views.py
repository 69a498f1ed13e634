"""Views, mixtures, parallel data sets, map style, and a record's own random numbers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from order_check import Setting, in_worker, numbers, read_through_workers, write_numbers
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import torch_s3io as s3io
from torch_s3io.mix import whole_weights
from torch_s3io.views import split_sizes

RECORDS = 90
SETTING = Setting(records=RECORDS, batch=4, seed=3)
SHUFFLED = replace(SETTING, shuffle=True)
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", RECORDS)


def records_of(dataset: s3io.RecordDataset) -> list[int]:
    return [record for batch in numbers(dataset) for record in batch]


def check_resume(make: Any, read: Any, steps: int) -> None:
    """Head and tail are the whole epoch, and the one after it is whole, at every step."""
    epochs = [read(make()), read(sent_to(make(), 1))]
    for step in range(steps + 1):
        first = make()
        head = read(itertools.islice(iter(first), step))
        assert head == epochs[0][:step]
        second = make()
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        if step < len(epochs[0]):
            assert read(second) == epochs[0][step:]
        assert read(second) == epochs[1]


def sent_to(dataset: Any, epoch: int) -> Any:
    dataset.set_epoch(epoch)
    return dataset


# Views ------------------------------------------------------------------------------------------


def test_a_subset_has_the_records_of_its_range(path):
    dataset = SETTING.dataset(path)
    assert records_of(dataset.subset(10, 25)) == list(range(10, 25))
    assert records_of(dataset.subset(10, 60).subset(5, 9)) == list(range(15, 19))
    shuffled = SHUFFLED.dataset(path).subset(10, 25)
    assert sorted(records_of(shuffled)) == list(range(10, 25))
    assert shuffled.num_records == 15
    check_resume(lambda: SHUFFLED.dataset(path).subset(10, 25), numbers, 4)


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
    check_resume(lambda: setting.dataset(path).split([0.5, 0.5], seed=1)[1], numbers, 12)


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


# Mixtures ---------------------------------------------------------------------------------------


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
    check_resume(lambda: make(0), numbers, len(by_rank[0]))


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


# Parallel data sets -----------------------------------------------------------------------------


def labels_of(folder: Path) -> Path:
    labels = folder / "labels.bin"
    if not labels.exists():
        (np.arange(RECORDS, dtype=np.int32) * 3).tofile(labels)
    return labels


def make_pairs(path: Path, **options: Any) -> s3io.Zip:
    others = {"pool": options.pop("pool", "auto"), "direct": "off"}
    images = s3io.RecordDataset(path, dtype=np.int64, shape=2, **others)
    labels = s3io.RecordDataset(labels_of(path.parent), dtype=np.int32, **others)
    settings = {"batch_size": 4, "shuffle": True, "seed": 3, "return_index": True}
    return s3io.Zip(images=images, labels=labels, **{**settings, **options})


def pairs(batches: Any) -> list[list[int]]:
    result = []
    for batch, index in batches:
        assert list(batch) == ["images", "labels"]
        np.testing.assert_array_equal(batch["images"][:, 0].numpy(), index.numpy())
        np.testing.assert_array_equal(batch["labels"].numpy(), index.numpy() * 3)
        result.append(index.tolist())
    return result


@pytest.mark.parametrize("shuffle", [False, True, "block"])
def test_parallel_records_come_together_in_one_order(path, shuffle):
    zipped = make_pairs(path, shuffle=shuffle)
    assert len(zipped) == 23
    records = list(itertools.chain(*pairs(zipped)))
    assert sorted(records) == list(range(RECORDS))
    if shuffle is True:
        assert records == records_of(SHUFFLED.dataset(path))
    check_resume(lambda: make_pairs(path, shuffle=shuffle), pairs, 23)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_parallel_records_come_from_workers_without_a_copy_and_resume(path, context):
    def make(num_workers: int) -> Any:
        options = {"multiprocessing_context": context} if num_workers else {}
        return s3io.DataLoader(make_pairs(path), num_workers=num_workers, **options)

    loader = make(2)
    epochs = [pairs(loader), pairs(loader)]
    assert epochs == [pairs(make_pairs(path)), pairs(sent_to(make_pairs(path), 1))]
    stats = loader.stats()
    assert stats["received_tensors"] == 2 * 23 * 3
    assert stats["unmapped_tensors"] == stats["stale_tensors"] == 0
    head = pairs(itertools.islice(iter(loader), 7))
    other = make(1)
    other.load_state_dict(loader.state_dict())
    assert head + pairs(other) == pairs(sent_to(make_pairs(path), 2))


def test_views_and_samples_and_transforms_are_zipped_too(path):
    images = SETTING.dataset(path).subset(10, 20).with_options(transform=torch.neg)
    labels = SETTING.dataset(path).subset(30, 40)
    zipped = s3io.Zip(a=images, b=labels, batch_size=None, shuffle=True)
    seen = set()
    for batch in zipped:
        a, b = int(batch["a"][0]), int(batch["b"][0])
        assert b == -a + 20
        seen.add(b)
    assert seen == set(range(30, 40))

    def check(batch: Any, index: Any, epoch: int) -> Any:
        assert batch["a"][:, 0].tolist() == (-index).tolist()
        return epoch

    zipped = s3io.Zip(a=images, b=labels, transform=check, pass_position=True)
    assert set(zipped) == {0}
    assert set(zipped) == {1}


def test_what_cannot_be_zipped_is_refused(path):
    dataset = SETTING.dataset(path)
    with pytest.raises(s3io.ConfigError, match="equally many"):
        s3io.Zip(a=dataset, b=dataset.subset(0, 5))
    with pytest.raises(s3io.ConfigError, match="by name"):
        s3io.Zip()
    with pytest.raises(s3io.ConfigError, match="'direct' is neither"):
        s3io.Zip(a=dataset, direct="off")
    with pytest.raises(s3io.ConfigError, match="b is "):
        s3io.Zip(a=dataset, b=s3io.Mix([dataset]))


def test_a_state_of_parallel_data_names_the_part_that_changed(path):
    state = make_pairs(path).state_dict()
    with open(path.parent / "labels.bin", "r+b") as file:
        file.write(b"x")
    images = s3io.RecordDataset(path, dtype=np.int64, shape=2)
    labels = s3io.RecordDataset(path.parent / "labels.bin", dtype=np.int32)
    changed = s3io.Zip(images=images, labels=labels, batch_size=4, shuffle=True, seed=3)
    with pytest.raises(s3io.DataError, match="times of change of files in labels"):
        changed.load_state_dict(state)


# Map style --------------------------------------------------------------------------------------


def test_records_by_number_one_or_many(path):
    records = s3io.RecordMapDataset(SETTING.dataset(path).with_options(return_index=False))
    assert len(records) == RECORDS
    assert records[7].tolist() == [7, 7]
    assert records[torch.tensor(8)].tolist() == [8, 8]
    assert records[np.int64(9)].tolist() == [9, 9]
    assert records[[7, 3]].tolist() == [[7, 7], [3, 3]]
    assert [one.tolist() for one in records.__getitems__([1, 2])] == [[1, 1], [2, 2]]
    for index in (RECORDS, -1, [0, RECORDS]):
        with pytest.raises(IndexError):
            records[index]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_samplers_of_torch_draw_from_it(path, num_workers):
    records = s3io.RecordMapDataset(SETTING.dataset(path))
    sampler = BatchSampler(RandomSampler(range(RECORDS)), batch_size=7, drop_last=False)
    whole = DataLoader(records, sampler=sampler, batch_size=None, num_workers=num_workers)
    assert sorted(itertools.chain(*numbers(whole))) == list(range(RECORDS))
    collated = DataLoader(records, batch_size=7, shuffle=True, num_workers=num_workers)
    assert sorted(itertools.chain(*numbers(collated))) == list(range(RECORDS))


def test_map_style_applies_the_transform_to_what_it_returns(path):
    def double(rows: Any, index: Any, epoch: int) -> Any:
        return rows * 2, index, epoch

    dataset = SETTING.dataset(path).with_options(
        transform=double, pass_position=True, return_index=False
    )
    dataset.set_epoch(4)
    records = s3io.RecordMapDataset(dataset)
    rows, index, epoch = records[5]
    assert (rows.tolist(), int(index), epoch) == ([10, 10], 5, 4)
    rows, index, epoch = records[[5, 6]]
    assert (rows.tolist(), index.tolist(), epoch) == ([[10, 10], [12, 12]], [5, 6], 4)
    with pytest.raises(s3io.ConfigError, match="needs a RecordDataset"):
        s3io.RecordMapDataset([1])


# A record's own random numbers ------------------------------------------------------------------


def augment(rows: Any, index: Any, epoch: int) -> Any:
    generator = s3io.record_generator(1, epoch, int(index))
    return int(index), float(torch.rand((), generator=generator))


def test_random_numbers_of_a_record_do_not_depend_on_who_reads_it(path):
    dataset = SHUFFLED.dataset(path).with_options(
        batch_size=None, transform=augment, pass_position=True, return_index=False
    )
    epochs = [dict(iter(dataset)) for _ in range(2)]
    assert len(set(epochs[0].values()) | set(epochs[1].values())) == 2 * RECORDS
    dataset.set_epoch(1)
    for worker in range(3):
        with in_worker(dataset, worker, 3):
            for record, value in dataset:
                assert epochs[1][record] == value
    loader = s3io.DataLoader(dataset, num_workers=2)
    loader.set_epoch(0)
    assert dict(iter(loader)) == epochs[0]


def test_generators_are_the_same_everywhere_and_bad_arguments_are_refused():
    first = torch.rand(2, generator=s3io.record_generator(7, 3, 2**40)).tolist()
    assert first == torch.rand(2, generator=s3io.record_generator(7, 3, 2**40)).tolist()
    assert first != torch.rand(2, generator=s3io.record_generator(7, 3, 2**40 + 1)).tolist()
    for arguments in [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1.5), (True, 0, 0), (2**64, 0, 0)]:
        with pytest.raises(s3io.ConfigError):
            s3io.record_generator(*arguments)
