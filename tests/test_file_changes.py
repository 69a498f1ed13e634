"""Files that change while they are read: an error that says so, never wrong bytes."""

from __future__ import annotations

import os
import pickle
import shutil

import numpy as np
import pytest
from support import random_bytes, write_file

from torch_s3io import BufferPoolConfig, FileChangedError, FileStore, NotFoundError, RecordDataset

RECORD_BYTES = 4096
COUNT = 400


@pytest.fixture
def path(disk):
    return write_file(disk / "x.bin", random_bytes(COUNT * RECORD_BYTES))


def make(path, **options):
    options = {"pool": BufferPoolConfig(capacity=2, buffer_size=64 * 1024), **options}
    return RecordDataset(path, dtype="u1", shape=RECORD_BYTES, batch_size=4, **options)


def truncate(path) -> None:
    os.truncate(path, 3 * RECORD_BYTES + 5)


def empty(path) -> None:
    os.truncate(path, 0)


def append(path) -> None:
    with open(path, "ab") as file:
        file.write(bytes(RECORD_BYTES))


def rewrite_in_place(path) -> None:
    with open(path, "r+b") as file:
        file.write(bytes(COUNT * RECORD_BYTES))


def replace(path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(bytes(COUNT * RECORD_BYTES))
    os.replace(other, path)


def delete(path) -> None:
    path.unlink()


def replace_by_one_that_looks_the_same(path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(bytes(COUNT * RECORD_BYTES))
    shutil.copystat(path, other)  # as cp -p and rsync -t do
    os.replace(other, path)


def touch(path) -> None:
    os.utime(path)


CHANGES = [
    *(truncate, empty, append, rewrite_in_place, replace, delete, touch),
    replace_by_one_that_looks_the_same,
]
# What the error says of each, when the file is opened again.
SAID = {
    truncate: f"it has {3 * RECORD_BYTES + 5} bytes and had {COUNT * RECORD_BYTES}",
    append: f"it has {(COUNT + 1) * RECORD_BYTES} bytes and had {COUNT * RECORD_BYTES}",
    rewrite_in_place: "its time of change is .* and was .*: it was written to, or touched",
    replace: "its time of change is",
    touch: "it was written to, or touched",
    replace_by_one_that_looks_the_same: "another file of this name",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_the_middle_of_an_epoch_is_an_error_and_never_wrong_bytes(
    path, engine, direct, change
):
    records = np.frombuffer(path.read_bytes(), np.uint8).reshape(COUNT, RECORD_BYTES)
    dataset = make(path, engine=engine, direct=direct)
    position = 0
    with pytest.raises(FileChangedError, match=r"x\.bin"):  # noqa: PT012
        for batch in dataset:
            wanted = records[position : position + len(batch)]
            np.testing.assert_array_equal(batch.numpy(), wanted)
            position += len(batch)
            if position == 40:
                change(path)
    assert 40 <= position < COUNT
    del batch
    assert dataset.stats()["pool_in_use"] == 0


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_before_the_first_batch_is_an_error(path, engine, change):
    dataset = make(path, engine=engine)
    change(path)
    with pytest.raises((FileChangedError, NotFoundError), match=r"x\.bin"):
        next(iter(dataset))
    with pytest.raises((FileChangedError, NotFoundError), match=r"x\.bin"):
        dataset.get_batch([1])


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_epochs_is_an_error(path, direct, change):
    dataset = make(path, direct=direct)
    for _ in dataset:
        pass
    dataset.get_batch([1])
    change(path)
    with pytest.raises((FileChangedError, NotFoundError), match=r"x\.bin"):
        list(dataset)
    with pytest.raises((FileChangedError, NotFoundError), match=r"x\.bin"):
        dataset.get_batch([1])


@pytest.mark.parametrize("change", SAID)
def test_the_error_says_what_was_seen_and_no_more(path, change):
    dataset = make(path)
    change(path)
    with pytest.raises(FileChangedError, match=SAID[change]) as caught:
        next(iter(dataset))
    assert "rewritten" not in str(caught.value)
    assert "make the data set anew" in str(caught.value)


def test_times_are_said_as_people_read_them(path):
    os.utime(path, ns=(0, 1_700_000_000_000_000_001))
    dataset = make(path)
    os.utime(path, ns=(0, -1))
    with pytest.raises(FileChangedError) as caught:
        next(iter(dataset))
    assert "1969-12-31 23:59:59.999999999 UTC" in str(caught.value)
    assert "2023-11-14 22:13:20.000000001 UTC" in str(caught.value)


def test_a_data_set_that_came_from_another_machine_does_not_compare_inode_numbers(
    path, monkeypatch
):
    """There the file is a copy, with the same size and time of change."""
    records = np.frombuffer(path.read_bytes(), np.uint8).reshape(COUNT, RECORD_BYTES)
    sent = pickle.dumps(make(path))
    copy = path.with_suffix(".copy")
    shutil.copy2(path, copy)
    os.replace(copy, path)
    with pytest.raises(FileChangedError, match="another file of this name"):
        next(iter(pickle.loads(sent)))
    monkeypatch.setattr("torch_s3io.format.objects.machine", lambda: "another one")
    for position, batch in enumerate(pickle.loads(sent)):
        np.testing.assert_array_equal(batch.numpy(), records[position * 4 : position * 4 + 4])


def test_after_an_error_a_new_data_set_reads_what_is_there(path):
    dataset = make(path)
    rewrite_in_place(path)
    with pytest.raises(FileChangedError, match="make the data set anew"):
        next(iter(dataset))
    assert next(iter(make(path))).sum() == 0


def test_another_file_of_the_set_does_not_matter_until_its_turn(disk, path):
    other = write_file(disk / "y.bin", random_bytes(COUNT * RECORD_BYTES, 1))
    records = np.frombuffer(path.read_bytes(), np.uint8).reshape(COUNT, RECORD_BYTES)
    dataset = make([path, other])
    truncate(other)
    position = 0
    with pytest.raises(FileChangedError, match=r"y\.bin"):  # noqa: PT012
        for batch in dataset:
            wanted = records[position : position + len(batch)]
            np.testing.assert_array_equal(batch.numpy(), wanted)
            position += len(batch)
    assert position == COUNT


def test_a_store_reads_the_file_as_it_is_now(path):
    store = FileStore()
    assert store.get(path).numpy().tobytes() == path.read_bytes()
    for change in (append, truncate, rewrite_in_place, replace, empty):
        change(path)
        assert store.get(path).numpy().tobytes() == path.read_bytes()
    delete(path)
    with pytest.raises(NotFoundError, match=r"x\.bin"):
        store.get(path)
