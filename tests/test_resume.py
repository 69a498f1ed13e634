"""Order, shards and resume: the rules of order_check, exhaustively for small sets and at random."""

from __future__ import annotations

import itertools
import resource
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from order_check import (
    Setting,
    check_epoch,
    check_resumed,
    order_of_epoch,
    order_options,
    write_number_samples,
    write_numbers,
)

import torch_s3io as s3io

SHUFFLES = (False, True, "block", "windows")
ENDINGS = ({}, {"drop_last": True}, {"pad_last": True})


# Of every kind of data set; orders, shares and states are the same code for all.
@pytest.mark.parametrize(
    ("write", "records"),
    [
        *((write_numbers, records) for records in (1, 2, 3, 7, 12)),
        (write_number_samples, 7),
    ],
)
def test_every_rank_and_worker_reads_its_share_of_every_epoch(tmp_path, records, write):
    """All orders are shared out by the same code: each of the shares sees one of them."""
    path = write(tmp_path / "numbers", records)
    shares = itertools.product((1, 2, 5), (1, 2, 3, 5), (0, 1, 2, 4), ENDINGS)
    for (batch, world, workers, ending), shuffle in zip(shares, orders(), strict=False):
        setting = Setting(records, batch, world, workers, 7, shuffle, **ending)
        check_epoch(path, setting, epoch=workers)


def orders() -> Iterator[Any]:
    """All of them, again and again: with the next one first each time, so that they do not keep
    step with what is counted beside them."""
    for first in itertools.count():
        first %= len(SHUFFLES)
        yield from SHUFFLES[first:] + SHUFFLES[:first]


@pytest.mark.parametrize(
    ("write", "shuffle"),
    [
        *((write_numbers, shuffle) for shuffle in SHUFFLES),
        *((write_number_samples, shuffle) for shuffle in (True, "windows")),
    ],
)
def test_a_set_is_resumed_at_every_step_under_another_world(tmp_path, shuffle, write):
    records = 11
    path = write(tmp_path / "numbers", records)
    pairs = [((2, 2, 0), (2, 2, 2)), ((1, 3, 2), (3, 1, 0)), ((2, 1, 3), (2, 3, 3))]
    for ((batch, world, workers), others), ending in itertools.product(pairs, ENDINGS):
        before = Setting(records, batch, world, workers, 5, shuffle)
        after = Setting(records, *others, 5, shuffle, **ending)
        for interrupt_step in range(records // (batch * world) + 2):
            check_resumed(path, before, after, epoch=1, interrupt_step=interrupt_step)


def settings_of(records: int, seed: int, shuffle: object) -> st.SearchStrategy[Setting]:
    return st.builds(
        lambda batch, world, workers, ending: Setting(
            records, batch, world, workers, seed, shuffle, **ending
        ),
        st.integers(1, 9),
        st.integers(1, 5),
        st.integers(0, 5),
        st.sampled_from(({}, *ENDINGS)),
    )


@given(data=st.data())
@settings(max_examples=40)
def test_any_set_is_resumed_anywhere_under_any_world(tmp_path_factory, data):
    records = data.draw(st.integers(1, 60), "records")
    seed, shuffle = data.draw(st.integers(0, 2**64 - 1)), data.draw(st.sampled_from(SHUFFLES))
    before = data.draw(settings_of(records, seed, shuffle), "before")
    after = data.draw(settings_of(records, seed, shuffle), "after")
    write = data.draw(st.sampled_from([write_numbers, write_number_samples]), "write")
    path = write(tmp_path_factory.mktemp("numbers") / "numbers", records)
    steps = -(-records // (before.batch * before.world))
    interrupt_step = data.draw(st.integers(0, steps), "interrupt step")
    check_resumed(path, before, after, data.draw(st.integers(0, 3)), interrupt_step)


def test_orders_differ_by_seed_and_epoch_and_repeat_for_the_same(tmp_path):
    path = write_numbers(tmp_path / "numbers.bin", 300)
    for shuffle in (True, "block", "windows"):
        orders = {}
        for seed, epoch in itertools.product((0, 1, 2**64 - 1), (0, 1, 2, 2**40)):
            setting = Setting(
                300,
                seed=seed,
                shuffle=shuffle,
                others={"block_records": 4} if shuffle == "block" else {},
            )
            orders[seed, epoch] = tuple(order_of_epoch(path, setting, epoch))
            assert list(orders[seed, epoch]) == order_of_epoch(path, setting, epoch)
        assert len(set(orders.values())) == len(orders)


@pytest.mark.parametrize(
    ("record_bytes", "block_records"),
    [(3, 43690), (16, 8192), (3000, 43), (1 << 16, 2), (1 << 17, 1), ((1 << 17) + 1, 1)],
)
def test_blocks_have_as_many_records_as_make_128_kib_but_at_least_one(
    tmp_path, record_bytes, block_records
):
    records = 4 * block_records + 1
    path = tmp_path / "zeros.bin"
    path.write_bytes(bytes(records * record_bytes))

    def order_of(**options: int) -> list[int]:
        dataset = s3io.RecordDataset(
            path,
            dtype="u1",
            shape=record_bytes,
            batch_size=records,
            shuffle="block",
            return_index=True,
            pool=None,
            **options,
        )
        [(_, index)] = dataset
        return index.tolist()

    order = order_of()
    assert order == order_of(block_records=block_records)
    assert order != order_of(block_records=block_records + 1)


def test_what_lies_between_records_and_all_parts_of_a_zip_count_for_a_block(tmp_path):
    path = write_numbers(tmp_path / "numbers.bin", 100)

    def block_of(dataset: Any) -> int:
        return dataset.state_dict()["order"]["block_records"]

    for stride in (2, 40):  # tokens of two bytes, in windows of four
        tokens = s3io.RecordDataset.from_tokens(path, window=4, stride=stride, shuffle="block")
        assert block_of(tokens) == (1 << 17) // (2 * stride)
    parts = {
        name: s3io.RecordDataset(path, dtype="u1", shape=shape)
        for name, shape in (("a", 8), ("b", (2, 4)))
    }
    assert block_of(s3io.Zip(**parts, shuffle="block")) == (1 << 17) // 16


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_a_billion_records_begin_and_resume_anywhere_in_the_memory_of_a_thousand(disk, shuffle):
    records = 1_000_000_000
    path = disk / "sparse.bin"
    with open(path, "wb") as file:
        file.truncate(16 * records)  # holes: the file has its size, and takes no space
    dataset = s3io.RecordDataset(
        path,
        dtype="i8",
        shape=2,
        batch_size=4,
        pool=None,
        return_index=True,
        **order_options(shuffle),
    )
    order = dataset._order.make()
    tracemalloc.start()
    before = peak_kilobytes()
    try:
        for epoch, start in itertools.product((0, 7), (0, records // 2, records - 9)):
            dataset.set_epoch(epoch)
            state = dataset.state_dict()
            dataset.load_state_dict({**state, "consumed": start})
            _, index = next(iter(dataset))
            assert index.tolist() == order.records(epoch, start, 4).tolist()
        assert len(dataset) == records // 4
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        assert peak_kilobytes() - before < 64 << 10  # a table of the order would take gigabytes
    finally:
        tracemalloc.stop()


def peak_kilobytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
