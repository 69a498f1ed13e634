"""A record's own random numbers."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
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


def test_the_snippet_of_the_readme_gives_a_record_the_same_noise_in_any_batch(tmp_path):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    [snippet] = re.findall(r"^def augment\(.*\n(?:    .*\n)+", readme, re.MULTILINE)
    names: dict[str, Any] = {"s3io": s3io, "torch": torch}
    exec(snippet, names)
    np.arange(2 * RECORDS, dtype=np.float32).tofile(tmp_path / "floats.bin")

    def dataset(batch_size: int, rank: int, world_size: int) -> Any:
        return s3io.RecordDataset(
            tmp_path / "floats.bin",
            dtype=np.float32,
            shape=2,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            shuffle=True,
            transform=names["augment"],
            pass_position=True,
            return_index=True,
        )

    def by_record(batches: Any) -> dict[int, list[float]]:
        return {
            number: record.tolist()
            for batch, index in batches
            for record, number in zip(batch, index.tolist(), strict=True)
        }

    whole = by_record(dataset(4, 0, 1))
    noise = {value - round(value) for record in whole.values() for value in record}
    assert len(noise) > RECORDS
    first = dataset(4, 0, 1)
    read = by_record(itertools.islice(first, 7))
    for rank in range(2):
        resumed = dataset(5, rank, 2)
        resumed.load_state_dict(first.state_dict())
        read |= by_record(resumed)
    assert read == whole


def test_generators_are_the_same_everywhere_and_bad_arguments_are_refused():
    first = torch.rand(2, generator=s3io.record_generator(7, 3, 2**40)).tolist()
    assert first == torch.rand(2, generator=s3io.record_generator(7, 3, 2**40)).tolist()
    assert first != torch.rand(2, generator=s3io.record_generator(7, 3, 2**40 + 1)).tolist()
    for arguments in [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1.5), (True, 0, 0), (2**64, 0, 0)]:
        with pytest.raises(s3io.ConfigError):
            s3io.record_generator(*arguments)
