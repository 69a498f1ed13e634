"""The map-style data set: records by their numbers, for samplers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from order_check import Setting, numbers, write_numbers
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import torch_s3io as s3io

RECORDS = 90
SETTING = Setting(records=RECORDS, batch=4, seed=3)
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", RECORDS)


def test_records_by_number_one_or_many(path):
    records = s3io.RecordMapDataset(SETTING.dataset(path).with_options(return_index=False))
    assert len(records) == RECORDS
    assert records[7].tolist() == [7, 7]
    assert records[torch.tensor(8)].tolist() == [8, 8]
    assert records[np.int64(9)].tolist() == [9, 9]
    assert records[[7, 3]].tolist() == [[7, 7], [3, 3]]
    assert [one.tolist() for one in records.__getitems__([1, 2])] == [[1, 1], [2, 2]]
    for index in (RECORDS, -RECORDS - 1, [0, RECORDS], [True] * 3):
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


def epoch_of(rows: Any, index: Any, epoch: int) -> Any:
    return torch.tensor([epoch])


@pytest.mark.parametrize(("context", "batch_size"), [("fork", None), ("fork", 45), ("spawn", None)])
def test_an_epoch_that_is_set_reaches_workers_that_are_alive(path, context, batch_size):
    dataset = SETTING.dataset(path).with_options(
        transform=epoch_of, pass_position=True, return_index=False
    )
    records = s3io.RecordMapDataset(dataset)
    sampler = BatchSampler(range(RECORDS), batch_size=45, drop_last=False)
    loader = DataLoader(
        records,
        batch_size=batch_size,
        sampler=sampler if batch_size is None else None,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context=context,
    )
    for epoch in (0, 1, 7, 3):
        dataset.set_epoch(epoch)
        assert set(torch.cat([batch.flatten() for batch in loader]).tolist()) == {epoch}


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
    with pytest.raises(s3io.ConfigError, match="needs a RecordDataset or"):
        s3io.RecordMapDataset([1])
