"""Orders of records against plain lists: blocks, views, mixtures."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from torch_s3io import _C, ConfigError, RangeError

SEEDS = st.integers(0, 2**64 - 1)


def whole(order: _C.RecordOrder, epoch: int = 0) -> list[int]:
    return order.records(epoch, 0, order.num_positions).tolist()


def permuted(size: int, key: int) -> list[int]:
    return _C.Permutation(size=size, key=key).fill(0, size).tolist()


@given(count=st.integers(0, 700), block=st.integers(1, 60), seed=SEEDS, epoch=st.integers(0, 9))
def test_blocks_are_contiguous_aligned_and_all_there(count, block, seed, epoch):
    order = _C.RecordOrder.block(count, block, seed)
    records = whole(order, epoch)
    blocks = [list(range(first, min(first + block, count))) for first in range(0, count, block)]
    taken = []
    while records:
        taken.append(records[0] // block)
        expected = blocks[taken[-1]]
        assert records[: len(expected)] == expected
        records = records[len(expected) :]
    assert sorted(taken) == list(range(len(blocks)))


def test_the_short_block_comes_anywhere_equally_often():
    order = _C.RecordOrder.block(94, 10, 6)  # nine blocks of ten, one of four
    epochs = 5000
    turns = Counter(whole(order, epoch).index(90) // 10 for epoch in range(epochs))
    counts = np.array([turns[turn] for turn in range(10)])
    assert counts.sum() == epochs
    assert ((counts - epochs / 10) ** 2 / (epochs / 10)).sum() < 27.9  # 9 degrees of freedom: 0.1 %


@given(
    count=st.integers(0, 700),
    block=st.integers(1, 60),
    window=st.integers(1, 300),
    seed=SEEDS,
    epoch=st.integers(0, 9),
)
def test_windows_have_what_comes_there_each_in_an_order_of_its_own(
    count, block, window, seed, epoch
):
    inner = _C.RecordOrder.block(count, block, seed)
    order = inner.windowed(window, seed)
    unmixed, mixed = whole(inner, epoch), whole(order, epoch)
    for first in range(0, count, window):
        part = slice(first, first + window)
        assert sorted(mixed[part]) == sorted(unmixed[part])
    for first in range(0, count, 97):  # any part is that part of the whole
        length = min(120, count - first)
        assert order.records(epoch, first, length).tolist() == mixed[first : first + length]


def test_every_order_of_a_window_is_equally_likely():
    order = _C.RecordOrder.sequential(4000).windowed(4, 5)
    epochs = [np.array(whole(order, epoch)).reshape(-1, 4) % 4 for epoch in range(6)]
    counts = np.array(list(Counter(map(tuple, np.concatenate(epochs))).values()))
    assert len(counts) == 24
    assert ((counts - 250) ** 2 / 250).sum() < 49.7  # 23 degrees of freedom: 0.1 %


def test_windows_that_make_no_sense_are_refused():
    order = _C.RecordOrder.sequential(10)
    for window in (0, -1):
        with pytest.raises(ConfigError, match="at least 1 position"):
            order.windowed(window, 0)
    assert sorted(whole(order.windowed(2**62, 0))) == list(range(10))


@given(count=st.integers(1, 400), data=st.data(), seed=SEEDS)
def test_views_of_views_are_slices_of_slices(count, data, seed):
    """Any stack of parts, some of them of a permutation, against lists."""
    view = list(range(count))  # records of the data set, by the view's numbers
    stages = []
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(view)))
        stop = data.draw(st.integers(start, len(view)))
        permutation = None
        if data.draw(st.booleans()):
            permutation = (len(view), data.draw(SEEDS))
            view = [view[index] for index in permuted(*permutation)]
        stages.insert(0, (start, stop - start, permutation))
        view = view[start:stop]
    order = _C.RecordOrder.shuffled(len(view), seed)
    selected = order.select(stages)
    assert selected.num_positions == len(view)
    assert whole(selected, 3) == [view[index] for index in whole(order, 3)]
    assert all(record < selected.num_records for record in whole(selected, 3))


@given(count=st.integers(0, 3000), cuts=st.lists(st.floats(0, 1), max_size=4), seed=SEEDS)
def test_parts_of_a_permutation_are_disjoint_and_together_everything(count, cuts, seed):
    bounds = sorted([0, count, *(int(cut * count) for cut in cuts)])
    parts = []
    for start, stop in itertools.pairwise(bounds):
        inner = _C.RecordOrder.shuffled(stop - start, seed)
        parts.append(whole(inner.select([(start, stop - start, (count, seed))])))
    assert sorted(itertools.chain(*parts)) == list(range(count))


PARTS = st.lists(
    st.tuples(st.integers(1, 40), st.integers(1, 1000)), min_size=1, max_size=5
)  # (records, weight)


def mixed(parts: list[tuple[int, int]], seed: int, epoch_positions: int) -> _C.RecordOrder:
    """Part i has the records from 1000 i, in a shuffled order of its own."""
    orders = [(_C.RecordOrder.shuffled(size, 7), 1000 * i) for i, (size, _) in enumerate(parts)]
    return _C.RecordOrder.mix(orders, [weight for _, weight in parts], seed, epoch_positions)


@given(parts=PARTS, seed=SEEDS, blocks=st.integers(1, 12))
def test_after_every_block_each_part_of_a_mixture_had_its_share_within_one(parts, seed, blocks):
    records = np.array(whole(mixed(parts, seed, 65536)))
    total = sum(weight for _, weight in parts)
    length = 1024
    while any(Fraction(weight, total) * length < 1 for _, weight in parts):
        length *= 2
    for positions in range(length, min(blocks * length, 65536) + 1, length):
        counts = np.bincount(records[:positions] // 1000, minlength=len(parts))
        for count, (_, weight) in zip(counts, parts, strict=True):
            assert abs(count - Fraction(weight, total) * positions) < 1


@given(parts=PARTS, seed=SEEDS, epoch_positions=st.integers(1, 1500))
def test_each_part_of_a_mixture_goes_through_its_own_epochs(parts, seed, epoch_positions):
    """Also over the ends of the mixture's epochs, which cut one stream."""
    order = mixed(parts, seed, epoch_positions)
    stream = [record for epoch in range(4) for record in whole(order, epoch)]
    one_epoch = mixed(parts, seed, 4 * epoch_positions)
    assert whole(one_epoch) == stream
    for number, (size, _) in enumerate(parts):
        own = [record - 1000 * number for record in stream if record // 1000 == number]
        inner = _C.RecordOrder.shuffled(size, 7)
        epochs = [whole(inner, epoch) for epoch in range(len(own) // size + 1)]
        assert own == list(itertools.chain(*epochs))[: len(own)]


@given(parts=PARTS, seed=SEEDS, data=st.data())
def test_a_mixture_goes_on_from_anywhere(parts, seed, data):
    order = mixed(parts, seed, 5000)
    epoch = data.draw(st.integers(0, 1000))
    expected = whole(order, epoch)
    first = data.draw(st.integers(0, 5000))
    count = data.draw(st.integers(0, 5000 - first))
    assert order.records(epoch, first, count).tolist() == expected[first : first + count]


def test_a_mixture_of_mixtures_has_the_product_of_the_shares():
    sequential = _C.RecordOrder.sequential
    inner = _C.RecordOrder.mix([(sequential(10), 0), (sequential(10), 10)], [3, 1], 1, 1 << 16)
    outer = _C.RecordOrder.mix([(inner, 0), (sequential(10), 20)], [1, 1], 2, 1 << 16)
    counts = np.bincount(np.array(whole(outer)) // 10)
    assert counts.tolist() == [3 << 13, 1 << 13, 1 << 15]


def test_where_a_part_comes_in_its_block_is_random():
    """Positions of the rarer part: their mean over blocks, and gaps between them."""
    order = mixed([(40, 1), (40, 3)], 11, 1024 * 400)
    rare = np.array(whole(order)).reshape(400, 1024) < 1000
    assert (rare.sum(axis=1) == 256).all()
    by_position = rare.sum(axis=0)  # binomial: 400 blocks, each with probability 1/4
    statistic = ((by_position - 100) ** 2 / 75).sum()
    assert abs(statistic - 1024) < 4 * math.sqrt(2 * 1024)
    # Two in succession: 256 * 255 / (1024 * 1023) of the pairs.
    followed = (rare[:, 1:] & rare[:, :-1]).sum()
    expected = 400 * 1023 * 256 * 255 / (1024 * 1023)
    assert abs(followed - expected) < 4 * math.sqrt(expected)


def test_nonsense_is_refused():
    order = _C.RecordOrder.shuffled(10, 1)
    for first, count in ((-1, 1), (0, 11), (11, 0), (5, -1), (2**63 - 1, 2**63 - 1)):
        with pytest.raises(RangeError):
            order.records(0, first, count)
    with pytest.raises(ConfigError, match="epoch"):
        order.records(-1, 0, 1)
    with pytest.raises(ConfigError, match="1/65536"):
        _C.RecordOrder.mix([(order, 0), (order, 10)], [1, 65536], 0, 5)
    with pytest.raises(ConfigError, match="weight"):
        _C.RecordOrder.mix([(order, 0), (order, 10)], [1, 0], 0, 5)
    with pytest.raises(ConfigError, match="without records"):
        _C.RecordOrder.mix([(_C.RecordOrder.sequential(0), 0)], [1], 0, 5)
    with pytest.raises(ConfigError, match="does not fit"):
        order.select([(0, 9, None)])
    with pytest.raises(ConfigError, match="does not fit"):
        order.select([(1, 10, (10, 0))])
