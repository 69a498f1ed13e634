"""Limits of a process (ulimit): what they forbid is done in another way, which is said, or is an
error that names the limit and what it is now."""

from __future__ import annotations

import pytest
from programs import run_program
from support import write_records

PROGRAM = """
    import os, resource, sys, warnings
    from pathlib import Path
    import numpy as np
    import torch
    from torch_s3io import (
        BufferPoolConfig, DataLoader, FileStore, NoSpaceError, OutOfMemoryError, RecordDataset
    )
    from programs import become_nobody

    path = Path(sys.argv[1]) / "x.bin"
    array = np.fromfile(path, np.uint8).reshape(-1, 4096)

    def make(**options):
        return RecordDataset(path, dtype="u1", shape=4096, batch_size=16, **options)

    def check(batches):
        assert np.array_equal(torch.cat([batch.clone() for batch in batches]).numpy(), array)

    def limit(which, value):
        resource.setrlimit(which, (value, resource.getrlimit(which)[1]))

    def said(work, kind):
        try:
            work()
        except kind as error:
            return str(error)
        raise SystemExit(f"no {kind.__name__}")
"""


@pytest.fixture
def folder(public_folder):
    write_records(public_folder / "x.bin", 64, 4096)
    (public_folder / "x.bin").chmod(0o644)
    return public_folder


def test_with_a_small_limit_of_file_sizes_everything_is_read(folder):
    """It counts for shared memory as well: batches from workers are copied, which is said."""
    source = """
    limit(resource.RLIMIT_FSIZE, 1 << 20)
    check(make())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = make()
        for _ in range(2):
            check(DataLoader(dataset, num_workers=1))
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 1, texts
    text = texts[0]
    print("ulimit -f" in text, "now 1024 KiB" in text, "copied on their way" in text)
    text = said(lambda: FileStore().put(path.with_name("y"), torch.zeros(1 << 20)), NoSpaceError)
    print("ulimit -f" in text, "now 1024 KiB" in text)
    """
    assert run_program(PROGRAM + source, folder) == "True True True\nTrue True\n"


def test_without_address_space_the_error_names_the_limit(folder):
    source = """
    check(make())
    pages = int(open("/proc/self/statm").read().split()[0])
    limit(resource.RLIMIT_AS, pages * resource.getpagesize() + (64 << 20))
    pool = BufferPoolConfig(capacity=64, buffer_size=4 << 20)
    text = said(lambda: check(make(pool=pool)), OutOfMemoryError)
    print("ulimit -v" in text, "KiB" in text)
    text = said(lambda: FileStore().get(path.with_name("large")), OutOfMemoryError)
    print("ulimit -v" in text)
    """
    with open(folder / "large", "wb") as file:
        file.truncate(256 << 20)
    assert run_program(PROGRAM + source, folder) == "True True\nTrue\n"


def test_without_descriptors_the_error_names_the_limit_with_a_value(folder):
    source = """
    limit(resource.RLIMIT_NOFILE, 64)
    taken = []
    def take_all():
        while True:
            taken.append(os.dup(0))
    try:
        take_all()
    except OSError:
        pass
    text = said(lambda: check(make()), OutOfMemoryError)
    print("now 64" in text, "ulimit -n 65536" in text, issubclass(OutOfMemoryError, RuntimeError))
    """
    assert run_program(PROGRAM + source, folder) == "True True True\n"


@pytest.mark.parametrize("what", ["read", "write", "threads"])
def test_without_threads_the_error_names_the_limit(folder, needs_root, what):
    """The limit counts the user's threads; root is exempt, so it takes another user."""
    source = """
    writable = path.with_name("writable")
    writable.mkdir()
    os.chown(writable, 65534, 65534)
    store, dataset = FileStore(), make()
    become_nobody()
    limit(resource.RLIMIT_NPROC, 1)
    work = {
        "read": lambda: check(dataset),
        "write": lambda: store.put(writable / "y", torch.zeros(10)),
        "threads": lambda: check(make(engine="threads")),
    }[sys.argv[2]]
    text = said(work, OutOfMemoryError)
    print("ulimit -u" in text, "pids.max" in text)
    """
    assert run_program(PROGRAM + source, folder, what) == "True True\n"
