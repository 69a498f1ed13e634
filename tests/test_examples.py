"""The examples, run as a user runs them: as programs, in small settings, in an empty folder."""

from __future__ import annotations

import re
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from buckets import needs_s3, needs_seaweed
from programs import run_file

EXAMPLES = Path(__file__).parents[1] / "examples"
DIGITS = ("train_digits.py", "--copies", "4", "--epochs", "4")
TOKENS = ("train_tokens.py", "--steps", "120", "--hidden", "64", "--window", "64")
DOCUMENTS = ("train_documents.py", "--steps", "80", "--hidden", "32", "--window", "64")

# Not importorskip: importing scikit-learn starts threads that stay.
HAS_DIGITS = find_spec("sklearn") is not None
needs_digits = pytest.mark.skipif(not HAS_DIGITS, reason="NEEDS SCIKIT-LEARN: not tested")
# What the examples import, and PyTorch's optimizers: for seconds.
IMPORTED = ("torch._dynamo", *(["sklearn.datasets"] if HAS_DIGITS else []))


def run_example(folder: Path, *command: str, status: int = 0) -> str:
    """What the example prints, run in this folder; it must end with this exit status."""
    path = EXAMPLES / command[0]
    process = run_file(path, *command[1:], folder=folder, imported=IMPORTED)
    assert process.returncode == status, process.stdout + process.stderr
    return process.stdout


def number(pattern: str, output: str) -> float:
    match = re.search(pattern, output)
    assert match, output
    return float(match[1])


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file below the folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of Python files: one package of the standard library that is everywhere."""
    folder = tmp_path / "source"
    folder.mkdir()
    for package in ("asyncio", "email", "json", "unittest", "xml"):
        library = Path(__import__(package).__file__ or "").parent
        for path in library.rglob("*.py"):
            (folder / f"{package}-{len(list(folder.iterdir()))}.py").write_bytes(path.read_bytes())
    return folder


@needs_digits
@pytest.mark.slow
def test_digits_are_learned_and_a_second_run_reuses_the_data(tmp_path: Path) -> None:
    first = run_example(tmp_path, *DIGITS)
    assert number(r"held-out accuracy ([\d.]+)%", first) >= 95
    assert "written now" in first
    rows = re.findall(r"^ +\d+ +[\d.]+ +[\d.]+% +[\d,]+ +[\d.]+ [kMG]?B/s +[\d.]+%$", first, re.M)
    assert len(rows) == 4
    assert re.search(r"read by the (uring|threads)\S* engine", first)

    files = snapshot(tmp_path)
    second = run_example(tmp_path, *DIGITS, "--workers", "2", "--engine", "threads")
    assert number(r"held-out accuracy ([\d.]+)%", second) >= 95
    assert re.search(r"read by the threads engine into (2 MiB|4 KiB|mixed) pages", second)
    assert "already there" in second
    assert snapshot(tmp_path) == files


@needs_digits
@pytest.mark.slow
def test_digits_that_were_written_only_in_part_are_written_again(tmp_path: Path) -> None:
    quick = ("train_digits.py", "--copies", "1", "--epochs", "1")
    run_example(tmp_path, *quick)
    shard = tmp_path / "data" / "digits" / "train-00002.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    assert "written now" in run_example(tmp_path, *quick)
    assert shard.read_bytes() == whole


@pytest.mark.slow
def test_tokens_are_learned_and_a_second_run_reuses_the_data(tmp_path: Path, source: Path) -> None:
    command = (*TOKENS, "--source", str(source))
    first = run_example(tmp_path, *command)
    entropy = number(r"unigram entropy of the text: ([\d.]+) nats", first)
    assert number(r"last loss ([\d.]+) nats", first) < 0.8 * entropy
    assert "written now" in first

    shards = sorted((tmp_path / "data" / "tokens").glob("*.bin"))
    counts = np.bincount(np.concatenate([np.fromfile(shard, np.uint8) for shard in shards]))
    frequency = counts[counts > 0] / counts.sum()
    assert entropy == pytest.approx(-(frequency * np.log(frequency)).sum(), abs=1e-3)

    files = snapshot(tmp_path)
    second = run_example(tmp_path, *command, "--workers", "2", "--direct", "off")
    assert number(r"last loss ([\d.]+) nats", second) < 0.8 * entropy
    assert "already there" in second
    assert snapshot(tmp_path) == files


@pytest.mark.slow
def test_documents_are_learned_across_a_stop_in_the_middle(tmp_path: Path, source: Path) -> None:
    command = (*DOCUMENTS, "--source", str(source))
    first = run_example(tmp_path, *command)
    entropy = number(r"unigram entropy of the text: ([\d.]+) nats", first)
    assert number(r"last loss ([\d.]+) nats", first) < 0.9 * entropy
    assert "written now" in first
    assert "stopped, and went on from" in first

    data = tmp_path / "data" / "documents"
    files = {path: status for path, status in snapshot(data).items() if "checkpoint" not in path}
    second = run_example(tmp_path, *command, "--workers", "1")
    assert "already there" in second
    after = {path: status for path, status in snapshot(data).items() if "checkpoint" not in path}
    assert after == files
    losses = [re.findall(r"^ +\d+ +([\d.]+) ", output, re.M) for output in (first, second)]
    assert losses[0] == losses[1]  # the same batches, in the same order


@pytest.mark.parametrize("example", ["train_digits.py", "train_documents.py", "train_tokens.py"])
def test_a_nonsensical_option_is_refused_before_anything_is_written(
    tmp_path: Path, example: str
) -> None:
    run_example(tmp_path, example, "--batch-size", "0", status=2)
    assert not list(tmp_path.iterdir())


@needs_digits
def test_workers_train_and_hand_every_batch_over_in_place(tmp_path: Path) -> None:
    output = run_example(tmp_path, "train_workers.py", "--copies", "4", "--epochs", "4")
    assert number(r"held-out accuracy ([\d.]+)%", output) > 90
    batches = -(-4 * 1437 // 64)
    # Of each batch the labels stay in place; the images are new tensors.
    assert len(re.findall(rf"\b{batches} tensors", output)) == 4, output


@needs_digits
@pytest.mark.slow
@needs_s3
@needs_seaweed
def test_a_bucket_is_trained_on_while_its_server_goes_and_comes_back(tmp_path: Path) -> None:
    output = run_example(tmp_path, "train_s3.py", "--copies", "2", "--epochs", "1")
    assert number(r"held-out accuracy ([\d.]+)%", output) > 50
    steps = -(-2 * 1437 // 64)
    assert f"the server is gone after step {steps // 2}, and comes back" in output


@needs_digits
@pytest.mark.skipif(find_spec("PIL") is None, reason="NEEDS PILLOW: not tested")
def test_archives_are_trained_on_and_the_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    command = ("train_tar.py", "--copies", "4", "--epochs", "3")
    output = run_example(tmp_path, *command)
    assert number(r"held-out accuracy ([\d.]+)%", output) > 90
    steps = -(-4 * 1437 // 64)
    assert f"stopped after step {steps // 2} of {steps}" in output
    rows = re.findall(r"^ +(\d+) +(\d+) +[\d.]+ +[\d.]+%$", output, re.M)
    assert rows == [("1", str(steps - steps // 2)), ("2", str(steps)), ("3", str(steps))]
    archives = sorted((tmp_path / "data" / "digits-tar").glob("*.tar"))
    with tarfile.open(archives[1]) as archive:
        assert archive.getnames()[:2] == ["00000000.png", "00000000.cls"]
    files = {path: path.stat().st_mtime_ns for path in archives}
    again = run_example(tmp_path, *command[:-1], "1", "--workers", "0")
    assert "already there" in again
    assert {path: path.stat().st_mtime_ns for path in archives} == files


def test_the_example_of_several_ranks_says_what_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    process = run_file(EXAMPLES / "train_ddp.py", folder=tmp_path)
    assert process.returncode == 1
    assert process.stderr.startswith("torchrun starts this: torchrun --nproc-per-node=2")
    assert not any(tmp_path.iterdir())
