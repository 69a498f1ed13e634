"""One rank of torch.distributed lists a bucket, and the others get what it found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch.distributed as dist

from torch_s3io.store import shared_lists

FOUND = [
    ("s3://bucket/a \udcff", (1 << 63, 7, 3, 1 << 62), ""),
    ("s3://bucket/b", (0, 0, 0, 5), "of-no-md5"),
]


class Ranks:
    """Ranks of one group, each in a thread of this process."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        store = dist.HashStore()
        patch.setattr(dist, "is_initialized", lambda: True)
        patch.setattr(dist, "get_world_size", lambda: 2)
        patch.setattr(shared_lists, "default_store", lambda prefix: dist.PrefixStore(prefix, store))
        self.asked: list[str] = []

    def list_as_another(self, ask: Any = None) -> list[Any]:
        """As a rank that has listed nothing yet."""
        shared_lists._counts.clear()
        return shared_lists.listed_once("prefix", ask or self.ask)

    def ask(self) -> list[Any]:
        self.asked.append(threading.current_thread().name)
        return FOUND


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ranks]:
    dist.group.WORLD = type("Group", (), {})()
    yield Ranks(monkeypatch)
    dist.group.WORLD = None


def test_the_first_rank_asks_and_the_second_gets_the_same(ranks):
    assert ranks.list_as_another() == ranks.list_as_another() == FOUND
    assert len(ranks.asked) == 1
    assert shared_lists.listed_once("prefix", ranks.ask) == FOUND  # the next list is a new one
    assert shared_lists.listed_once("other", ranks.ask) == FOUND
    assert len(ranks.asked) == 3


def test_who_waits_for_a_rank_that_fails_asks_by_itself(ranks):
    results: list[Any] = []

    def fail() -> list[Any]:
        other = threading.Thread(target=lambda: results.append(ranks.list_as_another()))
        other.start()
        threads.append(other)
        raise OSError("no route")

    threads: list[threading.Thread] = []
    with pytest.raises(OSError, match="no route"):
        ranks.list_as_another(fail)
    threads[0].join(60)
    assert results == [FOUND]


def test_a_list_that_is_old_or_too_long_is_asked_for_anew(ranks, monkeypatch):
    ranks.list_as_another()
    monkeypatch.setattr(shared_lists, "_NEW_S", -1.0)
    ranks.list_as_another()
    assert len(ranks.asked) == 2
    monkeypatch.setattr(shared_lists, "_MOST_BYTES", 1)
    assert shared_lists.listed_once("long", ranks.ask) == FOUND
    shared_lists._counts.clear()
    assert shared_lists.listed_once("long", ranks.ask) == FOUND
    assert len(ranks.asked) == 4


def test_who_waits_long_says_so_and_asks_in_the_end(ranks, monkeypatch):
    monkeypatch.setattr(shared_lists, "_WARN_AFTER_S", -1.0)
    monkeypatch.setattr(shared_lists, "_LONGEST_WAIT_S", 0.01)
    with pytest.warns(RuntimeWarning, match="prefix: another rank lists it"):
        assert ranks.list_as_another(ranks.list_as_another) == FOUND
    assert len(ranks.asked) == 1
