"""FileStore's reads that fail, are short, or never come back; and what it warns of."""

from __future__ import annotations

import errno
import warnings

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from leaks import nothing_leaked
from programs import run_program
from support import (
    ENGINES,
    ERRNOS,
    REFUSES_DIRECT,
    RETRIED,
    SHORT,
    failing,
    make_warm,
    names_errno,
    random_bytes,
    store_with,
    write_file,
)

from torch_s3io import (
    _C,
    BufferPoolConfig,
    DirectIOError,
    Error,
    FileStore,
    RangeEngineConfig,
    ReadError,
)

RANGES = RangeEngineConfig(chunk_size=65536, min_split_size=100_000, max_concurrent_ranges=3)
CHUNKS = 5
POOL = BufferPoolConfig(capacity=2, buffer_size=1 << 19)


@pytest.fixture
def path(disk):
    """A warm file of five chunks."""
    path = write_file(disk / "x.bin", random_bytes(300_123))
    make_warm(path)
    return path


def read(path, content, plan, **options) -> tuple[Error | None, dict]:
    """Reads the file whole, then a part, which must work. The error of the first, and stats."""
    failure = None
    with nothing_leaked():
        store = store_with(faults=plan, range_engine=RANGES, **options)
        try:
            assert store.get(path).numpy().tobytes() == content
        except Error as error:
            error.__traceback__ = None  # its frames hold the store
            failure = error
        assert store.get_range(path, 77, 5000).numpy().tobytes() == content[77:5077]
        stats = store.stats()
        assert stats["pool_in_use"] == 0
        del store
    return failure, stats


@pytest.mark.parametrize("pool", [POOL, None], ids=["pool", "no pool"])
@pytest.mark.parametrize("error_number", ERRNOS, ids=errno.errorcode.get)
def test_whichever_read_fails_the_bytes_are_right_or_the_error_is_typed(
    path, engine, direct, pool, error_number
):
    content = path.read_bytes()
    options = {"engine": engine, "direct_io": direct, "buffer_pool": pool}
    assert read(path, content, None, **options)[1]["requests"] == CHUNKS + 1
    for number in range(CHUNKS):
        plan = _C.FaultPlan(by_number={number: failing(error_number)})
        error, stats = read(path, content, plan, **options)
        if error_number in RETRIED or direct == "auto":
            assert error is None  # what the page cache fails to give is read directly
            assert stats["retries"] == 1
        elif error_number == errno.EINVAL and direct == "require":
            assert type(error) is DirectIOError
        else:
            assert type(error) is ReadError
        if error is not None:
            assert "x.bin" in str(error)
            assert names_errno(error, error_number)


def test_whichever_read_is_short_the_bytes_are_right(path, engine, direct):
    content = path.read_bytes()
    for number in range(CHUNKS):
        plan = _C.FaultPlan(by_number={number: SHORT})
        error, stats = read(path, content, plan, engine=engine, direct_io=direct)
        assert error is None
        assert stats["short_reads"] >= 1


@pytest.mark.filterwarnings("ignore:.*refuses O_DIRECT")
@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    probability=st.sampled_from([0.05, 0.3]),
    faults=st.lists(st.sampled_from([SHORT, *map(failing, ERRNOS[:4])]), min_size=1),
    engine=st.sampled_from(ENGINES),
    direct=st.sampled_from(["auto", "require", "off"]),
    pool=st.sampled_from([None, POOL]),
)
def test_random_faults_in_random_order_never_give_wrong_bytes(
    path, seed, probability, faults, engine, direct, pool
):
    content = path.read_bytes()
    plan = _C.FaultPlan(seed=seed, probability=probability, random=faults, reorder=True)
    store = store_with(engine, plan, direct_io=direct, buffer_pool=pool, range_engine=RANGES)
    for offset, length in ((0, len(content)), (123, 200_000), (70_000, 10)):
        try:
            got = store.get_range(path, offset, length)
            assert got.numpy().tobytes() == content[offset : offset + length]
            del got
        except (ReadError, DirectIOError):
            assert any(fault != SHORT for fault in faults)
    assert store.stats()["pool_in_use"] == 0


# A lost read leaves its ring and its buffer behind on purpose: the kernel may still write there. So
# it runs in a process of its own.
LOSE_A_READ = """
    import sys
    from torch_s3io import BufferPoolConfig, RangeEngineConfig, ReadTimeoutError, _C
    from support import store_with

    path, engine, pooled = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
    content = open(path, "rb").read()
    ranges = RangeEngineConfig(chunk_size=65536, min_split_size=0, range_timeout=0.1)
    pool = BufferPoolConfig(capacity=2, buffer_size=1 << 19) if pooled else None
    plan = _C.FaultPlan(by_number={4: (0, False, True)})
    store = store_with(engine, plan, direct_io="require", buffer_pool=pool, range_engine=ranges)
    try:
        store.get(path)
        raise SystemExit("the lost read came back")
    except ReadTimeoutError as error:
        assert "RangeEngineConfig.range_timeout" in str(error), error
        assert "x.bin" in str(error) and "0.1 s" in str(error), error
        assert isinstance(error, TimeoutError)
    assert store.stats()["pool_in_use"] == (1 if pooled else 0)
    for _ in range(3):  # a new queue, which has lost nothing yet
        assert store.get_range(path, 5, 100).numpy().tobytes() == content[5:105]
    del store
    print("done")
"""


@pytest.mark.parametrize("pooled", [True, False])
def test_a_lost_read_is_a_timeout_and_its_buffer_is_never_reused(path, engine, pooled):
    assert run_program(LOSE_A_READ, path, engine, pooled) == "done\n"


def test_where_io_uring_is_forbidden_auto_warns_once_and_reads_with_threads(path):
    source = """
        import errno, sys, warnings
        from programs import IO_URING_SETUP, forbid_system_call
        from torch_s3io import EngineError, FileStore

        forbid_system_call(IO_URING_SETUP, errno.EPERM)
        content = open(sys.argv[1], "rb").read()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            store = FileStore()
            for _ in range(3):
                assert store.get(sys.argv[1]).numpy().tobytes() == content
            assert FileStore(engine="threads").get(sys.argv[1]).numel() == len(content)
        assert store.stats()["engine"] == "threads"
        (warning,) = caught
        assert warning.category is RuntimeWarning
        assert "io_uring" in str(warning.message) and "threads" in str(warning.message), warning
        try:
            FileStore(engine="uring").get(sys.argv[1])
        except EngineError:
            print("done")
    """
    assert run_program(source, path) == "done\n"


def test_a_refused_direct_read_is_warned_of_once_where_get_was_called(path):
    with open(REFUSES_DIRECT, "rb") as file:
        file.read()
    store = FileStore()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            store.get_range(REFUSES_DIRECT, 0, 0)
    (warning,) = caught
    assert warning.category is RuntimeWarning
    assert REFUSES_DIRECT in str(warning.message)
    assert "direct_io" in str(warning.message)
    assert warning.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="O_DIRECT"):
            FileStore().get_range(REFUSES_DIRECT, 0, 0)
        FileStore().get(path)
        store_with(direct_io="off").get_range(REFUSES_DIRECT, 0, 0)
