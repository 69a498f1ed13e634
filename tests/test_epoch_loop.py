"""``for epoch in loader.epochs(n)`` reads every epoch once, whatever was looked at; ``peek``."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import order_check
import pytest
import torch
from order_check import Setting, in_worker, numbers, write_numbers
from support import open_files, threads, worker_count

import torch_s3io as s3io

SETTING = Setting(records=45, batch=16, seed=3, shuffle=True, others={"pool": "auto"})  # 3 steps
EPOCHS = 4
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning",
    "ignore:This DataLoader will create",
    "ignore:.*nothing is left to read",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", SETTING.records)


def epoch_of(path: Path, epoch: int, start: int = 0) -> list[list[int]]:
    return order_check.batches_of(path, SETTING, epoch, start)


def look(source: Any) -> None:
    next(iter(source))


def run(
    make: Any, before: int = 0, inside: int = 0, stop: int = -1, state: Any = None
) -> tuple[list[tuple[int, list[int]]], Any]:
    """(epoch of the loop, records) of every batch until the ``stop``-th, and the state then."""
    source = make()
    if state is not None:
        source.load_state_dict(json.loads(json.dumps(state)))
    for _ in range(before):
        look(source)
    read: list[tuple[int, list[int]]] = []
    for epoch in source.epochs(EPOCHS):
        for _ in range(inside):
            look(source)
        for batch in source:
            read.append((epoch, numbers([batch])[0]))
            if len(read) == stop:
                return read, source.state_dict()
    return read, source.state_dict()


LOOKS = ((0, 0), (2, 0), (0, 1))  # before the loop, inside it


def check_stops(path: Path, make: Any, looks: tuple[int, int], stops: Iterable[int]) -> None:
    whole = [(epoch, batch) for epoch in range(EPOCHS) for batch in epoch_of(path, epoch)]
    assert run(make, *looks)[0] == whole
    for stop in stops:
        head, state = run(make, *looks, stop)
        tail, _ = run(make, *looks, state=state)
        assert head + tail == whole, (looks, stop)


def check_every_stop(path: Path, make: Any) -> None:
    for looks in LOOKS:
        check_stops(path, make, looks, range(1, 13))


def test_interrupted_anywhere_a_loop_over_a_data_set_reads_the_same(path):
    check_every_stop(path, lambda: SETTING.dataset(path))


def test_interrupted_anywhere_a_loop_over_a_loader_reads_the_same(path):
    check_every_stop(path, lambda: s3io.DataLoader(SETTING.dataset(path)))


def test_interrupted_anywhere_a_loop_over_a_prefetcher_reads_the_same(path):
    check_every_stop(
        path, lambda: s3io.DevicePrefetcher(s3io.DataLoader(SETTING.dataset(path)), "cpu")
    )


# Every pair of workers, looks and the step of the interrupt.
@pytest.mark.parametrize(
    ("workers", "persistent", "stops"),
    [(1, True, (2, 3, 4)), (2, True, (3, 4, 2)), (2, False, (4, 2, 3)), (4, False, (2, 4, 3))],
)
def test_interrupted_loops_over_workers_read_the_same(path, workers, persistent, stops):
    def make() -> s3io.DataLoader:
        dataset = SETTING.dataset(path)
        return s3io.DataLoader(dataset, num_workers=workers, persistent_workers=persistent)

    for looks, stop in zip(LOOKS, stops, strict=True):
        check_stops(path, make, looks, [stop])


@pytest.mark.parametrize("context", ["forkserver", "spawn"])
def test_a_loop_over_workers_that_are_not_forked(path, context):
    loader = s3io.DataLoader(
        SETTING.dataset(path),
        num_workers=worker_count(context),
        multiprocessing_context=context,
        persistent_workers=context == "spawn",
    )
    look(loader)
    read = [(epoch, numbers(loader)) for epoch in loader.epochs(2)]
    assert read == [(epoch, epoch_of(path, epoch)) for epoch in range(2)]


@pytest.mark.parametrize("kind", ["mix", "zip"])
def test_mixtures_and_zips_have_the_loop_too(path, kind):
    def make() -> Any:
        dataset = SETTING.dataset(path)
        made = s3io.Mix([dataset]) if kind == "mix" else s3io.Zip(a=dataset, return_index=True)
        look(made)
        return made

    def records(batches: Any) -> list[list[int]]:
        return [index.tolist() for _, index in batches]

    source, by_hand = make(), make()
    read = [records(source) for _ in source.epochs(2)]
    by_hand.set_epoch(0)
    assert read == [records(by_hand), records(by_hand)]
    assert list(source.epochs(2)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_inner_loop_may_be_broken_off(path, workers):
    loader = s3io.DataLoader(SETTING.dataset(path), num_workers=workers)
    for epoch in loader.epochs(3):
        assert numbers(itertools.islice(iter(loader), 2)) == epoch_of(path, epoch)[:2]
        assert loader.epoch == epoch


def test_all_passes_of_a_loops_body_read_its_epoch_and_a_resumed_one_is_read_in_whole_then(path):
    loader = s3io.DataLoader(SETTING.dataset(path))
    loader.load_state_dict({**loader.state_dict(), "epoch": 1, "consumed": 16})
    seen = [(epoch, numbers(loader), numbers(loader)) for epoch in loader.epochs(3)]
    assert seen == [
        (1, epoch_of(path, 1, 16), epoch_of(path, 1)),
        (2, epoch_of(path, 2), epoch_of(path, 2)),
    ]


def test_the_loop_goes_on_after_the_epochs_that_it_has_ended(path):
    loader = s3io.DataLoader(SETTING.dataset(path))
    assert [numbers(loader) for _ in loader.epochs(2)] == [epoch_of(path, 0), epoch_of(path, 1)]
    assert list(loader.epochs(2)) == []
    for epoch in loader.epochs(5):
        if epoch == 3:
            break
    assert list(loader.epochs(5)) == [3, 4]  # the one that was broken off comes again
    loader.set_epoch(3)
    assert list(loader.epochs(5)) == [3, 4]
    assert numbers(loader) == epoch_of(path, 4)


def test_a_loop_that_is_sent_back_goes_on_there(path):
    loader = s3io.DataLoader(SETTING.dataset(path))
    seen = []
    saved = None
    for epoch in loader.epochs(3):
        for batch in loader:
            seen.append((epoch, numbers([batch])[0]))
            if len(seen) == 4:
                saved = loader.state_dict()  # after the first batch of epoch 1
            if len(seen) == 7:
                loader.load_state_dict(saved)
                break
    whole = [(epoch, batch) for epoch in range(3) for batch in epoch_of(path, epoch)]
    assert seen == whole[:7] + whole[4:]


def test_a_loop_whose_body_sets_the_same_epoch_goes_on(path):
    loader = s3io.DataLoader(SETTING.dataset(path))
    read = []
    for epoch in itertools.islice(loader.epochs(3), 5):
        loader.set_epoch(epoch)
        if epoch != 1:
            read.append(numbers(loader))
    assert read == [epoch_of(path, 0), epoch_of(path, 2)]
    records = s3io.RecordMapDataset(SETTING.dataset(path))
    seen = []
    for epoch in itertools.islice(records.epochs(3), 5):
        records.dataset.set_epoch(epoch)
        seen.append(epoch)
    assert seen == [0, 1, 2]


def test_a_loop_whose_body_goes_back_to_the_start_of_its_epoch_reads_it_again(path):
    loader = s3io.DataLoader(SETTING.dataset(path))
    read, seen = [], []
    for epoch in loader.epochs(3):
        start = loader.state_dict()
        seen.append(epoch)
        read += numbers(loader)
        if seen == [0, 1]:
            loader.load_state_dict(start)
    assert seen == [0, 1, 1, 2]
    assert read == [batch for epoch in seen for batch in epoch_of(path, epoch)]


def test_a_loop_that_was_left_alone_does_nothing_to_a_later_one(path):
    loader = s3io.DataLoader(SETTING.dataset(path))
    left_alone = loader.epochs(3)
    next(left_alone)
    for epoch in loader.epochs(3):
        assert numbers(loader) == epoch_of(path, epoch)
        if epoch == 1:
            left_alone.close()  # as when it is collected
        assert numbers(loader) == epoch_of(path, epoch)


def test_an_epoch_that_was_loaded_keeps_its_place_through_looks_until_it_has_ended(path):
    loader = s3io.DataLoader(SETTING.dataset(path))
    state = {**loader.state_dict(), "epoch": 1, "consumed": 16}
    loader.load_state_dict(state)
    look(loader)
    loader.set_epoch(1)
    assert numbers(loader) == epoch_of(path, 1, 16)
    loader.set_epoch(1)
    assert numbers(loader) == epoch_of(path, 1)
    loader.load_state_dict(state)
    numbers(loader)  # by hand
    assert list(loader.epochs(4)) == [2, 3]


def test_torchs_loader_reads_the_epochs_of_the_data_sets_loop(path):
    dataset = SETTING.dataset(path)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, persistent_workers=True
    )
    look(loader)
    for epoch in dataset.epochs(3):
        look(loader)
        assert numbers(loader) == epoch_of(path, epoch)
        assert numbers(loader) == epoch_of(path, epoch)


def test_a_worker_may_go_through_epochs_of_its_own(path):
    dataset = SETTING.dataset(path)
    with in_worker(dataset, 0, 1):
        read = [numbers(dataset) for _ in dataset.epochs(2)]
    assert read == [epoch_of(path, 0), epoch_of(path, 1)]


def test_map_style_transforms_learn_the_epoch_of_the_loop(path):
    dataset = SETTING.dataset(path).with_options(
        return_index=False, pass_position=True, transform=lambda rows, index, epoch: epoch
    )
    records = s3io.RecordMapDataset(dataset)
    assert [records[[0, 1]] for _ in records.epochs(3)] == [0, 1, 2]


@pytest.mark.parametrize("stop", [-1, 1.5, "2", None, 2**60])
def test_what_is_no_number_of_epochs_is_refused_at_once(path, stop):
    with pytest.raises(s3io.ConfigError, match="stop"):
        SETTING.dataset(path).epochs(stop)


# ---- The old loop.


def test_a_loop_that_a_look_makes_drift_is_warned_of_once(path):
    loader = s3io.DataLoader(SETTING.dataset(path))
    look(loader)
    first = loader.epoch
    with pytest.warns(RuntimeWarning, match=r"reads epoch 1, .* said 0.*loader\.epochs\(n\)"):
        look(loader)
    assert first == 0
    assert loader.epoch == 1
    numbers(loader)


@pytest.mark.filterwarnings("error")
def test_nobody_is_warned_whose_loop_does_not_drift(path):
    def look_and_ask(loader: Any) -> None:
        look(loader)
        assert loader.epoch >= 0

    loader = s3io.DataLoader(SETTING.dataset(path))
    for epoch in range(loader.epoch, 2):  # whole epochs
        numbers(loader)
        assert loader.epoch == epoch
    look_and_ask(loader)
    loader.set_epoch(5)
    numbers(loader)
    look_and_ask(loader)
    loader.load_state_dict(loader.state_dict())
    numbers(loader)
    for _ in loader.epochs(8):
        look_and_ask(loader)
        numbers(loader)
    for batch in loader:  # asked within the loop, which is broken off
        assert loader.epoch == 8
        del batch
        break
    numbers(loader)


# ---- A look that changes nothing.


def noisy(rows: Any, index: Any, epoch: int) -> Any:
    torch.rand(1), np.random.random(), random.random()
    return rows, index, epoch


@pytest.mark.parametrize("workers", [0, 2])
def test_a_peek_is_the_next_passes_first_batch_and_changes_nothing(path, workers):
    dataset = SETTING.dataset(path).with_options(
        return_index=False, pass_position=True, transform=noisy
    )
    loader = s3io.DataLoader(dataset, num_workers=workers)
    for number in range(3):
        before = loader.state_dict(), loader.stats()["batches"]
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        files, running = open_files(), threads()
        rows, index, epoch = loader.peek()
        assert (open_files(), threads()) == (files, running)
        assert torch.equal(torch.get_rng_state(), states[0])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
        assert (loader.state_dict(), loader.stats()["batches"]) == before
        assert (index.tolist(), epoch) == (epoch_of(path, number)[0], number)
        assert rows[:, 0].tolist() == index.tolist()
        assert [index.tolist() for _, index, _ in loader] == epoch_of(path, number)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_peek_within_a_pass_takes_nothing_from_it(path, workers):
    loader = s3io.DataLoader(SETTING.dataset(path), num_workers=workers)
    batches = iter(loader)
    head = numbers([next(batches)])
    state = loader.state_dict()
    assert numbers([loader.peek()]) == epoch_of(path, 1)[:1]
    assert loader.state_dict() == state
    assert head + numbers(batches) == epoch_of(path, 0)
    assert numbers(loader) == epoch_of(path, 1)


def test_a_peek_sees_the_place_that_was_loaded_and_views_zips_and_samples(path):
    dataset = SETTING.dataset(path)
    dataset.load_state_dict({**dataset.state_dict(), "epoch": 2, "consumed": 16})
    assert numbers([dataset.peek()]) == epoch_of(path, 2, 16)[:1]
    for make in (
        lambda: SETTING.dataset(path).subset(3, 40),
        lambda: SETTING.dataset(path).with_options(batch_size=None),
        lambda: s3io.Mix([SETTING.dataset(path), SETTING.dataset(path)]),
        lambda: s3io.Zip(a=SETTING.dataset(path), b=SETTING.dataset(path)),
        lambda: s3io.RecordDataset.from_tokens(path, window=4, stride=3, dtype="i8", batch_size=5),
    ):
        peeked, first = make().peek(), next(iter(make()))
        assert same(peeked, first)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one.dtype == other.dtype and torch.equal(one, other)


def test_there_is_no_peek_where_there_is_no_batch(path):
    dataset = SETTING.dataset(path).subset(0, 3).with_options(drop_last=True)
    with pytest.raises(s3io.ConfigError, match=r"peek\(\).*makes no batch"):
        dataset.peek()
    with pytest.raises(s3io.ConfigError, match=r"peek\(\) needs a data set of torch_s3io"):
        s3io.DataLoader([1, 2]).peek()
