"""Page-locked batches and copies to a CUDA device. Without one: the same logic over fakes."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gc
import time
import types
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

import torch_s3io as s3io
from torch_s3io import _C, handover, prefetch

RECORD = 65536


def write_records(folder: Path, count: int) -> tuple[Path, np.ndarray]:
    records = np.random.default_rng(7).integers(0, 256, (count, RECORD), np.uint8)
    path = folder / "records.bin"
    records.tofile(path)
    return path, records


Pair = collections.namedtuple("Pair", "left right")


@dataclasses.dataclass
class Sample:
    image: torch.Tensor
    name: str


def test_every_tensor_of_a_structure_is_mapped_and_nothing_else() -> None:
    one = torch.ones(2)
    data = {"a": [one, 3], "b": (one, "x"), "c": Pair(one, None), "d": Sample(one, "n")}
    mapped = prefetch.map_tensors(lambda tensor: tensor + 1, data)
    expected = torch.full((2,), 2.0)
    assert torch.equal(mapped["a"][0], expected)
    assert mapped["a"][1] == 3
    assert torch.equal(mapped["b"][0], expected)
    assert mapped["b"][1] == "x"
    assert torch.equal(mapped["c"].left, expected)
    assert type(mapped["c"]) is Pair
    assert torch.equal(mapped["d"].image, expected)
    assert mapped["d"].name == "n"
    assert torch.equal(one, torch.ones(2))


class Items(list):
    name = ""


class Frozen(collections.abc.Mapping):
    def __init__(self, values: dict[str, Any]) -> None:
        self.values_ = values

    def __getitem__(self, key: str) -> Any:
        return self.values_[key]

    def __iter__(self) -> Any:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


class Numbered(Frozen):
    def __init__(self, values: dict[str, Any], number: int) -> None:
        super().__init__(values)


class Row(collections.abc.Sequence):
    def __init__(self, values: Any) -> None:
        self.values = tuple(values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __len__(self) -> int:
        return len(self.values)


def make_containers(tensor: torch.Tensor) -> list[Any]:
    named = Items([tensor, "x"])
    named.name = "kept"
    values = {"a": tensor, "b": 3}
    return [
        collections.OrderedDict(values),
        collections.defaultdict(list, values),
        collections.UserDict(values),
        types.MappingProxyType(values),
        Frozen(values),
        Numbered(values, 1),  # cannot be made from its items alone
        named,
        collections.UserList([tensor, 3]),
        collections.deque([tensor, 3], maxlen=2),
        Row([tensor, 3]),
        (Pair(tensor, [tensor]), "text", b"bytes"),
    ]


@pytest.mark.parametrize("number", range(11))
def test_containers_come_out_as_torch_makes_them_to_pin_them(number, monkeypatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor + 1)
    container = make_containers(torch.ones(2))[number]
    expected = pin_memory(make_containers(torch.ones(2))[number])
    mapped = prefetch.map_tensors(lambda tensor: tensor + 1, container)
    assert type(mapped) is type(expected)
    assert len(mapped) == len(expected)
    flat = mapped.values() if isinstance(mapped, collections.abc.Mapping) else mapped
    first = next(iter(flat))
    first = first.left if isinstance(first, Pair) else first
    assert torch.equal(first, torch.full((2,), 2.0))
    assert getattr(mapped, "name", None) == getattr(container, "name", None)


def test_nothing_of_a_dataclass_is_lost_or_left_behind() -> None:
    @dataclasses.dataclass
    class Rich:
        image: torch.Tensor
        scale: dataclasses.InitVar[int]
        later: torch.Tensor = dataclasses.field(init=False)
        unset: torch.Tensor = dataclasses.field(init=False)

        def __post_init__(self, scale: int) -> None:
            self.later = self.image * scale
            self.mask = self.image * 0  # no field

    @dataclasses.dataclass(frozen=True, slots=True)
    class Tight:
        image: torch.Tensor
        name: str

    rich = prefetch.map_tensors(lambda tensor: tensor + 1, Rich(torch.ones(1), 5))
    assert (rich.image.item(), rich.later.item(), rich.mask.item()) == (2, 6, 1)
    assert not hasattr(rich, "unset")
    tight = Tight(torch.ones(1), "n")
    mapped = prefetch.map_tensors(lambda tensor: tensor + 1, tight)
    assert (mapped.image.item(), mapped.name, tight.image.item()) == (2, "n", 1)


def test_on_the_cpu_batches_pass_through() -> None:
    batches = [torch.ones(1), {"a": torch.zeros(1)}]
    passed = list(s3io.DevicePrefetcher(batches, "cpu"))
    assert all(one is other for one, other in zip(passed, batches, strict=True))


@pytest.mark.parametrize("device", ["nowhere", "meta", 1.5])
def test_a_device_that_cannot_be_is_refused(device: Any) -> None:
    with pytest.raises(s3io.ConfigError, match="device"):
        s3io.DevicePrefetcher([], device)


def test_what_is_no_loader_is_refused_at_once() -> None:
    number: Any = 5
    with pytest.raises(s3io.ConfigError, match="loader must be an iterable of batches, not 5"):
        s3io.DevicePrefetcher(number, "cpu")


class FakeCopier:
    """Notes what is started and handed out, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def start_next(self, batches: Any, under_way: Any) -> bool:
        batch = next(batches, None)
        if batch is None:
            return False
        self.events.append(f"start {batch}")
        under_way.append(batch)
        return True

    def hand_out(self, batch: int) -> int:
        self.events.append(f"out {batch}")
        return batch

    def close(self) -> None:
        self.events.append("close")


def test_the_next_copies_are_under_way_before_a_batch_is_handed_out() -> None:
    prefetcher = s3io.DevicePrefetcher([1, 2, 3, 4], "cpu", depth=2)
    prefetcher._device = torch.device("cuda")
    copier = FakeCopier()
    prefetcher._make_copier = lambda: copier
    assert list(prefetcher) == [1, 2, 3, 4]
    assert copier.events == [
        "start 1", "start 2", "out 1", "start 3", "out 2", "start 4", "out 3", "out 4", "close",
    ]  # fmt: skip


def test_an_error_of_the_loader_comes_after_the_batches_before_it() -> None:
    def batches() -> Iterator[int]:
        yield from (1, 2, 3)
        raise OSError("the device is gone")

    prefetcher = s3io.DevicePrefetcher(batches(), "cpu", depth=2)
    prefetcher._device = torch.device("cuda")
    prefetcher._make_copier = FakeCopier
    came = iter(prefetcher)
    assert [next(came) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(OSError, match="device is gone"):
        next(came)


class FakeCuda:
    """Streams and events that only note what is done with them; "copies" are made at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.current = "the loop's"
        log = self.log
        cuda = self

        class Event:
            def __init__(self) -> None:
                self.number = sum("record" in line for line in log) + 1

            def record(self, stream: Any) -> None:
                log.append(f"record {self.number} on {stream}")

        class Stream:
            def __init__(self, name: Any) -> None:
                self.name = name if isinstance(name, str) else "the copier's"

            def __str__(self) -> str:
                return self.name

            def synchronize(self) -> None:
                log.append(f"{self.name} is waited for")

            def wait_event(self, event: Event) -> None:
                log.append(f"{self.name} waits for {event.number}")

        @contextlib.contextmanager
        def stream(entered: Stream) -> Iterator[None]:
            before, cuda.current = cuda.current, entered.name
            yield
            cuda.current = before

        def to(tensor: torch.Tensor, device: Any, non_blocking: bool) -> torch.Tensor:
            assert non_blocking
            log.append(f"copy {int(tensor[0])} on {cuda.current}")
            return tensor.clone()

        def record_stream(tensor: torch.Tensor, used_on: Stream) -> None:
            log.append(f"{int(tensor[0])} is used on {used_on}")

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream(cuda.current))
        monkeypatch.setattr(torch.Tensor, "to", to)
        monkeypatch.setattr(torch.Tensor, "record_stream", record_stream)


@pytest.mark.parametrize("loader_holds", [True, False])
def test_copies_run_on_a_stream_of_their_own_and_batches_die_there(monkeypatch, loader_holds):
    cuda = FakeCuda(monkeypatch)

    def make(number: int) -> torch.Tensor:
        batch = torch.full((2,), number)
        died = f"{number} dies on "
        weakref.finalize(batch, lambda: cuda.log.append(died + cuda.current))
        return batch

    def held() -> Iterator[Any]:
        for number in range(3):
            batch = make(number)
            yield {"x": batch, "n": number}
            del batch

    handed = ({"x": make(number), "n": number} for number in range(3))
    prefetcher = s3io.DevicePrefetcher(held() if loader_holds else handed, "cpu", depth=1)
    prefetcher._device = torch.device("cuda")
    for number, batch in enumerate(prefetcher):
        assert batch["n"] == number
        assert batch["x"].tolist() == [number, number]
        cuda.log.append(f"step {number}")
        del batch

    died = [f"{number} dies on the copier's" for number in range(3)]
    assert [line for line in cuda.log if "dies" in line] == died
    copied = [[f"copy {k} on the copier's", f"record {k + 1} on the copier's"] for k in range(3)]
    out = [[f"the loop's waits for {k + 1}", f"{k} is used on the loop's"] for k in range(3)]
    assert [line for line in cuda.log if "dies" not in line] == [
        *copied[0], *out[0], *copied[1], "step 0", *out[1], *copied[2], "step 1", *out[2],
        "step 2", "the copier's is waited for",
    ]  # fmt: skip
    for number in range(3):
        assert cuda.log.index(died[number]) > cuda.log.index(copied[number][1])


def test_a_loop_that_breaks_off_waits_for_the_copies_before_the_loader_drops_batches(monkeypatch):
    cuda = FakeCuda(monkeypatch)

    def batches() -> Iterator[Any]:
        try:
            for number in range(3):
                yield torch.full((2,), number)
        finally:
            cuda.log.append("the loader ends")

    prefetcher = s3io.DevicePrefetcher(batches(), "cpu", depth=1)
    prefetcher._device = torch.device("cuda")
    for _ in prefetcher:
        break
    del _
    del prefetcher
    gc.collect()
    assert cuda.log[-2:] == ["the copier's is waited for", "the loader ends"]


@pytest.fixture
def pinning(monkeypatch) -> list[tuple[int, int]]:
    """torch starts its pin thread, as with CUDA; what would be registered there is collected."""
    registered: list[tuple[int, int]] = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda *_: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda _: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor)
    monkeypatch.setattr(handover, "_register", lambda *segment: registered.append(segment))
    return registered


@pytest.mark.parametrize("persistent", [True, False])
def test_the_pin_thread_registers_each_workers_memory_once(tmp_path, pinning, persistent) -> None:
    path, records = write_records(tmp_path, 64)
    dataset = s3io.RecordDataset(path, dtype=np.uint8, shape=RECORD, batch_size=4)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, pin_memory=True, persistent_workers=persistent
    )
    for _ in range(3):
        for number, batch in enumerate(loader):
            begin, end = batch.data_ptr(), batch.data_ptr() + batch.numel()
            assert any(low <= begin and end <= low + size for low, size in pinning)
            assert np.array_equal(batch.numpy(), records[4 * number : 4 * number + 4])
    assert len(pinning) == 2
    assert dataset.stats()["received_tensors"] == 3 * 16
    del batch, loader
    gc.collect()


def test_where_registering_fails_it_is_said_once_and_batches_come(tmp_path, pinning, monkeypatch):
    def refuse(address: int, size: int) -> None:
        raise s3io.DataError(f"cudaHostRegister of {size} bytes failed with 2")

    monkeypatch.setattr(handover, "_register", refuse)
    path, records = write_records(tmp_path, 64)
    dataset = s3io.RecordDataset(path, dtype=np.uint8, shape=RECORD, batch_size=4)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2, pin_memory=True)
    with pytest.warns(RuntimeWarning, match="not pinned: cudaHostRegister") as caught:
        batches = [batch.clone() for batch in loader]
    assert len([one for one in caught if "not pinned" in str(one.message)]) == 1
    assert np.array_equal(torch.cat(batches).numpy(), records)


class Lossy(torch.utils.data.IterableDataset[Any]):
    """Passes the second batch on as a handle to nothing."""

    def __init__(self, shape: str) -> None:
        self.shape = shape

    def __iter__(self) -> Iterator[Any]:
        for number in range(4):
            one = Stale() if number == 1 else torch.tensor(number)
            shapes = {"bare": one, "nested": {"x": [one]}, "dataclass": Sample(one, "n")}
            yield shapes[self.shape]


class Stale:
    def __reduce__(self) -> Any:
        return handover._receive, (b"stale",)


@pytest.mark.parametrize("shape", ["bare", "nested", "dataclass"])
@pytest.mark.parametrize("pinned", [True, False])
def test_a_lost_batch_is_an_error_at_next_and_the_loader_goes_on(pinning, pinned, shape) -> None:
    batches = iter(
        torch.utils.data.DataLoader(Lossy(shape), batch_size=None, num_workers=1, pin_memory=pinned)
    )

    def value(batch: Any) -> int:
        batch = batch.image if isinstance(batch, Sample) else batch
        return int(batch["x"][0] if isinstance(batch, dict) else batch)

    assert value(next(batches)) == 0
    with pytest.raises(s3io.DataError, match="not for this process"):
        next(batches)
    assert [value(batch) for batch in batches] == [2, 3]


@pytest.mark.needs_cuda
@pytest.mark.parametrize("ours", [True, False], ids=["our DataLoader", "torch's"])
def test_batches_from_workers_are_page_locked_where_they_lie(tmp_path: Path, ours: bool) -> None:
    path, records = write_records(tmp_path, 64)
    dataset = s3io.RecordDataset(path, dtype=np.uint8, shape=RECORD, batch_size=4)
    if ours:
        loader: Any = s3io.DataLoader(dataset, num_workers=2)
    else:
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=None, num_workers=2, pin_memory=True
        )
    for number, batch in enumerate(loader):
        assert batch.is_pinned()
        assert np.array_equal(batch.numpy(), records[4 * number : 4 * number + 4])
    stats = dataset.stats()
    assert stats["received_tensors"] == 16
    # Pinned in place: the last batch still holds its buffer.
    assert stats["held_buffers"] >= 1


@pytest.mark.needs_cuda
@pytest.mark.parametrize("prefetched", [True, False])
def test_a_buffer_is_not_reused_under_a_copy(tmp_path: Path, prefetched: bool) -> None:
    """The copies queue up behind a long kernel while the loop drops batch after batch."""
    path, records = write_records(tmp_path, 256)
    dataset = s3io.RecordDataset(
        path,
        dtype=np.uint8,
        shape=RECORD,
        batch_size=4,
        pool=s3io.BufferPoolConfig(capacity=8, buffer_size=5 * RECORD),
    )
    loader = s3io.DataLoader(dataset, num_workers=2)
    before = _C.deferred_releases()
    for epoch in range(3):
        copies = []
        batches = s3io.DevicePrefetcher(loader, "cuda") if prefetched else loader
        for batch in batches:
            if epoch and len(copies) % 8 == 0:
                torch.cuda._sleep(20_000_000)  # about 10 ms on the current stream
            copies.append(batch.to("cuda", non_blocking=True))
            del batch
        torch.cuda.synchronize()
        received = torch.cat(copies).cpu().numpy()
        assert np.array_equal(received, records)
    assert _C.deferred_releases() > before
    deadline = time.monotonic() + 10
    while _C.pending_releases() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _C.pending_releases() == 0
    del loader
    gc.collect()


@pytest.mark.needs_cuda
def test_workers_never_initialise_cuda(tmp_path: Path) -> None:
    path, _ = write_records(tmp_path, 16)
    dataset = s3io.RecordDataset(
        path, dtype=np.uint8, shape=RECORD, batch_size=4, transform=_with_cuda_state
    )
    for _, initialised in s3io.DataLoader(dataset, num_workers=2):
        assert not initialised


def _with_cuda_state(batch: torch.Tensor) -> tuple[torch.Tensor, bool]:
    return batch, torch.cuda.is_initialized()
