"""Ranks: who this process is, and that all of them read the same epoch; real process groups."""

from __future__ import annotations

import json
import os
import textwrap
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist
from order_check import Setting, Wrapped, numbers, order_of_epoch, steps_of, write_numbers
from support import DEADLINE_S, end_workers, printed_by, start_program
from torch.utils.data import DataLoader

import torch_s3io as s3io
from torch_s3io.processes import ranks as ranks_module
from torch_s3io.processes.meeting import Meetings
from torch_s3io.processes.ranks import Ranks, compare_ranks, find_ranks

SETTING = Setting(records=45, batch=4, seed=3, shuffle=True)


def test_what_was_given_goes_before_the_environment(monkeypatch):
    assert find_ranks(None, None).source == "default"
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    found = find_ranks(None, None)
    assert (found.rank, found.world_size, found.source) == (2, 4, "environment")
    found = find_ranks(0, 3)
    assert (found.rank, found.world_size, found.source) == (0, 3, "arguments")


def test_ranks_of_the_environment_are_asked_for_when_needed(tmp_path, monkeypatch):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    dataset = SETTING.dataset(path).with_options(rank=None, world_size=None)
    assert len(dataset) == 12
    order = order_of_epoch(path, SETTING, 0)
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        dataset.set_epoch(0)
        world = Setting(45, 4, world=3)
        loader = s3io.DataLoader(dataset, num_workers=1)
        assert len(loader) == 4
        assert numbers(loader) == [step[rank] for step in steps_of(order, 0, world)]


@pytest.mark.parametrize(
    ("rank", "world"), [("3", "3"), ("-1", "2"), ("x", "2"), ("0", "0"), ("", "1"), ("0", "1.0")]
)
def test_an_environment_that_names_no_rank_is_refused(monkeypatch, rank, world):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(s3io.ConfigError, match="the environment says RANK="):
        find_ranks(None, None)


@pytest.mark.parametrize(("there", "missing"), [("RANK", "WORLD_SIZE"), ("WORLD_SIZE", "RANK")])
def test_half_a_rank_in_the_environment_is_refused(monkeypatch, there, missing):
    monkeypatch.setenv(there, "1")
    with pytest.raises(s3io.ConfigError, match=f"says {there}='1' but has no {missing}"):
        find_ranks(None, None)
    assert find_ranks(0, 1).source == "arguments"


def test_workers_that_are_alive_cannot_become_another_rank(tmp_path, monkeypatch):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    dataset = SETTING.dataset(path).with_options(rank=None, world_size=None)
    loader = s3io.DataLoader(dataset, num_workers=1)
    order = order_of_epoch(path, SETTING, 0)
    assert numbers(loader) == [step[0] for step in steps_of(order, 0, SETTING)]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for _ in range(2):
        with pytest.raises(s3io.ConfigError, match=r"rank 0 of 1, but .* rank 1 of 2 .*anew"):
            next(iter(loader))
    state = loader.state_dict()
    assert (state["epoch"], state["consumed"]) == (1, 0)
    anew = s3io.DataLoader(dataset, num_workers=1)
    order = order_of_epoch(path, SETTING, 1)
    steps = steps_of(order, 0, Setting(45, 4, world=2))
    assert numbers(anew) == [step[1] for step in steps]


@pytest.mark.parametrize("pool", ["auto", None])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("kind", ["torch", "set_epoch", "wrapped"])
def test_workers_that_nobody_asks_cannot_become_another_rank_either(
    tmp_path, monkeypatch, kind, shuffle, pool
):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    dataset = SETTING.dataset(path).with_options(
        rank=None, world_size=None, shuffle=shuffle, pool=pool
    )

    def make_loader() -> Any:
        if kind == "wrapped":
            return s3io.DataLoader(Wrapped(dataset), num_workers=2)
        return DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)

    loader = make_loader()
    setting = replace(SETTING, shuffle=shuffle)
    order = order_of_epoch(path, setting, 0)
    assert numbers(loader) == [step[0] for step in steps_of(order, 0, setting)]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    if kind == "set_epoch":
        dataset.set_epoch(1)
        order = order_of_epoch(path, setting, 1)
    batches = iter(loader)
    for _ in range(2):  # of each worker
        with pytest.raises(s3io.ConfigError, match=r"rank 0 of 1, but .* rank 1 of 2 .*anew"):
            next(batches)
    end_workers(batches)
    del batches
    steps = steps_of(order, 0, replace(setting, world=2))
    assert numbers(make_loader()) == [step[1] for step in steps]


def test_workers_of_a_rank_that_was_given_keep_it(tmp_path, monkeypatch):
    path = write_numbers(tmp_path / "numbers.bin", SETTING.records)
    dataset = SETTING.dataset(path)  # rank 0 of 1
    loader = DataLoader(dataset, batch_size=None, num_workers=1, persistent_workers=True)
    first = numbers(loader)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    dataset.set_epoch(0)
    assert numbers(loader) == first


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0},
        {"world_size": 2},
        {"rank": 2, "world_size": 2},
        {"rank": -1, "world_size": 2},
        {"rank": 0, "world_size": 0},
        {"rank": 0.0, "world_size": 1},
        {"drop_last": True, "pad_last": True},
    ],
)
def test_arguments_that_name_no_rank_are_refused(tmp_path, options):
    path = write_numbers(tmp_path / "numbers.bin", 8)
    with pytest.raises(s3io.ConfigError, match=r"rank|world_size|pad_last"):
        s3io.RecordDataset(path, dtype="i8", shape=2, **options)


def test_more_ranks_than_records_get_equally_many_batches(tmp_path):
    path = write_numbers(tmp_path / "numbers.bin", 3)
    setting = Setting(3, batch=2, world=5)
    datasets = [setting.dataset(path, rank) for rank in range(5)]
    assert [numbers(dataset) for dataset in datasets] == [[[0]], [[1]], [[2]], [[0]], [[1]]]
    assert {dataset.padded_records for dataset in datasets} == {2}
    assert datasets[0].stats()["padded_records"] == 2
    dropping = Setting(3, batch=2, world=5, drop_last=True).dataset(path)
    assert (len(dropping), dropping.dropped_records, numbers(dropping)) == (0, 3, [])


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
        start_program(RANK, rendezvous, rank, world, path, num_workers, context, job)
        for rank in range(world)
    ]
    return [[json.loads(line) for line in printed_by(rank).splitlines()] for rank in ranks]


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


@pytest.mark.parametrize(
    ("world", "after", "num_workers", "context"),
    [(2, 3, 0, "fork"), (3, 2, 1, "fork"), (2, 1, 2, "forkserver"), (2, 2, 1, "spawn")],
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
