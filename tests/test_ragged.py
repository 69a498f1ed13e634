"""Ragged batches, against lists of tensors."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import QUICK_CONTEXTS, end_workers, lies_in_a_pool, write_records
from torch.utils import _pytree as pytree
from torch.utils.data._utils.pin_memory import pin_memory

import torch_s3io as s3io
from torch_s3io.loading.device_prefetcher import map_tensors
from torch_s3io.processes import handover

DTYPES = [
    *(torch.bool, torch.uint8, torch.int64, torch.uint16, torch.uint32, torch.float16),
    *(torch.bfloat16, torch.float32, torch.float64, torch.complex64),
]


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bits(one) == bits(other)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def numbered(count: int, item: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    numbers = torch.arange(1, count * math.prod(item) + 1).view(count, *item)
    return numbers % 2 == 1 if dtype is torch.bool else (numbers % 251).to(dtype)


@st.composite
def places(draw: Any) -> tuple[list[int], list[int], int]:
    """Starts, lengths and the number of items: with gaps, in any order."""
    long = draw(st.booleans())
    lengths = draw(st.lists(st.integers(0, 700 if long else 9), max_size=7))
    gap = st.integers(0, 3) if draw(st.booleans()) else st.just(0)
    order = draw(st.permutations(range(len(lengths))))
    starts, end = [0] * len(lengths), 0
    for number in order if draw(st.booleans()) else range(len(lengths)):
        starts[number] = end = end + draw(gap)
        end += lengths[number]
    return starts, lengths, end + draw(gap)


@st.composite
def batches(draw: Any) -> tuple[s3io.Ragged, list[torch.Tensor]]:
    starts, lengths, count = draw(places())
    item = draw(st.sampled_from([(), (3,), (2, 2), (0,)]))
    values = numbered(count, item, draw(st.sampled_from(DTYPES)))
    ragged = s3io.Ragged(values, as_int64(starts), as_int64(lengths))
    ends = map(sum, zip(starts, lengths, strict=True))
    return ragged, [values[begin:end] for begin, end in zip(starts, ends, strict=True)]


def as_int64(numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def make(*samples: Any, gap: int = 1, dtype: torch.dtype = torch.int64) -> s3io.Ragged:
    """Of lists of numbers, with zeros in between."""
    joined = [number for sample in samples for number in [*sample, *[0] * gap]]
    lengths = as_int64([len(sample) for sample in samples])
    steps = lengths + gap
    return s3io.Ragged(torch.tensor(joined, dtype=dtype), steps.cumsum(0) - steps, lengths)


# ---- Against lists of tensors.


@given(batches())
def test_samples_are_views_by_number_in_a_loop_and_unbound(batch):
    ragged, samples = batch
    assert len(ragged) == len(samples)
    assert ragged.max_length == max(map(len, samples), default=0)
    assert ragged.min_length == min(map(len, samples), default=0)
    for number, sample in enumerate(samples):
        for one in (ragged[number], ragged[number - len(samples)], ragged[np.int64(number)]):
            assert same(one, sample)
            assert one.untyped_storage().data_ptr() == ragged.values.untyped_storage().data_ptr()
            assert not one.numel() or one.data_ptr() == sample.data_ptr()
    for found in (list(ragged), ragged.unbind()):
        assert len(found) == len(samples)
        for one, sample in zip(found, samples, strict=True):
            assert same(one, sample)
            assert not one.numel() or one.data_ptr() == sample.data_ptr()


@given(batches())
def test_packed_samples_follow_each_other_and_have_offsets(batch):
    ragged, samples = batch
    packed = ragged.packed()
    ends = list(itertools.accumulate(map(len, samples), initial=0))
    follows = ragged.starts.tolist() == ends[:-1] and len(ragged.values) == ends[-1]
    assert ragged.is_packed == follows
    assert (packed is ragged) == follows
    assert packed.is_packed
    assert packed.packed() is packed
    assert same(packed.values, torch.cat([*samples, ragged.values[:0]]))
    assert same(packed.offsets, as_int64(ends))
    assert same(packed.cu_seqlens(), torch.tensor(ends, dtype=torch.int32))
    assert (packed.min_length, packed.max_length) == (ragged.min_length, ragged.max_length)
    again = s3io.Ragged(packed.values, packed.starts, packed.lengths)
    assert again.is_packed
    assert all(map(same, again, samples))


@given(batches(), st.sampled_from([None, 0, 1, 5, 12, 600, 800]), st.sampled_from([0, 1]))
def test_padded_is_what_a_loop_over_rows_makes(batch, length, value):
    ragged, samples = batch
    width = ragged.max_length if length is None else length
    rows = torch.empty(len(samples), width, *ragged.values.shape[1:], dtype=ragged.values.dtype)
    mask = torch.zeros(len(samples), width, dtype=torch.bool)
    rows[:] = value
    for row, row_mask, sample in zip(rows, mask, samples, strict=True):
        row[: len(sample)] = sample[:width]
        row_mask[: len(sample)] = True
    assert same(ragged.padded(value, length, truncate=True), rows)
    assert same(ragged.mask(length), mask)
    if width < ragged.max_length:
        with pytest.raises(s3io.ConfigError, match=rf"more than length={width}: .*truncate=True"):
            ragged.padded(value, length)
    else:
        assert same(ragged.padded(value, length), rows)


@given(batches())
def test_nested_is_a_view_of_the_same_samples(batch):
    ragged, samples = batch
    nested = ragged.nested()
    assert nested.layout is torch.jagged
    assert nested.values().data_ptr() == ragged.values.data_ptr()
    found = nested.unbind()
    assert len(found) == len(samples)
    assert all(map(same, found, samples))
    packed = ragged.packed()
    if torch.__version__.startswith("2.4."):  # which cannot pad what is jagged
        return
    if samples and packed.values.dtype is torch.float32 and packed.values.numel():
        assert same(packed.nested().to_padded_tensor(7.0), packed.padded(7))


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=5), st.integers(0, 2))
def test_samples_ragged_in_several_axes_have_their_shapes(shapes, gap):
    lengths = as_int64([math.prod(shape) for shape in shapes])
    starts = lengths.cumsum(0) - lengths + gap * torch.arange(1, len(shapes) + 1)
    values = numbered(int(lengths.sum()) + gap * len(shapes), (), torch.uint8)
    table = as_int64(shapes).view(len(shapes), 3)
    ragged = s3io.Ragged(values, starts, lengths, table)
    for one in (ragged, ragged.packed(), pickle.loads(pickle.dumps(ragged))):
        found = [one[number] for number in range(len(one))]
        assert all(map(same, found, one.unbind()))
        for sample, start, shape in zip(found, starts, shapes, strict=True):
            assert same(sample, values[start : start + math.prod(shape)].view(shape))
    for method in ("padded", "nested", "mask"):
        with pytest.raises(s3io.ConfigError, match=rf"^{method}\(\) is .*unbind"):
            getattr(ragged, method)()


def test_samples_may_lie_over_each_other():
    ragged = s3io.Ragged(torch.arange(5), as_int64([1, 1, 0]), as_int64([3, 3, 5]))
    assert [sample.tolist() for sample in ragged] == [[1, 2, 3], [1, 2, 3], [0, 1, 2, 3, 4]]
    assert ragged.packed().values.tolist() == [1, 2, 3, 1, 2, 3, 0, 1, 2, 3, 4]
    assert not ragged.is_packed


def test_gradients_reach_the_values_through_padding_and_packing():
    for length in (3, 1000):
        values = torch.ones(length + 4, requires_grad=True)
        ragged = s3io.Ragged(values, as_int64([1, length + 2]), as_int64([length, 2]))
        wanted = [0.0, *[2.0] * length, 0.0, 2.0, 2.0]
        (ragged.padded(5).sum() + ragged.packed().values.sum()).backward()
        assert values.grad is not None
        assert values.grad.tolist() == wanted
    assert torch.equal(ragged.padded(5)[1, 2:], torch.full((length - 2,), 5.0))


# ---- Moved, pickled, taken apart.


def parts(ragged: s3io.Ragged) -> list[Any]:
    shapes = [] if ragged.shapes is None else [ragged.shapes]
    return [ragged.values, ragged.starts, ragged.lengths, *shapes]


def facts(ragged: s3io.Ragged) -> tuple[Any, ...]:
    return ragged.min_length, ragged.max_length, ragged.is_packed


def with_shapes() -> s3io.Ragged:
    return s3io.Ragged(
        torch.arange(10), as_int64([6, 0]), as_int64([4, 6]), as_int64([[2, 2], [1, 6]])
    )


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


# ---- What does not fit.

ONE = as_int64([1])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([1, 2], ONE, ONE), r"^values must be a tensor \[N, \*item\].*not \[1, 2\]"),
        ((torch.tensor(3), ONE, ONE), r"^values must be .*not int64 \[\]"),
        ((torch.eye(2).to_sparse(), ONE, ONE), r"^values must be a tensor"),
        ((torch.ones(3), [1], ONE), r"^starts must be an int64 tensor \[B\], not \[1\]"),
        ((torch.ones(3), ONE.int(), ONE), r"^starts must be an int64 .*not int32 \[1\]"),
        ((torch.ones(3), ONE, ONE[None]), r"^lengths must be .*not int64 \[1, 1\]"),
        ((torch.ones(3), ONE, as_int64([1, 1])), r"^lengths is of 2 samples and starts of 1"),
        ((torch.ones(3), ONE, ONE, ONE), r"^shapes must be an int64 tensor \[B, ndim\]"),
        ((torch.ones(3, 1), ONE, ONE, ONE[None]), r"^values must be a tensor \[N\].*flatten"),
        ((torch.ones(3), ONE, ONE, as_int64([[1, 2]])), r"^sample 0 has 1 items.*\[1, 2\]"),
        ((torch.ones(3), ONE, ONE, as_int64([[-1, -1]])), r"^sample 0 .*shapes.prod\(1\)"),
        ((torch.ones(3), ONE, 0 * ONE, as_int64([[1 << 32, 1 << 32]])), "^sample 0 has 0 items"),
        ((torch.ones(3), ONE.to("meta"), ONE), r"^starts is on meta and values on cpu: move all"),
    ],
)
def test_parts_that_do_not_fit_are_refused(arguments, text):
    with pytest.raises(s3io.ConfigError, match=text):
        s3io.Ragged(*arguments)


@given(batches(), st.data())
def test_a_sample_outside_of_the_values_is_refused_by_its_number(batch, data):
    ragged, samples = batch
    if not samples:
        return
    number = data.draw(st.integers(0, len(samples) - 1))
    count = len(ragged.values)
    starts, lengths = ragged.starts.clone(), ragged.lengths.clone()
    largest = (1 << 63) - 1
    starts[number], lengths[number] = data.draw(
        st.sampled_from(
            [
                *((-1, 0), (0, -1), (0, count + 1), (count + 1, 0), (count, 1), (1, count)),
                *((largest, largest), (largest, 1), (0, -largest - 1), (-largest - 1, largest)),
                *((-largest - 1, -largest - 1), (1, largest)),
            ]
        )
    )
    with pytest.raises(s3io.RangeError, match=f"^sample {number} begins at item .* {count} of val"):
        s3io.Ragged(ragged.values, starts, lengths)


@pytest.mark.parametrize("number", [2, -3, 1 << 70])
def test_a_sample_that_is_not_there_is_an_index_error(number):
    with pytest.raises(IndexError, match=f"sample {number} does not exist: the batch has 2"):
        make([1], [2])[number]


@pytest.mark.parametrize("index", [slice(1), "x", None, 1.0, [1, 2]])
def test_an_index_that_is_no_number_is_refused(index):
    with pytest.raises(s3io.ConfigError, match="by the number of one sample, not by"):
        make([1], [2])[index]


def test_offsets_of_what_is_not_packed_name_packed():
    ragged = make([1], [2])
    with pytest.raises(s3io.ConfigError, match=r"ragged\.packed\(\)\.offsets"):
        _ = ragged.offsets
    with pytest.raises(s3io.ConfigError, match=r"call packed\(\) first"):
        ragged.cu_seqlens()


def test_more_items_than_32_bits_count_have_no_cu_seqlens():
    values = torch.zeros(1, dtype=torch.uint8).expand(1 << 31)
    ragged = s3io.Ragged(values, as_int64([0]), as_int64([1 << 31]))
    with pytest.raises(s3io.RangeError, match="cannot count 2147483648 items"):
        ragged.cu_seqlens()
    assert ragged.offsets.tolist() == [0, 1 << 31]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *((torch.uint8, -1), (torch.uint8, 256), (torch.uint16, -100), (torch.int64, 0.5)),
        *((torch.int64, 1 << 64), (torch.bool, 2), (torch.float32, "x"), (torch.int64, None)),
        *((torch.int32, float("nan")), (torch.float32, [1.0]), (torch.float32, 1j)),
    ],
)
def test_a_filling_that_the_dtype_cannot_hold_is_refused(dtype, value):
    with pytest.raises(s3io.ConfigError, match=r"^padded\(value=.*cannot hold it: give another"):
        make([1], [1, 1], dtype=dtype).padded(value)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *((torch.int64, -(1 << 63)), (torch.int64, (1 << 53) + 1), (torch.uint16, 65535)),
        *(
            (torch.float16, float("-inf")),
            (torch.bool, True),
            (torch.complex64, 1j),
            (torch.float64, 0.1),
        ),
    ],
)
def test_a_filling_is_exact(dtype, value):
    assert make([1], [1, 1], dtype=dtype).padded(value)[0, 1].item() == value


@pytest.mark.parametrize("length", [-1, 1.5, "x", True])
def test_a_length_that_is_none_is_refused(length):
    with pytest.raises(s3io.ConfigError, match=r"^length must be"):
        make([1], [1, 1]).padded(length=length)


def test_padding_that_has_no_memory_says_what_it_would_take():
    values = torch.zeros(1, dtype=torch.uint8).expand(1 << 50)
    ragged = s3io.Ragged(values, as_int64([0, 0]), as_int64([1, 1 << 50]))
    with pytest.raises(s3io.OutOfMemoryError, match=r"2251\.80 TB.*length= and truncate=True"):
        ragged.padded()


def test_an_option_that_is_misspelt_is_told_the_right_one():
    with pytest.raises(TypeError, match="did you mean 'starts'"):
        s3io.Ragged(torch.ones(1), start=ONE, lengths=ONE)


@pytest.mark.parametrize(
    ("ragged", "text"),
    [
        (make([1, 2], []), "Ragged(2 samples of 0 to 2 items of int64, is_packed=False)"),
        (with_shapes(), "Ragged(2 samples in 2 axes of 4 to 6 items of int64, is_packed=False)"),
        (
            s3io.Ragged(torch.ones(4, 3), as_int64([0]), as_int64([4])),
            "Ragged(1 samples of 4 to 4 items of float32 [3], is_packed=True)",
        ),
    ],
)
def test_its_text_is_short(ragged, text):
    assert repr(ragged) == text
