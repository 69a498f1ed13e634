"""torchdata's StatefulDataLoader asks our data sets for their state in every worker."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import order_check
import pytest
import torch
from order_check import Setting, Wrapped, in_worker, numbers, write_numbers
from support import QUICK_CONTEXTS
from torch.utils.data import default_collate

import torch_s3io as s3io
from torch_s3io.processes import handover

stateful_dataloader = pytest.importorskip(
    "torchdata.stateful_dataloader", reason="NEEDS TORCHDATA: its loader is not tested"
)

SETTING = Setting(records=45, batch=4, seed=3, shuffle=True, others={"pool": "auto"})
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning", "ignore:This DataLoader will create"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", SETTING.records)


def batches_of(path: Path, epoch: int) -> list[list[int]]:
    return order_check.batches_of(path, SETTING, epoch)


def make_loader(
    path: Path, num_workers: int, context: str = "fork", dataset: Any = None, **options: Any
) -> Any:
    if num_workers:
        options["multiprocessing_context"] = context
    return stateful_dataloader.StatefulDataLoader(
        dataset or SETTING.dataset(path), batch_size=None, num_workers=num_workers, **options
    )


def records(path: Path) -> s3io.RecordDataset:
    return SETTING.dataset(path)


def wrapped(path: Path) -> Wrapped:
    return Wrapped(SETTING.dataset(path))


def mix(path: Path) -> s3io.Mix:
    """Of the numbers below 45, and twice as many from 45 on."""
    more = path.with_name("more.bin")
    if not more.exists():
        np.repeat(np.arange(45, 75, dtype=np.int64), 2).tofile(more)
    return s3io.Mix([SETTING.dataset(path), SETTING.dataset(more)], weights=[1, 2], num_records=45)


def zipped(path: Path) -> s3io.Zip:
    return s3io.Zip(one=SETTING.dataset(path), other=SETTING.dataset(path), return_index=True)


def read(batches: Any) -> list[list[int]]:
    """The records of every batch, also of a Zip's, which are then the same in both parts."""
    result = []
    for rows, index in batches:
        parts = rows.values() if isinstance(rows, dict) else [rows]
        [same] = {tuple(numbers([(part, index)])[0]) for part in parts}
        result.append(list(same))
    return result


@pytest.mark.parametrize("make_dataset", [records, wrapped, mix, zipped])
@pytest.mark.parametrize("num_workers", [0, 2, 3])
def test_a_loader_goes_on_at_every_step(path, num_workers, make_dataset):
    def make() -> Any:
        return make_loader(path, num_workers, dataset=make_dataset(path))

    uninterrupted = read(make_dataset(path))
    if make_dataset is not mix:
        assert uninterrupted == batches_of(path, 0)
    loader = make()
    head, states = [], []
    for batch in loader:
        head += read([batch])
        states.append(json.loads(json.dumps(loader.state_dict())))
    assert head == uninterrupted
    # Each step with two of the four. The end of an epoch begins the next one.
    first = (records, wrapped, mix, zipped).index(make_dataset) % 2
    for step, state in list(enumerate(states[:-1]))[first::2]:
        resumed = make()
        resumed.load_state_dict(state)
        assert head[: step + 1] + read(resumed) == uninterrupted


@pytest.mark.parametrize("context", QUICK_CONTEXTS)
def test_a_loader_goes_on_in_a_later_epoch(path, context):
    loader = make_loader(path, 2, context)
    loader.dataset.set_epoch(3)
    head = numbers(itertools.islice(iter(loader), 5))
    state = loader.state_dict()
    resumed = make_loader(path, 2, context, persistent_workers=True)
    resumed.load_state_dict(state)
    assert head + numbers(resumed) == batches_of(path, 3)
    resumed.dataset.set_epoch(4)
    assert numbers(resumed) == batches_of(path, 4)


WORKERS = ((0, False), (1, True), (2, False), (2, True), (3, False))
SIZES = (3, 44, 45)  # 1, 11 and 12 steps


# Both ways with each number of workers, and with each size.
@pytest.mark.parametrize(
    ("workers", "records", "in_the_loop"),
    [(*pair, number % 2 == 0) for number, pair in enumerate(itertools.product(WORKERS, SIZES))],
)
def test_a_state_from_the_end_of_an_epoch_begins_the_next_one(path, records, workers, in_the_loop):
    num_workers, persistent = workers
    others = {"persistent_workers": persistent} if num_workers else {}

    def make() -> Any:
        return make_loader(
            path, num_workers, dataset=SETTING.dataset(path).subset(0, records), **others
        )

    dataset = SETTING.dataset(path).subset(0, records)
    epochs = [numbers(dataset) for _ in range(2)]
    loader = make()
    for _ in loader:
        state = loader.state_dict()
    if not in_the_loop:
        state = loader.state_dict()
    state = json.loads(json.dumps(state))

    resumed = make()
    resumed.load_state_dict(state)
    assert numbers(resumed) == epochs[1]
    if in_the_loop:
        asked_for_it = make()
        asked_for_it.dataset.set_epoch(0)
        asked_for_it.load_state_dict(state)
        assert numbers(asked_for_it) == []
        asked_for_it.dataset.set_epoch(1)
        assert numbers(asked_for_it) == epochs[1]

    # And from any step of the epoch that it begins.
    for step in (1, len(epochs[1]) // 2):
        if not 0 < step < len(epochs[1]):
            continue
        first = make()
        first.load_state_dict(state)
        head = numbers(itertools.islice(iter(first), step))
        second = make()
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert head + numbers(second) == epochs[1]


def test_a_loader_that_would_stack_batches_is_told_how_not_to(path):
    dataset = SETTING.dataset(path)
    text = "give batch_size=None to the DataLoader"
    with pytest.raises(s3io.ConfigError, match=text):
        next(iter(stateful_dataloader.StatefulDataLoader(dataset)))
    with in_worker(dataset, 0, 2):  # where it asks for the state before it takes a batch
        torch.utils.data._utils.fetch._IterableDatasetFetcher(dataset, True, default_collate, False)
        with pytest.raises(s3io.ConfigError, match=text):
            dataset.state_dict()


def test_a_state_goes_to_the_kind_of_loader_that_saved_it(path):
    theirs = make_loader(path, 2)
    next(iter(theirs))
    one = theirs.state_dict()["_snapshot"]["_worker_snapshots"]["worker_0"]["dataset_state"]
    with pytest.raises(s3io.ConfigError, match="the state of one worker"):
        s3io.DataLoader(SETTING.dataset(path), num_workers=2).load_state_dict(one)
    dataset = SETTING.dataset(path)
    whole = dataset.state_dict()
    with in_worker(dataset, 0, 3):
        with pytest.raises(s3io.ConfigError, match=r"worker 0 of 3 was given .* worker 0 of 2"):
            dataset.load_state_dict(one)
        with pytest.raises(s3io.ConfigError, match="the state of a whole data set"):
            dataset.load_state_dict(whole)
        with pytest.raises(s3io.DataError, match="damaged state: 'worker'"):
            dataset.load_state_dict({**one, "worker": "0"})
        with pytest.raises(s3io.DataError, match="damaged state: 'num_workers'"):
            dataset.load_state_dict({**one, "num_workers": 10**5000})
        with pytest.raises(s3io.ConfigError, match="has not begun to read"):
            dataset.state_dict()


class Stale:
    def __reduce__(self) -> Any:
        return handover._receive, (b"stale",)


class Lossy(torch.utils.data.IterableDataset[Any]):
    """Passes the second batch on as a handle to nothing."""

    def __iter__(self) -> Iterator[Any]:
        for number in range(4):
            yield {"x": [Stale() if number == 1 else torch.tensor(number)]}


def test_a_lost_batch_is_an_error_at_next_and_the_loader_goes_on():
    batches = iter(stateful_dataloader.StatefulDataLoader(Lossy(), batch_size=None, num_workers=1))
    assert int(next(batches)["x"][0]) == 0
    with pytest.raises(s3io.DataError, match="not for this process"):
        next(batches)
    assert [int(batch["x"][0]) for batch in batches] == [2, 3]
