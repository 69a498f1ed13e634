"""The listing of a pattern is kept: mapped by all processes, made anew where a folder changes."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from support import write_file

from torch_s3io import ConfigError, DataError, FileChangedError, SampleDataset
from torch_s3io.cli import main
from torch_s3io.index.column_file import ColumnFile, map_columns
from torch_s3io.index.column_writer import write_columns

MANY = 10_000


@pytest.fixture
def train(tmp_path):
    for number in range(30):
        folder = tmp_path / "train" / f"{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / f"{number:02}.jpg", b"%d" % number)
    return tmp_path / "train"


def make(train: Path, index, **options):
    options = {"labels": "folder", "batch_size": 100, **options}
    return SampleDataset.from_files(f"{train}/**/*.jpg", index=index, **options)


def rows(dataset) -> list[tuple[bytes, int]]:
    (batch,) = dataset
    texts = [bytes(one.numpy()) for one in batch["data"].unbind()]
    return list(zip(texts, batch["label"].tolist(), strict=True))


def test_a_listing_is_used_again_until_a_folder_changes(train, tmp_path):
    index = tmp_path / "x.idx"
    expected = rows(make(train, False))
    assert rows(make(train, index)) == expected
    uid = map_columns(str(index)).uid
    assert rows(make(train, index)) == expected
    assert map_columns(str(index)).uid == uid
    write_file(train / "2" / "new.jpg", b"new")
    assert rows(make(train, index)) == [*expected, (b"new", 2)]
    assert map_columns(str(index)).uid != uid
    (train / "0" / "00.jpg").unlink()
    assert rows(make(train, index)) == [*expected[1:], (b"new", 2)]
    (train / "3").mkdir()
    write_file(train / "3" / "x.jpg", b"x")
    assert make(train, index).classes == ("0", "1", "2", "3")


def test_a_file_that_is_written_in_its_place_is_found_when_it_is_read(train, tmp_path):
    index = tmp_path / "x.idx"
    make(train, index)
    write_file(train / "0" / "03.jpg", b"another", age_s=50)
    with pytest.raises(FileChangedError, match=r"0/03\.jpg.*is removed: files are listed anew"):
        rows(make(train, index))
    assert not index.exists()
    assert rows(make(train, index)) == rows(make(train, False))
    assert (b"another", 0) in rows(make(train, index))


@pytest.mark.parametrize("read", ["get_batch", "peek", "pickle"])
def test_whoever_finds_a_file_changed_removes_the_listing(train, tmp_path, read):
    index = tmp_path / "x.idx"
    dataset = make(train, index)
    if read == "pickle":
        dataset = pickle.loads(pickle.dumps(dataset))
    write_file(train / "0" / "03.jpg", b"another", age_s=50)
    with pytest.raises(FileChangedError, match="is removed"):
        dataset.peek() if read == "peek" else dataset.get_batch(list(range(30)))
    assert not index.exists()


def test_an_index_that_took_the_place_of_another_is_not_removed(train, tmp_path):
    index = tmp_path / "x.idx"
    dataset = make(train, index)
    write_file(train / "0" / "03.jpg", b"another", age_s=50)
    index.unlink()
    make(train, index)
    with pytest.raises(FileChangedError, match=r"0/03\.jpg"):
        rows(dataset)
    assert (b"another", 0) in rows(make(train, index))


def test_an_index_holds_for_a_copy_that_keeps_times(train, tmp_path):
    index = tmp_path / "x.idx"
    expected = rows(make(train, index))
    uid = map_columns(str(index)).uid
    assert os.system(f"cp -rp {train} {tmp_path}/copy && rm -r {train}") == 0
    os.rename(tmp_path / "copy", train)
    assert rows(make(train, index)) == expected
    assert map_columns(str(index)).uid == uid


def test_two_names_of_a_folder_have_an_index_each(many, tmp_path):
    (tmp_path / "other").symlink_to(many.parent)
    make(many, True)
    for folder in (many, tmp_path / "other" / "data"):
        make(folder, True)
    before = sorted(os.listdir(many.parent))
    inodes = [os.stat(many.parent / name).st_ino for name in before]
    for folder in (many, tmp_path / "other" / "data"):
        make(folder, True)
    assert sorted(os.listdir(many.parent)) == before
    assert [os.stat(many.parent / name).st_ino for name in before] == inodes
    for name in before:
        if name.startswith("."):
            os.unlink(many.parent / name)


@pytest.mark.parametrize("place", ["x.idx", "0", "0/x.idx"])
def test_an_index_within_the_listed_folder_is_refused(train, place):
    with pytest.raises(ConfigError, match="Name a place outside of it"):
        make(train, train / place)


@pytest.mark.parametrize("path", ["{top}/secret", "{train}/../secret", "{train}/0/.."])
def test_an_index_names_nothing_that_lies_elsewhere(train, tmp_path, path):
    index = tmp_path / "x.idx"
    write_file(tmp_path / "secret", b"secret")
    expected = rows(make(train, index))
    file = map_columns(str(index))
    paths = [f"{train}/{number % 3}/{number:02}.jpg" for number in range(30)]
    paths[29] = path.format(top=tmp_path, train=train)
    paths[29] = paths[29].replace("/", "/" * (1 + max(0, len(paths[0]) - len(paths[29]))), 1)
    columns = {
        "paths": np.frombuffer("".join(paths).encode(), np.uint8),
        "path_ends": np.cumsum([len(one) for one in paths]).astype("<u8"),
    }
    write_columns(index, file.head, {**file.columns, **columns})
    lie = map_columns(str(index)).uid
    assert rows(make(train, index)) == expected
    assert lie != map_columns(str(index)).uid == file.uid


def test_patterns_have_indexes_of_their_own_and_one_of_a_copy_is_not_taken(train, tmp_path):
    folder = tmp_path / "indexes"
    folder.mkdir()
    make(train, folder)
    SampleDataset.from_files(f"{train}/*/0*.jpg", index=folder)
    assert len([name for name in os.listdir(folder) if name.endswith(".idx")]) == 2
    index = tmp_path / "x.idx"
    make(train, index)
    os.system(f"cp -rp {train} {tmp_path}/copy")
    with pytest.raises(ConfigError, match="is the index of other data"):
        make(tmp_path / "copy", index)
    with pytest.raises(ConfigError, match="a list has none"):
        SampleDataset.from_files([train / "0" / "00.jpg"], index=index)


def test_labels_that_no_folder_names_are_an_error_with_an_index_too(train, tmp_path):
    write_file(train / "x.jpg", b"x")
    assert len(rows(make(train, tmp_path / "x.idx", labels=[0] * 31))) == 31
    for _ in range(2):
        with pytest.raises(DataError, match="lies in no folder"):
            make(train, tmp_path / "x.idx")


def test_a_damaged_index_is_made_anew(train, tmp_path):
    index = tmp_path / "x.idx"
    expected = rows(make(train, index))
    size = index.stat().st_size
    for place in range(100, size, size // 12):
        data = bytearray(index.read_bytes())
        data[place] ^= 0xFF
        index.write_bytes(data)
        assert rows(make(train, index)) == expected, place


LIES = {
    "no sizes": ("sizes", None),
    "other sizes": ("sizes", np.zeros(29, "<u8")),
    "sizes with a sign": ("sizes", np.zeros(30, "<i8")),
    "ends that descend": ("path_ends", np.arange(30, 0, -1, "<u8")),
    "ends beyond": ("path_ends", np.arange(1, 31, dtype="<u8") << np.uint64(40)),
    "few versions": ("versions", np.zeros((30, 3), "<u8")),
    "labels of no class": ("labels", np.full(30, 3, "<i8")),
    "negative labels": ("labels", np.full(30, -1, "<i8")),
    "few labels": ("labels", np.zeros(3, "<i8")),
    "no folders": ("folder_paths", None),
    "folders of numbers": ("folder_paths", np.zeros(30, "<u8")),
}


@pytest.mark.parametrize("name", LIES)
def test_an_index_that_lies_is_made_anew(train, tmp_path, name):
    index, (column, value) = tmp_path / "x.idx", LIES[name]
    expected = rows(make(train, index))
    file = map_columns(str(index))
    columns = {key: np.array(array) for key, array in file.columns.items() if key != column}
    write_columns(index, file.head, columns | ({} if value is None else {column: value}))
    assert rows(make(train, index)) == expected
    again = map_columns(str(index))
    assert all(np.array_equal(again.columns[key], file.columns[key]) for key in file.columns)


def test_sizes_that_are_not_those_of_the_files_are_no_wrong_batch(train, tmp_path):
    index = tmp_path / "x.idx"
    make(train, index)
    file = map_columns(str(index))
    sizes = file.columns["sizes"] + np.uint64(1)
    write_columns(index, file.head, {**file.columns, "sizes": sizes})
    with pytest.raises((DataError, FileChangedError)):
        rows(make(train, index))


# ---- Many files.


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """With a place for the index that no other test looks at."""
    top = tmp_path_factory.mktemp("many")
    for number in range(MANY):
        folder = top / "data" / f"{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:05}.jpg").write_bytes(b"%d" % number)
    return top / "data"


def index_of(many: Path) -> ColumnFile:
    [name] = [name for name in os.listdir(many.parent) if name.endswith(".idx")]
    return map_columns(str(many.parent / name))


def test_many_files_get_an_index_beside_their_folder_and_few_do_not(train, many):
    make(train, True)
    assert os.listdir(train.parent) == ["train"]
    make(many, True)
    uid = index_of(many).uid
    make(many, True)
    assert index_of(many).uid == uid
    assert os.listdir(many.parent) != ["data"]
    assert all(not name.startswith(".") for name in os.listdir(many))


def test_an_open_data_set_and_its_pickle_are_small_whatever_the_number_of_files(many):
    make(many, True)
    tracemalloc.start()
    dataset = make(many, True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    dataset.state_dict()
    _, peak_of_state = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The columns that are no part of the index have 8 bytes a file each; a Python object has 50.
    assert peak < 1_000_000 + 40 * MANY
    assert peak_of_state - before < 1_000_000 + 50 * MANY
    data = pickle.dumps(dataset)
    assert len(data) < 20_000
    again = pickle.loads(data)
    batch, other = dataset.get_batch([7, 9999]), again.get_batch([7, 9999])
    assert batch["data"].packed().values.equal(other["data"].packed().values)
    assert batch["label"].tolist() == other["label"].tolist()


def test_a_pickle_of_an_index_that_was_made_anew_is_refused(train, tmp_path):
    index = tmp_path / "x.idx"
    data = pickle.dumps(make(train, index))
    write_file(train / "0" / "new.jpg", b"new")
    make(train, index)
    with pytest.raises(FileChangedError, match="made anew"):
        pickle.loads(data)


def test_a_pickle_reads_on_where_a_new_index_says_the_same_of_the_files(train, tmp_path):
    index = tmp_path / "x.idx"
    expected = rows(make(train, index))
    data = pickle.dumps(make(train, index))
    inode = index.stat().st_ino
    write_file(train / "0" / "README.txt", b"of no interest")
    make(train, index)
    assert index.stat().st_ino != inode
    assert rows(pickle.loads(data)) == expected


def test_commands_make_it_ahead_and_say_what_is_in_it(train, capsys):
    assert main(["index", f"{train}/**/*.jpg"]) == 0
    assert "30" in capsys.readouterr().out
    [name] = [name for name in os.listdir(train.parent) if name.endswith(".idx")]
    path = train.parent / name
    uid = map_columns(str(path)).uid
    expected = rows(make(train, False))
    assert rows(make(train, True)) == expected
    assert map_columns(str(path)).uid == uid
    assert main(["info", str(path)]) == 0
    text = capsys.readouterr().out
    for part in ("folder", "**/*.jpg in ", "30, 50 bytes", "classes"):
        assert part in text
    for place in (f"{train}/**/*.jpg", str(train), str(train.parent)):
        assert main(["info", place]) == 0
        assert str(path) in capsys.readouterr().out
    assert main(["info", f"{train}/**/*.png"]) == 1
    write_file(train / "0" / "new.jpg", b"new")
    for command in (["info"], ["doctor", "--quick"]):
        main([*command, str(train)])
        text = capsys.readouterr().out
        assert str(path) in text
        assert "the data have changed" in text
    capsys.readouterr()
    assert main(["index", f"{train}/**/*.jpg", f"{train}/*/*.jpg"]) == 1
    assert "give one, in quotes" in capsys.readouterr().err
