"""TokenDataset: windows are those that plain Python cuts of the documents in their order."""

from __future__ import annotations

import itertools
import resource
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from order_check import check_read_and_resumed, check_shared_out_and_resumed
from support import ENGINES
from token_files import cut, flat, joined, numbered, write_megatron

from torch_s3io import (
    ConfigError,
    DataError,
    DataLoader,
    FileChangedError,
    Mix,
    RangeError,
    RecordMapDataset,
    TokenDataset,
    Zip,
)

LENGTHS = [5, 0, 1, 300, 7, 0, 40, 64, 2, 90, 1, 1]


def order_of_documents(path: Any, epoch: int, lengths: list[int], **options: Any) -> list[int]:
    """The documents that have tokens, as they come in an epoch, each whole; of numbered tokens."""
    options = {"window": 1, "stride": 1, "shuffle": "block", "batch_size": 512, **options}
    dataset = TokenDataset(path, pool=None, **options)
    dataset.set_epoch(epoch)
    tokens = [row[0] for row in flat(dataset)]
    document_of = np.repeat(np.arange(len(lengths)), lengths)
    first_of = np.cumsum([0, *lengths])
    order = []
    while tokens:
        document = int(document_of[tokens[0]])
        first, length = int(first_of[document]), lengths[document]
        assert tokens[:length] == list(range(first, first + length))
        del tokens[:length]
        order.append(document)
    return order


@settings(max_examples=30)
@given(
    lengths=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 200)), min_size=1, max_size=25),
    files=st.integers(1, 3),
    window=st.integers(1, 60),
    stride=st.one_of(st.none(), st.integers(1, 90)),
    block=st.integers(1, 9),
    mixed=st.integers(1, 3),
    batch_size=st.sampled_from([1, 3, 64]),
    as_dtype=st.sampled_from([None, torch.int64, torch.int32]),
    direct=st.sampled_from(["auto", "require", "off"]),
    engine=st.sampled_from(ENGINES),
)
def test_windows_are_those_that_python_cuts(
    disk, lengths, files, window, stride, block, mixed, batch_size, as_dtype, direct, engine
):
    documents = numbered(lengths, "<u2")
    for number, part in enumerate(np.array_split(np.arange(len(documents)), files)):
        write_megatron(disk / f"{number}", [documents[one] for one in part], "<u2")
    step = max(1, window - 1) if stride is None else stride
    options = {
        "window": window,
        "stride": stride,
        "batch_size": batch_size,
        "as_dtype": as_dtype,
        "direct": direct,
        "engine": engine,
    }
    paths = [disk / f"{number}.bin" for number in range(files)]
    if sum(lengths) < window:
        with pytest.raises(DataError, match=f"too few for one window of {window}"):
            TokenDataset(paths, **options)
        return
    in_order = TokenDataset(paths, **options)
    assert flat(in_order) == cut(joined(documents), window, step)
    left = sum(lengths) - (in_order.num_records - 1) * step - max(window, step)
    assert in_order.unused_tail_bytes == max(0, left) * 2

    blocks = {"shuffle": "block", "block_records": block, "seed": 5}
    shuffled = TokenDataset(paths, **options, **blocks, window_blocks=mixed, return_index=True)
    for epoch in (0, 1):
        order = order_of_documents(paths, epoch, lengths, **blocks, as_dtype=as_dtype)
        assert sorted(order) == [number for number, length in enumerate(lengths) if length]
        parts = [
            [one for one in order if one // block == number]
            for number, _ in itertools.groupby(order, lambda one: one // block)
        ]
        assert list(itertools.chain(*parts)) == order  # a block is not torn apart
        expected = cut(joined([documents[one] for one in order]), window, step)
        shuffled.set_epoch(epoch)
        numbers, rows = [], []
        for batch, index in shuffled:
            numbers += index.tolist()
            rows += batch.tolist()
        first = epoch * len(expected)
        assert sorted(numbers) == list(range(first, first + len(expected)))
        assert rows == [expected[number - first] for number in numbers]
        if mixed == 1:
            assert numbers == sorted(numbers)
        assert shuffled.get_batch(numbers[-1:])[0].tolist() == rows[-1:]


def test_every_epoch_has_an_order_of_its_own(disk):
    lengths = [3] * 200
    write_megatron(disk / "corpus", numbered(lengths))
    blocks = {"shuffle": "block", "block_records": 20, "seed": 1}
    orders = [order_of_documents(disk / "corpus", epoch, lengths, **blocks) for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] != order_of_documents(disk / "corpus", 0, lengths, **{**blocks, "seed": 2})
    within = [[one % 20 for one in orders[0][begin : begin + 20]] for begin in range(0, 200, 20)]
    assert all(sorted(one) == list(range(20)) for one in within)
    assert len({tuple(one) for one in within}) == 10
    assert [orders[0][begin] // 20 for begin in range(0, 200, 20)] != list(range(10))


def test_windows_near_to_each_other_are_mixed(disk):
    write_megatron(disk / "corpus", numbered([20_000]))
    options = {"window": 11, "batch_size": 10, "return_index": True}
    dataset = TokenDataset(disk / "corpus", shuffle=True, **options)
    numbers = [number for _, index in dataset for number in index.tolist()]
    assert numbers != sorted(numbers) == list(range(1999))


@pytest.mark.parametrize("names", ["transformers", "flash_attn"])
def test_a_batch_says_where_documents_begin(disk, names):
    documents = numbered(LENGTHS)
    write_megatron(disk / "corpus", documents)
    dataset = TokenDataset(
        disk / "corpus", window=50, stride=50, batch_size=3, return_documents=True, names=names
    )
    owner = np.repeat(np.arange(len(LENGTHS)), LENGTHS).tolist()
    windows = list(zip(cut(joined(documents), 50, 50), cut(np.array(owner), 50, 50), strict=True))
    for number, batch in enumerate(dataset):
        expected = windows[3 * number : 3 * number + 3]
        pieces = [
            len(list(group)) for _, owners in expected for _, group in itertools.groupby(owners)
        ]
        ends = list(itertools.accumulate(pieces, initial=0))
        tokens = [token for window, _ in expected for token in window]
        end_names, length_names = {
            "transformers": (["cu_seq_lens_q", "cu_seq_lens_k"], ["max_length_q", "max_length_k"]),
            "flash_attn": (["cu_seqlens_q", "cu_seqlens_k"], ["max_seqlen_q", "max_seqlen_k"]),
        }[names]
        assert list(batch) == ["input_ids", "position_ids", *end_names, *length_names]
        assert batch["input_ids"].tolist() == [tokens]
        positions = [at for piece in pieces for at in range(piece)]
        assert batch["position_ids"].tolist() == [positions]
        for name in end_names:
            assert (batch[name].dtype, batch[name].tolist()) == (torch.int32, ends)
        for name in length_names:
            assert batch[name] == max(pieces)
        assert batch["input_ids"].dtype == batch["position_ids"].dtype == torch.int64
    assert number == (len(windows) - 1) // 3


def test_it_is_what_transformers_makes_of_the_same_pieces(disk):
    transformers = pytest.importorskip("transformers")
    write_megatron(disk / "corpus", numbered([4, 3, 5]))
    [batch] = TokenDataset(disk / "corpus", window=6, stride=6, batch_size=2, return_documents=True)
    pieces = [[0, 1, 2, 3], [4, 5], [6], [7, 8, 9, 10, 11]]
    collate = transformers.DataCollatorWithFlattening(return_flash_attn_kwargs=True)
    expected = collate([{"input_ids": piece} for piece in pieces])
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            assert value.tolist() == torch.as_tensor(expected[name]).tolist()
        else:
            assert value == expected[name]


@pytest.mark.parametrize("documents", ["concat", "single"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_views_are_of_documents(disk, documents, shuffle):
    lengths = LENGTHS * 4
    write_megatron(disk / "corpus", numbered(lengths))
    window = {"window": 1, "stride": 1} if documents == "concat" else {}
    dataset = TokenDataset(
        disk / "corpus", documents=documents, batch_size=64, shuffle=shuffle, **window
    )
    assert dataset.num_documents == 48
    whole = np.split(np.arange(sum(lengths)), np.cumsum(lengths))[:-1]

    def tokens_of(view: TokenDataset) -> list[int]:
        return sorted(
            token
            for batch in view
            for token in (batch.values if documents == "single" else batch).flatten().tolist()
        )

    subset = dataset.subset(3, 10)
    assert subset.num_documents == 7
    assert tokens_of(subset) == joined(whole[3:10]).tolist()
    train, test = dataset.split([0.75, 0.25], seed=4)
    assert (train.num_documents, test.num_documents) == (36, 12)
    assert sorted(tokens_of(train) + tokens_of(test)) == list(range(sum(lengths)))
    part = test.split([0.5, 0.5])[0].with_options(shuffle=False)
    assert part.num_documents == 6
    assert set(tokens_of(part)) < set(tokens_of(test))
    for document in whole:
        assert set(document.tolist()) & set(tokens_of(part)) in (set(), set(document.tolist()))
    single = TokenDataset(disk / "corpus", documents="single", batch_size=64)
    assert sorted(
        token for batch in single.split([0.75, 0.25], seed=4)[0] for token in batch.values.tolist()
    ) == tokens_of(train)


@pytest.mark.parametrize("shuffle", [False, True, "block"])
def test_epochs_go_on_at_every_step(disk, shuffle):
    write_megatron(disk / "corpus", numbered(LENGTHS))
    options = {"block_records": 3, "window_blocks": 2} if shuffle == "block" else {}

    def make(rank: int = 0, world: int = 1, **others: Any) -> TokenDataset:
        return TokenDataset(
            disk / "corpus", window=20, stride=13, batch_size=2, shuffle=shuffle, seed=3,
            rank=rank, world_size=world, pool=None, **options, **others,
        )  # fmt: skip

    check_read_and_resumed(make, lambda batches: [one.tolist() for one in batches], steps=19)
    check_shared_out_and_resumed(
        make, lambda batches: [[tuple(row) for row in one.tolist()] for one in batches]
    )


def test_workers_have_the_same_windows(disk):
    write_megatron(disk / "corpus", numbered(LENGTHS * 10))
    dataset = TokenDataset(
        disk / "corpus", window=20, batch_size=4, shuffle=True, return_documents=True
    )
    expected = [batch["input_ids"].tolist() for batch in dataset]
    again = TokenDataset(
        disk / "corpus", window=20, batch_size=4, shuffle=True, return_documents=True
    )
    for context in ("fork", "spawn"):
        loader = DataLoader(again, num_workers=1, multiprocessing_context=context)
        again.set_epoch(0)
        assert [batch["input_ids"].tolist() for batch in loader] == expected


def test_a_mixture_of_windows(disk):
    write_megatron(disk / "a", numbered([50] * 8))
    write_megatron(disk / "b", numbered([30] * 9, first=1000))
    parts = [
        TokenDataset(disk / name, window=10, stride=10, batch_size=5, shuffle=True) for name in "ab"
    ]
    assert [part.num_records for part in parts] == [40, 27]
    mix = Mix(parts, weights=[0.5, 0.5], seed=2, num_records=1024, return_index=True)
    rows = {"a": [], "b": []}
    for batch, index in mix:
        for row, number in zip(batch.tolist(), index.tolist(), strict=True):
            rows["ab"[row[0] >= 1000]].append(row)
            assert (row[0] >= 1000) == (number >= 1 << 48)
    assert [len(rows["a"]), len(rows["b"])] == [512, 512]
    for begin in range(0, 480, 40):  # each of its epochs has all of its documents
        epoch = rows["a"][begin : begin + 40]
        assert sorted(token for row in epoch for token in row) == list(range(400))
    for begin in range(0, 500, 27):
        epoch = [token for row in rows["b"][begin : begin + 27] for token in row]
        assert len(set(epoch)) == len(epoch)
    assert mix.get_batch([3, (1 << 48) + 5])[0].shape == (2, 10)


def test_an_index_that_is_changed_while_it_is_mapped_is_an_error(disk):
    write_megatron(disk / "corpus", numbered([2] * 60_000))
    options = {"window": 11, "batch_size": 64, "shuffle": "block", "block_records": 100}
    dataset = TokenDataset(disk / "corpus", **options)
    before = (disk / "corpus.idx").read_bytes()
    with open(disk / "corpus.idx", "r+b") as file:
        for number in range(0, 60_000, 100):
            file.seek(34 + 4 * number)
            file.write(b"\0" * 4)
    with pytest.raises(FileChangedError, match="make the data set anew"):
        for _ in dataset:
            pass
    (disk / "corpus.idx").write_bytes(before)
    tokens = [row for batch in TokenDataset(disk / "corpus", **options) for row in batch.tolist()]
    assert len(tokens) == dataset.num_records


def test_there_may_be_more_files_than_descriptors(disk):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in range(300):
        write_megatron(disk / f"{number:03}", numbered([3, 4], first=7 * number))
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        dataset = TokenDataset(disk / "*.bin", window=7, stride=7, batch_size=100, shuffle=True)
        tokens = sorted(token for row in flat(dataset) for token in row)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert tokens == list(range(2100))


def test_what_cannot_be_is_refused(disk):
    write_megatron(disk / "corpus", numbered(LENGTHS))

    def refused(match: str, **options: Any) -> None:
        with pytest.raises(ConfigError, match=match):
            TokenDataset(disk / "corpus", **options)

    refused("window= is missing")
    refused("window", window=0)
    refused("stride", window=5, stride=0)
    refused("documents must be", window=5, documents="all")
    refused("names must be", window=5, return_documents=True, names="hf")
    refused("needs return_documents=True", window=5, names="flash_attn")
    refused("give a batch_size", window=5, return_documents=True, batch_size=None)
    refused("give a batch_size", documents="padded", batch_size=None)
    refused("is for windows", documents="single", return_documents=True)
    refused("at most 65536 documents", window=5, shuffle="block", block_records=65537)
    dataset = TokenDataset(disk / "corpus", window=5)
    with pytest.raises(RangeError):
        dataset.get_batch([1 << 48])
    with pytest.raises(ConfigError, match="windows of documents"):
        Zip(a=dataset, b=dataset)


def test_a_split_knows_how_many_windows_its_blocks_have(disk):
    write_megatron(disk / "corpus", numbered([40] * 2000))
    blocks = {"shuffle": "block", "block_records": 100}
    dataset = TokenDataset(disk / "corpus", window=11, **blocks)
    assert dataset._order.block_windows == 399
    small = dataset.split([0.9, 0.1])[1]
    assert small._order.block_windows == 39


def test_windows_by_number_end_with_the_first_epoch(disk):
    write_megatron(disk / "corpus", numbered([40, 5, 60]))
    dataset = TokenDataset(disk / "corpus", window=11, shuffle=True)
    windows = RecordMapDataset(dataset)
    assert len(windows) == len(list(windows)) == 10
    assert len({int(window[0]) for window in windows}) == 10
    for number in (10, -11):
        with pytest.raises(IndexError, match="the data set has 10"):
            windows[number]
    with pytest.raises(IndexError):
        windows.__getitems__([3, 10])
