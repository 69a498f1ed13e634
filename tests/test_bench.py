"""Benchmarks: they read what they say, and their figures are what other means of counting say."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import zlib
from pathlib import Path

import pytest
from buckets import BUCKET, needs_s3, serving
from object_servers.fault_server import SECRET_KEY
from programs import CLI, IN_A_GROUP, Running, run_program, until_nobody_has_it, warm_python
from support import DEADLINE_S, bytes_until, cached_pages, holds_soon

from torch_s3io import ConfigError, cli
from torch_s3io.bench import child, data, runner
from torch_s3io.bench.config import BenchConfig, DataConfig, LoaderConfig, StorageConfig
from torch_s3io.bench.load import load
from torch_s3io.bench.sources import Source, record_dataset

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


RUN_CHILD = """
    import json, os, runpy, sys
    with open(sys.argv[1]) as file:
        request = json.load(file)
    with open(sys.argv[1], "w") as file:
        json.dump({**request, "parent": os.getppid()}, file)
    runpy.run_module("torch_s3io.bench.child", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def forked_child(monkeypatch) -> None:
    """The measured process is forked from a Python that has imported PyTorch. No allocation is
    counted there."""
    run = subprocess.run

    def forked(command, **options):
        if "torch_s3io.bench.child" not in command:
            return run(command, **options)
        program = warm_python().start(RUN_CHILD, command[3:], options["env"], 1, 2)
        return subprocess.CompletedProcess(command, program.wait(DEADLINE_S))

    monkeypatch.setattr(subprocess, "run", forked)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_shipped_configuration_runs_in_a_reduced_size(disk, name, capsys, forked_child):
    small = [*SMALL[name], f"data.folder={disk}/data", "epochs=3"]
    config = load(name, small)
    result = run_bench(disk, name, *settings(*small))
    samples = config.data.files * config.data.records_per_file
    if config.loader.drop_last:
        samples -= samples % config.loader.batch_size
    assert len(result["epochs"]) == 3
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
        assert max(epoch["latency_curve"]["wait_s"]) >= epoch["latency_p999_s"]
        assert epoch["peak_rss_bytes"] > 0
        assert (epoch["au_percent"] is None) == (config.compute_s_per_step == 0)
        assert epoch["au_percent"] is None or 0 < epoch["au_percent"] <= 100
    assert result["stats"]["direct_bytes"] >= 3 * result["epochs"][0]["bytes"]  # page cache: cold
    table = (disk / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[-6:]]
    assert [row[0] for row in rows] == [
        "epoch", rows[1][0], "1 (warm-up)", "2", "3", "median of 2-3"
    ]  # fmt: skip
    for title, figure in SHOWN.items():
        first, second, third = (figure(epoch) for epoch in result["epochs"])
        column = rows[0].index(title)
        shown = (first, second, third, (second + third) / 2)
        for row, wanted in zip(rows[2:], shown, strict=True):
            decimals = len(row[column].partition(".")[2])
            shown = float(row[column].replace(",", ""))
            assert shown == pytest.approx(wanted, abs=0.51 * 10**-decimals)
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
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize(
    ("page_cache", "direct_io", "times"),
    [("cold", "require", 1), ("cold", "auto", 4), ("warm", "off", 4), ("leave", "off", 1)],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_is_read_while_no_epochs_time_counts(
    disk, monkeypatch, page_cache, direct_io, times, workers
):
    files = DataConfig(folder=str(disk), files=2, record_bytes=4096, records_per_file=40)
    data.check_space(files)
    data.make(files, iter(data.missing(files)))
    config = BenchConfig(
        data=files,
        loader=LoaderConfig(batch_size=4, workers=workers),
        storage=StorageConfig(direct_io=direct_io),
        page_cache=page_cache,
    )
    sets = []
    set_cache = data.CACHE_STATES[page_cache]
    monkeypatch.setitem(
        data.CACHE_STATES, page_cache, lambda paths: (sets.append(1), set_cache(paths))
    )
    result = child.run(config, disk, show=False)
    assert len(sets) == times
    stats = result["stats"]
    read = sum(stats[key] for key in ("direct_bytes", "cached_bytes", "buffered_bytes"))
    size = 4 * sum(path.stat().st_size for path in data.paths_of(files))
    if times == 4:
        assert read == size
    else:  # there is no time between the epochs, so the reader may read on
        assert read >= size
        assert record_dataset(config)._options.reads_on


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


@needs_s3
def test_objects_of_a_bucket_are_made_and_read(tmp_path, capsys, forked_child):
    config = tmp_path / "bucket.yaml"
    config.write_text(
        f"name: bucket\ndata: {{folder: 's3://{BUCKET}/bench', files: 3, record_bytes: 1000}}\n"
        "storage: {type: s3}\nloader: {batch_size: 2}\npage_cache: leave\nepochs: 2\n"
    )
    command = ["bench", str(config), "--no-plot", "--output", str(tmp_path / "out")]
    with serving() as server:
        assert cli.main(command) == 0
        assert (
            f"in s3://{BUCKET}/bench/1x1000B-seed0, which the next run" in capsys.readouterr().out
        )
        result = json.loads((tmp_path / "out" / "result.json").read_text())
        assert result["machine"]["file_system"] == f"s3://{BUCKET}/bench"
        assert result["stats"]["engine"] == "s3"
        sizes = [len(stored.data) for stored in server.buckets.objects.values()]
        assert sizes == [1000] * 3
        for change, text in (
            ("page_cache=cold", "page_cache cold is for files"),
            ("storage.type=file", "belong together"),
        ):
            assert cli.main([*command, "--set", change]) == 1
            assert text in capsys.readouterr().err


@needs_s3
def test_store_says_how_the_bucket_is_reached(tmp_path, capsys, monkeypatch, forked_child):
    config = tmp_path / "bucket.yaml"
    config.write_text(
        f"data: {{folder: 's3://{BUCKET}/bench', files: 3, record_bytes: 1000}}\n"
        "storage: {type: s3}\npage_cache: leave\nepochs: 2\n"
    )
    with serving() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody listens
        store = f"endpoint={server.endpoint},requester_pays=true,max_attempts=2"
        result = run_bench(tmp_path, str(config), "--store", store)
        reads = [one for one in server.requests if one.method == "GET" and "bench/" in one.target]
    assert result["command"].endswith(f"bucket.yaml --store {store}")
    reached = {"endpoint": server.endpoint, "region": "us-east-1", "requester_pays": True}
    assert result["store"] == {**reached, "max_attempts": 2}
    assert result["epochs"][1]["bytes"] == 3000
    assert len(reads) >= 2 * 3
    assert all(one.headers["x-amz-request-payer"] == "requester" for one in reads)
    for file in (tmp_path / "out").iterdir():
        assert SECRET_KEY not in file.read_text()
    assert cli.main(["bench", "resnet50", "--store", store]) == 1
    assert "--store is for paths that begin with s3://" in capsys.readouterr().err


def test_without_a_compiler_the_result_says_that_nothing_was_counted(
    disk, monkeypatch, forked_child
):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    path = disk / "x.yaml"
    path.write_text(f"data: {{files: 2, record_bytes: 4096, folder: {disk}}}\nepochs: 1\n")
    result = run_bench(disk, str(path))
    assert result["epochs"][0]["allocator_calls"] is None
    assert "no C compiler" in result["notes"][0]
    assert "no C compiler" in (disk / "out" / "table.md").read_text()


def test_an_error_of_the_measured_process_keeps_its_class_and_text(disk, forked_child):
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


def test_the_measured_process_ends_with_a_bench_that_is_killed(disk):
    """What other signals do is in test_stopped_commands."""
    parts = settings("epochs=1000000", f"data.folder={disk}", "data.files=1")
    command = ["bench", "files-8mib", *parts, "--output", disk / "out"]
    bench = None
    try:
        with until_nobody_has_it() as output:
            bench = Running(IN_A_GROUP + CLI, *command, stdout=output, stderr=output)
            children = Path(f"/proc/{bench.program.pid}/task/{bench.program.pid}/children")
            assert holds_soon(lambda: any(map(is_measuring, children.read_text().split())))
            os.kill(bench.program.pid, signal.SIGKILL)
        assert bench.ended().returncode == -signal.SIGKILL
    finally:
        if bench is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(bench.program.pid, signal.SIGKILL)


def is_measuring(process: str) -> bool:
    with contextlib.suppress(OSError):  # a compiler, for instance, that has ended meanwhile
        return b"torch_s3io.bench.child" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


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


@pytest.mark.parametrize("record_bytes", [1000, 4096, 1 << 20])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_cold_page_cache_stays_cold_and_the_storage_is_measured(disk, record_bytes, shuffle):
    """As of a set larger than memory; "auto" would bring this one into the page cache."""
    config = BenchConfig(
        data=DataConfig(
            folder=str(disk), files=2, records_per_file=2 + 400_000 // record_bytes,
            record_bytes=record_bytes,
        ),
        loader=LoaderConfig(batch_size=64, shuffle=shuffle),
    )  # fmt: skip
    runner.make_data(config)
    stats = child.run(config, disk, show=False)["stats"]
    assert stats["filled_bytes"] == stats["cached_bytes"] == stats["buffered_bytes"] == 0
    assert stats["direct_bytes"] >= config.epochs * config.data.total_bytes
    left = child.run(dataclasses.replace(config, page_cache="leave"), disk, show=False)["stats"]
    assert left["direct_bytes"] < 2 * config.data.total_bytes + (1 << 20)  # as a training run does


@pytest.mark.parametrize("workers", [0, 2])
def test_blocks_and_windows_of_them_are_read_as_chosen(disk, workers):
    options = {"batch_size": 10, "shuffle": "block", "block_records": 4, "workers": workers}
    config = BenchConfig(
        data=DataConfig(folder=str(disk), files=1, records_per_file=200, record_bytes=1000),
        loader=LoaderConfig(**options),
    )
    runner.make_data(config)
    stored = data.paths_of(config.data)[0].read_bytes()
    numbers = {stored[i * 1000 : i * 1000 + 1000]: i for i in range(200)}
    order = [numbers[r.numpy().tobytes()] for batch in Source(config) for r in batch]
    blocks = [order[at : at + 4] for at in range(0, 200, 4)]
    assert sorted(order) == list(range(200)) != order
    assert all(block == list(range(block[0], block[0] + 4)) for block in blocks)
    mixed = dataclasses.replace(config, loader=LoaderConfig(window_blocks=5, **options))
    windows = [numbers[r.numpy().tobytes()] for batch in Source(mixed) for r in batch]
    for at in range(0, 200, 20):  # the same blocks, mixed among each other
        assert sorted(windows[at : at + 20]) == sorted(order[at : at + 20])
    assert windows != order


DRAWN = """
    import json, sys
    from matplotlib.figure import Figure
    from torch_s3io.bench import plot
    result = json.load(open(sys.argv[1]))

    def savefig(figure, path, **options):
        left, right = figure.axes
        drawn = {
            "title": figure.get_suptitle(),
            "times": [list(patch.get_data().edges) for patch in left.patches],
            "waits": [list(line.get_ydata()) for line in right.lines],
            "ticks": [tick.get_text() for tick in right.get_xticklabels()],
            "labels": [text.get_text() for text in right.get_legend().get_texts()],
        }
        json.dump(drawn, open(sys.argv[2], "w"))

    Figure.savefig = savefig
    plot.plot(result, plot.Path(sys.argv[2]).parent)
"""


def test_a_plot_has_the_configuration_the_throughput_and_the_rarest_waits(disk, forked_child):
    parts = ["data.files=2", "data.records_per_file=600", f"data.folder={disk}", "epochs=3",
             "data.record_bytes=4096", "loader.batch_size=6", "name=$a_{\n"]  # fmt: skip
    path = disk / "x.yaml"
    path.write_text("loader: {shuffle: block, block_records: 2, window_blocks: 3, workers: 1}")
    result = run_bench(disk, str(path), *settings(*parts))
    run_program(DRAWN, disk / "out/result.json", disk / "drawn.json")
    drawn = json.loads((disk / "drawn.json").read_text())
    for part in (
        r"$a_{\n", "2 files of 600 records of 4,096 bytes, 6 a batch", "page cache cold",
        "shuffle block, 2 records a block, 3 blocks a window", "direct_io auto", "1 worker,",
        "no computing", "torch_s3io ",
    ):  # fmt: skip
        assert part in drawn["title"]
    epochs = result["epochs"]
    assert drawn["labels"] == ["epoch 1 (warm-up)", "epoch 2", "epoch 3"]
    for waits_ms, epoch in zip(drawn["waits"], epochs, strict=True):
        assert waits_ms[-1] >= 1e3 * epoch["latency_p999_s"]
    assert drawn["ticks"] == ["0", "50", "90", "99", "99.5"]  # of 200 batches
    walls_s = [epoch["wall_s"] for epoch in epochs]
    assert [edges[-1] - edges[0] for edges in drawn["times"]] == pytest.approx(walls_s)
    assert all(len(edges) == 200 // 16 + 1 for edges in drawn["times"])
