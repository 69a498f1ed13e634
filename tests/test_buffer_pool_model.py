"""BufferPool against a simple count, in any sequence of calls."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from torch_s3io import AlignedBuf, BufferPool, BufferPoolConfig, PoolTimeoutError


def make(capacity=4, buffer_size=10_000, alignment=4096) -> BufferPool:
    return BufferPool(
        BufferPoolConfig(capacity=capacity, buffer_size=buffer_size, alignment=alignment)
    )


class PoolModel(RuleBasedStateMachine):
    """Any sequence of takes and gives against a simple count."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = make(capacity=3, buffer_size=5000)
        self.leases: list[AlignedBuf] = []
        self.tensors: list[tuple[torch.Tensor, int]] = []
        self.oversize = self.taken = self.mark = 0

    @property
    def held(self) -> int:
        return len(self.leases) + len(self.tensors)

    @precondition(lambda self: self.held < 3)
    @rule(size=st.one_of(st.none(), st.integers(1, 5000)))
    def take(self, size):
        self.leases.append(self.pool.take(size, timeout_s=10))
        self.taken += 1

    @precondition(lambda self: self.held == 3)
    @rule()
    def take_from_an_empty_pool(self):
        with pytest.raises(PoolTimeoutError):
            self.pool.take(timeout_s=0)

    @rule(size=st.integers(5001, 20_000))
    def take_oversize(self, size):
        assert len(self.pool.take(size)) >= size
        self.taken += 1
        self.oversize += 1

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def give(self, data):
        self.pool.give(self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1))))

    @precondition(lambda self: self.leases)
    @rule()
    def make_tensor(self):
        self.mark += 1
        tensor = self.leases.pop().tensor().fill_(self.mark % 251)
        self.tensors.append((tensor[10:20], self.mark % 251))

    @precondition(lambda self: self.tensors)
    @rule(data=st.data())
    def drop_tensor(self, data):
        self.tensors.pop(data.draw(st.integers(0, len(self.tensors) - 1)))

    @invariant()
    def the_counts_and_the_bytes_are_right(self):
        stats = self.pool.stats()
        assert stats["in_use"] == self.held
        assert stats["taken"] == self.taken
        assert stats["oversize"] == self.oversize
        assert all(bool((tensor == mark).all()) for tensor, mark in self.tensors)


PoolModel.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestPoolModel = PoolModel.TestCase
