"""What a transform makes, and how it ends, is the same with workers and without."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import end_workers
from test_handover import BATCH, COLUMNS, ROWS, make, write

import torch_s3io as s3io


def conjugated(batch: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"lazily": batch.conj(), "negated": batch.conj().imag, "new": (batch + 1).conj()}


def test_what_torch_has_yet_to_conjugate_is_not_forgotten_on_the_way(disk):
    values = np.arange(64, dtype=np.float32).view(np.complex64)
    values.tofile(disk / "x.bin")
    dataset = s3io.RecordDataset(
        disk / "x.bin", dtype=np.complex64, batch_size=8, transform=conjugated
    )
    for num_workers in (0, 1):
        batches = list(s3io.DataLoader(dataset, num_workers=num_workers))
        expected = {"lazily": values.conj(), "negated": -values.imag, "new": (values + 1).conj()}
        for name, array in expected.items():
            got = torch.cat([batch[name] for batch in batches]).resolve_conj().resolve_neg()
            np.testing.assert_array_equal(got.numpy(), array)


def nested(batch: torch.Tensor) -> torch.Tensor:
    return torch.nested.nested_tensor([batch[0, :3], batch[1, :5]])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_come_from_workers_too(disk):
    path, array = write(disk)
    dataset = make(path, return_index=False, transform=nested)
    batches = list(s3io.DataLoader(dataset, num_workers=1))
    assert len(batches) == ROWS // BATCH
    for number, batch in enumerate(batches):
        for part, length in enumerate((3, 5)):
            expected = array[number * BATCH + part, :length]
            np.testing.assert_array_equal(batch[part].numpy(), expected)


def stops(batch: torch.Tensor) -> torch.Tensor:
    if int(batch[0, 0]) > 3 * BATCH * COLUMNS:
        raise StopIteration
    return batch


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_transform_that_stops_is_an_error_and_no_end(disk, num_workers):
    path, _ = write(disk)
    dataset = make(path, return_index=False, transform=stops)
    batches = iter(s3io.DataLoader(dataset, num_workers=num_workers))
    for _ in range(4):
        next(batches)
    with pytest.raises(RuntimeError, match="transform raised StopIteration"):
        next(batches)
    end_workers(batches)
    pair = s3io.Zip(a=make(path, return_index=False), transform=lambda batch: stops(batch["a"]))
    with pytest.raises(RuntimeError, match="transform raised StopIteration"):
        list(pair)
    with pytest.raises(RuntimeError, match="transform raised StopIteration"):
        dataset.get_batch([100])
