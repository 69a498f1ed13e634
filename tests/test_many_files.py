"""Batches from more files than may be open at once."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from support import random_bytes, write_file

from torch_s3io import FileChangedError, NotFoundError, RecordDataset

FILES = 700


@pytest.fixture
def paths(disk):
    return [write_file(disk / f"{n:03}.bin", random_bytes(700, n)) for n in range(FILES)]


@pytest.fixture
def few_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_one_batch_may_come_from_more_files_than_descriptors(
    paths, few_descriptors, engine, direct
):
    dataset = RecordDataset(
        paths, dtype="u1", shape=700, batch_size=300, engine=engine, direct=direct
    )
    got = b"".join(batch.numpy().tobytes() for batch in dataset)
    assert got == b"".join(path.read_bytes() for path in paths)
    numbers = np.random.default_rng(0).permutation(FILES)
    batch = dataset.get_batch(numbers)
    assert batch.numpy().tobytes() == b"".join(paths[number].read_bytes() for number in numbers)


@pytest.mark.parametrize("number", [0, 150, 299])
def test_a_file_that_is_gone_or_another_one_is_found_in_every_wave(paths, few_descriptors, number):
    dataset = RecordDataset(paths, dtype="u1", shape=700, batch_size=300)
    paths[number].unlink()
    with pytest.raises(NotFoundError, match=paths[number].name):
        next(iter(dataset))
    write_file(paths[number], random_bytes(700, 1))
    with pytest.raises(FileChangedError, match=paths[number].name):
        next(iter(dataset))
