"""Epochs: who counts them, and how they reach workers."""

from __future__ import annotations

import itertools
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from order_check import Setting, Wrapped, batches_of, numbers, write_numbers
from support import raise_warnings, worker_count
from torch.utils.data import DataLoader, IterableDataset

import torch_s3io as s3io

SETTING = Setting(records=60, batch=4, seed=3, shuffle=True)
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", SETTING.records)


def epoch_of(path: Path, epoch: int) -> list[list[int]]:
    return batches_of(path, SETTING, epoch)


def make(path: Path, **others: Any) -> s3io.RecordDataset:
    return Setting(60, 4, seed=3, shuffle=True, others={"pool": "auto", **others}).dataset(path)


def test_without_workers_epochs_count_up(path):
    dataset = make(path)
    for epoch in range(3):
        assert numbers(dataset) == epoch_of(path, epoch)
        assert dataset.epoch == epoch
    dataset.set_epoch(7)
    assert dataset.epoch == 7
    assert numbers(dataset) == epoch_of(path, 7)
    assert numbers(dataset) == epoch_of(path, 8)


def test_an_epoch_begins_with_its_first_batch(path):
    dataset = make(path)
    unused = [iter(dataset), iter(dataset)]
    assert numbers(dataset) == epoch_of(path, 0)
    assert numbers(unused[1]) == epoch_of(path, 1)
    for batch in dataset:  # broken off: the next one is a new epoch
        assert batch[1].tolist() == epoch_of(path, 2)[0]
        break
    assert numbers(dataset) == epoch_of(path, 3)


def test_iterators_side_by_side_read_an_epoch_each(path):
    dataset = make(path)
    first, second = iter(dataset), iter(dataset)
    pairs = [(a[1].tolist(), b[1].tolist()) for a, b in zip(first, second, strict=True)]
    assert [a for a, _ in pairs] == epoch_of(path, 0)
    assert [b for _, b in pairs] == epoch_of(path, 1)


@pytest.mark.parametrize(
    ("context", "persistent"),
    [("fork", True), ("fork", False), ("forkserver", True), ("spawn", True)],
)
def test_our_loader_counts_for_its_workers(path, context, persistent):
    loader = s3io.DataLoader(
        make(path),
        num_workers=worker_count(context),
        persistent_workers=persistent,
        multiprocessing_context=context,
    )
    for epoch in range(2):
        assert numbers(loader) == epoch_of(path, epoch)
        assert loader.epoch == epoch
    for _ in loader:
        break
    assert numbers(loader) == epoch_of(path, 3)
    loader.set_epoch(11)
    assert numbers(loader) == epoch_of(path, 11)


@pytest.mark.parametrize("pool", ["auto", None])
def test_iterators_of_our_loader_keep_their_epochs_apart(path, pool):
    loader = s3io.DataLoader(make(path, pool=pool), num_workers=2)
    unused, third, first, second = (iter(loader) for _ in range(4))
    # A batch came from one worker: the other one may not have begun yet.
    heads = [numbers([next(first)]), numbers([next(second)]), numbers([next(third)])]
    assert heads[2] + numbers(third) == epoch_of(path, 2)
    assert heads[0] + numbers(first) == epoch_of(path, 0)
    assert heads[1] + numbers(second) == epoch_of(path, 1)
    del unused
    assert numbers(loader) == epoch_of(path, 3)


@pytest.mark.parametrize(
    ("context", "persistent", "pool"),
    [
        ("fork", True, "auto"),
        ("fork", True, None),
        ("fork", False, "auto"),
        ("forkserver", True, None),
        ("spawn", True, "auto"),
    ],
)
def test_set_epoch_reaches_the_workers_of_torchs_loader(path, context, persistent, pool):
    dataset = make(path, pool=pool)
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=worker_count(context),
        persistent_workers=persistent,
        multiprocessing_context=context,
        worker_init_fn=raise_warnings,
    )
    assert numbers(loader) == epoch_of(path, 0)
    for epoch in (1, 2, 0, 2**40):
        dataset.set_epoch(epoch)
        assert numbers(loader) == epoch_of(path, epoch)


@pytest.mark.parametrize("persistent", [True, False])
def test_a_missing_set_epoch_is_warned_of_once(path, persistent):
    dataset = make(path)
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=2,
        persistent_workers=persistent,
        worker_init_fn=raise_warnings,
    )
    assert numbers(loader) == epoch_of(path, 0)
    with pytest.raises(RuntimeWarning, match=r"call set_epoch\(\) before every epoch"):
        numbers(loader)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, worker_init_fn=raise_warnings)
    assert numbers(loader) == epoch_of(path, 0)


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("persistent", [True, False])
def test_passes_that_are_broken_off_are_told_from_looks(tmp_path, persistent, wraps):
    dataset = make(write_numbers(tmp_path / "many.bin", 600))  # 150 batches

    def take(batches: int) -> int:
        return len(numbers(itertools.islice(iter(loader), batches)))

    loader = DataLoader(
        Wrapped(dataset) if wraps else dataset,
        batch_size=None,
        num_workers=1,
        persistent_workers=persistent,
        worker_init_fn=raise_warnings,
    )
    for batches in (1, 8, 20, 100):
        assert take(batches) == batches
    with pytest.raises(RuntimeWarning, match=r"call set_epoch\(\) before every epoch"):
        take(1)


def test_of_epochs_that_a_loader_reads_ahead_nothing_is_said(tmp_path):
    loader = DataLoader(
        make(write_numbers(tmp_path / "few.bin", 12)),  # 3 batches
        batch_size=None,
        num_workers=1,
        worker_init_fn=raise_warnings,
    )
    assert numbers(loader) == numbers(loader)


def test_nobody_is_warned_where_all_epochs_are_the_same(path):
    dataset = make(path).with_options(shuffle=False)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, worker_init_fn=raise_warnings)
    assert numbers(loader) == numbers(loader)


def test_a_resumed_epoch_is_not_read_twice_for_want_of_set_epoch(path):
    first = make(path)
    head = numbers(itertools.islice(iter(first), 5))
    dataset = make(path)
    dataset.load_state_dict(first.state_dict())
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    assert head + numbers(loader) == epoch_of(path, 0)
    with pytest.raises(s3io.ConfigError, match=r"call set_epoch\(\) before every epoch"):
        numbers(loader)
    dataset.set_epoch(1)
    assert numbers(loader) == epoch_of(path, 1)


def test_set_epoch_keeps_a_place_that_was_loaded_and_only_that(path):
    first = make(path)
    first.set_epoch(4)
    head = numbers(itertools.islice(iter(first), 5))
    state = first.state_dict()
    dataset = make(path)
    dataset.load_state_dict(state)
    assert dataset.epoch == 4
    dataset.set_epoch(4)
    assert head + numbers(dataset) == epoch_of(path, 4)
    dataset.set_epoch(4)
    assert numbers(dataset) == epoch_of(path, 4)
    dataset.load_state_dict(state)
    dataset.set_epoch(3)
    assert numbers(dataset) == epoch_of(path, 3)
    dataset.set_epoch(4)
    assert numbers(dataset) == epoch_of(path, 4)


def test_setting_the_epoch_of_a_state_from_its_end_gives_nothing_of_it(path):
    first = make(path)
    numbers(first)
    dataset = make(path)
    dataset.load_state_dict(first.state_dict())
    dataset.set_epoch(0)
    assert numbers(dataset) == []
    dataset.set_epoch(1)
    assert numbers(dataset) == epoch_of(path, 1)


class Endless(IterableDataset[Any]):
    """Somebody's data set that goes through ours again and again, in each worker."""

    def __init__(self, dataset: s3io.RecordDataset) -> None:
        self.dataset = dataset

    def __iter__(self):
        for epoch in range(3):
            self.dataset.set_epoch(epoch)
            yield from self.dataset


def test_a_worker_may_set_epochs_of_its_own(path):
    loader = DataLoader(
        Endless(make(path)), batch_size=None, num_workers=1, worker_init_fn=raise_warnings
    )
    assert numbers(loader) == [*epoch_of(path, 0), *epoch_of(path, 1), *epoch_of(path, 2)]


def test_copies_and_forked_children_count_for_themselves(path):
    dataset = make(path)
    dataset.set_epoch(5)
    numbers(DataLoader(dataset, batch_size=None, num_workers=1))
    copy = pickle.loads(pickle.dumps(dataset))
    assert numbers(copy) == epoch_of(path, 5)
    copy.set_epoch(9)
    child = os.fork()
    if child == 0:
        dataset.set_epoch(20)
        os._exit(0 if numbers(dataset) == epoch_of(path, 20) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert dataset.epoch == 5


@pytest.mark.parametrize("epoch", [-1, 1.0, "1", True, None, 2**48, 2**62])
def test_what_is_no_epoch_is_refused(path, epoch):
    with pytest.raises(s3io.ConfigError, match="epoch"):
        make(path).set_epoch(epoch)


class Remember:
    """A transform that knows where it is."""

    def __call__(self, rows: Any, index: Any, epoch: int) -> Any:
        return rows, [epoch] * len(index), index.clone()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_transform_learns_epoch_and_record_numbers(path, num_workers):
    dataset = make(path, transform=Remember(), pass_position=True)
    loader = s3io.DataLoader(dataset.with_options(return_index=False), num_workers=num_workers)
    for epoch in range(2):
        batches = [(index.tolist(), epochs) for _, epochs, index in loader]
        assert [index for index, _ in batches] == epoch_of(path, epoch)
        assert {one for _, epochs in batches for one in epochs} == {epoch}


def test_a_loader_that_cannot_start_its_workers_leaves_the_epoch_to_the_next_try(path):
    dataset = make(path).with_options(transform=lambda rows: rows)  # cannot be pickled
    loader = s3io.DataLoader(dataset, num_workers=1, multiprocessing_context="spawn")
    for _ in range(2):
        with pytest.raises(Exception, match="pickle"):
            next(iter(loader))
        assert loader.epoch == 0
    assert numbers(dataset) == epoch_of(path, 0)


@pytest.mark.parametrize("persistent", [True, False])
def test_workers_that_never_began_are_followed_by_others(path, persistent):
    failing = True

    def fail(_: int) -> None:
        if failing:
            raise RuntimeError("this worker cannot start")

    loader = s3io.DataLoader(
        make(path),
        num_workers=2,
        worker_init_fn=fail,
        persistent_workers=persistent,
        multiprocessing_context="fork",
    )
    iterators = [iter(loader) for _ in range(3)]
    for batches in iterators:  # and each of them after another one that failed
        with pytest.raises(RuntimeError, match="this worker cannot start"):
            next(batches)
    loader.set_epoch(3)
    failing = False
    assert numbers(loader) == epoch_of(path, 3)
    assert numbers(loader) == epoch_of(path, 4)
    assert [list(batches) for batches in iterators[:2]] == [[], []]
