"""Page-locked batches and copies to a CUDA device. Without one: the same logic over fakes."""

from __future__ import annotations

import collections
import dataclasses
import gc
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_s3io as s3io
from torch_s3io import _C, prefetch

RECORD = 65536


def write_records(folder: Path, count: int) -> tuple[Path, np.ndarray]:
    records = np.random.default_rng(7).integers(0, 256, (count, RECORD), np.uint8)
    path = folder / "records.bin"
    records.tofile(path)
    return path, records


Pair = collections.namedtuple("Pair", "left right")


@dataclasses.dataclass
class Sample:
    image: torch.Tensor
    name: str


def test_every_tensor_of_a_structure_is_mapped_and_nothing_else() -> None:
    one = torch.ones(2)
    data = {"a": [one, 3], "b": (one, "x"), "c": Pair(one, None), "d": Sample(one, "n")}
    mapped = prefetch.map_tensors(lambda tensor: tensor + 1, data)
    expected = torch.full((2,), 2.0)
    assert torch.equal(mapped["a"][0], expected)
    assert mapped["a"][1] == 3
    assert torch.equal(mapped["b"][0], expected)
    assert mapped["b"][1] == "x"
    assert torch.equal(mapped["c"].left, expected)
    assert type(mapped["c"]) is Pair
    assert torch.equal(mapped["d"].image, expected)
    assert mapped["d"].name == "n"
    assert torch.equal(one, torch.ones(2))


def test_on_the_cpu_batches_pass_through() -> None:
    batches = [torch.ones(1), {"a": torch.zeros(1)}]
    passed = list(s3io.DevicePrefetcher(batches, "cpu"))
    assert all(one is other for one, other in zip(passed, batches, strict=True))


@pytest.mark.parametrize("device", ["nowhere", "meta", 1.5])
def test_a_device_that_cannot_be_is_refused(device: Any) -> None:
    with pytest.raises(s3io.ConfigError, match="device"):
        s3io.DevicePrefetcher([], device)


class FakeCopier:
    """Notes what is started and handed out, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def start_next(self, batches: Any, under_way: Any) -> bool:
        batch = next(batches, None)
        if batch is None:
            return False
        self.events.append(f"start {batch}")
        under_way.append(batch)
        return True

    def hand_out(self, batch: int) -> int:
        self.events.append(f"out {batch}")
        return batch


def test_the_next_copies_are_under_way_before_a_batch_is_handed_out() -> None:
    prefetcher = s3io.DevicePrefetcher([1, 2, 3, 4], "cpu", depth=2)
    prefetcher._device = torch.device("cuda")
    copier = FakeCopier()
    prefetcher._make_copier = lambda: copier
    assert list(prefetcher) == [1, 2, 3, 4]
    assert copier.events == [
        "start 1", "start 2", "out 1", "start 3", "out 2", "start 4", "out 3", "out 4",
    ]  # fmt: skip


@pytest.mark.needs_cuda
@pytest.mark.parametrize("ours", [True, False], ids=["our DataLoader", "torch's"])
def test_batches_from_workers_are_page_locked_where_they_lie(tmp_path: Path, ours: bool) -> None:
    path, records = write_records(tmp_path, 64)
    dataset = s3io.RecordDataset(path, dtype=np.uint8, shape=RECORD, batch_size=4)
    if ours:
        loader: Any = s3io.DataLoader(dataset, num_workers=2)
    else:
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=None, num_workers=2, pin_memory=True
        )
    for number, batch in enumerate(loader):
        assert batch.is_pinned()
        assert np.array_equal(batch.numpy(), records[4 * number : 4 * number + 4])
    stats = dataset.stats()
    assert stats["received_tensors"] == 16
    # Pinned in place: the last batch still holds its buffer.
    assert stats["held_buffers"] >= 1


@pytest.mark.needs_cuda
@pytest.mark.parametrize("prefetched", [True, False])
def test_a_buffer_is_not_reused_under_a_copy(tmp_path: Path, prefetched: bool) -> None:
    """The copies queue up behind a long kernel while the loop drops batch after batch."""
    path, records = write_records(tmp_path, 256)
    dataset = s3io.RecordDataset(
        path,
        dtype=np.uint8,
        shape=RECORD,
        batch_size=4,
        pool=s3io.BufferPoolConfig(capacity=8, buffer_size=5 * RECORD),
    )
    loader = s3io.DataLoader(dataset, num_workers=2)
    before = _C.deferred_releases()
    for epoch in range(3):
        copies = []
        batches = s3io.DevicePrefetcher(loader, "cuda") if prefetched else loader
        for batch in batches:
            if epoch and len(copies) % 8 == 0:
                torch.cuda._sleep(20_000_000)  # about 10 ms on the current stream
            copies.append(batch.to("cuda", non_blocking=True))
            del batch
        torch.cuda.synchronize()
        received = torch.cat(copies).cpu().numpy()
        assert np.array_equal(received, records)
    assert _C.deferred_releases() > before
    deadline = time.monotonic() + 10
    while _C.pending_releases() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _C.pending_releases() == 0
    del loader
    gc.collect()


@pytest.mark.needs_cuda
def test_workers_never_initialise_cuda(tmp_path: Path) -> None:
    path, _ = write_records(tmp_path, 16)
    dataset = s3io.RecordDataset(
        path, dtype=np.uint8, shape=RECORD, batch_size=4, transform=_with_cuda_state
    )
    for _, initialised in s3io.DataLoader(dataset, num_workers=2):
        assert not initialised


def _with_cuda_state(batch: torch.Tensor) -> tuple[torch.Tensor, bool]:
    return batch, torch.cuda.is_initialized()
