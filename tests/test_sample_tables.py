"""Manifests and tables of samples from any hands: what is wrong with one is said before it does
harm."""

from __future__ import annotations

import json
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from torch_s3io import _C, DataError, Error, NotFoundError
from torch_s3io.cli import main
from torch_s3io.format.sample_layout import make_sample_layout
from torch_s3io.format.sample_table import (
    load_table,
    needed_length_bytes,
    pack_table,
    read_table,
    samples_in,
)
from torch_s3io.format.samples import (
    SampleManifest,
    SampleShard,
    parse_sample_manifest,
    read_any_manifest,
    read_sample_manifest,
)
from torch_s3io.writing.sample_writer import SampleWriter

FIELDS = {"label": np.uint8, "tokens": (">u2", (None,)), "image": (np.uint8, (None, None, 3))}
COUNT = 50


@pytest.fixture
def folder(disk):
    with SampleWriter(disk / "set", fields=FIELDS, shard_bytes=3000) as writer:
        for number in range(COUNT):
            image = np.full((number % 4, 3, 3), number, "u1")
            writer.write({"label": number, "tokens": np.arange(number, dtype="u2"), "image": image})
    return disk / "set"


HOSTILE = {
    "version of the future": (["version"], 2),
    "another format": (["format"], "zip"),
    "records": (["format"], "torch_s3io.records"),
    "another checksum": (["checksum"], "md5"),
    "too many samples": (["num_samples"], COUNT + 1),
    "samples that overflow": (["num_samples"], 1 << 63),
    "more data than shards": (["data_bytes"], 1 << 40),
    "no data": (["data_bytes"], 0),
    "negative data": (["data_bytes"], -1),
    "largest beyond the data": (["largest_sample_bytes"], 1 << 40),
    "largest below the mean": (["largest_sample_bytes"], 3),
    "largest below the record": (["largest_sample_bytes"], 0),
    "root above the largest": (["rms_sample_bytes"], 1 << 20),
    "root below the mean": (["rms_sample_bytes"], 3),
    "alignment that is no power": (["alignment"], 48),
    "alignment of 8": (["alignment"], 8),
    "alignment of an exabyte": (["alignment"], 1 << 60),
    "record of a fraction": (["record_bytes"], 1.5),
    "record that overflows": (["record_bytes"], 1 << 64),
    "record too short for its field": (["record_bytes"], 0),
    "no fields": (["fields"], []),
    "field that is none": (["fields", 0], "label"),
    "no name": (["fields", 0, "name"], ""),
    "name twice": (["fields", 0, "name"], "tokens"),
    "half a character as a name": (["fields", 0, "name"], "\ud800"),
    "unknown dtype": (["fields", 0, "dtype"], "uint9"),
    "dtype that is a function": (["fields", 1, "dtype"], "zeros"),
    "byte order of the PDP-11": (["fields", 1, "byte_order"], "middle"),
    "offset behind the record": (["fields", 0, "offset"], 1),
    "offset that is no multiple": (["fields", 0, "dtype"], "int16"),
    "no offset": (["fields", 0, "offset"], None),
    "shape of nothing": (["fields", 2, "shape"], [None, None, 0]),
    "shape that overflows": (["fields", 2, "shape"], [None, None, 1 << 41]),
    "shape of many open axes": (["fields", 2, "shape"], [None] * 9),
    "shape of many axes": (["fields", 2, "shape"], [1] * 65),
    "negative shape": (["fields", 2, "shape"], [None, None, -3]),
    "an axis less": (["fields", 2, "shape"], [None, 3, 3]),
    "an axis more": (["fields", 1, "shape"], [None, None]),
    "no lengths": (["fields", 1, "largest_lengths"], None),
    "lengths of text": (["fields", 1, "largest_lengths"], ["3"]),
    "lengths that overflow": (["fields", 1, "largest_lengths"], [1 << 63]),
    "no shards": (["shards"], []),
    "name outside": (["shards", 0, "name"], "../x.bin"),
    "absolute name": (["shards", 0, "name"], "/etc/passwd"),
    "long name": (["shards", 0, "name"], "a" * 300),
    "empty shard": (["shards", 0, "num_samples"], 0),
    "count that overflows": (["shards", 0, "num_samples"], 1 << 62),
    "wrong size": (["shards", 0, "size_bytes"], 300),
    "size that overflows": (["shards", 0, "size_bytes"], 1 << 70),
    "table at any byte": (["shards", 0, "table_offset"], 4097),
    "table elsewhere": (["shards", 0, "table_offset"], 8192),
    "table before the file": (["shards", 0, "table_offset"], -4096),
    "lengths of 5 bytes": (["shards", 0, "length_bytes"], 5),
    "longer lengths": (["shards", 0, "length_bytes"], 8),
    "checksum of a number": (["shards", 0, "crc32c"], 12345678),
    "checksum of text": (["shards", 0, "table_crc32c"], "not hexa"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_is_an_error_that_names_the_manifest(folder, name):
    keys, value = HOSTILE[name]
    manifest = place = json.loads((folder / "manifest.json").read_text())
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"manifest\.json: ") as caught:
        read_sample_manifest(str(folder))
    assert len(str(caught.value)) < 1000


def test_two_shards_of_one_name_are_an_error(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0]["name"] = manifest["shards"][1]["name"]
    with pytest.raises(DataError, match="the same name"):
        parse_sample_manifest(json.dumps(manifest).encode(), "manifest.json")


def test_every_truncation_of_a_manifest_is_an_error(folder):
    text = (folder / "manifest.json").read_bytes().rstrip()
    for length in range(len(text)):
        with pytest.raises(DataError):
            parse_sample_manifest(text[:length], "manifest.json")
    parsed = parse_sample_manifest(text, "manifest.json")
    assert parsed.num_samples == COUNT
    assert parse_sample_manifest(parsed.to_json(), "") == parsed == read_any_manifest(str(folder))


def test_unknown_members_are_ignored(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["made_by"] = manifest["shards"][0]["colour"] = "somebody"
    text = json.dumps(manifest).encode()
    assert parse_sample_manifest(text, "") == read_sample_manifest(str(folder))


# Tables -----------------------------------------------------------------------------------------


def made(starts, lengths, *, offset=1 << 40, alignment=16, length_bytes=8, largest=1 << 40):
    """A table of samples of one field of bytes and one of pairs of float64, and its manifest."""
    layout = make_sample_layout({"data": bytes, "pairs": ("f8", (None, None, 2))})
    columns = [np.array([row[:1] for row in lengths], "u8"),
               np.array([row[1:] for row in lengths], "u8")]  # fmt: skip
    crcs = np.zeros(len(starts), "u4")
    table = pack_table(np.array(starts, "u8"), columns, crcs, length_bytes)
    shard = SampleShard(
        "x.bin", len(starts), offset + len(table), offset, length_bytes, _C.crc32c(table), 0
    )
    most = ((1 << 62,), (1 << 62, 1 << 62))
    return table, shard, SampleManifest(layout, alignment, 1, largest, 1, most, (shard,))


def test_a_table_that_is_right_is_read(folder):
    table, shard, manifest = made([0, 32, 4096], [[3, 1, 1], [0, 0, 5], [9, 2, 1]])
    read = read_table(table, shard, manifest)
    assert list(samples_in(read, manifest.layout)) == [(0, 24), (32, 32), (4096, 4096 + 48)]
    for entry in read_sample_manifest(str(folder)).shards:
        found = load_table(str(folder / entry.name), entry, read_sample_manifest(str(folder)))
        assert found.num_samples == entry.num_samples


WRONG = {
    "descending": ([64, 0], [[0, 0, 0]] * 2, r"sample 1 begins at byte 0, before the end of"),
    "overlapping": ([0, 32], [[33, 0, 0]] * 2, r"sample 1 begins at byte 32, before the end"),
    "in the table": ([1 << 40], [[1, 0, 0]], r"sample 0 ends at byte \d+, behind the samples' end"),
    "outside": ([1 << 50], [[0, 0, 0]], r"sample 0 ends at byte \d+, behind the samples' end"),
    "of no file": ([(1 << 64) - 16], [[16, 0, 0]], r"sample 0 begins at byte 18\d+, which no file"),
    "not aligned": ([0, 40], [[1, 0, 0]] * 2, r"sample 1 begins at byte 40, not at a multiple"),
    "long": ([0, 16], [[1, 0, 0], [(1 << 62) + 1, 0, 0]], r"sample 1: field 'data' has the leng"),
    "product": ([0], [[0, 1 << 32, 1 << 32]], r"sample 0: field 'pairs' has the lengths \[42"),
    "wraps": ([0], [[0, 1 << 61, 1 << 60]], r"sample 0: field 'pairs' has the lengths"),
    "large": ([0], [[(1 << 40) + 1, 0, 0]], r"sample 0 has 1099511627784 bytes, more than the"),
    "large pairs": ([0], [[0, 1 << 30, 1 << 7]], r"sample 0 has \d+ bytes, more than the"),
}


@pytest.mark.parametrize("name", WRONG)
def test_extents_that_cannot_be_are_an_error_that_names_the_sample(name):
    starts, lengths, text = WRONG[name]
    table, shard, manifest = made(starts, lengths)
    with pytest.raises(DataError, match=rf"/set/x\.bin: {text}") as caught:
        read_table(table, shard, manifest, "/set/x.bin")
    assert "copy the data set again, or write it anew" in str(caught.value)


def test_the_number_of_a_wrong_sample_is_right_in_any_block():
    count = 200_000
    starts = np.arange(count) * 16
    lengths = np.zeros((count, 3), "u8")
    for wrong in (0, 65_535, 65_536, 131_073, count - 1):
        moved = starts.copy()
        moved[wrong] += 8
        table, shard, manifest = made(moved, lengths)
        with pytest.raises(DataError, match=rf"sample {wrong} begins at byte {moved[wrong]}, not"):
            read_table(table, shard, manifest)
        longer = lengths.copy()
        longer[max(wrong - 1, 0), 0] = 17
        table, shard, manifest = made(starts, longer)
        with pytest.raises(DataError, match=rf"sample {max(wrong, 1)} begins .* before the end"):
            read_table(table, shard, manifest)


def test_lengths_beyond_32_bits_take_eight_bytes():
    columns = [np.array([[0], [(1 << 32) - 1]], "u8")]
    assert needed_length_bytes(columns) == 4
    columns[0][1, 0] += 1
    assert needed_length_bytes(columns) == 8
    table, shard, manifest = made([0, 1 << 33], [[1 << 32, 0, 0], [5, 0, 0]])
    assert read_table(table, shard, manifest).lengths[0].tolist() == [[1 << 32], [5]]


def test_every_truncation_and_every_changed_byte_of_a_table_is_an_error():
    table, shard, manifest = made([0, 32, 64], [[3, 1, 1], [0, 0, 5], [9, 1, 1]], length_bytes=4)
    for length in range(len(table)):
        with pytest.raises(DataError, match=r"x\.bin: its table has \d+ bytes, but one of 3"):
            read_table(table[:length], shard, manifest)
    for place in range(len(table)):
        changed = bytearray(table)
        changed[place] ^= 1
        with pytest.raises(DataError, match=r"x\.bin: the checksum of its table is \w{8}, not"):
            read_table(changed, shard, manifest)


@settings(max_examples=300)
@given(
    starts=st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 40).map(lambda n: n * 16),
                    min_size=1, max_size=5),
    data=st.data(),
)  # fmt: skip
def test_any_table_is_an_error_or_lies_in_its_shard(starts, data):
    some = st.integers(0, 20) | st.integers(0, (1 << 64) - 1)
    lengths = [data.draw(st.tuples(some, some, some)) for _ in starts]
    table, shard, manifest = made(starts, lengths, offset=4096, largest=1 << 62)

    def by_hand() -> bool:
        end = 0
        for start, (count, rows, columns) in zip(starts, lengths, strict=True):
            if start % 16 or start < end or max(count, rows, columns) > 1 << 62:
                return False
            end = -(-(start + count) // 8) * 8 + rows * columns * 16
        return end <= 4096

    if by_hand():
        read = read_table(table, shard, manifest)
        assert [start for start, _ in samples_in(read, manifest.layout)] == starts
    else:
        with pytest.raises(DataError, match=r"x\.bin: sample \d"):
            read_table(table, shard, manifest)


def test_shards_that_are_not_there_or_of_another_size_are_errors(folder):
    manifest = read_sample_manifest(str(folder))
    first, second = manifest.shards[:2]
    path = folder / first.name
    with pytest.raises(DataError, match="the checksum of its table"):
        load_table(str(path), replace(first, table_crc32c=first.table_crc32c ^ 1), manifest)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"samples-.* bytes, but the manifest says .* cut off or"):
        load_table(str(path), first, manifest)
    path.unlink()
    with pytest.raises(NotFoundError, match="samples-"):
        load_table(str(path), first, manifest)
    path.mkdir()
    with pytest.raises(Error, match="samples-"):
        load_table(str(path), first, manifest)
    with pytest.raises(DataError, match="bytes, but the manifest says"):
        load_table(str(folder / second.name), replace(second, size_bytes=1 << 60), manifest)


# Commands ---------------------------------------------------------------------------------------


def test_info_shows_the_samples(folder, capsys):
    assert main(["info", str(folder)]) == 0
    text = capsys.readouterr().out
    for part in ("samples      50", "index        24 bytes a sample", "label: uint8 []",
                 "tokens: uint16 [n], big-endian, n at most 49",
                 "image: uint8 [n, n, 3], n at most 3, 3"):  # fmt: skip
        assert part in text
    assert main(["info", "--json", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["num_samples"] == COUNT


def test_verify_says_which_samples_of_which_shard_differ(folder, capsys):
    assert main(["verify", str(folder)]) == 0
    assert "all as they were written" in capsys.readouterr().out
    manifest = read_sample_manifest(str(folder))
    first, second = manifest.shards[:2]
    path = folder / second.name
    original = path.read_bytes()
    places = list(samples_in(load_table(str(path), second, manifest), manifest.layout))

    def verdict(place: int) -> str:
        changed = bytearray(original)
        changed[place] ^= 0x80
        path.write_bytes(changed)
        assert main(["verify", str(folder)]) == 1
        path.write_bytes(original)
        return capsys.readouterr().out

    text = verdict(places[2][1] - 1)
    assert f"{second.name}: DAMAGED: its checksum is" in text
    in_set = first.num_samples + 2
    assert f"1 sample of {second.num_samples} in it: 2; in the data set: {in_set}" in text
    assert "1 of them damaged or missing" in text
    assert "zeros between differ" in verdict(places[-1][1])
    assert "the checksum of its table is" in verdict(second.table_offset)
    path.unlink()
    assert main(["verify", str(folder)]) == 1
    assert second.name in capsys.readouterr().out
