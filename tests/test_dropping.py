"""What is dropped goes at once: for the garbage collector nothing is left.

A loader in a cycle is found late, and then torch waits for its workers, five seconds each.
"""

from __future__ import annotations

import gc
import itertools
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.utils.data
from support import write_file

import torch_s3io as s3io


@pytest.fixture
def make(disk: Path) -> Callable[[], s3io.RecordDataset]:
    path = disk / "records.bin"
    write_file(path, bytes(64 * 4096))
    return lambda: s3io.RecordDataset(path, dtype=np.uint8, shape=4096, batch_size=4, shuffle=True)


@pytest.fixture(autouse=True)
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Copier:
    """As the one to a GPU, without one."""

    def start_next(self, batches: Iterator[Any], under_way: deque[Any]) -> bool:
        found = list(islice(batches, 1))
        under_way.extend(found)
        return bool(found)

    def hand_out(self, batch: Any) -> Any:
        return batch

    def close(self) -> None:
        pass


def to_device(loader: s3io.DataLoader) -> s3io.DevicePrefetcher:
    prefetcher = s3io.DevicePrefetcher(loader, "cpu")
    prefetcher._device = torch.device("cuda")
    prefetcher._make_copier = Copier
    return prefetcher


DATA_SETS = {
    "records": lambda make: make(),
    "a part": lambda make: make().split([0.5, 0.5], seed=1)[0],
    "mix": lambda make: s3io.Mix([make(), make()], weights=[1, 2]),
    "zip": lambda make: s3io.Zip(a=make(), b=make()),
}
LOADERS = {
    "ours": lambda dataset, workers: s3io.DataLoader(dataset, num_workers=workers),
    "torch's": lambda dataset, workers: torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0
    ),
    "ours, ahead": lambda dataset, workers: s3io.DevicePrefetcher(
        s3io.DataLoader(dataset, num_workers=workers), "cpu"
    ),
    "ours, to a device": lambda dataset, workers: to_device(
        s3io.DataLoader(dataset, num_workers=workers)
    ),
}


def gone_at_once(objects: list[Any]) -> list[bool]:
    """Empties the list, and says which of them are no more."""
    left = [weakref.ref(one) for one in objects]
    start = time.perf_counter()
    objects.clear()
    assert time.perf_counter() - start < 4.0, "workers were waited for"
    return [reference() is None for reference in left]


def cases() -> Iterator[tuple[str, str, int, int | None]]:
    """Each loader in each way, in turn with one of the data sets; each of them with each loader."""
    ways = list(itertools.product((0, 1), (None, 3)))
    for (first, wrapped), (second, way) in itertools.product(enumerate(LOADERS), enumerate(ways)):
        yield list(DATA_SETS)[(first + second) % len(DATA_SETS)], wrapped, *way


@pytest.mark.parametrize(("kind", "wrapped", "workers", "batches"), list(cases()))
def test_a_loader_goes_with_its_last_reference(make, kind, wrapped, workers, batches):
    """Two epochs, whole or broken off after so many batches."""
    dataset = DATA_SETS[kind](make)
    loader = LOADERS[wrapped](dataset, workers)
    for _ in range(2):
        for batch in islice(loader, batches):
            del batch
    objects = [dataset, loader]
    del dataset, loader
    assert all(gone_at_once(objects))


def test_a_loader_goes_though_a_state_was_taken_and_loaded(make):
    first, second = (s3io.DevicePrefetcher(s3io.DataLoader(make()), "cpu") for _ in range(2))
    next(iter(first))
    second.load_state_dict(first.state_dict())
    assert len(list(second)) == 15
    objects = [first, second]
    del first, second
    assert all(gone_at_once(objects))


def test_a_loader_goes_after_an_error_of_the_loop(make):
    loader = s3io.DataLoader(make(), num_workers=1)

    def step(batches: Any) -> None:
        for batch in batches:
            raise ArithmeticError(f"in a step with {len(batch)} records")

    with pytest.raises(ArithmeticError):
        step(loader)
    objects = [loader]
    del loader
    assert all(gone_at_once(objects))


def test_what_reads_by_number_goes(make, disk):
    records = s3io.RecordMapDataset(make())
    assert len(records[3]) == 4096
    store = s3io.FileStore(s3io.FileSystemConfig.direct_io())
    assert len(store.get(disk / "records.bin")) == 64 * 4096
    objects = [records, store]
    del records, store
    assert all(gone_at_once(objects))
