"""Names of files as Linux has them: any bytes but NUL."""

import os

import numpy as np
import pytest

from torch_s3io import ConfigError, FileStore, NotFoundError, RangeError, RecordDataset


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


@pytest.mark.parametrize(("offset", "length"), [(1 << 70, 1), (0, 1 << 63), (-1, 1), (0, -1)])
def test_ranges_beyond_all_files_are_range_errors(odd, offset, length):
    with pytest.raises(RangeError):
        FileStore().get_range(odd, offset, length)


def test_a_range_of_no_integers_is_a_config_error(odd):
    with pytest.raises(ConfigError, match="offset"):
        FileStore().get_range(odd, 0.5, 1)
