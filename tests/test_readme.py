"""README.md: its snippets and commands, taken from it as they are now, do what it says."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from record_sets import random_array
from support import end_workers
from torch.utils.data import IterableDataset

import torch_s3io as s3io
from torch_s3io import cli

README = Path(__file__).parents[1] / "README.md"
PROGRAM = ["python", "-m", "torch_s3io"]
CIFAR10 = np.dtype([("label", "u1"), ("image", "u1", (3, 32, 32))])


class Key(NamedTuple):
    """A block of code: the heading that it is below, its language, and which of these it is."""

    heading: str
    language: str
    number: int = 0


NOT_RUN = {
    Key("On several machines", "python", 0): "Lightning: test_trainers.py",
    Key("On several machines", "python", 1): "Accelerate: test_trainers.py",
}
NOT_RUN_COMMANDS = {
    "make train": "CI's own set-up; what it trains: test_examples.py",
    "make test": "this suite",
    "torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=host0:29500 "
    "--rdzv-id=run1 train.py": "two machines with 8 GPUs; two with one rank each: test_trainers.py",
    "python -m torch_s3io bench resnet50": "minutes of reading; small ones: test_bench.py",
    "python -m torch_s3io bench seed-metrics": "minutes of reading; small: test_bench_results.py",
    "pip install torch==2.13.0": "a download; the version: test_configuration_docs.py",
    "pip install 'setuptools>=77'": "a download",
    "apt install g++ pkg-config liburing-dev": "a download",
    "pip install --no-build-isolation .": "a build: scripts/check_wheels.sh",
    "pip install --no-build-isolation '.[bench]'": "a build, and a download",
}
RUN: set[Key] = set()  # those of the tests below


def blocks() -> dict[Key, str]:
    found: dict[Key, str] = {}
    pattern = r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w+)\n(?P<text>.*?)^```$"
    heading = ""
    for match in re.finditer(pattern, README.read_text(), re.M | re.S):
        if match["heading"]:
            heading = match["heading"]
            continue
        same = [key for key in found if key[:2] == (heading, match["language"])]
        found[Key(heading, match["language"], len(same))] = match["text"]
    return found


def runs(*key: Any) -> Any:
    """The block that a test runs is its argument ``block``."""
    RUN.add(Key(*key))
    return pytest.mark.parametrize("block", [Key(*key)], ids=["-".join(map(str, key))])


def commands_of(text: str) -> list[str]:
    lines = (shlex.split(line, comments=True) for line in text.splitlines())
    return [shlex.join(words) for words in lines if words]


def is_listed(command: str) -> bool:
    return command in {shlex.join(shlex.split(listed)) for listed in NOT_RUN_COMMANDS}


def run_commands(block: Key, replaced: dict[str, str] | None = None) -> list[int]:
    """Exit statuses of the commands of this block that are not listed above."""
    statuses = []
    for command in commands_of(blocks()[block]):
        if is_listed(command):
            continue
        words = [(replaced or {}).get(word, word) for word in shlex.split(command)]
        assert words[:3] == PROGRAM
        statuses.append(cli.main([argument for word in words[3:] for argument in word.split()]))
    return statuses


def run(
    block: Key,
    names: dict[str, Any],
    replaced: dict[str, str] | None = None,
    at: dict[int, dict[str, Any]] | None = None,
) -> list[Any]:
    """Runs the statements; returns the values of those that are expressions.

    Args:
        names: What the snippet refers to; afterwards also what it makes.
        replaced: Texts of the snippet that cannot run here, and what stands for them.
        at: More names, from the n-th statement on.
    """
    text = blocks()[block]
    for old, new in (replaced or {}).items():
        assert old in text
        text = text.replace(old, new)
    names |= {"np": np, "torch": torch, "s3io": s3io}
    values = []
    for number, statement in enumerate(ast.parse(text).body):
        names |= (at or {}).get(number, {})
        if isinstance(statement, ast.Expr):
            values.append(
                eval(compile(ast.Expression(statement.value), "README.md", "eval"), names)
            )
        else:
            exec(compile(ast.Module([statement], []), "README.md", "exec"), names)
    end_workers(getattr(names.get("loader"), "_iterator", None))
    return values


@pytest.fixture(autouse=True)
def _in_an_empty_folder(disk, monkeypatch):
    monkeypatch.chdir(disk)


def write_cifar10() -> np.ndarray:
    """Three files of 200 records in train/."""
    records = random_array("u1", 600, (CIFAR10.itemsize,), 1)
    Path("train").mkdir()
    for number, part in enumerate(np.split(records, 3)):
        Path(f"train/{number}.bin").write_bytes(part.tobytes())
    return records.view(CIFAR10)[:, 0]


def test_every_block_and_command_is_run_or_listed_with_a_reason():
    found = blocks()
    assert len(found) >= 14
    assert set(found) == RUN | set(NOT_RUN) | {key for key in found if key.language == "sh"}
    assert not RUN & set(NOT_RUN)
    commands = {key: commands_of(text) for key, text in found.items() if key.language == "sh"}
    unknown = [
        command
        for key, block_commands in commands.items()
        for command in block_commands
        if key not in RUN and not is_listed(command)
    ]
    assert unknown == []
    listed = {shlex.join(shlex.split(command)) for command in NOT_RUN_COMMANDS}
    assert listed <= set(itertools.chain(*commands.values())), "listed, but not there any more"


@runs("torch_s3io", "python")
def test_the_first_example_trains_on_every_record_in_every_epoch(block, capsys):
    records = write_cifar10()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    names = {"step": lambda images, labels: seen.append((images.clone(), labels.clone()))}
    run(block, names)
    assert len(seen) == 10 * 3
    assert seen[0][0].shape == (256, 3, 32, 32)
    for epoch in range(10):
        labels = torch.cat([labels for _, labels in seen[3 * epoch : 3 * epoch + 3]])
        np.testing.assert_array_equal(np.sort(labels.numpy()), np.sort(records["label"]))
    total = sum(float(images.double().sum()) for images, _ in seen[:3])
    assert total == pytest.approx(records["image"].sum() / 255, rel=1e-5)
    assert "'batches'" in capsys.readouterr().out


@runs("Reading records", "python")
def test_the_layouts_give_the_batches_that_the_comments_say(block):
    Path("train").mkdir()
    Path("corpus").mkdir()
    images = random_array("f4", 64, (3, 224, 224), 1)
    images.tofile("images.bin")
    pairs = random_array([("x", "f4", 16), ("y", "i8")], 64, (), 2)
    pairs.tofile("pairs.bin")
    wide = random_array("u1", 64, (8192,), 3)
    Path("wide.bin").write_bytes(bytes(512) + wide.tobytes())
    np.save("train/0.npy", pairs["x"])
    tokens = random_array("<u2", 1024 * 8 + 1, (), 4)
    tokens.tofile("corpus/0.bin")
    paths = ["images.bin", "pairs.bin", "wide.bin"]
    files = {number: {"paths": path} for number, path in enumerate(paths)}
    batches = [next(iter(dataset)) for dataset in run(block, {}, at=files)]
    windows = np.lib.stride_tricks.sliding_window_view(tokens, 1025)[::1024]
    assert [batch.dtype for batch in (batches[0], *batches[2:])] == [
        torch.float32, torch.bfloat16, torch.float32, torch.int64
    ]  # fmt: skip
    assert batches[0].numpy().tobytes() == images.tobytes()
    assert batches[1]["x"].numpy().tobytes() == pairs["x"].tobytes()
    assert batches[1]["y"].numpy().tobytes() == pairs["y"].tobytes()
    assert batches[2].view(torch.uint8).numpy().tobytes() == wide.tobytes()
    assert batches[3].numpy().tobytes() == pairs["x"].tobytes()
    np.testing.assert_array_equal(batches[4].numpy(), windows)


@runs("Workers and pinned memory", "python")
def test_the_prefetcher_steps_through_an_epoch_of_two_workers(block, capsys, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # else its own thread stays
    records = write_cifar10()
    dataset = s3io.RecordDataset("train/*.bin", dtype=CIFAR10, batch_size=100)
    labels: list[int] = []
    names = {"dataset": dataset, "step": lambda batch: labels.extend(batch["label"].tolist())}
    run(block, names, replaced={'"cuda"': '"cpu"'})
    assert labels == records["label"].tolist()
    assert 0 <= float(capsys.readouterr().out) <= 1


@runs("Order, shards and resume", "python", 0)
def test_a_loop_that_goes_on_from_its_state_sees_every_record_once_an_epoch(block):
    records = write_cifar10()
    labels: list[int] = []
    saved_at = 3 * 600 + 256  # a batch of the fourth epoch

    def step(batch):
        labels.extend(batch["label"].tolist())
        names["time_to_save"] = len(labels) == saved_at

    names = {
        "paths": "train/*.bin",
        "record": CIFAR10,
        "checkpoint": None,
        "path": "checkpoint.pt",
        "model": SimpleNamespace(state_dict=dict),
        "step": step,
    }
    run(block, names, replaced={"loader.epoch, 10": "loader.epoch, 4"})
    assert len(labels) == 4 * 600
    del labels[saved_at:]
    names["checkpoint"] = torch.load("checkpoint.pt")
    run(block, names)
    for epoch in np.reshape(labels, (10, 600)):
        np.testing.assert_array_equal(np.sort(epoch), np.sort(records["label"]))


@runs("Order, shards and resume", "python", 1)
def test_views_mixtures_pairs_and_augmented_records_are_what_the_comments_say(block):
    def numbers(first: int, count: int) -> s3io.RecordDataset:
        np.arange(first, first + count, dtype="i4").tofile(f"{first}.bin")
        return s3io.RecordDataset(f"{first}.bin", dtype="i4", batch_size=64, shuffle=True)

    names = {
        "dataset": numbers(0, 1000),
        "web": numbers(10_000, 9216),
        "books": numbers(20_000, 1024),
        "images": numbers(30_000, 500),
        "labels": numbers(40_000, 500),
    }
    np.zeros((100, 3), "f4").tofile("zeros.bin")
    ours = 'RecordDataset("zeros.bin", dtype="f4", shape=3, '
    run(block, names, replaced={"RecordDataset(..., ": ours})

    def all_of(dataset: IterableDataset) -> list[int]:
        return [number for batch in dataset for number in batch.tolist()]

    train, test = all_of(names["train"]), all_of(names["test"])
    assert (len(train), len(test)) == (900, 100)
    assert sorted(train + test) == list(range(1000))
    mixed = all_of(names["mix"])
    assert abs(sum(number < 20_000 for number in mixed[:1024]) - 0.9 * 1024) < 1
    for pair in names["pairs"]:
        assert torch.equal(pair["images"] + 10_000, pair["labels"])
    assert [int(names["records"][number]) for number in (7, 0, 999)] == [7, 0, 999]
    noise = [value for batch in names["noisy"] for value in batch.flatten().tolist()]
    assert len(set(noise)) > 290
    assert all(abs(value) < 1 for value in noise)


@runs("Writing shards", "sh")
def test_the_commands_pack_describe_and_verify_what_lies_in_the_folder(block, capsys):
    images = random_array("u1", 50, (3, 32, 32), 1)
    np.save("train.npy", images)
    tokens = random_array("<u2", 20_000, (), 2)
    tokens.tofile("corpus.bin")
    assert run_commands(block) == [0, 0, 0, 0]
    output = capsys.readouterr().out
    assert "records      50" in output
    assert output.count("all as they were written") == 2
    got = next(iter(s3io.RecordDataset("packed", batch_size=50)))
    np.testing.assert_array_equal(got.numpy(), images)
    got = next(iter(s3io.RecordDataset("corpus", batch_size=50)))
    np.testing.assert_array_equal(got.numpy(), tokens[: 19 * 1025].reshape(19, 1025))


@runs("Writing shards", "python")
def test_the_writer_writes_what_the_data_set_then_reads(block):
    x, y = random_array("f4", 200, (16,), 1), np.arange(200)
    names = {"batches": [(x[:150], y[:150]), (torch.from_numpy(x[150:].copy()), y[150:])]}
    run(block, names)
    batches = list(names["dataset"])
    assert torch.cat([batch["x"] for batch in batches]).numpy().tobytes() == x.tobytes()
    assert torch.cat([batch["y"] for batch in batches]).tolist() == y.tolist()


@runs("Reading and writing whole files", "python")
def test_files_are_read_whole_in_ranges_and_written(block):
    content = random_array("u1", 100_000, (), 1)
    content.tofile("checkpoint.bin")
    names = {"chunks": [content[:30_000], content[30_000:]]}
    run(block, names)
    np.testing.assert_array_equal(names["data"].numpy(), content)
    np.testing.assert_array_equal(names["head"].numpy(), content[:4096])
    assert np.fromfile("small.bin", "i8").tolist() == list(range(10))
    assert Path("large.bin").read_bytes() == content.tobytes()


@runs("Looking at the machine, measuring epochs", "sh")
def test_the_machine_is_examined_and_the_benchmarks_are_listed(block, capsys):
    Path("train.bin").write_bytes(bytes(16 << 20))
    statuses = run_commands(block, {"/data/train": "train.bin --quick"})
    assert statuses[0] in (0, 3)
    assert statuses[1:] == [0]
    output = capsys.readouterr().out
    assert "io_uring" in output
    assert "resnet50" in output
