"""Files of tokens: each document is what was written; what cannot be is refused by name."""

from __future__ import annotations

import gzip
import itertools
import os
import pickle
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from token_files import (
    MEGATRON_TYPES,
    cut,
    flat,
    joined,
    megatron_index,
    numbered,
    write_datatrove,
    write_ended,
    write_listed,
    write_llm_c,
    write_megatron,
)

from torch_s3io import ConfigError, DataError, Error, NotFoundError, TokenDataset
from torch_s3io.cli import main
from torch_s3io.format.tokens import ends

LENGTHS = [5, 0, 1, 300, 7, 0, 40]


def documents_in(paths, **options) -> list[list[int]]:
    dataset = TokenDataset(paths, documents="single", batch_size=3, pool=None, **options)
    return [document.tolist() for batch in dataset for document in batch]


def as_lists(documents: list[np.ndarray]) -> list[list[int]]:
    return [document.tolist() for document in documents]


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


# ---- What is wrong.


def refused(error, match: str, paths, **options) -> None:
    with pytest.raises(error, match=match):
        TokenDataset(paths, documents="single", **options)


def wrapped_index(folder: Path, tail: int) -> Path:
    """Of a sparse .bin of 8 GiB and more, whose second offset wrapped around."""
    lengths = [(1 << 31) - 100, tail]
    (folder / "big.idx").write_bytes(megatron_index(lengths, MEGATRON_TYPES["<i4"], [0, -400]))
    with open(folder / "big.bin", "wb") as file:
        file.truncate(sum(lengths) * 4)
    return folder / "big"


def test_offsets_that_wrapped_around_are_named_and_recomputed(disk):
    path = wrapped_index(disk, 123)
    refused(DataError, r'big\.idx.*sequence 1 begins at byte -400.*repair="recompute"', path)
    with open(disk / "big.bin", "r+b") as file:
        file.seek(((1 << 31) - 100) * 4)
        file.write(np.arange(1, 124, dtype="<i4").tobytes())
    dataset = TokenDataset(path, documents="single", repair="recompute", pool=None)
    assert dataset.get_batch([1])[0].tolist() == list(range(1, 124))
    windows = TokenDataset(path, window=123, stride=123, repair="recompute", pool=None)
    begin = (windows.num_records - 1) * 123
    expected = [max(0, at - (1 << 31) + 101) for at in range(begin, begin + 123)]
    assert windows.get_batch([windows.num_records - 1]).tolist() == [expected]


def test_offsets_and_lengths_that_are_both_wrong_are_of_another_bin(disk):
    path = wrapped_index(disk, 123)
    with open(disk / "big.bin", "r+b") as file:
        file.truncate(1000)
    refused(DataError, r"8589934684 bytes, but the \.bin has 1000.*sequence 1", path)
    refused(DataError, "copy both again", path, repair="recompute")


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def test_wrong_indices_of_megatron_say_what_is_wrong(disk):
    write_megatron(disk / "corpus", numbered([3, 4]))
    index = (disk / "corpus.idx").read_bytes()
    for wrong, match in [
        (b"TNTIDX\0\0" + index, "old Megatron"),
        (b"x" + index, "no index of Megatron's"),
        (index[:20], "fewer than its head"),
        (changed(index, 9, b"\2"), "version 2"),
        (changed(index, 17, b"\x09"), "type 9"),
        (index[:-1], "cut off or appended to"),
        (changed(index, 18, b"\xff" * 8), "cut off or appended to"),
        (changed(index, 34, b"\xff" * 4), "sequence 0 has a negative length"),
        (megatron_index([3, 4], 4, [0, 12], [0, 2, 1, 2]), "do not follow"),
        (megatron_index([3, 4], 4, [0, 12], [1, 2]), "do not follow"),
        (megatron_index([3, 4], 4, [0, 12], [0, 1]), "1 sequences, but there are 2"),
        (megatron_index([3, 4], 4, [0, 12], []), "does not say where"),
        (megatron_index([3, 5], 4, [0, 12]), "32 bytes, but the .bin has 28"),
    ]:
        (disk / "corpus.idx").write_bytes(wrong)
        refused(DataError, rf"corpus\.idx: .*{match}", disk / "corpus")
    (disk / "corpus.idx").write_bytes(megatron_index([3, 4], 4, [0, 12], modes=b"\0\0"))
    assert documents_in(disk / "corpus") == [[0, 1, 2], [3, 4, 5, 6]]
    (disk / "corpus.idx").unlink()
    refused(NotFoundError, "corpus.idx", disk / "corpus.bin", format="megatron")


def test_wrong_files_of_llm_c_say_what_is_wrong(disk):
    path = write_llm_c(disk / "x.bin", np.arange(50))
    data = path.read_bytes()
    for wrong, match in [
        (changed(data, 0, (20240522).to_bytes(4, "little")), "evaluation file"),
        (changed(data, 4, b"\2"), "version 2"),
        (changed(data, 8, b"\x33"), "51 tokens of 2 bytes"),
        (changed(data, 8, b"\xff" * 4), "-1 tokens"),
        (data[:-1], "1123 bytes"),
        (data[:100], "fewer than its header"),
    ]:
        path.write_bytes(wrong)
        refused(DataError, match, path)
    path.write_bytes(b"abcd" * 300)
    refused(DataError, "no file of llm.c", path, format="llm.c")


def test_wrong_files_of_datatrove_say_what_is_wrong(disk):
    path = write_datatrove(disk / "x.ds", numbered([3, 4]))
    for wrong, match in [([3, 8], "ends after 8 tokens"), ([4, 3, 7], "ends before it begins")]:
        Path(f"{path}.index").write_bytes(np.array(wrong, "<u8").tobytes())
        refused(DataError, match, path)
    Path(f"{path}.index").write_bytes(bytes(9))
    refused(DataError, "no multiple of 8", path)
    Path(f"{path}.index").unlink()
    refused(NotFoundError, r"x\.ds\.index", path)


def test_wrong_raw_files_say_what_is_wrong(disk):
    np.save(disk / "array.npy", np.arange(9))
    refused(DataError, "array of numpy with a header", disk / "array.npy", dtype="u2")
    (disk / "lfs.npy").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n")
    refused(DataError, "git lfs pull", disk / "lfs.npy", dtype="u2")
    (disk / "x.bin").write_bytes(bytes(7))
    refused(DataError, "no multiple of the 2 bytes", disk / "x.bin", dtype="u2")
    refused(ConfigError, "dtype='uint16'", disk / "x.bin")
    refused(ConfigError, "whole numbers", disk / "x.bin", dtype="f4")
    write_listed(disk / "y.npy", numbered([3, 4]))
    for lines, match in [
        (b"0,3\n2,7\n", "line 2 says tokens 2 to 7"),
        (b"0,8\n", "tokens 0 to 8"),
        (b"-1,3\n", "tokens -1"),
        (b"0\n", "line 1 is"),
        (b"a,b\n", "line 1 is"),
        (b"0,0\n" * 20, "line 9"),
    ]:
        (disk / "y.csv.gz").write_bytes(gzip.compress(lines))
        refused(DataError, match, disk / "y.npy", dtype="u2")
    (disk / "y.csv.gz").write_bytes(gzip.compress(b"0,3\n")[:-9])
    refused(DataError, "cannot be decompressed", disk / "y.npy", dtype="u2")


def test_options_without_effect_are_refused(disk):
    write_megatron(disk / "a", numbered([3, 4]))
    write_llm_c(disk / "b.bin", np.arange(9))
    refused(ConfigError, "no dtype=", disk / "a", dtype="u2")
    refused(ConfigError, "no eos=", disk / "a", eos=3)
    refused(ConfigError, "no repair=", disk / "b.bin", repair="recompute")
    refused(ConfigError, "repair", disk / "a", repair="guess")
    refused(ConfigError, "format", disk / "a", format="parquet")
    refused(ConfigError, "tokens of uint16, but .* has int32", [disk / "a.bin", disk / "b.bin"])
    refused(ConfigError, r"by a pattern, such as .*\*\.bin", disk)
    refused(ConfigError, "window= and stride= out", disk / "a", window=3)
    (disk / "c.ds.metadata").write_text("")
    refused(NotFoundError, "belongs to a file of tokens", disk / "*.metadata")


def writers(folder: Path) -> list[tuple[Path, dict, list[Path]]]:
    """A small file of each format, its options, and what is to be damaged."""
    documents = numbered([2, 0, 3])
    megatron = write_megatron(folder / "m", documents)
    listed = write_listed(folder / "l.npy", documents)
    trove = write_datatrove(folder / "t.ds", documents)
    llm_c = write_llm_c(folder / "c.bin", np.arange(4))
    return [
        (megatron, {}, [folder / "m.idx", folder / "m.bin"]),
        (listed, {"dtype": "u2"}, [folder / "l.csv.gz", listed]),
        (trove, {}, [folder / "t.ds.index", trove]),
        (llm_c, {"format": "llm.c"}, [llm_c]),
    ]


@pytest.mark.filterwarnings("ignore:.*which .* lists:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*more, which are not read:RuntimeWarning")
@pytest.mark.parametrize("number", range(4))
def test_files_that_are_cut_or_flipped_anywhere_are_right_or_refused(disk, number):
    path, options, damaged = writers(disk)[number]
    right = documents_in(path, **options)
    for file in damaged:
        data = file.read_bytes()
        places = [*range(min(len(data), 120)), *range(max(120, len(data) - 20), len(data))]
        for at in places:
            for wrong in (data[:at], changed(data, at, bytes([data[at] ^ 0xFF]))):
                file.write_bytes(wrong)
                try:
                    found = documents_in(path, **options)
                except Error:
                    continue
                assert len(wrong) == len(data), f"{file} was cut off at {at}"
                if file == path:  # a token is another one
                    assert [len(one) for one in found] == [len(one) for one in right]
                else:
                    assert found == right, (file, at)
        file.write_bytes(data)
    assert documents_in(path, **options) == right


# ---- The index of documents that end with a token.


def indexes(folder: Path) -> list[Path]:
    return sorted(folder.glob(".torch_s3io-tokens-*.idx"))


def count_reads(monkeypatch) -> list[str]:
    """The files that are looked through from now on."""
    looked: list[str] = []
    look = ends._look_through

    def counted(one, *others):
        looked.append(Path(one.file.path).name)
        return look(one, *others)

    monkeypatch.setattr(ends, "_look_through", counted)
    return looked


def test_ends_are_looked_for_once_and_again_where_a_file_changes(disk, monkeypatch):
    looked = count_reads(monkeypatch)
    files = {f"{n}.bin": [np.append(one + 1, 0) for one in numbered([3, n])] for n in (1, 2, 3)}
    for name, documents in files.items():
        write_ended(disk / name, documents, eos=0)
    options = {"dtype": "u2", "eos": 0}

    def expected() -> list[list[int]]:
        return [one.tolist() for documents in files.values() for one in documents]

    assert documents_in(disk / "*.bin", **options) == expected()
    assert looked == ["1.bin", "2.bin", "3.bin"]
    assert documents_in(disk / "*.bin", **options) == expected()
    assert len(looked) == 3
    [index] = indexes(disk)
    files["2.bin"] = [np.append(one + 7, 0) for one in numbered([8, 1, 2])]
    write_ended(disk / "2.bin", files["2.bin"], eos=0)
    assert documents_in(disk / "*.bin", **options) == expected()
    assert looked[3:] == ["2.bin"]
    assert indexes(disk) == [index]
    index.write_bytes(index.read_bytes()[:-70])  # damaged: made anew
    assert documents_in(disk / "*.bin", **options) == expected()
    assert len(looked) == 7
    assert documents_in(disk / "*.bin", **options, index=False) == expected()
    assert len(looked) == 10
    documents_in(disk / "1.bin", **options, index=disk / "other.idx")
    assert (disk / "other.idx").exists()
    refused(ConfigError, "index= is", disk / "1.bin", **options, index=3)
    refused(ConfigError, "leave it out", disk / "1.bin", dtype="u2", index=disk / "other.idx")


def test_files_of_one_name_in_any_order_share_an_index(disk, monkeypatch):
    looked = count_reads(monkeypatch)
    documents = {"x": [[1, 2, 0], [3, 0]], "y": [[4, 0], [5, 6, 0]]}
    for name, texts in documents.items():
        (disk / name).mkdir()
        write_ended(disk / name / "t.bin", [np.array(one) for one in texts], eos=0)
        os.utime(disk / name / "t.bin", ns=(0, 0))
    for order in ("xy", "yx", "xy", "xyx"):
        paths = [disk / name / "t.bin" for name in order]
        expected = [one for name in dict.fromkeys(order) for one in documents[name]]
        assert documents_in(paths, dtype="u2", eos=0) == expected
    assert len(looked) == 2
    assert len(indexes(disk)) == 1


def test_a_damaged_index_is_made_anew(disk):
    documents = [np.append(one + 1, 0) for one in numbered([3, 0, 9])]
    write_ended(disk / "a.bin", documents, eos=0)
    expected = documents_in(disk / "a.bin", dtype="u2", eos=0)
    [index] = indexes(disk)
    right = index.read_bytes()
    for at in range(0, len(right), 3):
        index.write_bytes(changed(right, at, bytes([right[at] ^ 1 << at % 8])))
        assert documents_in(disk / "a.bin", dtype="u2", eos=0) == expected, at


def test_an_end_that_is_no_token_is_refused_and_one_that_is_nowhere_is_said(disk):
    write_ended(disk / "a.bin", [np.array([1, 2])], eos=0)
    refused(ConfigError, "eos=65536 is no uint16", disk / "a.bin", dtype="u2", eos=65536)
    for _ in range(2):  # also where an index knows it
        with pytest.warns(RuntimeWarning, match="eos=7 is in none of 1 file"):
            assert documents_in(disk / "a.bin", dtype="u2", eos=7) == [[1, 2]]


def test_tokens_that_no_document_has_are_said(disk):
    write_megatron(disk / "corpus", numbered([3, 4]))
    with open(disk / "corpus.bin", "ab") as file:
        file.write(bytes(5))
    with pytest.warns(RuntimeWarning, match="5 more, which are not read"):
        assert documents_in(disk / "corpus") == [[0, 1, 2], [3, 4, 5, 6]]
    write_listed(disk / "part.npy", numbered([3, 4]))
    (disk / "part.csv.gz").write_bytes(gzip.compress(b"0,3\n"))
    with pytest.warns(RuntimeWarning, match="has 7 tokens, of which .* lists 3"):
        assert documents_in(disk / "part.npy", dtype="u2") == [[0, 1, 2]]


def test_a_file_and_the_one_beside_it_are_read_once(disk):
    write_megatron(disk / "corpus", numbered([3, 4]))
    paths = [disk / name for name in ("corpus", "corpus.idx", "corpus.bin")]
    assert documents_in(paths) == [[0, 1, 2], [3, 4, 5, 6]]


@pytest.mark.parametrize("documents", ["single", "padded"])
def test_documents_may_all_be_empty(disk, documents):
    write_megatron(disk / "corpus", numbered([0, 0, 0]))
    batches = list(TokenDataset(disk / "corpus", documents=documents, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 1]


def test_commands_know_the_index(disk, capsys):
    write_ended(disk / "a.bin", [np.append(one + 1, 0) for one in numbered([3, 40])], eos=0)
    documents_in(disk / "a.bin", dtype="u2", eos=0)
    assert main(["info", str(disk)]) == 0
    shown = capsys.readouterr().out
    assert "of documents of tokens" in shown
    assert "as the data are" in shown
    assert "2, which end with 0" in shown
    assert "45 of '<u2'" in shown
    (disk / "a.bin").write_bytes(bytes(10))
    assert main(["info", str(disk)]) == 0
    assert "STALE" in capsys.readouterr().out
    assert main(["index", str(disk / "a.bin")]) == 1
    assert "that says which it is" in capsys.readouterr().err


def test_a_spawned_process_maps_the_index(disk, monkeypatch):
    write_ended(disk / "a.bin", [np.append(one + 1, 0) for one in numbered([3, 40])], eos=0)
    dataset = TokenDataset(disk / "a.bin", window=5, dtype="u2", eos=0, shuffle=True)
    looked = count_reads(monkeypatch)
    copy = pickle.loads(pickle.dumps(dataset))
    assert flat(copy) == flat(dataset)
    assert looked == []
