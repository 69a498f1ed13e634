"""Index files: what is read is what was written, and they lie where they belong."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from torch_s3io.errors import (
    ConfigError,
    DataError,
    Error,
    FileChangedError,
    NotFoundError,
)
from torch_s3io.index.column_file import ColumnFile, map_columns
from torch_s3io.index.column_writer import columns_in_memory, write_columns
from torch_s3io.index.place import index_places
from torch_s3io.store.local_files import LocalFiles

HEAD = {"kind": "test", "numbers": [1, 2], "text": "é\udcff"}
COLUMNS = {
    "starts": np.arange(3, dtype=np.uint64),
    "none": np.empty((0, 4), np.int32),
    "names": np.frombuffer(b"abcde", np.uint8),
}
RECIPE = {"kind": "test", "version": 1}


def assert_same(file: ColumnFile, columns: dict[str, np.ndarray]) -> None:
    assert file.columns.keys() == columns.keys()
    for name, column in columns.items():
        found = file.columns[name]
        assert (found.shape, found.dtype) == (column.shape, column.dtype.newbyteorder("<"))
        assert found.tobytes() == column.astype(found.dtype).tobytes()
        assert not found.flags.writeable


# The file ----------------------------------------------------------------------------------------

any_column = arrays.arrays(
    st.sampled_from(["u1", "<u4", ">u4", "<i8", "<f4", ">f8", "?", "<u8"]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)


@settings(max_examples=30)
@given(
    st.dictionaries(st.text(max_size=9), any_column, max_size=5),
    st.dictionaries(st.text(max_size=9), st.integers() | st.text() | st.none(), max_size=3),
)
def test_what_was_written_is_read(tmp_path, columns, head):
    path = str(tmp_path / "a.idx")
    write_columns(path, head, columns)
    file = map_columns(path)
    assert file.head == head
    assert_same(file, columns)
    file.check()
    assert os.listdir(tmp_path) == ["a.idx"]
    in_memory = columns_in_memory(head, columns)
    assert_same(in_memory, columns)
    sent = pickle.loads(pickle.dumps(in_memory)).columns
    assert {name: column.tobytes() for name, column in sent.items()} == {
        name: column.tobytes() for name, column in in_memory.columns.items()
    }


def test_columns_begin_at_multiples_of_64_bytes_and_are_one_mapping(tmp_path):
    path = tmp_path / "a.idx"
    columns = {**COLUMNS, "large": np.random.default_rng(0).bytes(1 << 20)}
    columns["large"] = np.frombuffer(columns["large"], np.uint8)
    write_columns(str(path), HEAD, columns)
    file = map_columns(str(path))
    addresses = [column.ctypes.data for column in file.columns.values()]
    assert all(address % 64 == 0 for address in addresses)
    assert max(addresses) - min(addresses) < path.stat().st_size
    content = path.read_bytes()
    assert columns["large"].tobytes() in content


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.idx"
    write_columns(str(path), HEAD, COLUMNS)
    content = path.read_bytes()
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        with pytest.raises(DataError, match=r"a\.idx: .*; remove this file"):
            map_columns(str(path))
    path.write_bytes(content + b"\0")
    with pytest.raises(DataError, match="bytes, not"):
        map_columns(str(path))


def test_any_byte_that_is_another_one_is_found_or_does_not_matter(tmp_path):
    path = tmp_path / "a.idx"
    write_columns(str(path), HEAD, COLUMNS)
    content, harmless = path.read_bytes(), 0
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
            file = map_columns(str(path))
            file.check()
        except DataError:
            continue
        assert_same(file, COLUMNS)
        assert file.head == HEAD
        harmless += 1
    assert harmless < 3 * 64  # padding


LIES = [
    lambda root: root["columns"][0].update(shape=[4]),
    lambda root: root["columns"][0].update(shape=[-1]),
    lambda root: root["columns"][0].update(shape=[1 << 62, 1 << 62, 0]),
    lambda root: root["columns"][0].update(shape=[1] * 20),
    lambda root: root["columns"][0].update(shape=5),
    lambda root: root["columns"][0].update(shape=[1e400]),
    lambda root: root["columns"][0].update(offset=root["columns"][0]["offset"] + 1),
    lambda root: root["columns"][0].update(offset=0),
    lambda root: root["columns"][0].update(offset=1 << 70),
    lambda root: root["columns"][0].update(dtype="|O8"),
    lambda root: root["columns"][0].update(dtype="<f1"),
    lambda root: root["columns"][0].update(dtype=["<u8"]),
    lambda root: root["columns"][0].pop("crc32c"),
    lambda root: root["columns"].append(7),
    lambda root: root.update(columns=None),
    lambda root: root.update(head=[1]),
    lambda root: root.update(size_bytes=7),
    lambda root: root.pop("uid"),
]


@pytest.mark.parametrize("number", range(len(LIES)))
def test_a_head_that_lies_is_refused(tmp_path, number):
    from torch_s3io import _C

    path = tmp_path / "a.idx"
    write_columns(str(path), {}, {"starts": np.arange(3, dtype=np.uint64)})
    content = path.read_bytes()
    size = int.from_bytes(content[16:24], "little")
    root = json.loads(content[24 : 24 + size])
    LIES[number](root)
    text = json.dumps(root).encode().ljust(size)[:size]
    start = content[:12] + _C.crc32c(text).to_bytes(4, "little") + content[16:24]
    path.write_bytes(start + text + content[24 + size :])
    with pytest.raises(DataError, match=r"its head does not fit|it was cut off"):
        map_columns(str(path))


def test_what_cannot_be_mapped_is_a_typed_error(tmp_path):
    with pytest.raises(NotFoundError):
        map_columns(str(tmp_path / "missing.idx"))
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(Error):
            map_columns(str(path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Error):
        map_columns(str(tmp_path / "fifo"))


def test_a_pickle_is_small_and_finds_out_whether_the_file_is_the_same_one(tmp_path):
    path = tmp_path / "a.idx"
    write_columns(str(path), {}, {"many": np.zeros(100_000)})
    sent = pickle.dumps(map_columns(str(path)))
    assert len(sent) < 1000
    assert_same(pickle.loads(sent), {"many": np.zeros(100_000)})
    passing = {"many": np.zeros(100_000), "times": np.ones(3)}
    for columns in ({"many": np.zeros(100_000)}, passing):  # made anew, of what it was
        write_columns(str(path), {}, columns, passing=("times",))
        assert_same(pickle.loads(sent), columns)
    write_columns(str(path), {}, {"many": np.ones(100_000)})
    with pytest.raises(FileChangedError, match=r"a\.idx: .* make the data set again"):
        pickle.loads(sent).columns  # noqa: B018
    path.unlink()
    with pytest.raises(NotFoundError):
        pickle.loads(sent).head  # noqa: B018


def test_a_checksum_that_is_another_one_names_the_column(tmp_path):
    path = tmp_path / "a.idx"
    write_columns(str(path), {}, COLUMNS)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"abcde", b"abcdf"))
    file = map_columns(str(path))
    file.check("starts", "none")
    with pytest.raises(DataError, match="column 'names'"):
        file.check()
    with pytest.raises(DataError, match="no column 'other'"):
        file.check("other")


# Where it lies -----------------------------------------------------------------------------------


def test_it_lies_beside_the_data_or_in_the_cache_folder_and_is_hidden(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = tmp_path / "data"
    paths = [str(data / "a" / "1.tar"), str(data / "b" / "2.tar")]
    beside, cached = index_places(paths, RECIPE, True).paths
    assert os.path.dirname(beside) == str(data)
    assert os.path.dirname(cached) == str(tmp_path / "cache" / "torch_s3io")
    for path in (beside, cached):
        assert os.path.basename(path).startswith(".torch_s3io-test-")
    data.mkdir()
    Path(beside).touch()
    assert list(LocalFiles().below(str(data))) == []
    assert index_places(paths[::-1], RECIPE, True).paths == [beside, cached]
    assert index_places(paths[:1], RECIPE, True).paths[0] != beside
    assert index_places(paths, {**RECIPE, "version": 2}, True).name != os.path.basename(beside)
    moved = [path.replace(str(data), "/other/place") for path in paths]
    assert index_places(moved, RECIPE, True).name == os.path.basename(beside)
    pattern = str(data / "*" / "x[0-9]" / "*.jpg")
    assert os.path.dirname(index_places([pattern], RECIPE, True).paths[0]) == str(data)
    for sources in (["memory://a/b.tar"], ["/a/1.tar", "/b/2.tar"]):
        assert len(index_places(sources, RECIPE, True).paths) == 1
    assert index_places(paths, RECIPE, False).paths == []
    assert index_places(paths, RECIPE, data / "x.idx").paths == [str(data / "x.idx")]
    assert os.path.dirname(index_places(paths, RECIPE, data).paths[0]) == str(data)
    new = index_places(paths, RECIPE, f"{tmp_path}/new/").paths
    assert new == [str(tmp_path / "new" / os.path.basename(cached))]
    with pytest.raises(ConfigError, match="there is no such user"):
        index_places(paths, RECIPE, Path("~nobody-of-this-name/x"))
    for wrong in (None, 3, "", b"x", "a\0b"):
        with pytest.raises(ConfigError, match="index= is True, False, or the path"):
            index_places(paths, RECIPE, wrong)
