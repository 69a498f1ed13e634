"""The index of tar archives: made once for all, and what it costs."""

from __future__ import annotations

import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tar_files import Files, numbered, read_samples, samples_of, write_shards, write_tar

from torch_s3io import DataError, FileChangedError, SampleDataset


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

    folder, scanned = shards[0].parent, []
    scan = build_index.scan_tars

    def counted(store: Any, paths: Any, *more: Any, **options: Any) -> Any:
        scanned.append([os.path.basename(path) for path in paths])
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
    assert scanned == [["000.tar", "001.tar", "002.tar"], ["001.tar"]]
    # As if it had been made of nothing.
    index = index_of(folder)
    by_parts = index.read_bytes()
    index.unlink()
    keys_and_fields()
    from torch_s3io.index.column_file import map_columns

    again = map_columns(str(index)).columns
    index.write_bytes(by_parts)
    parts = map_columns(str(index)).columns
    for name in ("names", "versions", "shard_ends", "begins", "stops", "keys", "key_ends"):
        assert parts[name].tobytes() == again[name].tobytes(), name


def test_archives_that_change_while_they_are_in_use_are_errors(shards):
    dataset = SampleDataset.from_tar(shards, fields=("cls",))
    os.utime(shards[1], (1, 1))
    with pytest.raises(FileChangedError, match=r"001\.tar"):
        list(dataset)


def test_an_index_that_lies_is_found_by_whoever_reads(shards):
    from torch_s3io.index.column_file import map_columns
    from torch_s3io.index.column_writer import write_columns

    folder = shards[0].parent
    SampleDataset.from_tar(folder, fields=("cls",))
    file = map_columns(str(index_of(folder)))
    columns = {name: np.array(column) for name, column in file.columns.items()}
    columns["starts"] += np.uint64(1 << 40)
    write_columns(file.path, file.head, columns)
    with pytest.raises(DataError, match="the table is wrong about sample"):
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
    SampleDataset.from_tar(shards, fields=("cls",))
    with pytest.raises(FileChangedError, match="the index was made anew"):
        list(pickle.loads(sent))


def test_what_python_keeps_of_a_member_takes_less_than_its_header(tmp_path):
    """Its 512 bytes; of 200,000 members in one archive, at their peak."""
    import tracemalloc

    path = tmp_path / "a.tar"
    block = tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT)
    count = 200_000
    with path.open("wb") as file:
        for number in range(count):
            name = f"{number // 2:08}.{('jpg', 'cls')[number % 2]}".encode()
            header = bytearray(name.ljust(100, b"\0") + block[100:])
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            file.write(header)
        file.write(bytes(1024))
    tracemalloc.start()
    try:
        dataset = SampleDataset.from_tar(path, fields=("jpg", "cls"), return_key=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < count * 200
    assert len(dataset.files) == 1
    assert dataset.num_records == count // 2
    assert dataset.get_batch([99_999])["key"] == ["00099999"]
