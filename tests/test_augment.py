"""A record's own random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from order_check import Setting, in_worker, write_numbers

import torch_s3io as s3io

RECORDS = 90
SHUFFLED = Setting(records=RECORDS, batch=4, seed=3, shuffle=True)
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_numbers(tmp_path / "numbers.bin", RECORDS)


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
