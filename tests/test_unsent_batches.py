"""Batches that a worker cannot pickle: each is an error in the loop, and none is lost."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from lazily import is_there
from torch.utils.data import DataLoader, IterableDataset

import torch_s3io as s3io
from torch_s3io.torch_internals.unsent_batches import report_unsent

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
COUNT, BATCH = 333, 4
STEPS = -(-COUNT // BATCH)


def torchdata(dataset: Any) -> Any:
    if not is_there("torchdata"):
        pytest.skip("NEEDS TORCHDATA: its loader is not tested with such batches")
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(dataset, batch_size=None, num_workers=2)


LOADERS = {
    "ours": lambda dataset: s3io.DataLoader(dataset, num_workers=2),
    "persistent": lambda dataset: s3io.DataLoader(dataset, num_workers=2, persistent_workers=True),
    "spawn": lambda dataset: s3io.DataLoader(
        dataset, num_workers=1, multiprocessing_context="spawn"
    ),
    "torch's": lambda dataset: DataLoader(dataset, batch_size=None, num_workers=2, timeout=60),
    "torchdata's": torchdata,
}


@pytest.fixture
def folder(disk):
    with s3io.RecordWriter(f"{disk}/records", dtype="i8", shape=1) as writer:
        writer.write(np.arange(COUNT).reshape(-1, 1))
    return f"{disk}/records"


def with_a_generator(batch: Any) -> Any:
    return {"records": batch, "generator": (row for row in batch)}


def at_the_end(batch: Any) -> Any:
    return with_a_generator(batch) if int(batch.max()) == COUNT - 1 else {"records": batch}


def read(loader: Any) -> tuple[list[int], list[Exception]]:
    """All records that come, and all errors."""
    records, errors = [], []
    batches = iter(loader)
    while True:
        try:
            records += next(batches)["records"].flatten().tolist()
        except StopIteration:
            return records, errors
        except Exception as error:
            errors.append(error)
            assert len(errors) <= STEPS


@pytest.mark.parametrize("kind", LOADERS)
def test_the_last_batch_of_an_epoch_is_not_missing_without_a_word(folder, kind):
    loader = LOADERS[kind](s3io.RecordDataset(folder, batch_size=BATCH, transform=at_the_end))
    for _ in range(2):
        records, errors = read(loader)
        assert sorted(records) == list(range((STEPS - 1) * BATCH))
        [error] = errors
        assert isinstance(error, s3io.ConfigError)
        assert "cannot pickle 'generator' object" in str(error)
        assert "transform=" in str(error)


@pytest.mark.parametrize("kind", ["ours", "torch's", "torchdata's"])
def test_where_none_can_be_pickled_each_is_an_error_and_no_buffer_is_lost(folder, kind):
    """There are more of them than a worker has buffers."""
    dataset = s3io.RecordDataset(
        folder,
        batch_size=BATCH,
        transform=with_a_generator,
        pool=s3io.BufferPoolConfig(capacity=4, buffer_size=4096),
    )
    loader = LOADERS[kind](dataset)
    for _ in range(2):
        records, errors = read(loader)
        assert (records, len(errors)) == ([], STEPS)


def test_a_batch_of_a_map_style_data_set_is_an_error_as_well(folder):
    records = s3io.RecordDataset(folder, batch_size=BATCH, transform=with_a_generator)
    dataset = s3io.RecordMapDataset(records)
    loader = DataLoader(dataset, batch_size=BATCH, num_workers=2, timeout=60, collate_fn=list)
    with pytest.raises(s3io.ConfigError, match="cannot pickle 'generator' object"):
        next(iter(loader))


class Foreign(IterableDataset[Any]):
    """Begins to read a data set of ours after its workers have sent something."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        yield "something"
        yield from self.dataset


def test_a_data_set_that_is_read_late_loses_nothing_that_can_be_sent(folder):
    dataset = s3io.RecordDataset(folder, batch_size=BATCH)
    loader = DataLoader(Foreign(dataset), batch_size=None, num_workers=2, timeout=60)
    batches = list(loader)
    records = [one.flatten().tolist() for one in batches if not isinstance(one, str)]
    assert sorted(itertools.chain(*records)) == list(range(COUNT))
    assert len(batches) == len(records) + 2


def test_elsewhere_than_in_a_worker_nothing_is_changed():
    assert multiprocessing.parent_process() is None
    report_unsent(pytest.fail, pytest.fail)
