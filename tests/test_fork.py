"""What a forked child inherits and lets go: readers of its parent, in mid-epoch."""

from __future__ import annotations

import pytest
from programs import run_program
from support import make_cold, random_bytes, write_file

PRELUDE = """
    import gc, os, sys
    import numpy as np
    from torch_s3io import DataLoader, RecordDataset

    path, shuffle = sys.argv[1], sys.argv[2] == "True"
    array = np.fromfile(path, np.uint8).reshape(-1, 1000)

    def make(**options):
        return RecordDataset(path, dtype="u1", shape=1000, batch_size=10, **options)

    def is_right(batches):
        rows = np.concatenate([batch.numpy() for batch in batches])
        return np.array_equal(rows, array)

    parents = make(shuffle=shuffle)
    iterator = iter(parents)
    next(iterator)
"""


@pytest.fixture(params=[False, True], ids=["in order", "shuffled"])
def arguments(disk, request):
    path = write_file(disk / "x.bin", random_bytes(4_000_000))
    make_cold(path)
    return path, request.param


def test_a_child_drops_its_parents_iterator_after_it_has_one_of_its_own(arguments):
    source = (
        PRELUDE
        + """
    for _ in range(5):
        child = os.fork()
        if child == 0:
            own = iter(make())
            first = next(own).numpy()
            del iterator, parents
            gc.collect()
            rest = list(own)
            os._exit(0 if np.array_equal(first, array[:10]) and is_right(make()) else 1)
        assert os.waitpid(child, 0)[1] == 0
    print(len(list(iterator)))
    """
    )
    assert run_program(source, *arguments) == "399\n"


def test_a_worker_drops_its_parents_iterator_while_it_reads(arguments):
    source = (
        PRELUDE
        + """
    def drop(batch):
        global iterator
        if iterator is not None:
            iterator = None
            gc.collect()
        return batch

    for _ in range(3):
        loader = DataLoader(make(transform=drop), num_workers=2, persistent_workers=False)
        assert is_right(loader)
    print(len(list(iterator)))
    """
    )
    assert run_program(source, *arguments) == "399\n"
