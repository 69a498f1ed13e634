"""The state of a loader counts what the loop received: from workers, prefetchers, other loaders."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import order_check
import pytest
import torch
from order_check import Setting, Wrapped, in_worker, numbers, order_of_epoch, write_numbers
from support import QUICK_CONTEXTS
from torch.utils.data import DataLoader

import torch_s3io as s3io

SETTING = Setting(records=45, batch=4, seed=3, shuffle=True, others={"pool": "auto"})
STEPS = 12
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning", "ignore:This DataLoader will create"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", SETTING.records)


def batches_of(path: Path, epoch: int, start: int = 0) -> list[list[int]]:
    return order_check.batches_of(path, SETTING, epoch, start)


def make_loader(path: Path, num_workers: int, context: str = "fork", **options: Any) -> Any:
    if num_workers:
        options["multiprocessing_context"] = context
    return s3io.DataLoader(SETTING.dataset(path), num_workers=num_workers, **options)


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_every_step_is_a_place_to_go_on_from(path, num_workers):
    loader = make_loader(path, num_workers)
    states = [loader.state_dict()]
    received = []
    for _, index in loader:
        received.append(index.tolist())
        states.append(json.loads(json.dumps(loader.state_dict())))
    assert received == batches_of(path, 0)
    for step, state in enumerate(states):
        assert state["consumed"] == min(4 * step, 45)
        resumed = make_loader(path, 0)
        resumed.load_state_dict(state)
        assert resumed.state_dict()["consumed"] % 45 == state["consumed"] % 45
        if step < STEPS:
            assert numbers(resumed) == received[step:]
        assert numbers(resumed) == batches_of(path, 1)


@pytest.mark.parametrize("context", QUICK_CONTEXTS)
def test_a_loader_goes_on_under_other_workers_and_batches_epoch_after_epoch(path, context):
    first = make_loader(path, 2, context)
    numbers(first)
    head = numbers(itertools.islice(iter(first), 5))
    assert head == batches_of(path, 1)[:5]
    state = first.state_dict()
    assert (state["epoch"], state["consumed"]) == (1, 20)
    del first

    other = replace(SETTING, batch=7)
    second = s3io.DataLoader(
        other.dataset(path), num_workers=3, persistent_workers=True, multiprocessing_context=context
    )
    second.load_state_dict(state)
    assert second.state_dict() == state
    assert second.epoch == 1
    middle = numbers(itertools.islice(iter(second), 2))
    assert middle == order_check.batches_of(path, other, 1, 20)[:2]
    state = second.state_dict()
    assert state["consumed"] == 34

    third = make_loader(path, 1, context)
    third.load_state_dict(state)
    assert numbers(third) == batches_of(path, 1, 34)
    assert third.state_dict()["consumed"] == 45
    assert numbers(third) == batches_of(path, 2)
    # The second loader's workers are alive, and are sent back.
    second.load_state_dict(state)
    assert numbers(second) == order_check.batches_of(path, other, 1, 34)
    assert numbers(second) == order_check.batches_of(path, other, 2)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_state_after_a_break_is_where_the_loop_broke_off(path, num_workers):
    loader = make_loader(path, num_workers)
    for number, _ in enumerate(loader):
        if number == 2:
            break
    state = loader.state_dict()
    assert (state["epoch"], state["consumed"]) == (0, 12)
    assert numbers(loader) == batches_of(path, 1)  # without loading: the next epoch
    loader.load_state_dict(state)
    assert numbers(loader) == batches_of(path, 0)[3:]


@pytest.mark.parametrize("prefetches", [False, True])
@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_loops_of_other_loaders_do_not_move_the_state(path, num_workers, others, prefetches):
    dataset = SETTING.dataset(path)
    loader: Any = s3io.DataLoader(dataset, num_workers=num_workers)
    other = s3io.DataLoader(dataset, num_workers=others)
    if prefetches:
        loader = s3io.DevicePrefetcher(loader, "cpu", depth=100)
        loader._device = torch.device("cuda")
        loader._make_copier = TakeAhead
    batches = iter(loader)
    received = [next(batches)[1].tolist() for _ in range(2)]
    state = loader.state_dict()
    assert (state["epoch"], state["consumed"]) == (0, 8)

    assert other.epoch == 1  # that it would read
    assert (other.state_dict()["epoch"], other.state_dict()["consumed"]) == (1, 0)
    assert numbers(other) == batches_of(path, 1)
    assert (other.state_dict()["epoch"], other.state_dict()["consumed"]) == (1, 45)
    assert loader.state_dict() == state
    received.append(next(batches)[1].tolist())
    assert received == batches_of(path, 0)[:3]
    state = loader.state_dict()
    assert (state["epoch"], state["consumed"]) == (0, 12)
    assert numbers(batches) == batches_of(path, 0)[3:]
    other.load_state_dict(state)
    assert loader.state_dict() == state  # where the data set was sent
    assert numbers(other) == batches_of(path, 0)[3:]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_progress_of_a_resumed_epoch_begins_where_it_was_left(
    path, num_workers, capsys, monkeypatch
):
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # else its own thread stays
    loader = make_loader(path, num_workers, progress=True)
    numbers(itertools.islice(iter(loader), 5))
    loader.load_state_dict(loader.state_dict())
    capsys.readouterr()
    numbers(loader)
    shown = capsys.readouterr().err
    assert "5/12" in shown
    assert "12/12" in shown


def test_an_interrupt_while_a_bar_is_drawn_loses_no_batch(path, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)

    def update(bar, count=1):
        if bar.n == 2:
            raise KeyboardInterrupt
        bar.n += count

    monkeypatch.setattr(tqdm.tqdm, "update", update)
    loader = make_loader(path, 1, progress=True)
    batches = iter(loader)
    received = [next(batches), next(batches)]
    with pytest.raises(KeyboardInterrupt):
        next(batches)
    state = loader.state_dict()
    monkeypatch.undo()
    resumed = make_loader(path, 1)
    resumed.load_state_dict(state)
    assert numbers(received) + numbers(resumed) == batches_of(path, 0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_pass_that_could_not_begin_can_be_begun_again(path, num_workers, monkeypatch):
    loader = make_loader(path, num_workers)
    planned = type(loader.dataset)
    compare = planned._compare_ranks
    fails = [True]

    def refuse_once(dataset, position):
        if fails.pop() if fails else False:
            raise s3io.ReadTimeoutError("rank 1 has not begun")
        compare(dataset, position)

    monkeypatch.setattr(planned, "_compare_ranks", refuse_once)
    batches = iter(loader)
    with pytest.raises(s3io.ReadTimeoutError, match="rank 1"):
        next(batches)
    if num_workers == 0:  # torch's iterator is over
        batches = iter(loader)
    assert numbers(batches) == batches_of(path, 0)


@pytest.mark.parametrize("kind", ["records", "mix", "zip"])
@pytest.mark.parametrize("loader", ["none", "torch's", "ours"])
def test_a_resumed_epoch_declares_what_it_pads_and_drops(path, loader, kind):
    def make(records: int, **ending: bool) -> Any:
        setting = replace(SETTING, records=records, batch=2, world=3, **ending)
        dataset = setting.dataset(path).subset(0, records)
        if kind == "mix":
            return s3io.Mix([dataset])
        return s3io.Zip(one=dataset, other=dataset) if kind == "zip" else dataset

    def declared(dataset: Any) -> tuple[int, int]:
        stats = dataset.stats()
        result = dataset.dropped_records, dataset.padded_records
        assert result == (stats["dropped_records"], stats["padded_records"])
        return result

    for ending, consumed, resumed, whole in (
        ({}, 10, (0, 2), (0, 0)),
        ({"drop_last": True}, 2, (3, 0), (5, 0)),
    ):
        dataset = make(11, **ending)
        assert declared(dataset) == whole
        dataset.load_state_dict({**dataset.state_dict(), "consumed": consumed})
        assert declared(dataset) == resumed
        with in_worker(dataset, 1, 2):
            assert declared(dataset) == resumed
        source = dataset
        if loader != "none":
            kind_of_loader = s3io.DataLoader if loader == "ours" else DataLoader
            source = kind_of_loader(dataset, batch_size=None, num_workers=2)
        for _ in source:
            assert declared(dataset) == resumed
        assert declared(dataset) == resumed
        dataset.set_epoch(1)
        assert declared(dataset) == whole
        assert len(dataset) == (1 if ending else 2)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_count_one_by_one(path, num_workers):
    dataset = SETTING.dataset(path).with_options(batch_size=None)
    loader = s3io.DataLoader(dataset, num_workers=num_workers)
    order = order_of_epoch(path, SETTING, 0)
    for step, (_, index) in enumerate(loader):
        assert int(index) == order[step]
        assert loader.state_dict()["consumed"] == step + 1
        if step == 16:
            break
    state = loader.state_dict()
    loader = s3io.DataLoader(SETTING.dataset(path), num_workers=num_workers)
    loader.load_state_dict(state)
    assert numbers(loader) == batches_of(path, 0, 17)


class TakeAhead:
    """A copier that takes batches ahead of the loop, as the one for CUDA does."""

    def start_next(self, batches: Any, under_way: Any) -> bool:
        batch = next(batches, None)
        if batch is not None:
            under_way.append(batch)
        return batch is not None

    def hand_out(self, batch: Any) -> Any:
        return batch

    def close(self) -> None:
        pass


@pytest.mark.parametrize("source", ["data set", "loader", "loader with workers"])
@pytest.mark.parametrize("depth", [1, 4, 100])
def test_what_a_prefetcher_took_ahead_does_not_count(path, source, depth):
    def make() -> s3io.DevicePrefetcher:
        if source == "data set":
            loader: Any = SETTING.dataset(path)
        else:
            loader = make_loader(path, 0 if source == "loader" else 2)
        prefetcher = s3io.DevicePrefetcher(loader, "cpu", depth=depth)
        prefetcher._device = torch.device("cuda")
        prefetcher._make_copier = TakeAhead
        return prefetcher

    prefetcher = make()
    states = []
    for number, (_, index) in enumerate(prefetcher):
        assert index.tolist() == batches_of(path, 0)[number]
        states.append(prefetcher.state_dict())
        assert states[-1]["consumed"] == min(4 * (number + 1), 45)
    for number, state in list(enumerate(states))[:-1:5]:
        resumed = make()
        resumed.load_state_dict(state)
        assert numbers(resumed) == batches_of(path, 0)[number + 1 :]
        assert numbers(resumed) == batches_of(path, 1)


def test_an_error_ahead_of_the_loop_leaves_the_state_before_it(path):
    dataset = SETTING.dataset(path).with_options(transform=fail_at_seven)
    loader: Any = s3io.DevicePrefetcher(dataset, "cpu", depth=100)
    loader._device = torch.device("cuda")
    loader._make_copier = TakeAhead
    received = []

    def receive_all() -> None:
        for _, index in loader:
            received.append(index.tolist())
            assert loader.state_dict()["consumed"] == 4 * len(received)

    with pytest.raises(RuntimeError, match="record 7"):
        receive_all()
    assert received == batches_of(path, 0)[: len(received)]
    assert received
    assert loader.state_dict()["consumed"] == 4 * len(received)


def fail_at_seven(rows: Any) -> Any:
    if 7 in rows[:, 0].tolist():
        raise RuntimeError("record 7")
    return rows


def test_a_prefetcher_around_something_else_has_no_state():
    with pytest.raises(s3io.ConfigError, match="in the DevicePrefetcher, not list"):
        s3io.DevicePrefetcher([], "cpu").state_dict()


def test_once_workers_read_the_data_set_the_state_is_the_loaders(path):
    for make in (s3io.DataLoader, DataLoader):
        dataset = SETTING.dataset(path)
        dataset.state_dict()
        batches = iter(make(dataset, batch_size=None, num_workers=2))
        next(batches)
        with pytest.raises(s3io.ConfigError, match=r"the loader's state_dict\(\)"):
            dataset.state_dict()
        del batches
        dataset.set_epoch(1)
        assert dataset.state_dict()["epoch"] == 1
        next(iter(dataset))
        assert dataset.state_dict()["consumed"] == 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_says_where_its_data_set_was_sent(path, num_workers):
    loader = make_loader(path, num_workers)
    numbers(itertools.islice(iter(loader), 3))
    state = loader.state_dict()
    loader.dataset.set_epoch(5)
    assert (loader.state_dict()["epoch"], loader.state_dict()["consumed"]) == (5, 0)
    loader.dataset.load_state_dict(state)
    assert loader.state_dict() == state
    assert numbers(loader) == batches_of(path, 0)[3:]


def test_a_loader_without_an_order_has_no_state(path):
    if "in_order" in DataLoader.__init__.__code__.co_varnames:
        loader = make_loader(path, 2, in_order=False)
        with pytest.raises(s3io.ConfigError, match="in_order=True"):
            loader.state_dict()
    loader = s3io.DataLoader(Wrapped(SETTING.dataset(path)), num_workers=2)
    for call in (loader.state_dict, lambda: loader.load_state_dict({}), lambda: loader.epoch):
        with pytest.raises(s3io.ConfigError, match="not Wrapped"):
            call()


def fail_at_batch(batch: Any) -> Any:
    return fail_at_seven(batch[0]), batch[1]


def test_a_worker_that_fails_leaves_the_state_before_it(path):
    loader = make_loader(path, 1, collate_fn=fail_at_batch)
    received: list[list[int]] = []
    batches = iter(loader)

    def receive_all() -> None:
        for _, index in batches:
            received.append(index.tolist())

    with pytest.raises(RuntimeError, match="record 7"):
        receive_all()
    assert loader.state_dict()["consumed"] == 4 * len(received)
    assert received == batches_of(path, 0)[: len(received)]
    next(batches)
    with pytest.raises(s3io.DataError, match="lost a batch"):
        loader.state_dict()
