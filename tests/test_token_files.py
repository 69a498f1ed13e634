"""Files of tokens: each document is what was written."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from token_files import (
    as_lists,
    cut,
    documents_in,
    flat,
    joined,
    numbered,
    refused,
    write_datatrove,
    write_ended,
    write_listed,
    write_llm_c,
    write_megatron,
)

from torch_s3io import ConfigError, TokenDataset
from torch_s3io.format.tokens import spans

LENGTHS = [5, 0, 1, 300, 7, 0, 40]


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=20).filter(any),
    kind=st.sampled_from(["u1", "<i2", "<i4", "<i8", "<u2"]),
    bounds=st.lists(st.integers(0, 20), max_size=6),
    is_each=st.booleans(),
)
def test_megatron_documents_are_what_was_written(disk, lengths, kind, bounds, is_each):
    sequences = [one % 120 for one in numbered(lengths)]
    documents = None
    expected = sequences
    if not is_each:
        documents = sorted({0, len(lengths), *(min(one, len(lengths)) for one in bounds)})
        expected = [joined(sequences[a:b]) for a, b in itertools.pairwise(documents)]
    write_megatron(disk / "corpus", sequences, kind, documents)
    assert documents_in(disk / "corpus") == as_lists(expected)


@pytest.mark.parametrize(
    "name", ["corpus", "corpus.bin", "corpus.idx", "*.bin", "*.idx", "corpus*"]
)
def test_megatron_files_are_named_by_prefix_or_by_either(disk, name):
    documents = numbered(LENGTHS)
    write_megatron(disk / "corpus", documents)
    assert documents_in(disk / name) == as_lists(documents)


def test_documents_of_several_files_follow_each_other(disk):
    first, second = numbered([3, 4]), numbered([5], first=100)
    write_megatron(disk / "a", first)
    write_megatron(disk / "b", second)
    assert documents_in([disk / "b", disk / "a"]) == as_lists(second + first)
    dataset = TokenDataset(disk / "*.bin", window=4, stride=4, pool=None)
    assert flat(dataset) == cut(joined(first + second), 4, 4)
    assert dataset.num_documents == 3
    assert dataset.unused_tail_bytes == 0


@pytest.mark.parametrize(("magic", "top"), [(20240520, 60_000), (20240801, 100_000)])
def test_llm_c_files_of_both_kinds(disk, magic, top):
    tokens = np.arange(top - 500, top)
    write_llm_c(disk / "shard.bin", tokens, magic)
    assert documents_in(disk / "shard.bin") == [tokens.tolist()]
    ends = [top - 400, top - 7]
    for eos in ends:
        cuts = np.split(tokens, np.flatnonzero(tokens == eos) + 1)
        assert documents_in(disk / "shard.bin", eos=eos) == as_lists(cuts)


def test_documents_of_llm_c_begin_with_a_token(disk):
    documents = [[50256, 1, 2], [50256], [50256, 7, 8, 9]]
    write_llm_c(disk / "shard.bin", np.array([one for text in documents for one in text]))
    assert documents_in(disk / "shard.bin", bos=50256) == documents
    write_llm_c(disk / "rest.bin", np.array([5, 6, 50256, 1]))
    assert documents_in(disk / "rest.bin", bos=50256) == [[5, 6], [50256, 1]]
    refused(ConfigError, "give one", disk / "rest.bin", bos=50256, eos=3)


@pytest.mark.parametrize("kind", ["<u2", "<u4"])
def test_datatrove_files(disk, kind):
    documents = numbered(LENGTHS)
    write_datatrove(disk / "0.ds", documents, kind)
    assert documents_in(disk / "0.ds") == as_lists(documents)
    assert documents_in(disk / "*", dtype=kind) == as_lists(documents)


@pytest.mark.parametrize("name", ["tokens.npy", "tokens.bin", "tokens"])
def test_raw_files(disk, name):
    documents = [np.append(one + 1, 0) for one in numbered([4, 0, 9])]
    write_ended(disk / name, documents, eos=0, kind=">u2")
    assert documents_in(disk / name, dtype=">u2") == [joined(documents).tolist()]
    assert documents_in(disk / name, dtype=">u2", eos=0) == as_lists(documents)
    (disk / name).write_bytes((disk / name).read_bytes() + b"\0\7")  # the last one has no end
    assert documents_in(disk / name, dtype=">u2", eos=0) == [*as_lists(documents), [7]]


def test_raw_files_with_a_list_of_documents(disk):
    documents = numbered(LENGTHS)
    write_listed(disk / "part-0.npy", documents)
    assert documents_in(disk / "*", dtype="u2") == as_lists(documents)
    with pytest.raises(ConfigError, match="leave eos= and bos= out"):
        documents_in(disk / "part-0.npy", dtype="u2", eos=3)
    lines = gzip.decompress((disk / "part-0.csv.gz").read_bytes()).splitlines(keepends=True)
    (disk / "part-0.csv.gz").write_bytes(gzip.compress(lines[0] + lines[3]))  # some alone
    with pytest.warns(RuntimeWarning, match="the others are not read"):
        found = documents_in(disk / "part-0.npy", dtype="u2")
    assert found == as_lists([documents[0], documents[3]])


@settings(max_examples=25)
@given(
    documents=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 40), st.text('ab0,"\n\r\u20ac', max_size=8)),
        min_size=1,
        max_size=30,
    ),
    ending=st.sampled_from(["\n", "\r\n"]),
    is_ended=st.booleans(),
    at_once=st.sampled_from([1, 7, 1 << 20]),
)
def test_lists_are_read_as_python_reads_them(disk, documents, ending, is_ended, at_once):
    text, end, expected = io.StringIO(newline=""), 0, []
    for gap, length, about in documents:
        begin, end = end + gap, end + gap + length
        csv.writer(text, lineterminator=ending).writerow([begin, end, about, "x"])
        expected.append(list(range(begin, end)))
    lines = text.getvalue() if is_ended else text.getvalue().removesuffix(ending)
    np.arange(end, dtype="<u2").tofile(disk / "part.npy")
    (disk / "part.csv.gz").write_bytes(gzip.compress(lines.encode()))
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch.setattr(spans, "_READ_BYTES", at_once)
        found = documents_in(disk / "part.npy", dtype="u2", index=False)
    assert found == expected


def test_tokens_arrive_as_they_are_asked_for(disk):
    documents = numbered([3, 5])
    write_megatron(disk / "corpus", documents)
    whole = TokenDataset(disk / "corpus", documents="single", batch_size=2, as_dtype=None)
    [batch] = whole
    assert (batch.values.dtype, batch.is_packed, len(batch)) == (torch.int32, True, 2)
    assert (whole.dtype, whole.shape) == (torch.int32, (None,))
    [padded] = TokenDataset(disk / "corpus", documents="padded", batch_size=2)
    assert padded.dtype == torch.int64
    assert padded.tolist() == [[0, 1, 2, 0, 0], [3, 4, 5, 6, 7]]
    with pytest.raises(ConfigError, match="may change values"):
        TokenDataset(disk / "corpus", documents="single", as_dtype=torch.int16)
