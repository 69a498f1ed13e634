"""get_batch against numpy's fancy indexing."""

from __future__ import annotations

import threading

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from support import random_bytes, write_file

from torch_s3io import ConfigError, RangeError, RecordDataset


def make(folder, record_bytes=700, counts=(20, 0, 1, 33), header_bytes=0, **options):
    arrays = []
    for number, count in enumerate(counts):
        data = random_bytes(header_bytes + count * record_bytes, number)
        write_file(folder / f"{number}.bin", data)
        arrays.append(np.frombuffer(data, np.uint8)[header_bytes:].reshape(-1, record_bytes))
    dataset = RecordDataset(
        f"{folder}/*.bin",
        dtype="u1",
        shape=record_bytes,
        header_bytes=header_bytes,
        batch_size=8,
        **options,
    )
    return dataset, np.concatenate(arrays)


@settings(max_examples=60)
@given(data=st.data())
def test_any_numbers_in_any_order_are_read_as_numpy_indexes(disk, data):
    record_bytes = data.draw(st.sampled_from([1, 7, 512, 700, 4096, 5000]))
    direct = data.draw(st.sampled_from(["auto", "require", "off"]))
    header_bytes = data.draw(st.sampled_from([0, 3, 512]))
    dataset, array = make(disk, record_bytes, header_bytes=header_bytes, direct=direct)
    for _ in range(5):
        numbers = data.draw(st.lists(st.integers(0, len(array) - 1), max_size=80))
        got = dataset.get_batch(numbers)
        assert got.shape == (len(numbers), record_bytes)
        np.testing.assert_array_equal(got.numpy(), array[numbers])


def test_records_of_whole_blocks_are_read_in_any_order_without_a_copy(disk, engine):
    dataset, array = make(disk, 4096, engine=engine, direct="require")
    numbers = [50, 3, 3, 20, 0, 53]
    np.testing.assert_array_equal(dataset.get_batch(numbers).numpy(), array[numbers])
    assert dataset.stats()["copied_bytes"] == 0


@pytest.mark.parametrize(
    "numbers",
    [
        [3, 40],
        (3, 40),
        range(3, 40, 5),
        np.array([3, 40]),
        np.array([3, 40], np.uint8),
        torch.tensor([3, 40]),
        torch.tensor([3, 40], dtype=torch.int32),
    ],
    ids=lambda numbers: type(numbers).__name__,
)
def test_numbers_may_be_any_sequence_of_integers(disk, numbers):
    dataset, array = make(disk)
    wanted = array[np.asarray(numbers).astype(int)]
    np.testing.assert_array_equal(dataset.get_batch(numbers).numpy(), wanted)


def test_no_numbers_make_an_empty_batch(disk):
    dataset, _ = make(disk)
    batch = dataset.get_batch([])
    assert batch.shape == (0, 700)
    assert batch.dtype == torch.uint8


def test_the_index_comes_with_the_batch(disk):
    dataset, array = make(disk, return_index=True, transform=lambda rows: rows + 0)
    rows, index = dataset.get_batch([5, 1, 5])
    assert index.tolist() == [5, 1, 5]
    np.testing.assert_array_equal(rows.numpy(), array[[5, 1, 5]])


def test_a_structure_is_a_dict(disk):
    dtype = np.dtype([("a", "u1"), ("b", "f4")])
    array = np.frombuffer(np.arange(500, dtype="u1").tobytes(), dtype)
    write_file(disk / "x.bin", array.tobytes())
    batch = RecordDataset(disk / "x.bin", dtype=dtype).get_batch([7, 3])
    np.testing.assert_array_equal(batch["a"].numpy(), array["a"][[7, 3]])
    np.testing.assert_array_equal(batch["b"].numpy(), np.ascontiguousarray(array["b"][[7, 3]]))


@pytest.mark.parametrize("number", [-1, 54, 1 << 62, -(1 << 63)])
def test_a_number_that_does_not_exist_is_a_range_error(disk, number):
    dataset, _ = make(disk)
    with pytest.raises(RangeError, match=rf"{number}.*54"):
        dataset.get_batch([0, number])
    with pytest.raises(IndexError):
        dataset.get_batch([number])
    assert len(dataset.get_batch([53])) == 1


@pytest.mark.parametrize("numbers", [[1 << 63], [1 << 70], np.array([2**63 + 1], np.uint64)])
def test_a_number_beyond_64_bits_is_a_typed_error_too(disk, numbers):
    dataset, _ = make(disk)
    with pytest.raises((RangeError, ConfigError)):
        dataset.get_batch(numbers)


META_TENSOR = torch.ones(1, device="meta")


@pytest.mark.parametrize(
    "numbers",
    [3, None, "3", [1.0], [True], [[1], [2]], np.zeros((2, 2), int), [[1], [2, 3]], META_TENSOR],
)
def test_what_is_no_sequence_of_numbers_is_refused(disk, numbers):
    dataset, _ = make(disk)
    with pytest.raises(ConfigError, match="indices"):
        dataset.get_batch(numbers)


def test_batches_are_read_while_an_iterator_holds_the_whole_pool(disk):
    dataset, array = make(disk)
    iterator = iter(dataset)
    first = next(iterator)
    np.testing.assert_array_equal(dataset.get_batch([9, 0]).numpy(), array[[9, 0]])
    np.testing.assert_array_equal(first.numpy(), array[:8])


def test_several_threads_read_at_once(disk):
    dataset, array = make(disk)
    failures = []

    def read(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(50):
            numbers = generator.integers(0, len(array), 5)
            if not np.array_equal(dataset.get_batch(numbers).numpy(), array[numbers]):
                failures.append(numbers)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failures == []
