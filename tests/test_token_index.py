"""The index of documents that a token ends, or a list names; and files that are named twice."""

from __future__ import annotations

import gzip
import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from token_files import (
    changed,
    documents_in,
    flat,
    numbered,
    refused,
    write_ended,
    write_listed,
    write_megatron,
)

from torch_s3io import ConfigError, DataError, TokenDataset
from torch_s3io.cli import main
from torch_s3io.format.tokens import ends, spans
from torch_s3io.format.tokens.document_index import Sought
from torch_s3io.index.column_file import map_columns
from torch_s3io.index.column_writer import write_columns


def indexes(folder: Path) -> list[Path]:
    return sorted(folder.glob(".torch_s3io-tokens-*.idx"))


def count_reads(monkeypatch) -> list[str]:
    """The files that are looked through from now on."""
    looked: list[str] = []

    def counted(look, *arguments):
        [one] = [each for each in arguments if isinstance(each, Sought)]
        looked.append(Path(one.source).name)
        return look(*arguments)

    for module, name in ((ends, "_look_through"), (spans, "_read_list")):
        monkeypatch.setattr(module, name, partial(counted, getattr(module, name)))
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


def test_lists_are_read_once_and_again_where_one_or_its_tokens_change(disk, monkeypatch):
    looked = count_reads(monkeypatch)
    files = {f"{name}.npy": numbered([3, 0, 9]) for name in "ab"}

    def read(**options) -> list[str]:
        """What was looked through."""
        looked.clear()
        expected = [one.tolist() for documents in files.values() for one in documents]
        assert documents_in(disk / "*.npy", dtype="u2", **options) == expected
        return looked

    for name, documents in files.items():
        write_listed(disk / name, documents)
    assert read() == ["a.csv.gz", "b.csv.gz"]
    assert read() == []
    assert len(indexes(disk)) == 1
    files["b.npy"] = numbered([2, 10])  # as many tokens
    write_listed(disk / "b.npy", files["b.npy"])
    assert read() == ["b.csv.gz"]
    files["a.npy"] = numbered([3, 0, 8])
    write_listed(disk / "a.npy", files["a.npy"])
    assert read() == ["a.csv.gz"]
    assert read(index=False) == ["a.csv.gz", "b.csv.gz"]
    assert read(index=disk / "other.idx") == ["a.csv.gz", "b.csv.gz"]
    assert read(index=disk / "other.idx") == []
    with open(disk / "a.npy", "ab") as file:
        file.truncate(4)  # the list is as it was, and the index of it
    refused(DataError, "of another file", disk / "*.npy", dtype="u2")


@pytest.mark.parametrize("eos", [0, None])
def test_a_damaged_index_is_made_anew(disk, eos):
    documents = [np.append(one + 1, 0) for one in numbered([3, 0, 9])]
    (write_listed if eos is None else write_ended)(
        disk / "a.npy", documents, **({} if eos is None else {"eos": 0})
    )
    expected = documents_in(disk / "a.npy", dtype="u2", eos=eos)
    [index] = indexes(disk)
    right = index.read_bytes()
    for at in range(0, len(right), 3):
        index.write_bytes(changed(right, at, bytes([right[at] ^ 1 << at % 8])))
        assert documents_in(disk / "a.npy", dtype="u2", eos=eos) == expected, at


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("counts", np.array([np.nan])),
        ("counts", np.array(2)),
        ("counts", np.array([[2]])),
        ("counts", np.array([3])),
        ("sizes", np.array(12)),
        ("starts", np.array(0, "u8")),
        ("lengths", np.array([1, 2], "u2")),
    ],
)
def test_an_index_of_columns_that_cannot_be_is_made_anew(disk, name, column):
    write_ended(disk / "a.bin", [np.append(one + 1, 0) for one in numbered([3, 1])], eos=0)
    expected = documents_in(disk / "a.bin", dtype="u2", eos=0)
    [path] = indexes(disk)
    right = path.read_bytes()
    index = map_columns(str(path))
    write_columns(str(path), index.head, {**index.columns, name: column})  # right checksums
    assert documents_in(disk / "a.bin", dtype="u2", eos=0) == expected
    assert path.read_bytes() == right


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
    write_listed(disk / "b.npy", numbered([3, 4]))
    documents_in(disk / "b.npy", dtype="u2")
    assert main(["info", str(disk)]) == 0
    assert "2, which lists beside the files name" in capsys.readouterr().out
    (disk / "a.bin").write_bytes(bytes(10))
    assert main(["info", str(disk)]) == 0
    assert "STALE" in capsys.readouterr().out
    assert main(["index", str(disk / "a.bin")]) == 1
    assert "no index is made of it ahead" in capsys.readouterr().err


def test_a_spawned_process_maps_the_index(disk, monkeypatch):
    write_ended(disk / "a.bin", [np.append(one + 1, 0) for one in numbered([3, 40])], eos=0)
    dataset = TokenDataset(disk / "a.bin", window=5, dtype="u2", eos=0, shuffle=True)
    looked = count_reads(monkeypatch)
    copy = pickle.loads(pickle.dumps(dataset))
    assert flat(copy) == flat(dataset)
    assert looked == []
