"""The index of tar archives: made once for all, and what it costs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import run_program
from tar_files import (
    Files,
    numbered,
    read_samples,
    samples_of,
    write_headers,
    write_shards,
    write_tar,
)

from torch_s3io import DataError, FileChangedError, SampleDataset
from torch_s3io.index.column_file import map_columns
from torch_s3io.index.column_writer import write_columns


@pytest.fixture
def shards(tmp_path) -> list[Path]:
    return write_shards(tmp_path)


def index_of(folder: Path) -> Path:
    [path] = folder.glob(".torch_s3io-tar-*.idx")
    return path


def test_the_index_is_made_once_whatever_fields_are_wanted(shards, monkeypatch):
    folder = shards[0].parent
    first = read_samples(SampleDataset.from_tar(folder, fields=("jpg",), return_key=True))
    version = index_of(folder).stat().st_ino
    monkeypatch.setattr("torch_s3io.format.tar.build_index.scan_tars", None)
    assert [key for key, _ in first] == [
        key
        for key, _ in read_samples(SampleDataset.from_tar(shards, fields=("cls",), return_key=True))
    ]
    SampleDataset.from_tar(str(folder / "{000..002}.tar"), fields=("cls", "json?"))
    assert index_of(folder).stat().st_ino == version
    with pytest.raises(TypeError):  # it would have to be read
        SampleDataset.from_tar(folder, index=False)


def test_only_archives_that_changed_are_read_again(shards, monkeypatch):
    from torch_s3io.format.tar import build_index

    folder = shards[0].parent
    scanned: list[str] = []
    scan = build_index.scan_tars

    def counted(store: Any, paths: Any, *more: Any, **options: Any) -> Any:
        scanned.extend(os.path.basename(path) for path in paths)
        return scan(store, paths, *more, **options)

    monkeypatch.setattr(build_index, "scan_tars", counted)
    every = ("jpg?", "cls?", "json?", "new?")

    def keys_and_fields() -> list[tuple[str, Files]]:
        return read_samples(SampleDataset.from_tar(folder, fields=every, return_key=True))

    with pytest.warns(RuntimeWarning, match="no sample of 30 has the field 'new"):
        keys_and_fields()
    write_tar(shards[1], {**numbered(5, 500), "z.new": b"n"})
    found = keys_and_fields()
    assert found == [
        (key, {name: fields.get(name.rstrip("?"), b"") for name in ("jpg", "cls", "json", "new")})
        for key, fields in samples_of(shards)
    ]
    assert sorted(scanned) == ["000.tar", "001.tar", "001.tar", "002.tar"]
    # As if it had been made of nothing.
    index = index_of(folder)
    by_parts = index.read_bytes()
    index.unlink()
    keys_and_fields()
    again = map_columns(str(index)).columns
    index.write_bytes(by_parts)
    parts = map_columns(str(index)).columns
    assert {name: one.tobytes() for name, one in parts.items()} == {
        name: one.tobytes() for name, one in again.items()
    }


@pytest.mark.parametrize("at_once", [1, 2, 256])
def test_whatever_threads_find_is_in_the_order_of_the_archives(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr("torch_s3io.format.tar.build_index._AT_ONCE", at_once)
    paths = [write_tar(tmp_path / f"{n}.tar", numbered(n, 10 * n)) for n in range(9)]
    dataset = SampleDataset.from_tar(
        paths, fields=("jpg", "cls", "json?"), return_key=True, index=False
    )
    assert read_samples(dataset) == [
        (key, {name: fields.get(name, b"") for name in ("jpg", "cls", "json")})
        for key, fields in samples_of(paths)
    ]
    write_tar(paths[7], {"0.jpg": b"", "1.jpg": b"", "0.cls": b""})
    paths[5].write_bytes(b"no archive" * 100)
    with pytest.raises(DataError, match=r"5\.tar: is no tar archive|7\.tar: the members of sample"):
        SampleDataset.from_tar(paths, index=False)


def test_names_with_many_dots_are_refused_before_they_are_many_fields(tmp_path, monkeypatch):
    for module in ("tar_members", "shard_members", "tar_index"):
        monkeypatch.setattr(f"torch_s3io.format.tar.{module}.MOST_EXTENSIONS", 3)
    first = write_tar(tmp_path / "0.tar", {f"{n}.{n}5.jpg": b"" for n in range(3)})
    second = write_tar(tmp_path / "1.tar", {"0.75.jpg": b"", "1.25.jpg": b""})
    assert SampleDataset.from_tar(first, missing="empty").num_records == 3
    for paths in (
        [first, second],
        [write_tar(tmp_path / "1.tar", numbered(4) | {"x.25.jpg": b""})],
    ):
        with pytest.raises(DataError, match="first dot of a file's name; write the arch") as caught:
            SampleDataset.from_tar(paths, missing="empty")
        text = str(caught.value)
        assert text.startswith(f"{second}: ")
        assert "more than 3 fields, such as '" in text
        assert "and '25.jpg'" in text or "and '75.jpg'" in text


def test_archives_that_change_while_they_are_in_use_are_errors(shards):
    dataset = SampleDataset.from_tar(shards, fields=("cls",))
    os.utime(shards[1], (1, 1))
    with pytest.raises(FileChangedError, match=r"001\.tar"):
        list(dataset)


def test_an_index_that_lies_is_found_by_whoever_reads(shards):
    folder = shards[0].parent
    SampleDataset.from_tar(folder, fields=("cls",))
    file = map_columns(str(index_of(folder)))
    columns = {name: np.array(column) for name, column in file.columns.items()}
    columns["starts"] += np.uint64(1 << 40)
    write_columns(file.path, file.head, columns)
    with pytest.raises(DataError, match=r"the table is wrong about sample .* index PATH makes"):
        list(SampleDataset.from_tar(folder, fields=("cls",)))
    columns["starts"] -= np.uint64(1 << 40)
    columns["key_ends"][:] = 1 << 50
    write_columns(file.path, file.head, columns)
    with pytest.raises(DataError, match="the index is damaged; remove this file"):
        list(SampleDataset.from_tar(folder, fields=("json?",), return_key=True))
    columns["shard_ends"][-1] += 1
    write_columns(file.path, file.head, columns)  # does not fit itself: it is made again
    assert len(list(SampleDataset.from_tar(folder, fields=("cls",), batch_size=30))) == 1


def test_a_pickle_is_small_and_the_index_must_be_the_same_one(shards):
    dataset = SampleDataset.from_tar(shards, fields=("cls",), return_key=True)
    sent = pickle.dumps(dataset)
    assert len(sent) < 20_000
    assert read_samples(pickle.loads(sent)) == read_samples(dataset)
    index_of(shards[0].parent).unlink()
    SampleDataset.from_tar(shards, fields=("cls",))  # the same one again, of the same archives
    assert read_samples(pickle.loads(sent)) == read_samples(dataset)
    write_tar(shards[2], numbered(11, 20))
    SampleDataset.from_tar(shards, fields=("cls",))
    with pytest.raises(FileChangedError, match="the index was made anew"):
        list(pickle.loads(sent))


def test_what_members_take_while_they_are_found_and_when_they_are_read(tmp_path):
    """Resident bytes at the peak of the first program, and private ones of the second."""
    count = 300_000
    write_headers(tmp_path / "a.tar", count)
    source = """
        import re, sys
        import torch_s3io

        def read(field, name):
            with open(f"/proc/self/{field}") as file:
                return 1024 * int(re.search(name + r":\\s*(\\d+) kB", file.read())[1])

        def sizes():
            return read("status", "VmHWM"), read("smaps_rollup", "Private_Dirty")

        torch_s3io.SampleDataset.from_tar  # imported
        hwm, private = sizes()
        dataset = torch_s3io.SampleDataset.from_tar(
            sys.argv[1], fields=("jpg", "cls"), return_key=True
        )
        peak, now = sizes()
        print(peak - hwm, now - private, dataset.num_records, *dataset.get_batch([99_999])["key"])
    """
    peak, _, *found = run_program(source, tmp_path / "a.tar").split()
    assert int(peak) < count * 200
    _, private, *found_again = run_program(source, tmp_path / "a.tar").split()
    assert int(private) < count * 20
    assert found == found_again == [str(count // 2), "00099999"]
