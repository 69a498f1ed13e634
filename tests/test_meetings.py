"""The meetings of ranks before an epoch, with a thread for each rank."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist
from order_check import write_numbers
from support import DEADLINE_S

import torch_s3io as s3io
from torch_s3io.processes import ranks as ranks_module
from torch_s3io.processes.meeting import Meetings
from torch_s3io.processes.ranks import Ranks, compare_ranks, find_ranks


def at_once(ranks: list[int], come: Any) -> dict[int, Any]:
    """What ``come(rank)`` gave or raised, in a thread each."""
    results: dict[int, Any] = {}

    def run(rank: int) -> None:
        try:
            results[rank] = come(rank)
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    return results


@pytest.mark.filterwarnings("ignore:rank .* has waited")
def test_of_many_ranks_those_that_did_not_come_are_named_and_all_may_come_again():
    store, world = dist.HashStore(), 70
    meetings = at_once([*range(world)], lambda rank: Meetings(store, rank, world))
    late = [3, 31, 32, 69]
    rest = [rank for rank in range(world) if rank not in late]
    came = at_once(rest, lambda rank: meetings[rank].meet(7, {"seed": "1"}, 1.0))
    assert came.keys() == set(rest)
    for error in came.values():
        assert isinstance(error, s3io.ReadTimeoutError)
        assert "epoch 7, which ranks 3, 31, 32, 69 have not begun" in str(error)
    with pytest.raises(s3io.ReadTimeoutError, match="which ranks 31, 32, 69 have not begun"):
        meetings[3].meet(7, {"seed": "1"}, 1e-6)
    for _ in range(3):
        came = at_once([*range(world)], lambda rank: meetings[rank].meet(7, {"seed": "1"}, 60.0))
        assert came == {rank: [{"seed": "1"}] for rank in range(world)}


@pytest.mark.filterwarnings("ignore:rank . has waited")
def test_a_rank_that_comes_after_the_others_gave_up_is_told_so():
    store = dist.HashStore()
    first, second = Meetings(store, 0, 2), Meetings(store, 1, 2)
    with pytest.raises(s3io.ReadTimeoutError, match="which rank 1 has not begun"):
        first.meet(0, {}, 1e-6)
    with pytest.raises(s3io.ReadTimeoutError, match="which others no longer wait to begin"):
        second.meet(0, {}, 1e-6)


class WatchedStore:
    """Says before and after a rank takes itself off the number of those that wait."""

    def __init__(self, store: Any, before: Any, after: Any) -> None:
        self.store, self.before, self.after = store, before, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def add(self, key: str, count: int) -> int:
        leaves = count < 0 and key.endswith("came")
        if leaves:
            self.before()
        total: int = self.store.add(key, count)
        if leaves:
            self.after()
        return total


def test_ranks_that_give_up_at_once_just_after_the_last_one_came_begin_with_it():
    store = dist.HashStore()
    second_gives_up, first_has = threading.Event(), threading.Event()

    def before_second() -> None:
        second_gives_up.set()
        assert first_has.wait(DEADLINE_S)

    def after_first() -> None:  # and before it finds out that it is too late
        first_has.set()
        thread.join(DEADLINE_S)

    third = Meetings(store, 2, 3)
    second = Meetings(WatchedStore(store, before_second, lambda: None), 1, 3)
    first = Meetings(WatchedStore(store, lambda: third.meet(0, {}, 60.0), after_first), 0, 3)
    came: dict[int, Any] = {}
    thread = threading.Thread(
        target=lambda: came.update(at_once([1], lambda _: second.meet(0, {}, 1e-6)))
    )
    thread.start()
    assert second_gives_up.wait(DEADLINE_S)
    assert first.meet(0, {}, 1e-6) == [{}]
    assert came == {1: [{}]}


def say(meetings: dict[int, Meetings], said: list[Any]) -> dict[int, Any]:
    return at_once([*meetings], lambda rank: meetings[rank].meet(0, said[rank], 60.0))


def test_ranks_that_differ_hear_what_everyone_said_and_meetings_leave_little_behind():
    store, world = dist.HashStore(), 6
    summaries = [{"seed": seed, "names": b"digest"} for seed in ("1", "2", "1", "1", "2", "3")]
    for _ in range(2):  # a process group that is made once more over the same store
        meetings = at_once([*range(world)], lambda rank: Meetings(store, rank, world))
        keys = []
        for _ in range(3):
            assert say(meetings, summaries) == {rank: summaries for rank in range(world)}
            same = summaries[:1]
            for _ in range(3):
                assert say(meetings, same * world) == {rank: same for rank in range(world)}
            keys.append(store.num_keys())
        assert keys == [keys[0], keys[0] + 2, keys[0] + 4]  # digests of those that differed


def test_the_many_that_agree_are_told_at_once(monkeypatch):
    everyone = [{"seed": seed} for seed in ("1", "2", "1", "1", "2", "3")]
    met = SimpleNamespace(meet=lambda *_: everyone)
    monkeypatch.setattr(ranks_module, "meetings_of_default_group", lambda: met)
    text = "seed 1 on rank 0 and 2 more, 2 on rank 1 and 1 more, 3 on rank 5"
    with pytest.raises(s3io.DataError, match=f"same epoch: {text}. Make"):
        compare_ranks(Ranks(0, 6, "torch.distributed"), 0, 0, {}, 60.0)


def test_what_ranks_say_is_small_however_many_files_there_are(tmp_path):
    paths = [write_numbers(tmp_path / f"{number}.bin", 1) for number in range(200)]
    for count in (1, 200):
        dataset = s3io.RecordDataset(paths[:count], dtype="i8", shape=2)
        assert len(repr(dataset._data_summary())) < 1024


def test_nothing_of_this_needs_a_process_group(monkeypatch):
    assert not dist.is_initialized()
    monkeypatch.setattr(dist, "is_available", lambda: False)
    assert find_ranks(None, None).source == "default"
    assert "RANK" not in os.environ
