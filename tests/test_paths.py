"""Names of files as Linux has them: any bytes but NUL."""

import csv
import os

import numpy as np
import pytest
import torch

from torch_s3io import (
    _C,
    AccessError,
    ConfigError,
    FileStore,
    NotFoundError,
    RangeError,
    RecordDataset,
    RecordWriter,
    SampleDataset,
    TokenDataset,
    Zip,
    checkpoint,
    load_safetensors,
)
from torch_s3io.cli import main
from torch_s3io.index.place import check_where


@pytest.fixture
def odd(disk):
    path = os.fsencode(disk) + b"/not-utf8-\xff.bin"
    with open(path, "wb") as file:
        file.write(bytes(range(100)))
    return os.fsdecode(path)


def test_names_that_are_no_text_are_read_listed_and_written(disk, odd):
    store = FileStore()
    assert store.get(odd).tolist() == list(range(100))
    assert store.list(f"{disk}/not") == [odd]
    store.put(odd, b"new")
    assert store.get(os.fsencode(odd)).numpy().tobytes() == b"new"


@pytest.mark.parametrize("encode", [os.fsdecode, os.fsencode])
def test_data_sets_take_such_names_as_text_as_bytes_and_by_pattern(disk, odd, encode):
    for paths in (encode(odd), [encode(odd)], f"{disk}/not*"):
        (batch,) = RecordDataset(paths, dtype=np.uint8, batch_size=100)
        assert batch.tolist() == list(range(100))


def test_paths_may_be_the_keys_of_a_dict_which_have_an_order_but_not_a_set(disk):
    names = [disk / f"{number}.bin" for number in (3, 1, 2)]
    for path in names:
        path.write_bytes(bytes([int(path.stem)]))
    (batch,) = RecordDataset(dict.fromkeys(names).keys(), dtype=np.uint8, batch_size=3)
    assert batch.tolist() == [3, 1, 2]
    for unordered in (set(names), frozenset(names)):
        with pytest.raises(ConfigError, match="sequence"):
            RecordDataset(unordered, dtype=np.uint8)


def test_an_error_about_such_a_name_is_still_typed(odd):
    with pytest.raises(NotFoundError, match="not-utf8"):
        FileStore().get(odd + "-missing")


def test_a_nul_character_never_cuts_a_path_short(odd):
    for call in (FileStore().get, FileStore().stat, FileStore().list):
        with pytest.raises(ConfigError, match="NUL"):
            call(odd + "\0x")
    with pytest.raises(ConfigError, match="NUL"):
        FileStore().put(odd + "\0x", b"")


TAKES_A_PATH = {
    "records": lambda path: RecordDataset(path, dtype="u1"),
    "arrays": RecordDataset.from_npy,
    "samples": SampleDataset,
    "files": lambda path: SampleDataset.from_files(path, labels=None),
    "list of files": lambda path: SampleDataset.from_files([path], labels=None),
    "archives": lambda path: SampleDataset.from_tar(path, fields=("jpg",)),
    "tokens": lambda path: TokenDataset(path, window=2),
    "index": check_where,
    "writer": lambda path: RecordWriter(path, dtype="u1", shape=1),
    "store": lambda path: FileStore().get(path),
    "safetensors": load_safetensors,
    "checkpoint": checkpoint.Reader,
    "what an index names": lambda path: _C.inspect_files([path]),
}


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "s3://bucket/a\0b", "s3://bucket/\ud800"])
@pytest.mark.parametrize("what", TAKES_A_PATH)
def test_what_no_file_can_be_called_is_no_path(what, name):
    with pytest.raises(ConfigError, match="is not a path"):
        TAKES_A_PATH[what](name)


@pytest.mark.parametrize("what", [one for one in TAKES_A_PATH if one != "what an index names"])
def test_what_no_object_can_be_called_is_refused_before_a_request(what):
    with pytest.raises(ConfigError, match="is not a path"):
        TAKES_A_PATH[what]("s3://bucket/\udcff.jpg")


@pytest.mark.parametrize(("offset", "length"), [(1 << 70, 1), (0, 1 << 63), (-1, 1), (0, -1)])
def test_ranges_beyond_all_files_are_range_errors(odd, offset, length):
    with pytest.raises(RangeError):
        FileStore().get_range(odd, offset, length)


def test_a_range_of_no_integers_is_a_config_error(odd):
    with pytest.raises(ConfigError, match="offset"):
        FileStore().get_range(odd, 0.5, 1)


# ---- Patterns.

LIKE_PATTERNS = ("[v2] data", "run[1-3]", "a*b", "what?", "[unclosed", "[!x]", "**")


@pytest.mark.parametrize("name", LIKE_PATTERNS)
def test_a_folder_that_is_there_is_meant_by_its_name_whatever_characters_it_has(disk, name):
    folder = disk / name
    folder.mkdir()
    for other in ("run1", "axb", "whatx", "v", "y"):  # what the names would match as patterns
        (disk / other).mkdir(exist_ok=True)
        (disk / other / "x-0.bin").write_bytes(b"other")
    for number in range(2):
        (folder / f"x-{number}.bin").write_bytes(bytes([number] * 10))
    for pattern in ("*.bin", "x-[01].bin", "x-?.bin", "**/*.bin"):
        (batch,) = RecordDataset(f"{folder}/{pattern}", dtype=np.uint8, batch_size=64)
        assert batch.tolist() == [0] * 10 + [1] * 10
    with RecordWriter(folder / "[packed]", dtype=np.uint8) as writer:
        writer.write(np.arange(10, dtype=np.uint8))
    for paths in (folder / "[packed]", f"{folder}/[[]pack*"):
        assert RecordDataset(paths).num_records == 10
    assert main(["pack", f"{folder}/*.bin", "--format", "records", "--dtype", "u1",
                 "-o", f"{folder}/again"]) == 0  # fmt: skip
    assert RecordDataset(folder / "again").num_records == 20


def test_a_pattern_below_a_folder_that_is_not_there_says_how_to_take_it_literally(disk):
    (disk / "a").mkdir()
    for path in (f"{disk}/[v2] data/*.bin", f"{disk}/[v2] data/x.bin", f"{disk}/a/[x].bin"):
        with pytest.raises(NotFoundError, match=r"no file matches this pattern.*glob\.escape"):
            RecordDataset(path, dtype=np.uint8)
    (disk / "a" / "x.bin").write_bytes(b"1")  # what the last one matches
    assert RecordDataset(f"{disk}/a/[x].bin", dtype=np.uint8).num_records == 1


# ---- Order.

NAMES = ["m1", "m02", "m2", "m10", "m10b", "n", "ä3"]
BY_NAME = ["m02", "m1", "m10", "m10b", "m2", "n", "ä3"]


def write_numbered(folder, names=NAMES) -> None:
    """A file per name, of as many bytes as its place in the natural order."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (folder / f"{name}.bin").write_bytes(bytes([number] * (number + 1)))


@pytest.mark.parametrize(("order", "names"), [("name", BY_NAME), ("natural", NAMES)])
def test_files_come_in_the_order_that_was_asked_for_and_the_data_set_says_it(disk, order, names):
    write_numbered(disk / "set")
    counts = {name: number + 1 for number, name in enumerate(NAMES)}
    expected = [(f"{disk}/set/{name}.bin", counts[name]) for name in names]
    dataset = RecordDataset(f"{disk}/set/*.bin", dtype="u1", batch_size=64, file_order=order)
    assert [tuple(file) for file in dataset.files] == expected
    assert [(file.path, file.num_records) for file in dataset.subset(3, 9).files] == expected
    (batch,) = dataset
    assert batch.tolist() == [NAMES.index(name) for name in names for _ in range(counts[name])]
    tokens = RecordDataset.from_tokens(f"{disk}/set/*.bin", window=1, dtype="u1", file_order=order)
    assert [tuple(file) for file in tokens.files] == expected
    assert main(["pack", f"{disk}/set", "--format", "records", "--dtype", "u1",
                 "--file-order", order, "-o", f"{disk}/packed"]) == 0  # fmt: skip
    (packed,) = RecordDataset(disk / "packed")
    assert torch.equal(packed, batch)


def test_a_sequence_keeps_its_order_whatever_the_order_of_files(disk):
    write_numbered(disk)
    paths = [disk / f"{name}.bin" for name in ("n", "m10", "m2")]
    dataset = RecordDataset(paths, dtype="u1", file_order="natural")
    assert [file.path for file in dataset.files] == [str(path) for path in paths]


def test_packed_folders_of_a_pattern_come_in_that_order_too(disk):
    for number in (1, 2, 10):
        with RecordWriter(disk / f"part{number}", dtype="i8") as writer:
            writer.write(np.array([number]))
    for order, numbers in (("name", [1, 10, 2]), ("natural", [1, 2, 10])):
        (batch,) = RecordDataset(f"{disk}/part*", file_order=order)
        assert batch.tolist() == numbers


def test_an_order_that_is_none_is_refused_by_name(disk):
    write_numbered(disk)
    with pytest.raises(ConfigError, match="file_order must be one of 'name', 'natural'"):
        RecordDataset(f"{disk}/*.bin", dtype="u1", file_order="size")


def test_states_of_other_orders_of_files_do_not_fit(disk):
    write_numbered(disk / "set")
    by_name, natural = (
        RecordDataset(f"{disk}/set/*.bin", dtype="u1", file_order=order)
        for order in ("name", "natural")
    )
    with pytest.raises(ValueError, match="order of the files"):
        natural.load_state_dict(by_name.state_dict())


def test_labels_of_a_csv_go_with_files_by_their_names(disk):
    """What the documentation advises: labels in the order of ``dataset.files``."""
    write_numbered(disk / "set")
    rows = [(f"{name}.bin", number) for number, name in enumerate(NAMES)]
    with open(disk / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(reversed(rows))
    images = RecordDataset(f"{disk}/set/*.bin", dtype="u1", batch_size=64)
    with open(disk / "labels.csv", encoding="utf-8", newline="") as file:
        label_of = {name: int(label) for name, label in csv.reader(file)}
    with RecordWriter(disk / "labels", dtype="i8") as writer:
        for path, num_records in images.files:
            writer.write(np.full(num_records, label_of[os.path.basename(path)]))
    for batch in Zip(images=images, labels=RecordDataset(disk / "labels")):
        assert torch.equal(batch["images"].long(), batch["labels"])


# ---- Folders.


def test_a_folder_of_arrays_stands_for_those_in_it_and_below_it(disk):
    top = disk / "top"
    for folder in (top, top / "below", top / ".hidden", disk / "elsewhere"):
        folder.mkdir()
    for number, path in enumerate(
        [top / "b.npy", top / "a10.npy", top / "a2.npy", top / "below" / "c.npy",
         disk / "elsewhere" / "d.npy", top / ".hidden" / "x.npy", top / ".x.npy"]
    ):  # fmt: skip
        np.save(path, np.full((2, 3), number))
    (top / "labels.csv").write_text("a,1")
    (top / "link").symlink_to(disk / "elsewhere")
    (top / "below" / "loop").symlink_to(top)
    dataset = RecordDataset.from_npy(top, batch_size=64)
    names = [os.path.relpath(file.path, top) for file in dataset.files]
    assert names == ["a10.npy", "a2.npy", "b.npy", "below/c.npy", "link/d.npy"]
    (batch,) = dataset
    assert batch[::2, 0].tolist() == [1, 2, 0, 3, 4]
    natural = RecordDataset.from_npy(top, file_order="natural")
    assert [file.path for file in natural.files[:2]] == [f"{top}/a2.npy", f"{top}/a10.npy"]
    (top / "labels.csv").unlink()
    assert main(["pack", str(top), "-o", f"{disk}/packed"]) == 0
    assert torch.equal(next(iter(RecordDataset(disk / "packed", batch_size=64))), batch)


def test_a_folder_without_arrays_is_not_found(disk):
    (disk / "folder").mkdir()
    with pytest.raises(NotFoundError, match=r"there are no \.npy files in this folder"):
        RecordDataset.from_npy(disk / "folder")


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_left_out(disk, monkeypatch):
    (disk / "top" / "below").mkdir(parents=True)
    np.save(disk / "top" / "a.npy", np.zeros((2, 3)))
    scandir = os.scandir

    def forbidden(path):
        if str(path).endswith("below"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(AccessError, match="below: cannot list the folder"):
        RecordDataset.from_npy(disk / "top")
