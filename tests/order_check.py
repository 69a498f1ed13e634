"""The one check of order, shards and resume: what every rank must get, from the rules alone.

``steps_of`` is the oracle: it cuts an epoch's order into steps and shares, in a few lines of plain
Python. ``check_epoch`` and ``check_resumed`` compare data sets with it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, _utils

import torch_s3io as s3io

Steps = list[list[list[int]]]  # of each step, of each rank: the records of its batch

RECORD_BYTES = 16


def write_numbers(path: Path, records: int) -> Path:
    """A file whose record i holds the number i, twice."""
    np.repeat(np.arange(records, dtype=np.int64), 2).tofile(path)
    return path


def write_number_samples(folder: Path, samples: int) -> Path:
    """Samples in several shards, of which number i holds i, and i bytes of the value i % 256."""
    fields = {"number": np.int64, "bytes": bytes}
    with s3io.SampleWriter(folder, fields=fields, shard_bytes=5000) as writer:
        for number in range(samples):
            writer.write({"number": number, "bytes": bytes([number % 256]) * number})
    return folder


def order_options(shuffle: Any) -> dict[str, Any]:
    """ "windows": blocks of two records, mixed by threes."""
    if shuffle == "windows":
        return {"shuffle": "block", "block_records": 2, "window_blocks": 3}
    return {"shuffle": shuffle}


@dataclass(frozen=True)
class Setting:
    """How an epoch is read."""

    records: int
    batch: int = 1
    world: int = 1
    workers: int = 0  # simulated: see `in_worker`
    seed: int = 0
    shuffle: Any = False  # or "windows": see `order_options`
    drop_last: bool = False
    pad_last: bool = False
    others: dict[str, Any] = field(default_factory=dict)

    def dataset(self, path: Path, rank: int = 0) -> s3io.RecordDataset | s3io.SampleDataset:
        """Of ``write_numbers``, or of ``write_number_samples``."""
        options = {"pool": None, "engine": "threads", "direct": "off", **self.others}
        make: Any = partial(s3io.RecordDataset, path, dtype=np.int64, shape=2)
        if path.is_dir():
            make = partial(s3io.SampleDataset, path)
        return make(
            batch_size=self.batch,
            rank=rank,
            world_size=self.world,
            seed=self.seed,
            **order_options(self.shuffle),
            drop_last=self.drop_last,
            pad_last=self.pad_last,
            return_index=True,
            **options,
        )


def steps_of(order: list[int], start: int, setting: Setting) -> Steps:
    """The rules: steps of world * batch positions; the last one split, dropped or padded."""
    batch, world = setting.batch, setting.world
    steps: Steps = []
    while start < len(order):
        rest = order[start : start + world * batch]
        start += len(rest)
        if len(rest) == world * batch:
            sizes = [batch] * world
        elif setting.drop_last:
            break
        elif setting.pad_last:
            sizes = [batch] * world
        else:
            # Larger ones first; at least one record each.
            sizes = [max(1, (len(rest) + world - 1 - rank) // world) for rank in range(world)]
        padding = itertools.islice(itertools.cycle(order), max(0, sum(sizes) - len(rest)))
        records = iter([*rest, *padding])
        steps.append([list(itertools.islice(records, size)) for size in sizes])
    return steps


def batches_of(path: Path, setting: Setting, epoch: int, start: int = 0) -> list[list[int]]:
    """What rank 0 must get of an epoch, from a position on."""
    return [step[0] for step in steps_of(order_of_epoch(path, setting, epoch), start, setting)]


def numbers(batches: Iterable[Any]) -> list[list[int]]:
    """The records of every batch; what was read must be what those numbers stand for."""
    result = []
    for rows, index in batches:
        if isinstance(rows, dict):
            check_number_samples(rows, index)
            result.append(index.tolist())
            continue
        np.testing.assert_array_equal(rows[:, 0].numpy(), index.numpy())
        np.testing.assert_array_equal(rows[:, 1].numpy(), index.numpy())
        result.append(index.tolist())
    return result


def check_number_samples(rows: dict[str, Any], index: Any) -> None:
    assert rows["number"].tolist() == index.tolist()
    assert len(rows["bytes"]) == len(index)
    for number, sample in zip(index.tolist(), rows["bytes"], strict=True):
        assert sample.tolist() == [number % 256] * number


def records_of(dataset: s3io.RecordDataset) -> list[int]:
    """The records of an epoch, one after the other."""
    return [record for batch in numbers(dataset) for record in batch]


def sent_to(dataset: Any, epoch: int) -> Any:
    dataset.set_epoch(epoch)
    return dataset


def order_of_epoch(path: Path, setting: Setting, epoch: int) -> list[int]:
    """The whole order of an epoch, read in one batch: a permutation of the records."""
    alone = replace(setting, batch=setting.records, world=1, drop_last=False, pad_last=False)
    dataset = alone.dataset(path)
    dataset.set_epoch(epoch)
    [order] = numbers(dataset)
    assert sorted(order) == list(range(setting.records))
    return order


class Wrapped(IterableDataset[Any]):
    """Somebody's data set around ours, which passes its state on."""

    def __init__(self, dataset: s3io.RecordDataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Any:
        return iter(self.dataset)

    def state_dict(self) -> dict[str, Any]:
        return self.dataset.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dataset.load_state_dict(state)


@contextlib.contextmanager
def in_worker(dataset: Any, worker: int, workers: int) -> Iterator[None]:
    """As in worker ``worker`` of ``workers``, without a process."""
    assert _utils.worker._worker_info is None
    _utils.worker._worker_info = _utils.worker.WorkerInfo(
        id=worker, num_workers=workers, seed=0, dataset=dataset
    )
    try:
        yield
    finally:
        _utils.worker._worker_info = None


def batches_in_turn(dataset: Any, workers: int) -> Iterator[Any]:
    """What a DataLoader makes of the workers' batches: one of each in turn."""

    def batches_of_worker(worker: int) -> Iterator[Any]:
        with in_worker(dataset, worker, workers):
            batches = iter(dataset)
        while True:
            with in_worker(dataset, worker, workers):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    turns = itertools.zip_longest(*map(batches_of_worker, range(workers)))
    return (batch for turn in turns for batch in turn if batch is not None)


def read_through_workers(dataset: Any, workers: int, read: Any = numbers) -> list[list[int]]:
    """Of a DataLoader that does not count for its workers."""
    return read(batches_in_turn(dataset, workers) if workers else dataset)


class LoaderInTurn(s3io.DataLoader):
    """The loader that counts for its workers, which are simulated."""

    def __init__(self, dataset: Any, workers: int) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create")
            super().__init__(dataset, num_workers=workers)

    def _start(self, epoch: Any) -> Iterator[Any]:
        if self.num_workers == 0:
            return super()._start(epoch)
        return batches_in_turn(self.dataset, self.num_workers)


def check_once(steps: Steps, expected: Counter[int], setting: Setting) -> None:
    """Every record that is due comes once, but for what was declared dropped or padded."""
    got = Counter(record for step in steps for batch in step for record in batch)
    if setting.drop_last:
        assert all(count == 1 for count in got.values())
        assert got.keys() <= expected.keys()
        assert len(expected) - len(got) < setting.world * setting.batch
    else:
        assert got.keys() >= expected.keys()
        extra = got.total() - expected.total()
        assert extra < (setting.world * setting.batch if setting.pad_last else setting.world)
    assert len({len(step) for step in steps}) <= 1  # as many ranks everywhere


def check_declared(dataset: Any, steps: Steps, due: Iterable[int]) -> None:
    """The data set declares what these steps leave out of what is due, and what they add to it."""
    got = Counter(record for step in steps for batch in step for record in batch)
    dropped, padded = (Counter(due) - got).total(), (got - Counter(due)).total()
    stats = dataset.stats()
    assert (dataset.dropped_records, dataset.padded_records) == (dropped, padded)
    assert (stats["dropped_records"], stats["padded_records"]) == (dropped, padded)


def check_epoch(path: Path, setting: Setting, epoch: int) -> None:
    """All ranks together read the order of this epoch as the rules cut it."""
    order = order_of_epoch(path, setting, epoch)
    expected = steps_of(order, 0, setting)
    for rank in range(setting.world):
        dataset = setting.dataset(path, rank)
        dataset.set_epoch(epoch)
        assert len(dataset) == len(expected)
        assert read_through_workers(dataset, setting.workers) == [step[rank] for step in expected]
        check_declared(dataset, expected, order)
    check_once(expected, Counter(order), setting)


def check_resumed(
    path: Path, before: Setting, after: Setting, epoch: int, interrupt_step: int
) -> None:
    """``before`` reads up to and with a step, ``after`` the rest and the next epoch: head and tail
    are every record once, the tail as the rules cut it, and the epoch after it is whole."""
    order = order_of_epoch(path, before, epoch)
    head = steps_of(order, 0, before)[:interrupt_step]
    consumed = min(len(head) * before.world * before.batch, before.records)
    states = []
    for rank in range(before.world):
        source: Any = before.dataset(path, rank)
        if before.workers:
            source = LoaderInTurn(source, before.workers)
        source.set_epoch(epoch)
        batches = iter(source)
        read = numbers(itertools.islice(batches, interrupt_step))
        assert read == [step[rank] for step in head]
        states.append(source.state_dict())
        del batches
    assert all(state == states[0] for state in states), "the ranks' states differ"
    assert (states[0]["epoch"], states[0]["consumed"]) == (epoch, consumed)
    state = json.loads(json.dumps(states[0]))

    tail = steps_of(order, consumed, after)
    next_order = order_of_epoch(path, after, epoch + 1)
    following = steps_of(next_order, 0, after)
    for rank in range(after.world):
        dataset = after.dataset(path, rank)
        dataset.load_state_dict(state)
        if tail or consumed == 0:
            assert dataset.state_dict() == state
            check_declared(dataset, tail, order[consumed:])
            assert numbers(dataset) == [step[rank] for step in tail]
            check_declared(dataset, tail, order[consumed:])
        assert numbers(dataset) == [step[rank] for step in following]
        check_declared(dataset, following, next_order)

        # Through workers, which do not count: the epoch is set, and keeps the place.
        dataset = after.dataset(path, rank)
        dataset.load_state_dict(state)
        dataset.set_epoch(epoch)
        assert read_through_workers(dataset, after.workers) == [step[rank] for step in tail]
        check_declared(dataset, tail, order[consumed:])
        dataset.set_epoch(epoch + 1)
        assert read_through_workers(dataset, after.workers) == [step[rank] for step in following]
    if not before.pad_last and not before.drop_last:
        check_once(tail, Counter(order[consumed:]), after)


def check_read_and_resumed(make: Any, read: Any, steps: int) -> None:
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


def together(by_rank: list[list[list[int]]]) -> list[int]:
    """The records of all ranks, step by step."""
    return [record for step in zip(*by_rank, strict=True) for part in step for record in part]


def check_goes_on_elsewhere(make: Any, read: Any, order: list[int]) -> None:
    """Two ranks with two workers each, interrupted after three steps, and then three ranks with one
    have ``order`` together. ``make(rank, world, num_workers)`` is a loader."""
    ranks = [make(rank, 2, 2) for rank in range(2)]
    head = together([read(itertools.islice(iter(rank), 3)) for rank in ranks])
    state, same = [rank.state_dict() for rank in ranks]
    assert state == same
    others = [make(rank, 3, 1) for rank in range(3)]
    for other in others:
        other.load_state_dict(state)
    assert head + together([read(other) for other in others]) == order


def check_shared_out_and_resumed(make: Any, read: Any) -> None:
    """Ranks ``make(rank, world)``, with workers or without, have together the order of one alone,
    also where other ranks with other workers go on."""
    shares = ((1, 0), (1, 2), (2, 3), (3, 2))  # world, workers
    order = together([read(make(0, 1))])
    for (world, workers), (next_world, next_workers) in itertools.product(shares, shares):
        whole = [read_through_workers(make(rank, world), workers, read) for rank in range(world)]
        check_order(together(whole), order, world)
        ranks = [LoaderInTurn(make(rank, world), workers) for rank in range(world)]
        head = together([read(itertools.islice(iter(rank), 2)) for rank in ranks])
        states = [rank.state_dict() for rank in ranks]
        assert all(state == states[0] for state in states), "the ranks' states differ"
        tails = []
        for rank in range(next_world):
            resumed = make(rank, next_world)
            resumed.load_state_dict(json.loads(json.dumps(states[0])))
            resumed.set_epoch(0)  # workers do not count
            tails.append(read_through_workers(resumed, next_workers, read))
        check_order(head + together(tails), order, next_world)


def check_order(records: list[int], order: list[int], world: int) -> None:
    """The order, and then fewer records than ranks, so that all ranks have equally many batches."""
    assert records[: len(order)] == order
    assert len(records) - len(order) < world
