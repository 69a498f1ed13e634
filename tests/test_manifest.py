"""Manifests from any hands: what is wrong with one is said before it does harm."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import torch_s3io
from torch_s3io import (
    AccessError,
    ConfigError,
    DataError,
    Error,
    NotFoundError,
    RecordDataset,
    RecordWriter,
)
from torch_s3io.cli import main
from torch_s3io.format.manifest import parse_manifest, read_manifest

RECORD = [("label", "u1"), ("image", ">u2", (2, 3))]
COUNT = 50


@pytest.fixture
def folder(disk):
    array = np.zeros(COUNT, RECORD)
    array["label"] = np.arange(COUNT)
    with RecordWriter(disk / "set", dtype=RECORD, shard_bytes=300) as writer:
        writer.write(array)
    return disk / "set"


def load(folder) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def store(folder, manifest) -> None:
    text = manifest if isinstance(manifest, (str, bytes)) else json.dumps(manifest)
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "manifest.json").write_bytes(data)


def change(manifest: dict, *keys, value) -> dict:
    place = manifest
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return manifest


def test_several_folders_of_one_layout_are_one_data_set(folder):
    with RecordWriter(folder.parent / "sea", dtype=RECORD) as writer:
        writer.write(np.zeros(7, RECORD))
    both = [folder, folder.parent / "sea"]
    for paths, first in ((both, 1), (str(folder.parent / "se*"), 0)):
        labels = torch.cat([b["label"] for b in RecordDataset(paths, batch_size=10)]).tolist()
        assert len(labels) == COUNT + 7
        assert labels[1] == first
    with RecordWriter(folder.parent / "other", dtype="u1") as writer:
        writer.write(np.zeros(7, "u1"))
    with pytest.raises(ConfigError, match=r"other: has .* but .*set has .* data sets of their own"):
        RecordDataset([folder, folder.parent / "other"])


def test_a_folder_with_a_manifest_is_not_read_as_something_else(folder):
    (folder.parent / "x.bin").write_bytes(bytes(100))
    for make in (
        lambda: RecordDataset.from_npy(folder),
        lambda: RecordDataset.from_tokens([folder], window=3),
        lambda: RecordDataset([folder, folder.parent / "x.bin"], dtype="u1"),
        lambda: RecordDataset([folder.parent / "x.bin", folder], dtype="u1"),
        lambda: RecordDataset([folder, folder.parent / "x.bin"]),
    ):
        with pytest.raises(ConfigError, match=r"set: is a folder with a manifest, .* reads it"):
            make()


def test_a_folder_opens_with_no_other_argument(folder):
    dataset = RecordDataset(folder)
    assert dataset.num_records == COUNT
    batch = next(iter(dataset))
    assert batch["label"].tolist() == list(range(COUNT))
    assert batch["image"].shape == (COUNT, 2, 3)
    converted = next(iter(RecordDataset(str(folder), as_dtype={"image": "f4"})))
    assert converted["image"].dtype == torch.float32


def test_a_dtype_that_agrees_is_allowed_and_one_that_does_not_is_an_error(folder):
    assert RecordDataset(folder, dtype=RECORD).num_records == COUNT
    for dtype in ("u1", [("label", "u1"), ("image", "<u2", (2, 3))], [("label", "u1")]):
        with pytest.raises(ConfigError, match=r"manifest says.*label: uint8"):
            RecordDataset(folder, dtype=dtype)
    with pytest.raises(ConfigError, match="shape="):
        RecordDataset(folder, shape=3)
    with pytest.raises(ConfigError, match="header_bytes"):
        RecordDataset(folder, header_bytes=3)


def test_without_a_manifest_the_dtype_is_still_asked_for(disk):
    (disk / "x.bin").write_bytes(bytes(100))
    with pytest.raises(ConfigError, match="dtype= is missing"):
        RecordDataset(disk / "x.bin")
    with pytest.raises(ConfigError, match="it has no manifest"):
        RecordDataset(disk, dtype="u1")
    with pytest.raises(NotFoundError, match=r"manifest\.json"):
        read_manifest(str(disk))


HOSTILE = {
    "version of the future": (["version"], 2),
    "version that is none": (["version"], "1"),
    "version that is true": (["version"], True),
    "another format": (["format"], "zip"),
    "no format": (["format"], None),
    "another checksum": (["checksum"], "md5"),
    "stride below the record": (["stride_bytes"], 12),
    "stride of an exabyte": (["stride_bytes"], 1 << 60),
    "stride of a fraction": (["stride_bytes"], 13.5),
    "record of nothing": (["record_bytes"], 0),
    "negative record": (["record_bytes"], -13),
    "record that overflows": (["record_bytes"], 1 << 64),
    "too many records": (["num_records"], COUNT + 1),
    "no records": (["num_records"], 0),
    "records that overflow": (["num_records"], 1 << 63),
    "no fields": (["fields"], []),
    "fields that are none": (["fields"], {"label": "u1"}),
    "field that is none": (["fields", 0], "label"),
    "unknown dtype": (["fields", 0, "dtype"], "uint9"),
    "dtype that is a function": (["fields", 0, "dtype"], "zeros"),
    "dtype by another name": (["fields", 0, "dtype"], "float"),
    "byte order of the PDP-11": (["fields", 0, "byte_order"], "middle"),
    "field before the record": (["fields", 0, "offset"], -1),
    "field behind the record": (["fields", 0, "offset"], 13),
    "shape too large": (["fields", 1, "shape"], [2, 4]),
    "shape that overflows": (["fields", 1, "shape"], [1 << 32, 1 << 32]),
    "negative shape": (["fields", 1, "shape"], [-2, -3]),
    "shape that is none": (["fields", 1, "shape"], "23"),
    "name twice": (["fields", 0, "name"], "image"),
    "half a character as a name": (["fields", 0, "name"], "\ud800"),
    "one of two without a name": (["fields", 0, "name"], ""),
    "no shards": (["shards"], []),
    "shards that are none": (["shards"], 3),
    "absolute name": (["shards", 0, "name"], "/etc/passwd"),
    "name outside": (["shards", 0, "name"], "../x.bin"),
    "name below": (["shards", 0, "name"], "a/b"),
    "the folder above": (["shards", 0, "name"], ".."),
    "the folder": (["shards", 0, "name"], "."),
    "no name": (["shards", 0, "name"], ""),
    "name with a NUL": (["shards", 0, "name"], "a\0b"),
    "long name": (["shards", 0, "name"], "a" * 300),
    "half a character": (["shards", 0, "name"], "\ud800"),
    "name of a number": (["shards", 0, "name"], 7),
    "wrong size": (["shards", 0, "size_bytes"], 300),
    "size that overflows": (["shards", 0, "size_bytes"], 1 << 70),
    "negative count": (["shards", 0, "num_records"], -1),
    "count that overflows": (["shards", 0, "num_records"], (1 << 62) + 1),
    "empty shard": (["shards", 0, "num_records"], 0),
    "checksum of a number": (["shards", 0, "crc32c"], 12345678),
    "checksum of nothing": (["shards", 0, "crc32c"], ""),
    "checksum of text": (["shards", 0, "crc32c"], "not hexa"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_is_an_error_that_names_the_manifest(folder, name):
    keys, value = HOSTILE[name]
    store(folder, change(load(folder), *keys, value=value))
    with pytest.raises(DataError, match=r"manifest\.json: ") as caught:
        RecordDataset(folder)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"format": ' + b"[" * 100_000,
        b'{"version": ' + b"9" * 10_000 + b"}",
        b'{"version": NaN}',
        b'{"version": 1, "version": 1}',
        b'{"version": 1e400}',
    ],
)
def test_what_is_no_json_is_damaged(folder, text):
    store(folder, text)
    with pytest.raises(DataError, match=r"manifest\.json: "):
        RecordDataset(folder)


def test_every_truncation_is_an_error(folder):
    text = (folder / "manifest.json").read_bytes().rstrip()
    for length in range(len(text)):
        with pytest.raises(DataError):
            parse_manifest(text[:length], "manifest.json")
    assert parse_manifest(text, "manifest.json").num_records == COUNT


@settings(max_examples=300)
@given(data=st.data())
def test_any_value_anywhere_is_an_error_or_a_data_set(folder, data):
    manifest = load(folder)
    place, keys = manifest, []
    while isinstance(place, (dict, list)) and place:
        options = list(place) if isinstance(place, dict) else range(len(place))
        keys.append(data.draw(st.sampled_from(options)))
        place = place[keys[-1]]
        if data.draw(st.integers(0, 3)) == 0:
            break
    value = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
        | st.lists(st.integers(), max_size=3) | st.dictionaries(st.text(max_size=3), st.integers())
    )  # fmt: skip
    text = json.dumps(change(manifest, *keys, value=value)).encode()
    try:
        parsed = parse_manifest(text, "manifest.json")
    except DataError:
        return
    assert parsed.num_records == COUNT
    assert parsed.stride_bytes == 13


def test_unknown_members_are_ignored(folder):
    store(folder, {**load(folder), "made_by": "somebody"})
    assert RecordDataset(folder).num_records == COUNT


def test_shards_that_are_not_there_or_not_as_long_are_errors(folder):
    first = folder / load(folder)["shards"][0]["name"]
    with open(first, "ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"records-.*cut off or appended to"):
        RecordDataset(folder)
    first.unlink()
    with pytest.raises(NotFoundError, match="records-"):
        RecordDataset(folder)


def as_a_cache_keeps_it(folder, blobs) -> None:
    """Moves every file to the blobs and leaves a relative link, as huggingface_hub does."""
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / f"{number:040x}")
        path.symlink_to(os.path.relpath(blobs / f"{number:040x}", folder))


def test_a_data_set_of_links_into_a_cache_is_read(folder, disk):
    records = torch.cat([batch["label"].clone() for batch in RecordDataset(folder)])
    as_a_cache_keeps_it(folder, disk / "blobs")
    assert all(path.is_symlink() for path in folder.iterdir())
    linked = torch.cat([batch["label"].clone() for batch in RecordDataset(folder)])
    assert torch.equal(linked, records)
    for command in ("info", "verify"):
        assert main([command, str(folder)]) == 0
    (disk / "blobs" / f"{1:040x}").unlink()
    with pytest.raises(NotFoundError, match="records-"):
        RecordDataset(folder)


def test_a_manifest_cannot_name_what_lies_outside_of_its_folder(folder, disk):
    manifest = load(folder)
    name = manifest["shards"][0]["name"]
    (folder / name).rename(disk / name)
    for other in (f"../{name}", str(disk / name)):
        store(folder, change(manifest, "shards", 0, "name", value=other))
        with pytest.raises(DataError, match="not the name of a file in this folder"):
            RecordDataset(folder)


def test_a_manifest_that_is_no_file_is_an_error(folder):
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(DataError, match="not a regular file"):
        RecordDataset(folder)
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()
    with pytest.raises(Error, match=r"manifest\.json"):
        RecordDataset(folder)


def test_a_manifest_of_a_terabyte_is_not_read(folder):
    os.truncate(folder / "manifest.json", 1 << 40)
    with pytest.raises(DataError, match="more than a manifest has"):
        RecordDataset(folder)


def test_a_manifest_that_may_not_be_read_is_an_error(folder, needs_root, monkeypatch):
    def forbidden(*_args: object, **_keywords: object):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", forbidden)
    with pytest.raises(AccessError, match="Permission denied"):
        read_manifest(str(folder))


def test_the_worked_example_of_the_documentation_is_what_is_written(disk, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "format.md").read_text()
    text = text.partition("# The format of a folder of samples")[0]
    source, dump, manifest = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(disk)
    monkeypatch.setattr("secrets.token_hex", lambda count: "5f0c21ab")
    exec(source, {"np": np, "s3io": torch_s3io})
    assert (disk / "tiny" / "manifest.json").read_text() == manifest
    data = bytes.fromhex("".join(line[8:] for line in dump.splitlines()))
    assert (disk / "tiny" / "records-5f0c21ab-00000.bin").read_bytes() == data
