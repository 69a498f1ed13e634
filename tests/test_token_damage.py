"""Files of tokens that are damaged, or of something else: refused by name, never read wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from token_files import (
    MEGATRON_TYPES,
    changed,
    documents_in,
    megatron_index,
    numbered,
    refused,
    write_datatrove,
    write_listed,
    write_llm_c,
    write_megatron,
)

from torch_s3io import ConfigError, DataError, Error, NotFoundError, TokenDataset


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
        (b"-1,3\n", "line 1 is"),
        (b"0,3\n3,%d\n" % 10**20, "line 2 is"),
        (b"0\n", "line 1 is"),
        (b"a,b\n", "line 1 is"),
        (b"0,3\n3,7\n" + b"7,7\n" * 1_000_000, "more than .* lines in"),
        (b"0,3," + bytes(50_000_000), "a line of more than"),
        (b'0,3,"a\n3,7\n', "ends within quotes"),
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
