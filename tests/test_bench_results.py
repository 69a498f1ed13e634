"""Results compared, and the work without a pool beside the work with it."""

from __future__ import annotations

import json
import math

import pytest

from torch_s3io import DataError, NotFoundError, cli
from torch_s3io.bench import fio, seed_metrics
from torch_s3io.bench.compare import compare, differences
from torch_s3io.bench.load import load
from torch_s3io.bench.parse import to_mapping
from torch_s3io.bench.result import read


def result_of(*speeds: float, **settings) -> dict:
    config = {"epochs": len(speeds), "storage": {"depth": settings.get("depth", 32)}}
    return {"config": config, "epochs": [{"gb_per_s": speed} for speed in speeds]}


def test_results_are_compared_as_ratios_with_spread():
    warm_up = 0.01  # is left out
    first = result_of(warm_up, 1.0, 2.0, 3.0)
    text = compare(first, result_of(warm_up, 4.0, 4.0, 5.0, depth=64), ("a", "b"))
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


def test_another_server_is_a_setting_that_differs():
    one, other = ({**result_of(1.0), "store": {"endpoint": f"http://{name}"}} for name in "ab")
    text = compare(one, other, ("one", "other"))
    assert text.endswith("Different settings:\n\n- store.endpoint: 'http://a', 'http://b'\n")
    assert compare(result_of(1.0), other, ("old", "new")).endswith("- none\n")  # it is not known
    assert compare(one, one, ("one", "other")).endswith("- none\n")


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
        f'{{"epochs": [{{"gb_per_s": 1}}], "config": {{}}, "store": {"[" * 99}{"]" * 99}}}',
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
