"""Page-locked batches from workers. Without CUDA: what torch's pin thread meets, over fakes."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_s3io as s3io
from torch_s3io import _C
from torch_s3io.processes import handover

RECORD = 65536


def write_records(folder: Path, count: int) -> tuple[Path, np.ndarray]:
    records = np.random.default_rng(7).integers(0, 256, (count, RECORD), np.uint8)
    path = folder / "records.bin"
    records.tofile(path)
    return path, records


@dataclasses.dataclass
class Sample:
    image: torch.Tensor
    name: str


@pytest.fixture
def pinning(monkeypatch) -> list[tuple[int, int]]:
    """torch starts its pin thread, as with CUDA; what would be registered there is collected."""
    registered: list[tuple[int, int]] = []
    if hasattr(torch, "accelerator"):  # asked since PyTorch 2.6
        cuda = torch.device("cuda")
        monkeypatch.setattr(torch.accelerator, "is_available", lambda *_: True)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: cuda)
        monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
        monkeypatch.setattr(torch.accelerator, "set_device_index", lambda _: None)
    else:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor)
    monkeypatch.setattr(handover, "_register", lambda *segment: registered.append(segment))
    return registered


@pytest.mark.parametrize("persistent", [True, False])
def test_the_pin_thread_registers_each_workers_memory_once(tmp_path, pinning, persistent) -> None:
    path, records = write_records(tmp_path, 64)
    dataset = s3io.RecordDataset(path, dtype=np.uint8, shape=RECORD, batch_size=4)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, pin_memory=True, persistent_workers=persistent
    )
    for _ in range(3):
        for number, batch in enumerate(loader):
            begin, end = batch.data_ptr(), batch.data_ptr() + batch.numel()
            assert any(low <= begin and end <= low + size for low, size in pinning)
            assert np.array_equal(batch.numpy(), records[4 * number : 4 * number + 4])
    assert len(pinning) == 2
    assert dataset.stats()["received_tensors"] == 3 * 16
    del batch, loader
    gc.collect()


def test_where_registering_fails_it_is_said_once_and_batches_come(tmp_path, pinning, monkeypatch):
    def refuse(address: int, size: int) -> None:
        raise s3io.DataError(f"cudaHostRegister of {size} bytes failed with 2")

    monkeypatch.setattr(handover, "_register", refuse)
    path, records = write_records(tmp_path, 64)
    dataset = s3io.RecordDataset(path, dtype=np.uint8, shape=RECORD, batch_size=4)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2, pin_memory=True)
    with pytest.warns(RuntimeWarning, match="not pinned: cudaHostRegister") as caught:
        batches = [batch.clone() for batch in loader]
    assert len([one for one in caught if "not pinned" in str(one.message)]) == 1
    assert np.array_equal(torch.cat(batches).numpy(), records)


class Lossy(torch.utils.data.IterableDataset[Any]):
    """Passes the second batch on as a handle to nothing."""

    def __init__(self, shape: str) -> None:
        self.shape = shape

    def __iter__(self) -> Iterator[Any]:
        for number in range(4):
            one = Stale() if number == 1 else torch.tensor(number)
            shapes = {"bare": one, "nested": {"x": [one]}, "dataclass": Sample(one, "n")}
            yield shapes[self.shape]


class Stale:
    def __reduce__(self) -> Any:
        return handover._receive, (b"stale",)


@pytest.mark.parametrize("shape", ["bare", "nested", "dataclass"])
@pytest.mark.parametrize("pinned", [True, False])
def test_a_lost_batch_is_an_error_at_next_and_the_loader_goes_on(pinning, pinned, shape) -> None:
    batches = iter(
        torch.utils.data.DataLoader(Lossy(shape), batch_size=None, num_workers=1, pin_memory=pinned)
    )

    def value(batch: Any) -> int:
        batch = batch.image if isinstance(batch, Sample) else batch
        return int(batch["x"][0] if isinstance(batch, dict) else batch)

    assert value(next(batches)) == 0
    with pytest.raises(s3io.DataError, match="not for this process"):
        next(batches)
    assert [value(batch) for batch in batches] == [2, 3]


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
