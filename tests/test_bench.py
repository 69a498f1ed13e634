"""Benchmarks: they read what they say, and their figures are what other means of counting say."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import zlib
from array import array
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support import DEADLINE_S, cached_pages, holds_soon, program_env, run_program

from torch_s3io import ConfigError, DataError, NotFoundError, cli
from torch_s3io.bench import data, fio, loop, runner, seed_metrics
from torch_s3io.bench.compare import compare, differences
from torch_s3io.bench.config import BenchConfig, DataConfig, LoaderConfig, StorageConfig
from torch_s3io.bench.load import load
from torch_s3io.bench.loop import Copies, Trace, accelerator_utilisation, measure_epoch, run_loop
from torch_s3io.bench.parse import to_mapping
from torch_s3io.bench.result import read
from torch_s3io.bench.sources import Source

SMALL = {
    "cosmoflow": ["data.files=6", "data.record_bytes=28281", "compute_s_per_step=0.001"],
    "files-8mib": ["data.files=6", "data.record_bytes=1100000", "storage.pool.capacity=14"],
    "records-4k-random": ["data.files=2", "data.records_per_file=640"],
    "resnet50": ["data.files=2", "data.records_per_file=90", "data.record_bytes=1147",
                 "loader.batch_size=40", "compute_s_per_step=0.001"],
    "unet3d": ["data.files=9", "data.record_bytes=1466006", "loader.batch_size=2",
               "compute_s_per_step=0.001"],
}  # fmt: skip

SHOWN = {
    "GB/s": lambda epoch: epoch["bytes"] / epoch["wall_s"] / 1e9,
    "samples/s": lambda epoch: epoch["samples"] / epoch["wall_s"],
    "p50 ms": lambda epoch: 1000 * epoch["latency_p50_s"],
    "p99 ms": lambda epoch: 1000 * epoch["latency_p99_s"],
    "p99.9 ms": lambda epoch: 1000 * epoch["latency_p999_s"],
    "CPU %": lambda epoch: epoch["cpu_percent"],
    "CPU s/GB": lambda epoch: epoch["cpu_s_per_gb"],
    "copied MB": lambda epoch: epoch["copied_bytes"] / 1e6,
    "peak RSS MiB": lambda epoch: epoch["peak_rss_bytes"] / (1 << 20),
}

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="NEEDS A C COMPILER (cc)")


def settings(*parts: str) -> list[str]:
    return [word for part in parts for word in ("--set", part)]


def run_bench(folder, *arguments: str) -> dict:
    output = folder / "out"
    assert cli.main(["bench", *arguments, "--output", str(output), "--no-plot"]) == 0
    return json.loads((output / "result.json").read_text())


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_shipped_configuration_runs_in_a_reduced_size(disk, name, capsys):
    small = [*SMALL[name], f"data.folder={disk}/data", "epochs=2"]
    config = load(name, small)
    result = run_bench(disk, name, *settings(*small))
    samples = config.data.files * config.data.records_per_file
    if config.loader.drop_last:
        samples -= samples % config.loader.batch_size
    assert len(result["epochs"]) == 2
    for epoch in result["epochs"]:
        assert epoch["samples"] == samples
        assert epoch["bytes"] == samples * config.data.record_bytes
        assert epoch["steps"] == config.step_count
        assert epoch["gb_per_s"] == pytest.approx(epoch["bytes"] / 1e9 / epoch["wall_s"])
        assert epoch["samples_per_s"] == pytest.approx(samples / epoch["wall_s"])
        assert epoch["latency_p50_s"] <= epoch["latency_p99_s"] <= epoch["latency_p999_s"]
        assert bytes_until(epoch, epoch["wall_s"]) == pytest.approx(epoch["bytes"])
        cpu_s = epoch["cpu_percent"] / 100 * epoch["wall_s"]
        assert cpu_s == pytest.approx(epoch["cpu_s_per_gb"] * epoch["bytes"] / 1e9)
        assert cpu_s > 0
        assert sum(epoch["latency_histogram"]["counts"]) == epoch["steps"]
        assert epoch["peak_rss_bytes"] > 0
        assert (epoch["au_percent"] is None) == (config.compute_s_per_step == 0)
        assert epoch["au_percent"] is None or 0 < epoch["au_percent"] <= 100
    assert result["stats"]["direct_bytes"] >= 2 * result["epochs"][0]["bytes"]  # page cache: cold
    table = (disk / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[-5:]]
    for title, figure in SHOWN.items():
        first, second = (figure(epoch) for epoch in result["epochs"])
        column = rows[0].index(title)
        for row, wanted in zip(rows[2:], (first, second, (first + second) / 2), strict=True):
            decimals = len(row[column].partition(".")[2])
            shown = float(row[column].replace(",", ""))
            assert shown == pytest.approx(wanted, abs=0.51 * 10**-decimals)
    assert rows[4][0] == "median"
    assert f"bench {name} --set" in table


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("reader", ["records", "files"])
@pytest.mark.parametrize("copy", [False, True])
def test_every_byte_arrives_once_and_in_order(disk, reader, workers, copy):
    config = BenchConfig(
        data=DataConfig(folder=str(disk), files=7, record_bytes=10_000),
        storage=StorageConfig(direct_io="auto"),
        loader=LoaderConfig(reader=reader, batch_size=3, workers=workers, copy_batches=copy),
    )
    runner.make_data(config)
    wanted = b"".join(path.read_bytes() for path in data.paths_of(config.data))
    source = Source(config)
    for _ in range(2):
        batches = [list(batch) for batch in source]
        assert [len(batch) for batch in batches] == [3, 3, 1]
        got = b"".join(record.numpy().tobytes() for batch in batches for record in batch)
        assert got == wanted
        del batches
    del source


@pytest.mark.parametrize("workers", [0, 2])
def test_files_can_be_shuffled_anew_every_epoch(disk, workers):
    config = BenchConfig(
        data=DataConfig(folder=str(disk), files=12, record_bytes=4096),
        loader=LoaderConfig(
            reader="files", batch_size=5, shuffle=True, seed=4, drop_last=True, workers=workers
        ),
    )
    runner.make_data(config)
    names = {path.read_bytes(): path.name for path in data.paths_of(config.data)}
    source = Source(config)
    orders = [[names[r.numpy().tobytes()] for b in source for r in b] for _ in range(2)]
    assert all(len(set(order)) == len(order) == 10 for order in orders)
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])
    again = Source(config)
    assert [names[r.numpy().tobytes()] for b in again for r in b] == orders[0]


def test_data_is_seeded_and_cannot_be_compressed(tmp_path):
    first, other, reseeded = (
        DataConfig(folder=str(tmp_path / name), files=2, record_bytes=100_000, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("a", 2))
    )
    for config in (first, other, reseeded):
        data.check_space(config)
        data.make(config, iter(data.missing(config)))
        assert data.missing(config) == []
    contents = [[path.read_bytes() for path in data.paths_of(c)] for c in (first, other, reseeded)]
    assert contents[0] == contents[1]
    assert len({contents[0][0], contents[0][1], *contents[2]}) == 4
    assert len(zlib.compress(contents[0][0])) > 0.99 * 100_000


def test_data_that_is_there_stays_and_what_is_cut_is_made_again(tmp_path):
    config = DataConfig(folder=str(tmp_path), files=3, record_bytes=5000)
    data.check_space(config)
    data.make(config, iter(data.missing(config)))
    first, second, third = data.paths_of(config)
    whole, inode = second.read_bytes(), first.stat().st_ino
    second.write_bytes(whole[:-1])
    third.unlink()
    assert [number for number, _ in data.missing(config)] == [1, 2]
    data.make(config, iter(data.missing(config)))
    assert second.read_bytes() == whole
    assert first.stat().st_ino == inode
    assert sorted(path.name for path in first.parent.iterdir()) == [
        "0.bin", "1.bin", "2.bin"
    ]  # fmt: skip


def test_data_beyond_the_disk_is_refused_before_anything_is_written(tmp_path):
    config = DataConfig(folder=str(tmp_path), files=1000, record_bytes=1 << 50)
    with pytest.raises(ConfigError, match=r"are free; lower data\.files"):
        data.check_space(config)
    assert list(data.folder_of(config).iterdir()) == []


def test_the_page_cache_is_emptied_and_filled_as_asked(disk):
    config = DataConfig(folder=str(disk), files=2, record_bytes=100_000)
    data.check_space(config)
    data.make(config, iter(data.missing(config)))
    paths = data.paths_of(config)
    data.CACHE_STATES["warm"](paths)
    assert [cached_pages(path) for path in paths] == [25, 25]
    data.CACHE_STATES["leave"](paths)
    assert [cached_pages(path) for path in paths] == [25, 25]
    data.CACHE_STATES["cold"](paths)
    assert [cached_pages(path) for path in paths] == [0, 0]


def bytes_until(epoch: dict, end_s: float) -> float:
    """What the throughput over time adds up to until then, one of the begins or the end."""
    timeline = epoch["timeline"]
    ends_s = [*timeline["begin_s"][1:], epoch["wall_s"]]
    pieces = zip(timeline["begin_s"], ends_s, timeline["gb_per_s"], strict=True)
    return sum((end - begin) * speed * 1e9 for begin, end, speed in pieces if end <= end_s)


def trace(arrivals: list[float], wall_s: float) -> Trace:
    return Trace(arrival_s=array("d", arrivals), wall_s=wall_s)


def test_accelerator_utilisation_leaves_the_reads_of_the_first_step_out():
    # The first batch comes after 10 s; each of 4 steps computes 1 s; the third waits 2 s for data.
    utilisation = accelerator_utilisation(trace([10, 11, 14, 15], wall_s=16), 1.0)
    assert utilisation == pytest.approx(100 * 3 / 5)
    assert accelerator_utilisation(trace([10, 11, 12], wall_s=13), 1.0) == pytest.approx(100)
    assert accelerator_utilisation(trace([10], wall_s=11), 1.0) is None
    assert accelerator_utilisation(trace([10, 11], wall_s=12), 0.0) is None


def test_the_loop_counts_what_it_gets_and_sleeps_for_every_batch():
    empty = run_loop([], 0.0)
    assert (empty.samples, len(empty.arrival_s)) == (0, 0)
    result = run_loop(
        [torch.zeros(4, 8, dtype=torch.uint8), [torch.zeros(3), torch.zeros(2)]], 0.01
    )
    assert result.samples == 4 + 2
    assert list(result.batch_bytes) == [32, 20]
    assert result.wall_s >= 0.02
    assert result.arrival_s[1] - result.arrival_s[0] >= 0.01


def test_the_loop_times_what_it_waits_for_and_not_what_is_computed(monkeypatch):
    """By a clock that only the source and the computing move."""
    clock = SimpleNamespace(now_s=100.0)

    def sleep(seconds: float) -> None:
        clock.now_s += seconds

    def batches():
        for wait_s in (4.0, 1.0, 2.5):
            sleep(wait_s)
            yield torch.zeros(2, 5, dtype=torch.uint8)
        sleep(0.5)  # until the end is found

    monkeypatch.setattr(
        loop, "time", SimpleNamespace(perf_counter=lambda: clock.now_s, sleep=sleep)
    )
    seen = []
    result = run_loop(batches(), 8.0, watch=lambda *figures: seen.append(figures))
    assert list(result.wait_s) == [4.0, 1.0, 2.5]
    assert list(result.arrival_s) == [4.0, 13.0, 23.5]
    assert result.wall_s == 3 * 8.0 + 4.0 + 1.0 + 2.5 + 0.5
    assert seen == [(10, 4.0), (10, 13.0), (10, 23.5)]


def figures_of(batches, **options) -> dict:
    options = {
        "copies": lambda: Copies(copied=0, handed_over=0), "workers": 0, "copy_batches": False,
        **options,
    }  # fmt: skip
    return measure_epoch(batches, 0.0, **options)


def test_the_figures_of_an_epoch_are_those_of_its_batches(monkeypatch):
    """Waits of 0 to 1000 ms in any order: of all, 50, 99 and 99.9 % are below 500, 990, 999 ms."""
    random = np.random.default_rng(0)
    arrivals = np.sort(random.random(1001) * 8).tolist()
    sizes = random.integers(1, 1 << 20, 1001).tolist()
    known = Trace(
        wait_s=array("d", random.permutation(1001) / 1000), arrival_s=array("d", arrivals),
        batch_bytes=array("q", sizes), samples=4004, wall_s=8.0,
    )  # fmt: skip
    monkeypatch.setattr(loop, "run_loop", lambda batches, compute_s: known)
    epoch = figures_of([])
    assert epoch["latency_p50_s"] == pytest.approx(0.500)
    assert epoch["latency_p99_s"] == pytest.approx(0.990)
    assert epoch["latency_p999_s"] == pytest.approx(0.999)
    assert (epoch["bytes"], epoch["samples"], epoch["steps"]) == (sum(sizes), 4004, 1001)
    assert epoch["gb_per_s"] == pytest.approx(sum(sizes) / 8e9)
    assert epoch["samples_per_s"] == pytest.approx(500.5)

    begins_s = epoch["timeline"]["begin_s"]
    assert len(begins_s) == 200
    for end_s in (*begins_s, 8.0):
        arrived = sum(size for size, at in zip(sizes, arrivals, strict=True) if at < end_s)
        assert bytes_until(epoch, end_s) == pytest.approx(arrived)

    edges_s, counts = (epoch["latency_histogram"][key] for key in ("edges_s", "counts"))
    assert len(edges_s) == len(counts) + 1
    for (low, high), count in zip(itertools.pairwise(edges_s), counts, strict=True):
        assert high / low == pytest.approx(10 ** (1 / 20))
        if low > 1e-7:  # the first holds all that is shorter
            assert count == sum(low <= wait < high for wait in known.wait_s)
    assert sum(counts) == 1001


BURN = """
import resource, sys
used_s = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
while used_s() < 0.1:
    pass
print(used_s(), flush=True)
sys.stdin.read()
"""


def processor_time_s() -> float:
    """Of this process and those it has waited for."""
    return sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


@pytest.mark.parametrize("where", ["here", "in a worker that lives", "in a worker that ended"])
def test_processor_time_is_what_the_epoch_used_here_and_in_its_workers(where):
    used_s = []
    process = None

    def batches():
        nonlocal process
        begin_s = processor_time_s()
        if where == "here":
            while processor_time_s() < begin_s + 0.1:
                pass
            used_s.append(processor_time_s() - begin_s)
        else:
            process = subprocess.Popen(
                [sys.executable, "-S", "-c", BURN],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            used_s.append(float(process.stdout.readline()))
            if where == "in a worker that ended":
                process.communicate()
        yield torch.zeros(1000, 100, dtype=torch.uint8)

    before_s = processor_time_s()
    epoch = figures_of(batches())
    if process is not None:
        process.communicate()
    at_most_s = processor_time_s() - before_s
    cpu_s = epoch["cpu_percent"] / 100 * epoch["wall_s"]
    ticks_s = 2 / os.sysconf("SC_CLK_TCK")  # what /proc leaves out of a process that lives
    assert used_s[0] - ticks_s <= cpu_s <= at_most_s + 1e-6
    assert epoch["cpu_s_per_gb"] == pytest.approx(cpu_s / 1e-4)


@needs_compiler
def test_copies_and_allocations_without_a_pool_show_in_the_counts(disk):
    parts = ["data.files=2", "data.record_bytes=4 MiB", f"data.folder={disk}/data",
             "loader.batch_size=1", "storage.direct_io=auto", "epochs=2"]  # fmt: skip
    path = disk / "plain.yaml"
    path.write_text("data: {files: 2}\n")
    pooled = run_bench(disk, str(path), *settings(*parts))
    parts += ["storage.pool=null", "loader.copy_batches=true"]
    plain = run_bench(disk, str(path), *settings(*parts))
    assert pooled["epochs"][1]["copied_bytes"] == 0
    assert plain["epochs"][1]["copied_bytes"] == plain["epochs"][1]["bytes"] == 2 * (4 << 20)
    assert plain["notes"] == pooled["notes"] == []
    # How many calls there are depends on who waits for whom; how much they ask for does not:
    # without a pool a buffer and its copy, each of the size of the data.
    assert all(run["epochs"][1]["allocator_calls"] > 0 for run in (pooled, plain))
    assert pooled["epochs"][1]["allocated_bytes"] < 1 << 20
    assert plain["epochs"][1]["allocated_bytes"] > 2 * plain["epochs"][1]["bytes"]
    assert pooled["epochs"][1]["minor_faults"] < plain["epochs"][1]["minor_faults"]


@needs_compiler
def test_what_workers_use_is_counted(disk):
    parts = ["data.files=4", "data.record_bytes=2 MiB", f"data.folder={disk}/data",
             "loader.workers=2", "epochs=2"]  # fmt: skip
    path = disk / "workers.yaml"
    path.write_text("{}")
    result = run_bench(disk, str(path), *settings(*parts))
    assert result["stats"]["received_bytes"] == 2 * 4 * (2 << 20)
    assert [epoch["copied_bytes"] for epoch in result["epochs"]] == [0, 0]
    alone = run_bench(disk, str(path), *settings(*parts, "loader.workers=0"))
    assert result["epochs"][0]["allocator_calls"] > alone["epochs"][0]["allocator_calls"]
    assert result["epochs"][0]["peak_rss_bytes"] > 1.5 * alone["epochs"][0]["peak_rss_bytes"]


def test_without_a_compiler_the_result_says_that_nothing_was_counted(disk, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    path = disk / "x.yaml"
    path.write_text(f"data: {{files: 2, record_bytes: 4096, folder: {disk}}}\nepochs: 1\n")
    result = run_bench(disk, str(path))
    assert result["epochs"][0]["allocator_calls"] is None
    assert "no C compiler" in result["notes"][0]
    assert "no C compiler" in (disk / "out" / "table.md").read_text()


def test_an_error_of_the_measured_process_keeps_its_class_and_text(disk):
    config = load(
        "resnet50",
        ["storage.pool.capacity=3", "storage.pool.buffer_size=4096", "data.files=1",
         "data.records_per_file=400", "data.record_bytes=100", f"data.folder={disk}"],
    )  # fmt: skip
    runner.make_data(config)
    with pytest.raises(ConfigError, match=r"BufferPoolConfig\.buffer_size is 4096 bytes, but"):
        runner.run(config)


def test_plots_and_a_profile_are_made_on_request(disk):
    """In a process of its own: matplotlib keeps threads and files."""
    path = disk / "x.yaml"
    path.write_text(
        f"data: {{files: 3, record_bytes: 4096, folder: {disk}/data}}\n"
        "epochs: 2\nprofile: true\ncompute_s_per_step: 0.001\n"
    )
    source = "import sys; from torch_s3io import cli; sys.exit(cli.main(sys.argv[1:]))"
    run_program(source, "bench", path, "--output", disk / "out")
    assert (disk / "out/plot.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (disk / "out/plot.svg").read_text()
    events = json.loads((disk / "out/trace.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events]
    assert names.count("compute") == 3
    assert names.count("torch_s3io.next") == 4  # the last one finds the end


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_the_measured_process_ends_with_a_bench_that_is_told_to_end(disk, number, status):
    (disk / "tmp").mkdir()
    parts = settings("epochs=1000000", f"data.folder={disk}", "data.files=1")
    command = ["-m", "torch_s3io", "bench", "files-8mib", *parts, "--output", str(disk / "out")]
    process = subprocess.Popen(
        [sys.executable, *command],
        env=program_env({"TMPDIR": str(disk / "tmp")}),
        stdout=subprocess.PIPE,  # which its children share: it is at its end when all are gone
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        assert holds_soon(lambda: any(map(is_measuring, children.read_text().split())))
        process.send_signal(number)
        process.communicate(timeout=DEADLINE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == status
    if number == signal.SIGTERM:
        assert os.listdir(disk / "tmp") == []


def is_measuring(process: str) -> bool:
    with contextlib.suppress(OSError):  # a compiler, for instance, that has ended meanwhile
        return b"torch_s3io.bench.child" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


def result_of(*speeds: float, **settings) -> dict:
    config = {"epochs": len(speeds), "storage": {"depth": settings.get("depth", 32)}}
    return {"config": config, "epochs": [{"gb_per_s": speed} for speed in speeds]}


def test_results_are_compared_as_ratios_with_spread():
    text = compare(result_of(1.0, 2.0, 3.0), result_of(4.0, 4.0, 5.0, depth=64), ("a", "b"))
    row = next(line for line in text.splitlines() if line.startswith("| GB/s"))
    assert "2.00 (1.00-3.00)" in row
    assert "4.00 (4.00-5.00)" in row
    assert "2.00x (1.33-5.00)" in row
    assert "storage.depth: 32, 64" in text
    assert math.isclose(4.0 / 3.0, 1.33, rel_tol=0.01)


def test_settings_that_differ_are_found():
    one, other = {"a": {"b": 1, "c": None}, "d": 2}, {"a": {"b": 1, "c": {"e": 3}}, "d": 4}
    assert differences(one, other) == [("a.c", None, {"e": 3}), ("d", 2, 4)]
    assert differences(one, one) == []


def test_compare_reads_files_and_folders_and_refuses_what_is_no_result(tmp_path, capsys):
    for name, speed in (("one", 1.0), ("two", 3.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(result_of(speed)))
    command = ["bench", "compare", str(tmp_path / "one"), str(tmp_path / "two" / "result.json")]
    assert cli.main(command) == 0
    assert "3.00x (3.00-3.00)" in capsys.readouterr().out
    with pytest.raises(NotFoundError):
        read(tmp_path / "three")
    for text in (
        "{",
        "[]",
        "{}",
        '{"epochs": [], "config": {}}',
        '{"epochs": [1], "config": {}}',
        '{"epochs": [{"gb_per_s": 1}], "config": 3}',
        '{"epochs": [{"gb_per_s": "x"}], "config": {}}',
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match=r"bad\.json: is no result"):
            read(tmp_path / "bad.json")


def test_seed_metrics_measures_both_sides_and_the_counts_differ_as_they_must(disk, capsys):
    path = disk / "x.yaml"
    path.write_text(
        f"data: {{files: 4, record_bytes: 2 MiB, folder: {disk}/data}}\n"
        "loader: {batch_size: 2}\ncompute_s_per_step: 100\n"
    )
    command = ["bench", "seed-metrics", str(path), "--rounds", "2", "--json", str(disk / "x.json")]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    measured = json.loads((disk / "x.json").read_text())
    samples = measured["x"]["samples"]
    assert {len(runs) for runs in samples.values()} == {2}
    assert ("fio" in samples) == bool(fio.version())
    for without, pooled in zip(samples["without a pool"], samples["with a pool"], strict=True):
        assert pooled["minor_faults_per_gb"] < without["minor_faults_per_gb"]
        if "allocated_mb_per_gb" in without:
            # A buffer and its copy, each of the size of the data, are what the pool saves.
            assert without["allocated_mb_per_gb"] > 1900
            assert pooled["allocated_mb_per_gb"] < 200
    assert all(time_ns > 0 for times in measured["take_give_ns"].values() for time_ns in times)
    for title in ("GB/s", "CPU s/GB", "minor faults/GB", "allocator calls/GB", "8 MiB buffer"):
        assert f"| {title}" in text


def test_seed_metrics_differ_in_the_pool_and_the_copy_alone():
    config = load("resnet50", [])
    found = seed_metrics.variants(config)
    parts = differences(*(to_mapping(found[name]) for name in ("without a pool", "with a pool")))
    assert parts == [
        ("storage.pool", None, "auto"), ("loader.copy_batches", True, False)
    ]  # fmt: skip
    assert found["with a pool"].compute_s_per_step == 0


def test_changes_are_taken_round_by_round():
    assert seed_metrics.change_percent([1.0, 4.0], [2.0, 3.0]) == [100.0, -25.0]


def test_fio_makes_the_requests_that_the_configuration_makes():
    files = load("files-8mib", ["loader.concurrent_files=3"])
    assert (seed_metrics.fio_block(files), seed_metrics.fio_depth(files)) == (256 << 10, 96)
    records = load("resnet50", ["storage.depth=16"])
    assert (seed_metrics.fio_block(records), seed_metrics.fio_depth(records)) == (1 << 20, 16)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [True, "block"])
def test_records_can_be_shuffled_anew_every_epoch(disk, workers, shuffle, monkeypatch):
    monkeypatch.setenv("RANK", "1")  # a benchmark reads all, whatever launched it
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = BenchConfig(
        data=DataConfig(folder=str(disk), files=3, records_per_file=200, record_bytes=1000),
        loader=LoaderConfig(batch_size=7, shuffle=shuffle, seed=4, workers=workers),
    )
    runner.make_data(config)
    stored = b"".join(path.read_bytes() for path in data.paths_of(config.data))
    numbers = {stored[i * 1000 : i * 1000 + 1000]: i for i in range(600)}
    source = Source(config)
    orders = [[numbers[r.numpy().tobytes()] for b in source for r in b] for _ in range(2)]
    del source
    assert all(sorted(order) == list(range(600)) for order in orders)
    assert orders[0] != orders[1]
    assert orders[0] != list(range(600))
