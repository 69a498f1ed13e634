"""The loop over epochs, and looks at a batch, where several ranks read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from order_check import order_of_epoch, steps_of, write_numbers
from test_process_groups import SETTING, run_ranks

LOOP = """
loader = make()
if rank == "0":
    say(peeked=numbers([loader.peek()]))  # which asks no other rank
next(iter(loader))
say(read=[[epoch, numbers(loader)] for epoch in loader.epochs(2)])
"""


@pytest.mark.parametrize("num_workers", [0, 1])
def test_ranks_go_through_the_epochs_of_a_loop_together_and_one_alone_may_peek(
    tmp_path, num_workers
):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    results = run_ranks(path, 2, LOOP, num_workers)
    steps = [
        steps_of(order_of_epoch(path, SETTING, epoch), 0, replace(SETTING, world=2))
        for epoch in range(2)
    ]
    assert results[0].pop(0) == {"peeked": [steps[0][0][0]]}
    for rank, lines in enumerate(results):
        assert lines == [{"read": [[e, [step[rank] for step in steps[e]]] for e in range(2)]}]
