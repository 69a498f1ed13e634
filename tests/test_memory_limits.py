"""A memory limit that the page cache has filled: the kernel gives that back when it is wanted, so
nothing is refused for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import run_program

PROGRAM = """
    import os, sys
    from pathlib import Path
    import numpy as np
    import torch
    from support import holds_soon
    from torch_s3io import BufferPoolConfig, ConfigError, DataLoader, RecordDataset, _C

    path, group, limit_file = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    MIB = 1 << 20
    (group / "cgroup.procs").write_text(str(os.getpid()))

    def usage_mib():
        names = ("memory.current", "memory.usage_in_bytes")
        (file,) = [limit_file.with_name(name) for name in names
                   if limit_file.with_name(name).exists()]
        return int(file.read_text()) >> 20

    def fill_cache(times):
        for _ in range(times):
            with open(path, "rb", buffering=0) as file:
                while file.read(MIB):
                    pass

    def allocates(mib):  # what the kernel gives in truth
        child = os.fork()
        if child == 0:
            block = bytearray(mib * MIB)
            for page in range(0, len(block), 4096):
                block[page] = 1
            os._exit(0)
        return os.waitpid(child, 0)[1] == 0

    def make(mib, **options):
        return RecordDataset(path, dtype="u1", shape=MIB, batch_size=mib, **options)
"""


def memory_folder() -> Path | None:
    """Where this process's memory cgroup has its files."""
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")
        for number, controllers, group in groups:
            is_v1 = kind == "cgroup" and "memory" in controllers.split(",")
            if (is_v1 and "memory" in options.split(",")) or (kind == "cgroup2" and number == "0"):
                folder = Path(before.split()[4] + group)
                if (folder / "memory.stat").exists():
                    return folder
    return None


@pytest.fixture
def groups(needs_root) -> Iterator[tuple[Path, Path, str]]:
    """A memory cgroup, one below it, and the name of the file that sets its limit."""
    own = memory_folder()
    if own is None:
        pytest.skip("NO MEMORY CGROUP HERE: not tested")
    top = own / f"torch_s3io-test-{os.getpid()}"
    below = top / "task"
    try:
        is_v1 = (own / "memory.limit_in_bytes").exists()
        if not is_v1:
            (own / "cgroup.subtree_control").write_text("+memory")
        top.mkdir()
        if is_v1:
            with contextlib.suppress(OSError):  # since Linux 5.11 it always is
                (top / "memory.use_hierarchy").write_text("1")
        else:
            (top / "cgroup.subtree_control").write_text("+memory")
        below.mkdir()
    except OSError as error:
        for folder in (below, top):
            with contextlib.suppress(OSError):
                folder.rmdir()
        pytest.skip(f"NO CGROUP CAN BE MADE HERE ({error}): not tested")
    yield top, below, "memory.limit_in_bytes" if is_v1 else "memory.max"
    for folder in (below, top):
        folder.rmdir()


@pytest.mark.parametrize("times", [1, 3], ids=["inactive", "active"])
@pytest.mark.parametrize("limited", ["its own group", "the group above"])
def test_a_limit_that_the_page_cache_fills_refuses_nothing_that_fits(disk, groups, times, limited):
    path = disk / "zeros.bin"
    with open(path, "wb") as file:
        file.truncate(400 << 20)
    above, below, name = groups
    source = """
    limit_file.write_text(str((usage_mib() + 350) * MIB))
    fill_cache(int(sys.argv[4]))
    before = usage_mib()
    assert int(limit_file.read_text()) // MIB - before < 120, "the cache does not fill the limit"
    # The kernel adds up a group's numbers now and then: every 2 s on a busy machine.
    available = lambda: _C.available_memory_bytes() >> 20
    assert holds_soon(lambda: 200 < available() <= 350), available()
    dataset = make(40)  # three buffers are the least
    print(sum(len(batch) for batch in dataset))
    del dataset
    fill_cache(1)
    print(allocates(120))
    """
    group = above if limited == "its own group" else below
    text = run_program(PROGRAM + source, path, group, above / name, times)
    assert text == "400\nTrue\n"


def test_workers_that_begin_again_are_not_refused_the_memory_that_others_took_for_them(
    disk, groups
):
    path = disk / "zeros.bin"
    with open(path, "wb") as file:
        file.truncate(400 << 20)
    above, _, name = groups
    source = """
    pool = BufferPoolConfig(capacity=5, buffer_size=41 * MIB)
    dataset = make(40, pool=pool)
    limit_file.write_text(str((usage_mib() + 450) * MIB))
    for _ in range(3):
        print(sum(len(batch) for batch in DataLoader(dataset, num_workers=1)))
    print(dataset.stats()["received_tensors"])
    try:
        make(40, pool=BufferPoolConfig(capacity=12, buffer_size=41 * MIB))
    except ConfigError as error:
        print("cgroups" in str(error))
    """
    text = run_program(PROGRAM + source, path, above, above / name)
    assert text == "400\n400\n400\n30\nTrue\n"
