"""Ragged batches arrive as they were: copied, pickled, pinned, from workers, on a GPU."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ragged_batches import make, same, with_shapes
from support import QUICK_CONTEXTS, end_workers, lies_in_a_pool, write_records
from torch.utils import _pytree as pytree
from torch.utils.data._utils.pin_memory import pin_memory

import torch_s3io as s3io
from torch_s3io.loading.device_prefetcher import map_tensors
from torch_s3io.processes import handover


def parts(ragged: s3io.Ragged) -> list[Any]:
    shapes = [] if ragged.shapes is None else [ragged.shapes]
    return [ragged.values, ragged.starts, ragged.lengths, *shapes]


def facts(ragged: s3io.Ragged) -> tuple[Any, ...]:
    return ragged.min_length, ragged.max_length, ragged.is_packed


@pytest.mark.parametrize("ragged", [make([1, 2], [], [3]), with_shapes()], ids=["flat", "shapes"])
@pytest.mark.parametrize(
    "how",
    [
        lambda ragged: pickle.loads(pickle.dumps(ragged)),
        copy.copy,
        copy.deepcopy,
        lambda ragged: pytree.tree_map(torch.clone, ragged),
        lambda ragged: map_tensors(torch.clone, {"x": [ragged]})["x"][0],
    ],
    ids=["pickle", "copy", "deepcopy", "tree_map", "map_tensors"],
)
def test_all_of_it_comes_through(ragged, how):
    other = how(ragged)
    assert type(other) is s3io.Ragged
    assert other is not ragged
    assert facts(other) == facts(ragged)
    assert all(map(same, parts(other), parts(ragged)))
    assert all(map(same, other, ragged))


def test_it_is_a_node_of_pytrees():
    ragged = with_shapes()
    leaves, spec = pytree.tree_flatten({"x": ragged, "y": 3})
    assert [id(leaf) for leaf in leaves] == [*map(id, parts(ragged)), id(leaves[-1])]
    again = pytree.tree_unflatten(leaves, spec)["x"]
    assert facts(again) == facts(ragged)
    assert parts(again) == parts(ragged) or all(map(same, parts(again), parts(ragged)))
    assert pytree.tree_map(lambda _: None, ragged).values is None  # any leaf


def test_where_nothing_changes_it_is_the_same_object():
    ragged = make([1], [2, 3])
    assert ragged.to("cpu") is ragged
    assert map_tensors(lambda tensor: tensor, ragged) is ragged
    assert ragged == ragged
    assert ragged != make([1], [2, 3])
    assert len({ragged, ragged}) == 1


def test_on_another_device_it_knows_what_it_knew():
    """On "meta" tensors have no data, so looking at them would raise."""
    ragged = make([1], [2, 3]).packed()
    moved = ragged.to("meta", non_blocking=True)
    assert moved.values.device.type == moved.starts.device.type == moved.lengths.device.type
    assert facts(moved) == facts(ragged)
    assert moved.offsets.shape == (3,)
    assert moved.cu_seqlens().dtype is torch.int32
    assert moved.padded().shape == (2, 2)
    assert "device='meta'" in repr(moved)


@pytest.mark.parametrize("nested_in", ["bare", "dict"])
def test_torch_pins_its_tensors(monkeypatch, nested_in):
    pinned: list[int] = []
    monkeypatch.setattr(
        torch.Tensor, "pin_memory", lambda tensor, *_: pinned.append(id(tensor)) or tensor + 0
    )
    ragged = with_shapes()
    result = pin_memory(ragged if nested_in == "bare" else {"x": ragged})
    result = result if nested_in == "bare" else result["x"]
    assert sorted(pinned) == sorted(map(id, parts(ragged)))
    assert facts(result) == facts(ragged)
    assert all(map(same, result, ragged))


@pytest.mark.needs_cuda
def test_on_a_gpu_it_is_what_it_is_here():
    for ragged in (make([1, 2, 3], [], [4]), make(range(3000), [5]), make([7], [8, 9], gap=0)):
        (there,) = s3io.DevicePrefetcher([ragged.pin_memory()], "cuda")
        assert there.values.is_cuda
        assert all(same(one.cpu(), other) for one, other in zip(there, ragged, strict=True))
        assert same(there.padded(4).cpu(), ragged.padded(4))
        assert same(there.packed().values.cpu(), ragged.packed().values)
        assert same(there.packed().cu_seqlens().cpu(), ragged.packed().cu_seqlens())
        found = [one.cpu() for one in there.nested().unbind()]
        assert all(map(same, found, ragged))
        made = s3io.Ragged(there.values, there.starts, there.lengths)
        assert facts(made) == facts(ragged)


# ---- From workers.

RECORD = 64


def cut(batch: torch.Tensor) -> dict[str, Any]:
    """Sample i: record i without its first i bytes, over the buffer that was read into."""
    rows, width = batch.shape
    numbers = torch.arange(rows)
    shapes = torch.stack([numbers * 0 + 1, width - numbers], 1)
    flat = batch.view(-1)
    return {
        "x": s3io.Ragged(flat, numbers * width + numbers, width - numbers),
        "deep": [s3io.Ragged(batch.view(-1), numbers * width + numbers, width - numbers, shapes)],
    }


@pytest.fixture
def records(disk: Path) -> tuple[Path, np.ndarray]:
    path = disk / "x.bin"
    return path, np.asarray(write_records(path, 80, RECORD)).reshape(80, RECORD)


@pytest.mark.parametrize("ours", [True, False], ids=["our DataLoader", "torch's"])
@pytest.mark.parametrize("context", QUICK_CONTEXTS)
def test_views_of_a_workers_buffer_arrive_without_a_copy(records, context, ours):
    path, array = records
    dataset = s3io.RecordDataset(path, dtype="u1", shape=RECORD, batch_size=8, transform=cut)
    options = {"num_workers": 1, "multiprocessing_context": context}
    kind = s3io.DataLoader if ours else torch.utils.data.DataLoader
    loader = kind(dataset, batch_size=None, **options)
    arrived: list[bool] = []
    for count, batch in enumerate(loader):
        for ragged in (batch["x"], batch["deep"][0]):
            assert type(ragged) is s3io.Ragged
            arrived.append(lies_in_a_pool(ragged.values))
            for number, sample in enumerate(ragged):
                wanted = array[8 * count + number, number:]
                np.testing.assert_array_equal(sample.flatten().numpy(), wanted)
            assert facts(ragged) == (RECORD - 7, RECORD, False)
        del batch, ragged, sample
    end_workers(getattr(loader, "_iterator", None))
    assert arrived == [True] * 20
    assert dataset.stats()["received_tensors"] == 2 * 10  # the values of both, each batch


class Stale:
    def __reduce__(self) -> Any:
        return handover._receive, (b"stale",)


class Lossy(torch.utils.data.IterableDataset[Any]):
    """The values of the second batch are lost on their way."""

    def __iter__(self) -> Any:
        for number in range(3):
            ragged = make([number])
            if number == 1:
                ragged.values = Stale()
            yield {"x": ragged}


def test_values_that_were_lost_on_their_way_are_an_error_at_next():
    batches = iter(torch.utils.data.DataLoader(Lossy(), batch_size=None, num_workers=1))
    assert next(batches)["x"][0].tolist() == [0]
    with pytest.raises(s3io.DataError, match="not for this process"):
        next(batches)
    assert next(batches)["x"][0].tolist() == [2]


def test_batches_are_not_stacked_once_more():
    class Batches(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, _: int) -> Any:
            return {"x": make([1], [2])}

    with pytest.raises(s3io.ConfigError, match=r"a Ragged is a batch already: .*batch_size=None"):
        next(iter(torch.utils.data.DataLoader(Batches(), batch_size=2)))
    whole = next(iter(torch.utils.data.DataLoader(Batches(), batch_size=None)))
    assert [sample.tolist() for sample in whole["x"]] == [[1], [2]]
