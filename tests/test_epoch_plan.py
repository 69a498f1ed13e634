"""EpochPlan against a plain listing of every step: ranks, workers, resuming, the end."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from torch_s3io import _C, ConfigError, RangeError

ENDS = {"split": {}, "drop": {"drop_last": True}, "pad": {"pad_last": True}}


def listed_steps(
    order: list[int], batch_size: int, world_size: int, end: str, start: int
) -> list[list[list[int]]]:
    """What each rank gets in each step: steps[step][rank] is a list of records."""
    rest = order[start:]
    whole = batch_size * world_size
    steps = []
    while len(rest) >= whole:
        step, rest = rest[:whole], rest[whole:]
        steps.append([step[rank * batch_size :][:batch_size] for rank in range(world_size)])
    padding = itertools.cycle(order)
    if rest and end == "pad":
        step = rest + list(itertools.islice(padding, whole - len(rest)))
        steps.append([step[rank * batch_size :][:batch_size] for rank in range(world_size)])
    elif rest and end == "split":
        parts = [part.tolist() for part in np.array_split(rest, world_size)]
        steps.append([part or [next(padding)] for part in parts])
    return steps


def planned_steps(order: _C.RecordOrder, world_size: int, num_workers: int, group_size: int, **kw):
    """The same from plans: one for each rank and worker, whose batches are taken in turn."""
    steps: list[list[list[int]]] = []
    for rank in range(world_size):
        for worker in range(num_workers):
            plan = _C.EpochPlan(
                order=order, epoch=2, rank=rank, world_size=world_size, worker=worker,
                num_workers=num_workers, group_size=group_size, **kw,
            )  # fmt: skip
            steps = steps or [[[] for _ in range(world_size)] for _ in range(plan.num_steps)]
            assert plan.num_steps == len(steps)
            assert plan.num_groups == -(-plan.num_local_batches // group_size)
            local = [plan.step_of(batch) for batch in range(plan.num_local_batches)]
            assert local == list(range(len(steps)))[worker::num_workers]
            for group in range(plan.num_groups):
                records = plan.records(group).tolist()
                assert 0 < len(records) <= plan.max_group_records
                steps[local[group * group_size]][rank] = records
    return steps


def check(num_records: int, batch_size: int, world_size: int, num_workers: int, end: str,
          start: int, seed: int) -> None:  # fmt: skip
    order = _C.RecordOrder.shuffled(num_records, seed)
    records = order.records(2, 0, num_records).tolist()
    kw = {"batch_size": batch_size, "start": start, **ENDS[end]}
    expected = listed_steps(records, batch_size, world_size, end, start)
    assert planned_steps(order, world_size, num_workers, 1, **kw) == expected

    plan = _C.EpochPlan(order=order, epoch=2, world_size=world_size, **kw)
    delivered = sum(len(part) for step in expected for part in step)
    more = delivered - (num_records - start)
    assert (plan.dropped_records, plan.padded_records) == (max(-more, 0), max(more, 0))
    for steps in range(len(expected) + 2):
        consumed = start + min(steps, len(expected)) * batch_size * world_size
        assert plan.consumed_after(steps) == min(consumed, num_records)


def test_every_small_plan_is_what_the_listing_says():
    count = 0
    for num_records, batch_size, world_size, end in itertools.product(
        range(10), range(1, 5), range(1, 5), ENDS
    ):
        for start in range(num_records + 1):
            num_workers = 1 + count % 3  # each meets all of the others in turn
            check(num_records, batch_size, world_size, num_workers, end, start, seed=count)
            count += 1
    assert count == 55 * 4 * 4 * 3


@given(
    num_records=st.integers(0, 300),
    batch_size=st.integers(1, 50),
    world_size=st.integers(1, 12),
    num_workers=st.integers(1, 5),
    end=st.sampled_from(list(ENDS)),
    part=st.floats(0, 1),
    seed=st.integers(0, 2**64 - 1),
)
def test_plans_are_what_the_listing_says(
    num_records, batch_size, world_size, num_workers, end, part, seed
):
    start = int(part * num_records)
    check(num_records, batch_size, world_size, num_workers, end, start, seed)


@given(
    num_records=st.integers(1, 200),
    batch_size=st.integers(1, 20),
    group_size=st.integers(1, 9),
    world_size=st.integers(1, 5),
    num_workers=st.integers(1, 4),
    end=st.sampled_from(list(ENDS)),
)
def test_a_group_is_successive_batches_of_one_worker(
    num_records, batch_size, group_size, world_size, num_workers, end
):
    order = _C.RecordOrder.sequential(num_records)
    kw = {"batch_size": batch_size, **ENDS[end]}
    single = planned_steps(order, world_size, num_workers, 1, **kw)
    grouped = planned_steps(order, world_size, num_workers, group_size, **kw)
    for rank, worker in itertools.product(range(world_size), range(num_workers)):
        batches = [step[rank] for step in single[worker::num_workers]]
        groups = [step[rank] for step in grouped[worker::num_workers]][::group_size]
        cut = [batches[first:][:group_size] for first in range(0, len(batches), group_size)]
        assert groups == [list(itertools.chain(*group)) for group in cut]


@given(
    num_records=st.integers(0, 200),
    first=st.tuples(st.integers(1, 20), st.integers(1, 5), st.integers(1, 3)),
    second=st.tuples(st.integers(1, 20), st.integers(1, 5), st.integers(1, 3)),
    data=st.data(),
)
def test_an_epoch_that_goes_on_with_other_numbers_has_every_record_once(
    num_records, first, second, data
):
    """Interrupted at any step, and resumed with another batch size, world and number of workers."""
    order = _C.RecordOrder.shuffled(num_records, 8)
    batch_size, world_size, num_workers = first
    steps = planned_steps(order, world_size, num_workers, 1, batch_size=batch_size)
    taken = data.draw(st.integers(0, len(steps)))
    plan = _C.EpochPlan(order=order, epoch=2, batch_size=batch_size, world_size=world_size)
    start = plan.consumed_after(taken)

    batch_size, world_size, num_workers = second
    rest = planned_steps(order, world_size, num_workers, 1, batch_size=batch_size, start=start)
    resumed = _C.EpochPlan(
        order=order, epoch=2, batch_size=batch_size, world_size=world_size, start=start
    )
    head = [record for step in steps[:taken] for part in step for record in part]
    tail = [record for step in rest for part in step for record in part]
    everything = order.records(2, 0, num_records).tolist()
    assert head[:start] + tail[: num_records - start] == everything
    # What is more than everything is the padding of the last step, wherever it was.
    assert len(head) - start == (plan.padded_records if taken == plan.num_steps else 0)
    assert len(tail) - (num_records - start) == resumed.padded_records


def test_more_ranks_than_records_pads_with_one_record_each():
    order = _C.RecordOrder.sequential(3)
    assert planned_steps(order, 8, 2, 1, batch_size=4) == [[[0], [1], [2], [0], [1], [2], [0], [1]]]
    plan = _C.EpochPlan(order=order, epoch=0, batch_size=4, world_size=8)
    assert (plan.padded_records, plan.dropped_records) == (5, 0)


def test_nonsense_is_refused_with_the_name_of_the_setting():
    order = _C.RecordOrder.sequential(5)
    bad = {
        "batch_size": [{"batch_size": 0}, {"batch_size": -1}, {"batch_size": 2**63 - 1}],
        "world_size": [{"world_size": 0}, {"rank": 2, "world_size": 2}, {"rank": -1}],
        "2\\^62": [{"batch_size": 2**40, "world_size": 2**40}],
        "worker": [{"worker": 1}, {"num_workers": 0}],
        "start": [{"start": -1}, {"start": 6}],
        "exclude each other": [{"drop_last": True, "pad_last": True}],
        "epoch": [{"epoch": -1}],
    }
    for text, settings in bad.items():
        for setting in settings:
            with pytest.raises(ConfigError, match=text):
                _C.EpochPlan(**{"order": order, "epoch": 0, "batch_size": 1, **setting})
    plan = _C.EpochPlan(order=order, epoch=0, batch_size=2)
    for call, number in (
        (plan.records, 3), (plan.records, -1), (plan.step_of, 3), (plan.consumed_after, -1),
    ):  # fmt: skip
        with pytest.raises(RangeError):
            call(number)
