"""Where io_uring or locked memory is forbidden, as in containers: same bytes or a clear error."""

from __future__ import annotations

import errno

import pytest
from programs import IO_URING_ENTER, IO_URING_SETUP, run_program
from support import random_bytes, write_file

pytestmark = pytest.mark.usefixtures("needs_uring")

READ = """
    import os, resource, sys, warnings
    import numpy as np
    from programs import become_nobody, forbid_system_call
    from support import registered_buffers, rings
    from torch_s3io import EngineError, FileStore, FileSystemConfig, RecordDataset, _C

    path = sys.argv[1]
    array = np.fromfile(path, np.uint8).reshape(-1, 1000)

    def check(**options):
        dataset = RecordDataset(path, dtype="u1", shape=1000, batch_size=9, **options)
        position, seen_rings = 0, []
        for batch in dataset:
            assert np.array_equal(batch.numpy(), array[position : position + len(batch)])
            position += len(batch)
            seen_rings.append(rings())
        assert position == len(array)
        assert np.array_equal(dataset.get_batch([5, 3]).numpy(), array[[5, 3]])
        return dataset, seen_rings
"""


@pytest.mark.parametrize("call", [IO_URING_SETUP, IO_URING_ENTER])
@pytest.mark.parametrize("error_number", [errno.EPERM, errno.ENOSYS])
def test_without_io_uring_auto_reads_with_threads_and_says_so(disk, call, error_number):
    path = write_file(disk / "x.bin", random_bytes(200_000))
    source = (
        READ
        + """
    forbid_system_call(int(sys.argv[2]), int(sys.argv[3]))
    reason = _C.uring_unavailable_reason()
    assert reason, "io_uring still works"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset, _ = check(engine="auto")
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 1, texts
    assert "io_uring is not available" in texts[0] and "threads" in texts[0], texts
    assert os.strerror(int(sys.argv[3])) in texts[0], texts
    assert caught[0].category is RuntimeWarning
    assert dataset.stats()["engine"] == "threads"

    store = FileStore()
    assert store.get(path).numpy().tobytes() == array.tobytes()
    assert store.stats()["engine"] == "threads"

    for attempt in (
        lambda: check(engine="uring"),
        lambda: RecordDataset(path, dtype="u1", engine="uring").get_batch([1]),
        lambda: FileStore(engine="uring").get(path),
    ):
        try:
            attempt()
            raise SystemExit("engine='uring' was not an error")
        except EngineError as error:
            assert isinstance(error, RuntimeError)
            assert "io_uring is not available" in str(error), error
            assert os.strerror(int(sys.argv[3])) in str(error), error
    assert rings() == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(engine="threads")
    print("done")
    """
    )
    assert run_program(source, path, call, error_number) == "done\n"


def test_where_io_uring_is_forbidden_the_error_says_what_to_do(disk):
    path = write_file(disk / "x.bin", random_bytes(200_000))
    source = (
        READ
        + """
    forbid_system_call(int(sys.argv[2]), 1)
    try:
        check(engine="uring")
    except EngineError as error:
        print(error)
    """
    )
    text = run_program(source, path, IO_URING_SETUP)
    assert "engine='threads'" in text
    assert "io_uring_disabled" in text


def test_where_buffers_cannot_be_locked_they_are_read_into_unregistered(public_folder, needs_root):
    path = write_file(public_folder / "x.bin", random_bytes(200_000))
    path.chmod(0o644)
    source = (
        READ
        + """
    from torch_s3io import BufferPoolConfig

    limit = 256 * 1024  # enough for a ring, too little for a buffer
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    become_nobody()
    pool = BufferPoolConfig(capacity=4, buffer_size=1 << 20)
    for direct in ("require", "auto", "off"):
        dataset = RecordDataset(path, dtype="u1", shape=1000, batch_size=9, engine="uring",
                                direct=direct, pool=pool)
        position = 0
        for batch in dataset:
            assert np.array_equal(batch.numpy(), array[position : position + len(batch)])
            position += len(batch)
            if position <= 90:  # far from the end: the reader waits for buffers, its ring exists
                (ring,) = rings()
                assert registered_buffers(ring) == 0, "the limit is not in force"
        assert position == len(array)
        assert dataset.stats()["engine"] == "uring"
    store = FileStore(FileSystemConfig.direct_io(), engine="uring")
    assert store.get(path).numpy().tobytes() == array.tobytes()
    print("done")
    """
    )
    assert run_program(source, path) == "done\n"


def test_without_any_locked_memory_auto_reads_whatever_the_kernel_allows(public_folder, needs_root):
    """Newer kernels count the ring as locked memory, too: uring then says which limit to raise."""
    path = write_file(public_folder / "x.bin", random_bytes(200_000))
    path.chmod(0o644)
    source = (
        READ
        + """
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    become_nobody()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset, _ = check(engine="auto")
    try:
        check(engine="uring")
    except EngineError as error:
        assert "ulimit -l" in str(error), error
        assert dataset.stats()["engine"] == "threads"
        assert len(caught) == 1 and "ulimit -l" in str(caught[0].message), caught
    else:
        assert dataset.stats()["engine"] == "uring"
        assert caught == []
    print("done")
    """
    )
    assert run_program(source, path) == "done\n"


def test_with_few_processes_allowed_fewer_threads_read(public_folder, needs_root):
    """The limit counts the user's threads; root is exempt, so it takes another user."""
    path = write_file(public_folder / "x.bin", random_bytes(200_000))
    path.chmod(0o644)
    source = (
        READ
        + """
    become_nobody()
    resource.setrlimit(resource.RLIMIT_NPROC, (6, 6))
    try:
        dataset, _ = check(engine="threads")
        print("read")
    except (MemoryError, EngineError, RuntimeError) as error:
        assert "ulimit -u" in str(error), error
        print("refused")
    """
    )
    assert run_program(source, path) in ("read\n", "refused\n")
