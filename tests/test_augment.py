"""A record's own random numbers."""

from __future__ import annotations

import functools
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from order_check import Setting, in_worker, write_numbers
from record_sets import CIFAR10

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


def test_the_snippet_of_the_docs_flips_a_record_alike_in_any_batch(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "workers-and-gpus.md").read_text()
    names: dict[str, Any] = {"s3io": s3io, "torch": torch, "record": CIFAR10}
    [snippet] = re.findall(r"^def augment\(.*\n(?:    .*\n)+", page, re.MULTILINE)
    exec(snippet, names)
    stored = np.random.default_rng(0).integers(0, 256, (RECORDS, 3073), np.uint8)
    stored.tofile(tmp_path / "images.bin")
    images = stored.view(names["record"])["image"][:, 0]

    def dataset(batch_size: int, rank: int, world_size: int) -> Any:
        return s3io.RecordDataset(
            tmp_path / "images.bin",
            dtype=names["record"],
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            shuffle=True,
            transform=names["augment"],
            pass_position=True,
            return_index=True,
        )

    def is_flipped(batches: Any) -> dict[int, bool]:
        """By record; each is as it is stored, or that flipped."""
        found = {}
        for batch, index in batches:
            for image, number in zip(batch["image"].numpy(), index.tolist(), strict=True):
                found[number] = np.array_equal(image, images[number][..., ::-1])
                assert found[number] or np.array_equal(image, images[number])
        return found

    whole = is_flipped(dataset(4, 0, 1))
    assert 0.25 * RECORDS < sum(whole.values()) < 0.75 * RECORDS
    first = dataset(4, 0, 1)
    read = is_flipped(itertools.islice(first, 7))
    for rank in range(2):
        resumed = dataset(5, rank, 2)
        resumed.load_state_dict(first.state_dict())
        read |= is_flipped(resumed)
    assert read == whole


def takes_a_batch(batch: Any) -> Any:
    return batch


def takes_a_position_too(batch: Any, index: Any, epoch: int) -> Any:
    return batch


@pytest.mark.parametrize(
    ("transform", "pass_position", "advice"),
    [
        (takes_a_position_too, False, r"pass_position=True calls it with \(batch, index, epoch\)"),
        (takes_a_batch, True, "without pass_position=True it is called with the batch alone"),
        (lambda: None, False, r"called with \(batch\), .* its arguments are \(\)"),
        (lambda batch, index: None, True, r"called with \(batch, index, epoch\), .*\(batch, index"),
        (lambda batch, *, key: None, False, r"its arguments are \(batch, \*, key\)"),
        ("flip", False, "must be callable"),
    ],
)
def test_a_transform_that_cannot_be_called_so_is_refused_at_once(
    path, transform, pass_position, advice
):
    options = {"transform": transform, "pass_position": pass_position}
    for make in (
        lambda: SHUFFLED.dataset(path).with_options(**options),
        lambda: s3io.RecordDataset(path, dtype="i4", **options),
        lambda: s3io.Zip(numbers=SHUFFLED.dataset(path), **options),
        lambda: s3io.Mix([SHUFFLED.dataset(path)], **options),
    ):
        with pytest.raises(s3io.ConfigError, match=f"transform .*{advice}"):
            make()


def with_a_power(function: Any) -> Any:
    @functools.wraps(function)
    def called(batch: Any) -> Any:
        return function(batch, 2)

    return called


@with_a_power
def to_the_power(batch: Any, power: int) -> Any:
    return batch**power


class Flip(torch.nn.Module):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.flip(-1)


@pytest.mark.parametrize(
    "transform",
    [
        torch.neg,
        np.asarray,
        len,
        Flip(),
        Flip().forward,
        lambda batch, power=2: batch**power,
        to_the_power,
    ],
)
def test_whatever_can_be_called_with_a_batch_is_a_transform(path, transform):
    dataset = SHUFFLED.dataset(path).with_options(transform=transform, return_index=False)
    for got, batch in zip(dataset, SHUFFLED.dataset(path), strict=True):
        np.testing.assert_array_equal(got, transform(batch[0]))


def test_generators_are_the_same_everywhere_and_bad_arguments_are_refused():
    first = torch.rand(2, generator=s3io.record_generator(7, 3, 2**40)).tolist()
    assert first == torch.rand(2, generator=s3io.record_generator(7, 3, 2**40)).tolist()
    assert first != torch.rand(2, generator=s3io.record_generator(7, 3, 2**40 + 1)).tolist()
    for arguments in [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1.5), (True, 0, 0), (2**64, 0, 0)]:
        with pytest.raises(s3io.ConfigError):
            s3io.record_generator(*arguments)
