"""Progress: what a terminal shows of it, in the end nothing; elsewhere nothing, or lines."""

from __future__ import annotations

import gc
import io
import re
import shutil
import sys
from contextlib import redirect_stderr
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tqdm

from torch_s3io import ConfigError, DataLoader, RecordDataset, cli, console
from torch_s3io.bench import child, progress, runner
from torch_s3io.bench.config import BenchConfig, DataConfig, LoaderConfig
from torch_s3io.doctor import storage


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def left(self) -> str:
        """What can still be read after all that was printed over it."""
        line, column = "", 0
        for part in re.split("(\r|\x1b\\[K)", self.getvalue()):
            if part == "\r":
                column = 0
            elif part == "\x1b[K":
                line = line[:column]
            else:
                line = line[:column] + part + line[column + len(part) :]
                column += len(part)
        return line.strip()


class EagerBar(tqdm.tqdm):
    """Shows every step, not some a second."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options, mininterval=0)


@pytest.fixture(autouse=True)
def _eager_bars(monkeypatch):
    monkeypatch.setattr(tqdm, "tqdm", EagerBar)


def pack_array(disk, processes: int = 1) -> None:
    array = np.zeros((300, 1000), "u1")
    np.save(disk / "x.npy", array)
    arguments = ["pack", disk / "x.npy", "-o", disk / "out", "--shard-mib", 0.03]
    assert cli.main([*map(str, [*arguments, "--processes", processes])]) == 0
    assert (disk / "out" / "manifest.json").exists()


def test_what_is_left_on_a_terminal_is_understood():
    for text, line in (
        ("one\rtwo", "two"),
        ("three\rtwo", "twoee"),
        ("three\r\x1b[Ktwo", "two"),
        ("three\r     \r", ""),
        ("three\r", "three"),
    ):
        terminal = Terminal()
        terminal.write(text)
        assert terminal.left() == line


@pytest.mark.parametrize("processes", [1, 3])
def test_a_terminal_shows_how_much_is_packed(disk, processes):
    with redirect_stderr(Terminal()) as terminal:
        pack_array(disk, processes)
    percentages = [int(text) for text in re.findall(r"packing: +(\d+)%", terminal.getvalue())]
    assert percentages[0] == 0
    assert percentages[-1] == 100
    assert percentages == sorted(percentages)
    if processes == 1:
        assert len(percentages) > 3
    assert terminal.left() == ""


def test_without_a_terminal_or_tqdm_packing_shows_nothing(disk, monkeypatch):
    with redirect_stderr(io.StringIO()) as file:
        pack_array(disk)
    assert file.getvalue() == ""
    shutil.rmtree(disk / "out")
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with redirect_stderr(Terminal()) as terminal:
        pack_array(disk)
    assert terminal.getvalue() == ""


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now_s=50.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: clock.now_s))
    return clock


@pytest.fixture
def config(disk):
    return BenchConfig(
        name="small",
        data=DataConfig(folder=str(disk), files=3, record_bytes=4096, records_per_file=10),
        loader=LoaderConfig(batch_size=6),
        epochs=2,
    )


def test_a_terminal_shows_how_a_benchmark_goes(config, disk, monkeypatch):
    with redirect_stderr(Terminal()) as terminal:
        runner.make_data(config)
    assert re.findall(r"making 3 files of 40\.96 kB in .*?\| (\d)/3 ", terminal.getvalue()) == [
        "0", "1", "2", "3"
    ]  # fmt: skip
    assert terminal.left() == ""
    monkeypatch.setattr(progress, "_REFRESH_S", 0.0)
    with redirect_stderr(Terminal()) as terminal:
        child.run(config, disk, show=True)
    found = re.findall(
        r"\r\x1b\[Ksmall: epoch (\d) of 2: (\d) of 5 batches, \d+\.\d\d GB/s(?=\r)",
        terminal.getvalue(),
    )
    assert terminal.getvalue().startswith("\r\x1b[Ksmall: epoch 1 of 2\r")
    assert found == [(epoch, str(step)) for epoch in "12" for step in range(1, 6)]
    assert terminal.left() == ""


def test_without_a_terminal_a_line_tells_of_each_epoch_and_none_where_it_shall_not(config, disk):
    with redirect_stderr(io.StringIO()) as file:
        runner.make_data(config)
        child.run(config, disk, show=True)
    making, *epochs = file.getvalue().splitlines()
    assert making.startswith("making 3 files of ")
    assert epochs == ["small: epoch 1 of 2", "small: epoch 2 of 2"]
    with redirect_stderr(Terminal()) as terminal:
        child.run(config, disk, show=False)
    assert terminal.getvalue() == ""


def test_without_tqdm_a_loader_with_progress_says_so_and_nothing_else(disk, monkeypatch):
    (disk / "x.bin").write_bytes(bytes(100))
    loader = DataLoader(RecordDataset(disk / "x.bin", dtype="u1"), progress=True)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    with pytest.raises(ConfigError, match="needs tqdm: pip install tqdm"):
        iter(loader)
    gc.collect()
    assert ignored == []


def test_without_tqdm_a_terminal_shows_what_is_being_made(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with redirect_stderr(Terminal()) as terminal:
        runner.make_data(config)
    assert re.fullmatch(r"making 3 files of 40\.96 kB in .* \.\.\.\n", terminal.getvalue())


def test_the_speed_and_share_that_are_shown_are_those_so_far(clock):
    """Of batches of 3 GB, a second each, of which 0.25 s are computing."""
    config = BenchConfig(
        name="x", data=DataConfig(folder="/", files=2000), compute_s_per_step=0.25, epochs=7
    )
    with redirect_stderr(Terminal()) as terminal, progress.Progress(config, 3, True) as shown:
        for step in range(1, 1201):
            clock.now_s += 1
            shown.update(3_000_000_000, float(step))
            assert terminal.left() == (
                f"x: epoch 4 of 7: {step:,} of 2,000 batches, 3.00 GB/s, computing 25%"
            )


def test_progress_is_shown_some_times_a_second_at_most(clock):
    config = BenchConfig(name="x", data=DataConfig(folder="/", files=1000))
    with redirect_stderr(Terminal()) as terminal, progress.Progress(config, 0, True) as shown:
        for step in range(1, 1001):  # a millisecond each
            clock.now_s += 0.001
            shown.update(1, step * 0.001)
    assert 2 <= terminal.getvalue().count("batches") <= 10


def test_a_terminal_shows_what_doctor_reads(disk, monkeypatch, capsys):
    def measure(file, block_bytes, depth, seconds, **options):
        return storage.ReadSpeed(
            block_bytes=block_bytes, depth=depth, engine="uring", gb_per_s=1.0, requests_per_s=1.0,
            cpu_s_per_gb=1.0,
        )  # fmt: skip

    monkeypatch.setattr(storage, "measure", measure)
    path = disk / "x.bin"
    path.write_bytes(bytes(16 << 20))
    with redirect_stderr(Terminal()) as terminal:
        cli.main(["doctor", str(path), "--quick"])
    count = len(storage.points(True, 16 << 20))
    numbers = re.findall(rf"\r\x1b\[Kreading, (\d+) of {count}: ", terminal.getvalue())
    assert numbers == [str(number) for number in range(1, count + 1)]
    assert terminal.left() == ""
    with redirect_stderr(io.StringIO()) as file:
        cli.main(["doctor", str(path), "--quick"])
    lines = [line for line in file.getvalue().splitlines() if line.startswith("reading, ")]
    assert [line.partition(":")[0] for line in lines] == [
        f"reading, {number} of {count}" for number in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    ("columns", "text", "shown"),
    [
        (8, "1234567", "1234567"),
        (7, "1234567", "123456"),
        (5, "数据 集", "数据"),
        (4, "数据", "数"),
        (1, "x", ""),
        (80, "a\nb\x1b[31m\udcff", r"a\nb\x1b[31m\xff"),
    ],
)
def test_a_line_of_progress_stays_one_line_of_the_terminal(columns, text, shown, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    with redirect_stderr(Terminal()) as terminal:
        console.show_progress(text)
    assert terminal.getvalue() == f"\r\x1b[K{shown}"
