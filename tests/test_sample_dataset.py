"""SampleDataset: batches are what was written, whatever the fields, lengths and ways to read."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings
from leaks import nothing_leaked
from order_check import order_options
from record_sets import random_array
from support import ENGINES

from torch_s3io import BufferPoolConfig, Ragged, SampleDataset, SampleWriter

SLOT = 16 << 10
KINDS = ["u1", "?", "<i2", ">u2", "<f4", ">f8", "<c8", ">c8", ">c16", "f2", "bfloat16", ">i8"]
SHAPES = [(), (3,), (2, 2), (None,), (None,), (None, 3), (None, None), (None, None, 2), (2, None)]


def made(kind: str, shape: tuple[int, ...], seed: int) -> Any:
    """An array for the writer, of random bytes."""
    if kind == "bfloat16":
        numbers = torch.from_numpy(random_array("i2", 1, shape, seed))[0]
        return numbers.view(torch.bfloat16)
    return random_array(kind, 1, shape, seed)[0]


def bits(value: Any) -> tuple[str, tuple[int, ...], bytes]:
    """Type, shape and bytes in this machine's order, of arrays and tensors."""
    if isinstance(value, bytes):
        value = np.frombuffer(value, np.uint8)
    if isinstance(value, torch.Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        array = (value.view(torch.int16) if kind == "bfloat16" else value).numpy()
        return kind, tuple(value.shape), array.tobytes()
    array = np.asarray(value)
    array = array.astype(array.dtype.newbyteorder("="))
    return array.dtype.name, array.shape, array.tobytes()


@st.composite
def sample_sets(draw):
    kind = st.tuples(st.sampled_from(KINDS), st.sampled_from(SHAPES))
    fields: dict[str, Any] = {
        f"f{number}": kind
        for number, kind in enumerate(draw(st.lists(kind, min_size=1, max_size=4)))
    }
    if draw(st.booleans()):
        fields = {"bytes": bytes, **fields} if draw(st.booleans()) else {**fields, "bytes": bytes}
    is_empty = draw(st.booleans())
    few = st.just(0) if is_empty and draw(st.booleans()) else st.integers(0, 40)
    many = few if is_empty else st.one_of(few, st.integers(0, 2000), st.just(3 * SLOT))
    samples = []
    for seed in range(draw(st.integers(1, 25))):
        sample: dict[str, Any] = {}
        for name, field in fields.items():
            if field is bytes:
                sample[name] = np.random.default_rng(seed).bytes(draw(many))
                continue
            length = few if field[1].count(None) > 1 else many
            shape = tuple(draw(length) if extent is None else extent for extent in field[1])
            sample[name] = made(field[0], shape, seed)
        samples.append(sample)
    torch_only = {"bfloat16": torch.bfloat16}
    typed = {
        name: kind if kind is bytes else (torch_only.get(kind[0], kind[0]), kind[1])
        for name, kind in fields.items()
    }
    return typed, samples


def check_batch(batch: dict[str, Any], numbers: list[int], samples: list[dict], fields) -> None:
    assert list(batch) == list(fields)
    for name, column in batch.items():
        is_ragged = fields[name] is bytes or None in fields[name][1]
        assert type(column) is (Ragged if is_ragged else torch.Tensor)
        assert len(column) == len(numbers)
        rows = list(column)
        assert [bits(row) for row in rows] == [bits(samples[n][name]) for n in numbers]
        if not is_ragged:
            continue
        lengths = [row.numel() for row in rows]
        assert (column.min_length, column.max_length) == (min(lengths), max(lengths))
        assert column.lengths.tolist() == lengths
        assert column.starts.dtype == column.lengths.dtype == torch.int64
        if column.shapes is not None:
            assert column.shapes.tolist() == [list(row.shape) for row in rows]
        same = Ragged(column.values, column.starts, column.lengths, column.shapes)
        assert same.is_packed == column.is_packed


@settings(max_examples=25)
@given(
    given_set=sample_sets(),
    align=st.sampled_from(["auto", None, 512, 4096]),
    shard_bytes=st.sampled_from([1, 3000, 1 << 20]),
    batch_size=st.sampled_from([1, 2, 7, 100]),
    direct=st.sampled_from(["off", "auto", "require"]),
    engine=st.sampled_from(ENGINES),
    pool=st.sampled_from(["auto", None, BufferPoolConfig(capacity=4, buffer_size=SLOT)]),
    shuffle=st.sampled_from([False, True, "block", "windows"]),
    verify=st.booleans(),
)
def test_batches_are_what_was_written(
    disk, given_set, align, shard_bytes, batch_size, direct, engine, pool, shuffle, verify
):
    fields, samples = given_set
    folder = disk / "set"
    options = {"align_samples": align, "shard_bytes": shard_bytes, "overwrite": True}
    with SampleWriter(folder, fields=fields, **options) as writer:
        writer.write_batch(samples)
    with nothing_leaked():
        options = {"direct": direct, "engine": engine, "verify": verify, "return_index": True}
        if isinstance(pool, BufferPoolConfig):
            batch_size = min(batch_size, 2)
            total = sum(len(bits(value)[2]) for sample in samples for value in sample.values())
            if batch_size * total / len(samples) > SLOT / 2:  # most would not fit: an error
                pool = "auto"
        dataset = SampleDataset(
            folder, batch_size=batch_size, pool=pool, **options, **order_options(shuffle)
        )
        assert len(dataset) == -(-len(samples) // batch_size)
        for _ in range(2):
            seen = []
            for batch, index in dataset:
                check_batch(batch, index.tolist(), samples, fields)
                seen += index.tolist()
            assert sorted(seen) == list(range(len(samples)))
            assert seen == sorted(seen) or shuffle
        repeated = [len(samples) - 1, 0, 0, len(samples) // 2, len(samples) - 1]
        batch, index = dataset.get_batch(repeated)
        check_batch(batch, repeated, samples, fields)
        batch, index = dataset.get_batch([])
        assert [len(column) for column in batch.values()] == [0] * len(fields)
        del batch, index, dataset


def test_a_data_set_says_what_it_has(disk):
    fields = {"image": (np.uint8, (None, None, 3)), "label": np.int64, "text": str}
    with SampleWriter(disk / "set", fields=fields) as writer:
        writer.write({"image": np.zeros((2, 5, 3), "u1"), "label": 1, "text": "abc"})
    dataset = SampleDataset(disk / "set", batch_size=2)
    assert dataset.dtype == {"image": torch.uint8, "label": torch.int64, "text": torch.uint8}
    assert dataset.shape == {"image": (None, None, 3), "label": (), "text": (None,)}
    assert dataset.num_records == 1
    assert dataset.unused_tail_bytes == 0
    [file] = dataset.files
    assert file.path.startswith(str(disk / "set" / "samples-"))
    assert "SampleDataset(1 sample of " in repr(dataset)
    assert "image: uint8[n, n, 3]" in repr(dataset)
    [batch] = dataset
    assert batch["image"].shapes.tolist() == [[2, 5, 3]]
    assert bytes(batch["text"][0].tolist()) == b"abc"


def test_empty_samples_in_empty_batches_have_no_bytes_and_all_else(disk, engine, direct):
    fields = {"a": bytes, "b": (">i4", (None, None)), "c": (np.float16, (3, None))}
    with SampleWriter(disk / "set", fields=fields) as writer:
        empty = {"a": b"", "b": np.empty((0, 4), ">i4"), "c": np.empty((3, 0), np.float16)}
        writer.write_batch([empty] * 10)
    for batch_size in (4, None):
        dataset = SampleDataset(
            disk / "set", batch_size=batch_size, engine=engine, direct=direct, verify=True
        )
        batches = list(dataset)
        assert len(batches) == (3 if batch_size else 10)
        for batch in batches:
            rows = batch if batch_size is None else {name: batch[name][-1] for name in fields}
            assert [tuple(row.shape) for row in rows.values()] == [(0,), (0, 4), (3, 0)]
        assert dataset.stats()["requests"] == 0
        batch = dataset.get_batch([3, 3])
        assert batch["b"].shapes.tolist() == [[0, 4], [0, 4]]
        assert batch["c"].shapes.tolist() == [[3, 0], [3, 0]]


def test_several_folders_are_one_data_set(disk):
    for number in range(3):
        with SampleWriter(disk / f"part{number}", fields={"x": bytes}, shard_bytes=200) as writer:
            writer.write_batch({"x": [bytes([number, n]) for n in range(20)]})
    for paths in (disk / "part*", [disk / "part0", disk / "part1", disk / "part2"]):
        dataset = SampleDataset(paths, batch_size=60, shuffle=False)
        [batch] = dataset
        assert [tuple(row.tolist()) for row in batch["x"]] == [
            (part, n) for part in range(3) for n in range(20)
        ]
