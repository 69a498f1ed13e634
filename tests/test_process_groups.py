"""Ranks of real process groups read the same epoch, or say loudly what differs."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from typing import Any

import pytest
from order_check import Setting, order_of_epoch, steps_of, write_numbers
from programs import Running, printed_by

SETTING = Setting(records=45, batch=4, seed=3, shuffle=True)


RANK = """
    import json, sys, warnings
    import torch.distributed as dist
    from pathlib import Path
    from order_check import Setting, numbers
    import torch_s3io as s3io

    rendezvous, rank, world, path, num_workers, context, job = sys.argv[1:]
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=int(rank), world_size=int(world)
    )

    def make(num_workers=int(num_workers), **options):
        dataset = Setting(45, 4, seed=3, shuffle=True, others={"pool": "auto"}).dataset(Path(path))
        dataset = dataset.with_options(**{"rank": None, "world_size": None, **options})
        context_option = {"multiprocessing_context": context} if num_workers else {}
        return s3io.DataLoader(dataset, num_workers=num_workers, **context_option)

    def say(**result):
        print(json.dumps(result))

    exec(job)
    dist.destroy_process_group()
"""


def run_ranks(
    path: Path, world: int, job: str, num_workers: int = 0, context: str = "fork"
) -> list[list[Any]]:
    """What each rank of a gloo group says, running the job in a process of its own."""
    rendezvous = path.parent / f"rendezvous-{len(list(path.parent.iterdir()))}"
    ranks = [
        Running(RANK, rendezvous, rank, world, path, num_workers, context, job, spawns=True)
        for rank in range(world)
    ]
    printed = [printed_by(ended) for ended in [rank.ended() for rank in ranks]]
    # PyTorch 2.8 says on stdout how gloo goes.
    said = [[one for one in text.splitlines() if not one.startswith("[Gloo]")] for text in printed]
    return [[json.loads(line) for line in lines] for lines in said]


HEAD = """
loader = make()
say(batches=numbers(loader))
batches = iter(loader)
head = [next(batches)[1].tolist() for _ in range(2)]
say(batches=head, state=loader.state_dict(), source=loader.dataset._ranks().source)
"""

TAIL = """
state = json.loads(Path(path).with_suffix(".state").read_text())
loader = make()
loader.load_state_dict(state)
say(batches=numbers(loader))
say(batches=numbers(loader), steps=len(loader))
"""


# Workers that are spawned get what those of a fork server get.
@pytest.mark.parametrize(
    ("world", "after", "num_workers", "context"),
    [(2, 3, 0, "fork"), (3, 2, 1, "fork"), (2, 1, 2, "forkserver")],
)
def test_a_process_group_shares_an_order_and_resumes_under_another_world(
    tmp_path, world, after, num_workers, context
):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    orders = [order_of_epoch(path, SETTING, epoch) for epoch in range(3)]

    def check(results: list[list[Any]], line: int, epoch: int, start: int, steps: Any) -> None:
        setting = Setting(45, 4, world=len(results))
        expected = steps_of(orders[epoch], start, setting)[:steps]
        for rank, lines in enumerate(results):
            assert lines[line]["batches"] == [step[rank] for step in expected]

    results = run_ranks(path, world, HEAD, num_workers, context)
    check(results, 0, 0, 0, None)
    check(results, 1, 1, 0, 2)
    states = [lines[1]["state"] for lines in results]
    assert all(state == states[0] for state in states)
    assert states[0]["consumed"] == 2 * 4 * world
    assert results[0][1]["source"] == "torch.distributed"

    path.with_suffix(".state").write_text(json.dumps(states[0]))
    results = run_ranks(path, after, TAIL, 0 if num_workers else 1)
    check(results, 0, 1, 2 * 4 * world, None)
    check(results, 1, 2, 0, None)


DISAGREE = """
loader = make()
rank = int(rank)
{change}
try:
    {begin}
except s3io.DataError as error:
    say(error=str(error))
# What one rank alone reads asks nobody.
alone = make(num_workers=0, rank=0, world_size=1)
if rank == 0:
    say(count=len(numbers(alone)))
"""


@pytest.mark.parametrize(
    ("change", "begin", "text"),
    [
        ("loader.dataset._clock.set_epoch(rank)", "next(iter(loader))", "epoch 0 on rank 0, 1 on"),
        ("", "loader.dataset.set_epoch(5 + rank)", "epoch 5 on rank 0, 6 on rank 1"),
        (
            "if rank == 1: loader.dataset._clock.load(loader.dataset._clock.position._replace("
            "start=8), False)",
            "next(iter(loader))",
            "record 0 on rank 0, 8 on rank 1",
        ),
        (
            "loader = make(batch_size=4 + rank)",
            "next(iter(loader))",
            "batch_size 4 on rank 0, 5 on rank 1",
        ),
        (
            "part = make(num_workers=0).dataset; loader = s3io.DataLoader("
            "s3io.Mix([part], num_records=16 * (1 + rank)), num_workers=int(num_workers))",
            "next(iter(loader))",
            "num_records 16 on rank 0, 32 on rank 1",
        ),
    ],
    ids=["epoch", "set_epoch", "record", "settings", "mixture"],
)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_ranks_that_would_read_different_things_fail_loudly(
    tmp_path, change, begin, text, num_workers
):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    job = DISAGREE.format(change=change, begin=begin)
    results = run_ranks(path, 2, job, num_workers)
    for lines in results:
        assert text in lines[0]["error"], lines
    assert results[0][1] == {"count": 12}


# What the ranks make, and all that they are told differs.
DIFFERENT = {
    "numbers(drop_last=rank == 1)": "drop_last False on rank 0, True on rank 1",
    "numbers(pad_last=rank == 0)": "pad_last True on rank 0, False on rank 1",
    "numbers(seed=2**64 - 1 - rank)": f"seed {2**64 - 1} on rank 0, {2**64 - 2} on rank 1",
    "numbers(shuffle=[True, 'block'][rank], block_records=[None, 7][rank])": (
        "shuffle True on rank 0, 'block' on rank 1; block_records not set on rank 0, 7 on rank 1; "
        "window_blocks not set on rank 0, 1 on rank 1"
    ),
    "s3io.Mix([numbers(), numbers()], weights=[1, 1 + 2 * rank])": (
        "weights [1, 1] on rank 0, [1, 3] on rank 1"
    ),
    "s3io.Mix([numbers(shuffle='block', block_records=8 + rank)])": (
        "mixture: one on rank 0, another on rank 1"
    ),
    "numbers().subset(rank, 40 + rank)": (
        "the subset, split or mixture: one on rank 0, another on rank 1"
    ),
    "files(['ab', 'ba'][rank])": "names or order of the files: one on rank 0, another on rank 1",
    "s3io.Zip(x=files('a'), y=files('ac'[rank]))": (
        "names or order of the files in y: one on rank 0, another on rank 1"
    ),
    "files(['a', 'ab'][rank])": (
        "num_records 5 on rank 0, 10 on rank 1; "
        "the number of files 1 on rank 0, 2 on rank 1; "
        "their total size 80 on rank 0, 160 on rank 1; "
        "names or order of the files: one on rank 0, another on rank 1; "
        "sizes of files: one on rank 0, another on rank 1; "
        "the layout of the records (dtype, shape, header_bytes, window): "
        "one on rank 0, another on rank 1"
    ),
}

DIFFER = """
    rank = int(rank)

    def numbers(**options):
        return make(**options).dataset

    def files(names):
        paths = [Path(path).parent / name for name in names]
        return s3io.RecordDataset(paths, dtype="i8", shape=2)

    for expression in {expressions}:
        try:
            eval(expression).set_epoch(0)
        except s3io.DataError as error:
            say(error=str(error))
"""


def test_ranks_are_told_which_setting_or_part_of_the_data_differs(tmp_path):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    for name in "abc":
        write_numbers(tmp_path / name, 5)
    for rank in range(2):  # a copy for each, of another time
        (tmp_path / f"{rank}").mkdir()
        os.utime(write_numbers(tmp_path / f"{rank}" / "a", 5), (rank, rank))
    equal = "files([f'{rank}/a'])"
    job = textwrap.dedent(DIFFER.format(expressions=[*DIFFERENT, equal]))
    for lines in run_ranks(path, 2, job):
        told = [line["error"].split(". Make the")[0] for line in lines]
        start = "the ranks would not read the same epoch: "
        assert told == [start + text for text in DIFFERENT.values()]


ALONE = """
loader = make(rank_timeout_s=2.0)
dist.barrier()
if int(rank) == 0:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            next(iter(loader))
        except s3io.ReadTimeoutError as error:
            say(error=str(error), warned=[str(warning.message) for warning in caught])
dist.barrier()
say(batches=numbers(loader))
"""


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_rank_that_begins_an_epoch_alone_is_told_who_has_not_and_what_to_set(
    tmp_path, num_workers
):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    [alone, together], [other] = run_ranks(path, 2, ALONE, num_workers)
    texts = [alone["error"], *(text for text in alone["warned"] if "rank 0 has waited" in text)]
    assert len(texts) == 2
    for text in texts:
        assert "to begin epoch 0, which rank 1 has not begun" in text
        assert "needs rank=0, world_size=1" in text
        assert "rank_timeout_s" in text
    # The first rank had not come, so that both go on together.
    steps = steps_of(order_of_epoch(path, SETTING, 0), 0, Setting(45, 4, world=2))
    assert together["batches"] == [step[0] for step in steps]
    assert other["batches"] == [step[1] for step in steps]


WITHOUT_A_STORE = """
dist.distributed_c10d._get_default_store = dist.Store  # as with MPI
loader = make()
say(batches=numbers(loader))
try:
    loader.set_epoch(5 + int(rank))
except s3io.DataError as error:
    say(error=str(error))
"""


def test_ranks_without_a_store_are_compared_too(tmp_path):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    for lines in run_ranks(path, 2, WITHOUT_A_STORE):
        assert len(lines[0]["batches"]) == 6
        assert "epoch 5 on rank 0, 6 on rank 1" in lines[1]["error"]
