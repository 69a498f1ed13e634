"""DevicePrefetcher over fakes of streams and events, and the structures of batches it copies."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gc
import types
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

import torch_s3io as s3io
from torch_s3io.loading.device_prefetcher import map_tensors

Pair = collections.namedtuple("Pair", "left right")


@dataclasses.dataclass
class Sample:
    image: torch.Tensor
    name: str


def test_every_tensor_of_a_structure_is_mapped_and_nothing_else() -> None:
    one = torch.ones(2)
    data = {"a": [one, 3], "b": (one, "x"), "c": Pair(one, None), "d": Sample(one, "n")}
    mapped = map_tensors(lambda tensor: tensor + 1, data)
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
    if isinstance(container, tuple):  # older versions of PyTorch make lists of them
        expected = tuple(expected)
    mapped = map_tensors(lambda tensor: tensor + 1, container)
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

    rich = map_tensors(lambda tensor: tensor + 1, Rich(torch.ones(1), 5))
    assert (rich.image.item(), rich.later.item(), rich.mask.item()) == (2, 6, 1)
    assert not hasattr(rich, "unset")
    tight = Tight(torch.ones(1), "n")
    mapped = map_tensors(lambda tensor: tensor + 1, tight)
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
    loader_class: Any = s3io.DataLoader
    with pytest.raises(s3io.ConfigError, match="loader must be an iterable of batches, not <class"):
        s3io.DevicePrefetcher(loader_class, "cpu")


def test_a_loader_that_is_iterated_by_number_is_one() -> None:
    loader: Any = types.SimpleNamespace()
    with pytest.raises(s3io.ConfigError, match="loader must be an iterable"):
        s3io.DevicePrefetcher(loader, "cpu")

    class ByNumber:
        def __getitem__(self, number: int) -> int:
            return [10, 20, 30][number]

    by_number: Any = ByNumber()
    assert list(s3io.DevicePrefetcher(by_number, "cpu")) == [10, 20, 30]


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
