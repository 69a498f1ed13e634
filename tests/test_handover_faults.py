"""What goes wrong between worker and main process: an error at next(), or torch's own way."""

from __future__ import annotations

import collections
import dataclasses
import gc
import pickle
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import run_program
from support import CONTEXTS, end_workers, worker_count
from test_handover import BATCH, COLUMNS, Wrapped, check, make, write
from torch.utils.data import DataLoader

import torch_s3io as s3io
from torch_s3io import _C
from torch_s3io.processes import handover
from torch_s3io.torch_internals.lost_tensors import LostTensor, find_lost


def sent_by_a_worker(batch: Any) -> bytes:
    sent = _C.send_tensor(batch[0])
    assert sent is not None
    return sent


def test_a_stale_or_foreign_handle_never_gives_bytes(disk):
    path, _ = write(disk, 64)
    dataset = make(path)
    handles = list(DataLoader(Wrapped(dataset, sent_by_a_worker), batch_size=None, num_workers=1))
    good = handles[-1]
    tensor = _C.receive_tensor(good)
    assert tensor.shape == (BATCH, COLUMNS)
    with pytest.raises(s3io.DataError, match="gone"):
        _C.receive_tensor(good)  # a second time
    del tensor
    for broken in (b"", good[:-1], bytes(len(good)), good[:8] + bytes(8) + good[16:]):
        with pytest.raises(s3io.DataError):
            _C.receive_tensor(broken)
        assert type(handover._receive(broken)) is LostTensor
    for position in range(len(good)):
        changed = bytearray(handles[0])
        changed[position] ^= 0x81
        received = handover._receive(bytes(changed))  # never raises, never crashes
        assert isinstance(received, torch.Tensor | LostTensor)
        del received
    del dataset
    gc.collect()
    with pytest.raises(s3io.DataError, match="data set is gone"):
        _C.receive_tensor(good)


def test_a_lost_tensor_fails_in_the_pin_thread_and_on_any_use():
    lost = LostTensor("its bytes are gone")
    ones = torch.ones(2)
    for use in (
        lost.pin_memory,
        lambda: lost.shape,
        lambda: lost.float(),
        lambda: lost[0],
        lambda: lost + 1,
        lambda: 255 - lost,
        lambda: ones * lost,
        lambda: lost > 0,
        lambda: torch.cat([ones, lost]),
        lambda: len(lost),
        lambda: list(lost),
        lambda: bool(lost),
    ):
        with pytest.raises(s3io.DataError, match="gone"):
            use()


@dataclasses.dataclass(slots=True)
class Slotted:
    rows: Any


@dataclasses.dataclass(frozen=True)
class Hashed:
    rows: Any


def test_a_lost_tensor_is_found_wherever_a_batch_may_have_it():
    lost = LostTensor("its bytes are gone")
    circle: list[Any] = [torch.ones(1)]
    circle.append({"circle": circle})
    assert find_lost(circle) is None
    circle.append(lost)
    for batch in (Slotted([lost]), {Hashed(lost)}, circle, [collections.deque([lost])]):
        assert find_lost((1, "x", batch)) is lost
    assert find_lost({"a": [torch.ones(1)], "b": None}) is None


def fails_at_the_third(batch: Any) -> Any:
    if int(batch[0, 0]) == 2 * BATCH * COLUMNS:
        raise ValueError("the third batch is bad")
    return batch


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_transform_that_raises_is_its_own_error(disk, context):
    path, _ = write(disk)
    dataset = make(path, transform=fails_at_the_third)
    options = {"batch_size": None, "num_workers": 1, "multiprocessing_context": context}
    batches = iter(DataLoader(dataset, **options))
    with pytest.raises(ValueError, match="the third batch is bad"):
        list(batches)
    end_workers(batches)


def test_a_transform_that_cannot_be_pickled_is_an_error_at_the_start(disk):
    path, _ = write(disk)
    dataset = make(path, transform=lambda batch: batch)
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        iter(loader)


def fail_at_the_start(_: int) -> None:
    raise ValueError("this worker does not start")


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_worker_that_fails_at_its_start_is_its_own_error_and_the_next_loader_works(disk, context):
    path, array = write(disk, 64)
    dataset = make(path)
    workers = {"num_workers": worker_count(context), "multiprocessing_context": context}
    options = {"batch_size": None, **workers}
    batches = iter(DataLoader(dataset, worker_init_fn=fail_at_the_start, **options))
    with pytest.raises(ValueError, match="does not start"):
        next(batches)
    end_workers(batches)
    path.rename(path.with_suffix(".gone"))
    batches = iter(DataLoader(dataset, **options))
    with pytest.raises(s3io.NotFoundError, match=path.name):
        next(batches)
    end_workers(batches)
    path.with_suffix(".gone").rename(path)
    for batch in DataLoader(dataset, **options):
        check(batch, array)


def leave_no_address_space(_: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (24 << 20)  # for a thread and some heap
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def test_a_worker_without_address_space_for_its_pool_says_so(disk):
    path, _ = write(disk, 64)
    pool = s3io.BufferPoolConfig(capacity=64, buffer_size=4 << 20)
    dataset = make(path, pool=pool)
    options = {"batch_size": None, "num_workers": 1, "worker_init_fn": leave_no_address_space}
    batches = iter(DataLoader(dataset, **options))
    with pytest.raises(s3io.OutOfMemoryError, match=r"BufferPoolConfig\.capacity"):
        next(batches)
    end_workers(batches)


# Programs of their own: their limits stay. They begin with this.
PROGRAM = """
    import contextlib, ctypes, os, resource, sys
    from pathlib import Path
    import torch
    import torch_s3io as s3io
    from torch.utils.data import DataLoader, IterableDataset
    from programs import forbid_system_call
    from test_handover import BATCH, check, make, small_pool, write

    def loader(dataset, **options):
        return DataLoader(dataset, batch_size=None, **{"num_workers": 1, **options})
"""


def test_a_main_process_without_address_space_reads_what_it_cannot_map(disk):
    source = """
    path, array = write(Path(sys.argv[1]))
    pool = small_pool(2048)  # 128 MiB: more than is left
    batches = iter(loader(make(path, pool=pool)))
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
    received = list(batches)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for batch in received:
        check(batch, array)
    dataset = batches._dataset
    print(len(received), dataset.stats()["unmapped_tensors"], dataset.stats()["stale_tensors"])
    """
    assert run_program(PROGRAM + source, disk) == "60 120 0\n"


def test_a_worker_out_of_descriptors_says_so_wherever_it_runs_out(disk):
    source = """
    path, array = write(Path(sys.argv[1]))
    dataset = make(path)
    for left in range(5):  # for a file, the memory, the ring

        def leave_few_descriptors(_):
            resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
            taken = []
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            for fd in taken[:left]:
                os.close(fd)

        try:
            for batch in loader(dataset, worker_init_fn=leave_few_descriptors):
                check(batch, array)
            print("enough")
        except (OSError, MemoryError, RuntimeError) as error:
            assert isinstance(error, s3io.Error), error
            assert "Too many open files" in str(error), error
            print("said so")
    for batch in loader(dataset):
        check(batch, array)
    print("and then enough")
    """
    output = run_program(PROGRAM + source, disk).splitlines()
    assert output[0] == "said so"
    assert set(output[:5]) <= {"said so", "enough"}
    assert output[5:] == ["and then enough"]


@pytest.mark.parametrize("ours", [True, False], ids=["our DataLoader", "torch's"])
def test_a_main_process_out_of_descriptors_loses_a_batch_with_an_error_and_goes_on(disk, ours):
    source = """
    path, array = write(Path(sys.argv[1]))

    def of_new_tensors(batch):  # each is sent by a descriptor of its own
        return batch.clone()

    dataset = make(path, transform=of_new_tensors)
    make_loader = s3io.DataLoader if sys.argv[2] == "True" else DataLoader
    batches = iter(make_loader(dataset, batch_size=None, num_workers=1))
    kept = [next(batches)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    try:
        kept.extend(batches)
        print("enough")
    except s3io.OutOfMemoryError as error:
        assert "ulimit -n" in str(error), error
    for fd in taken:
        os.close(fd)
    lost = len(kept)
    for batch in kept:
        check(batch, array)
    kept.clear()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for batch in batches:
        check(batch, array)
        kept.append(int(batch[1][0]) // BATCH)
    assert kept == list(range(lost + 1, lost + 1 + len(kept))), (lost, kept)
    print("went on", len(kept) > 10)
    """
    assert run_program(PROGRAM + source, disk, ours) == "went on True\n"


def test_a_worker_that_may_not_claim_memory_goes_torchs_own_way_counted(disk, needs_root):
    source = """
    clone_newns, mount_private = 0x20000, 0x44000
    libc = ctypes.CDLL(None, use_errno=True)

    def hide_proc(_):  # a claim opens the inherited descriptor anew, by its name there
        assert libc.unshare(clone_newns) == 0, os.strerror(ctypes.get_errno())
        assert libc.mount(b"none", b"/", None, mount_private, None) == 0
        assert libc.mount(b"none", b"/proc", b"tmpfs", 0, None) == 0

    path, array = write(Path(sys.argv[1]))
    dataset = make(path)
    for batch in loader(dataset, worker_init_fn=hide_proc):
        check(batch, array)
    stats = dataset.stats()
    print(stats["refused_workers"], stats["received_tensors"])
    """
    assert run_program(PROGRAM + source, disk) == "1 0\n"


FULL_DEV_SHM = """
    clone_newns, mount_private = 0x20000, 0x44000
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(clone_newns) == 0, os.strerror(ctypes.get_errno())
    assert libc.mount(b"none", b"/", None, mount_private, None) == 0
    assert libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, b"size=1m") == 0
    torch.multiprocessing.set_sharing_strategy(sys.argv[2])

    class Fresh(IterableDataset):
        def __iter__(self):
            yield torch.ones(1 << 20)

    def with_copy(rows):
        return rows.clone(), rows

    def filled(batches):  # the semaphores of its queues lie in /dev/shm, too
        room = os.statvfs("/dev/shm")
        Path("/dev/shm/full").write_bytes(bytes(room.f_bavail * room.f_bsize))
        yield from batches
        os.unlink("/dev/shm/full")

    path, array = write(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("strategy", ["file_descriptor", "file_system"])
def test_a_full_dev_shm_loses_torchs_batches_but_not_ours(disk, strategy, needs_root):
    source = """
    dataset = make(path)
    for batch in filled(iter(loader(dataset, num_workers=2))):
        check(batch, array)
        assert os.listdir("/dev/shm") == ["full"]
    print("ours:", dataset.stats()["received_tensors"] // 2)
    print("torch's:", len(list(filled(iter(loader(Fresh()))))))
    """
    output = run_program(PROGRAM + FULL_DEV_SHM + source, disk, strategy)
    assert output == "ours: 60\ntorch's: 0\n"


@pytest.mark.parametrize("strategy", ["file_descriptor", "file_system"])
def test_with_a_full_dev_shm_new_tensors_of_a_transform_come_through_a_pipe(
    disk, strategy, needs_root
):
    source = """
    import warnings
    warnings.simplefilter("error")  # in the workers, too
    count = 0
    for (new, rows), index in filled(iter(loader(make(path, transform=with_copy)))):
        check((rows, index), array)
        check((new, index), array)
        count += 1
    print(count)
    """
    assert run_program(PROGRAM + FULL_DEV_SHM + source, disk, strategy) == "60\n"


def test_with_a_full_dev_shm_any_dtype_comes_through_a_pipe(disk, needs_root):
    """torch's own pickle knows uint16 and the like no more than it did when they were new."""
    source = """
    def converted(rows):
        return rows.to(torch.uint16), rows.to(torch.float8_e4m3fn)[:0], rows[0, 0].to(torch.uint64)

    count = 0
    for (short, empty, one), index in filled(iter(loader(make(path, transform=converted)))):
        wanted = array[index.numpy()]
        assert (short.numpy() == wanted.astype("u2")).all()
        assert (empty.dtype, len(empty)) == (torch.float8_e4m3fn, 0)
        assert (one.dtype, int(one)) == (torch.uint64, wanted[0, 0])
        count += 1
    print(count)
    """
    assert run_program(PROGRAM + FULL_DEV_SHM + source, disk, "file_descriptor") == "60\n"


@pytest.mark.parametrize("strategy", ["file_descriptor", "file_system"])
def test_with_a_full_dev_shm_nested_tensors_come_through_a_pipe(disk, strategy, needs_root):
    source = """
    import warnings
    warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")

    def nested(rows):
        return torch.nested.nested_tensor([rows[0, :3], rows[1]])

    count = 0
    for parts, index in filled(iter(loader(make(path, transform=nested)))):
        first, second = parts.unbind()
        assert torch.equal(first, torch.from_numpy(array[index[0]])[:3])
        assert torch.equal(second, torch.from_numpy(array[index[1]]))
        count += 1
    print(count)
    """
    assert run_program(PROGRAM + FULL_DEV_SHM + source, disk, strategy) == "60\n"


@pytest.mark.parametrize("strategy", ["file_descriptor", "file_system"])
def test_workers_without_a_dev_shm_hand_over_all_the_same(disk, strategy, needs_root):
    """Python's queues need one to begin: it goes when a worker has begun."""
    source = """
    clone_newns, mount_private = 0x20000, 0x44000
    libc = ctypes.CDLL(None, use_errno=True)
    torch.multiprocessing.set_sharing_strategy(sys.argv[2])

    def hide_dev(_):
        assert libc.unshare(clone_newns) == 0, os.strerror(ctypes.get_errno())
        assert libc.mount(b"none", b"/", None, mount_private, None) == 0
        assert libc.mount(b"none", b"/dev", b"tmpfs", 0, None) == 0
        assert not os.path.exists("/dev/shm")

    def with_copy(rows):
        return rows.clone(), rows

    path, array = write(Path(sys.argv[1]))
    dataset = make(path, transform=with_copy)
    for (new, rows), index in loader(dataset, num_workers=2, worker_init_fn=hide_dev):
        check((rows, index), array)
        check((new, index), array)  # torch's, which comes through a pipe
    print(dataset.stats()["received_tensors"] // 2)
    """
    assert run_program(PROGRAM + source, disk, strategy) == "60\n"


def test_where_descriptors_may_not_be_passed_our_way_needs_none(disk):
    source = """
    sendmsg = {"x86_64": 46, "aarch64": 211}[os.uname().machine]

    def refuse_passing(_):
        forbid_system_call(sendmsg, 1)

    path, array = write(Path(sys.argv[1]))
    dataset = make(path)
    for batch in loader(dataset, num_workers=2, worker_init_fn=refuse_passing):
        check(batch, array)
    print(dataset.stats()["received_tensors"])
    """
    assert run_program(PROGRAM + source, disk) == "120\n"
