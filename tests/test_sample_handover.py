"""Batches of samples from workers: the bytes where they were read, and nothing copied but what must
be."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from sample_sets import Lengths
from support import end_workers, lies_in_a_pool, worker_count
from torch.utils.data import DataLoader

import torch_s3io as s3io
from torch_s3io import BufferPoolConfig, SampleDataset, SampleWriter

BATCH = 8
NUMBER_BYTES = 8  # of the only field of fixed size


@pytest.fixture
def samples(disk):
    return Lengths(disk / "set", [number * 61 % 5000 for number in range(240)])


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_batches_arrive_where_they_were_read_epoch_after_epoch(samples, context):
    pool = BufferPoolConfig(capacity=8, buffer_size=128 << 10)
    dataset = SampleDataset(samples.folder, batch_size=BATCH, return_index=True, pool=pool)
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=worker_count(context),
        multiprocessing_context=context,
        persistent_workers=True,
    )
    batches, data_bytes = 240 // BATCH, sum(map(len, samples.data))
    for epoch in range(1, 3):
        numbers = []
        for batch, index in loader:
            numbers += samples.check(batch)
            assert index.tolist() == numbers[-BATCH:]
            assert lies_in_a_pool(batch["data"].values)
            del batch, index
        assert numbers == list(range(240))
        stats = dataset.stats()
        # Of each batch the numbers, values, starts, lengths and the index.
        assert stats["received_tensors"] == epoch * batches * 5
        assert stats["received_bytes"] >= epoch * data_bytes
        # Of batches that were read ahead, too.
        copied = stats["copied_bytes"] - epoch * 240 * NUMBER_BYTES
        assert 0 <= copied <= 2 * 8 * BATCH * NUMBER_BYTES
        for never in ("held_out_tensors", "unmapped_tensors", "spilled_batches", "held_buffers"):
            assert stats[never] == 0, never
        assert stats["oversize_batches"] == 0


def test_here_nothing_is_copied_but_fields_of_fixed_size(samples, engine, direct):
    dataset = SampleDataset(samples.folder, batch_size=BATCH, engine=engine, direct=direct)
    for batch in dataset:
        assert lies_in_a_pool(batch["data"].values)
        assert lies_in_a_pool(batch["number"])
    assert dataset.stats()["copied_bytes"] == 240 * NUMBER_BYTES
    with SampleWriter(samples.folder, fields={"x": (">u4", (None,))}, overwrite=True) as writer:
        writer.write_batch({"x": [np.arange(9, dtype=">u4")] * 50})
    big_endian = SampleDataset(samples.folder, batch_size=BATCH, engine=engine, direct=direct)
    assert all(one.tolist() == list(range(9)) for batch in big_endian for one in batch["x"])
    assert big_endian.stats()["copied_bytes"] == 0  # turned round where it lies


def test_fields_without_a_byte_arrive_too_and_move_nothing_else(disk):
    fields = {"x": bytes, "y": (np.float32, (None, None))}
    with SampleWriter(disk / "set", fields=fields) as writer:
        writer.write_batch([{"x": b"", "y": np.empty((3, 0), np.float32)}] * 16)
    dataset = SampleDataset(disk / "set", batch_size=4)
    for batch in s3io.DataLoader(dataset, num_workers=1):
        assert [tuple(one.shape) for one in batch["y"]] == [(3, 0)] * 4
        assert [len(one) for one in batch["x"]] == [0] * 4
        assert lies_in_a_pool(batch["x"].starts)
    # Starts and lengths of both, and the shapes; the values are none.
    assert dataset.stats()["received_tensors"] == 4 * 5
    del batch
    gc.collect()
    assert dataset.stats()["held_buffers"] == 0


def pinned(monkeypatch) -> list:
    """As torch's pin thread and DevicePrefetcher do it, on a machine without a GPU."""
    calls: list = []
    monkeypatch.setattr("torch.Tensor.pin_memory", lambda tensor, *_: calls.append(1) or tensor)
    return calls


def test_pinning_and_moving_a_batch_reaches_all_its_tensors(samples, monkeypatch):
    from torch.utils.data._utils.pin_memory import pin_memory

    batch = next(iter(SampleDataset(samples.folder, batch_size=BATCH)))
    calls = pinned(monkeypatch)
    assert samples.check(pin_memory(batch)) == list(range(BATCH))
    assert len(calls) == 4
    moved = next(iter(s3io.DevicePrefetcher([batch], "cpu")))
    assert samples.check(moved) == list(range(BATCH))
    assert batch["data"].to("meta").values.device.type == "meta"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_torchdata_goes_on_in_the_middle_of_an_epoch(samples, workers):
    torchdata = pytest.importorskip("torchdata.stateful_dataloader", reason="NEEDS TORCHDATA")

    def make():
        dataset = SampleDataset(samples.folder, batch_size=BATCH, shuffle=True)
        return torchdata.StatefulDataLoader(dataset, batch_size=None, num_workers=workers)

    whole = [samples.check(batch) for batch in make()]
    loader, seen = make(), []
    batches = iter(loader)
    while len(seen) < 7:
        seen.append(samples.check(next(batches)))
    state = loader.state_dict()
    end_workers(batches)
    resumed = make()
    resumed.load_state_dict(state)
    assert seen + [samples.check(batch) for batch in resumed] == whole
