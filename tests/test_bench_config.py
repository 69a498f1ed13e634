"""Configurations of benchmarks: what they accept, what they refuse, and by which name."""

from __future__ import annotations

import dataclasses
import os
import re

import pytest
import yaml

from torch_s3io import BufferPoolConfig, ConfigError, NotFoundError, RangeEngineConfig, cli
from torch_s3io.bench.config import BenchConfig, DataConfig
from torch_s3io.bench.load import load, shipped_names, shipped_text
from torch_s3io.bench.parse import from_mapping, to_mapping

NAMES = ["cosmoflow", "files-8mib", "records-4k-random", "resnet50", "unet3d"]


def parse(text: str) -> BenchConfig:
    return from_mapping(BenchConfig, yaml.safe_load(text))


def test_the_shipped_configurations_are_there_and_load(capsys):
    assert shipped_names() == NAMES
    assert cli.main(["bench", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    for name in NAMES:
        config = load(name, [])
        assert config.name == name
        assert config.description
        assert config.step_count >= 2


@pytest.mark.parametrize(
    ("name", "record_bytes", "batch_size", "compute_s", "shuffle"),
    [
        ("unet3d", 146_600_628, 7, 0.323, True),
        ("resnet50", 114_660, 400, 0.224, False),
        ("cosmoflow", 2_828_486, 1, 0.0035, True),
    ],
)
def test_the_workloads_of_mlperf_storage_have_its_numbers(
    name, record_bytes, batch_size, compute_s, shuffle
):
    config = load(name, [])
    assert config.data.record_bytes == record_bytes
    assert config.loader.batch_size == batch_size
    assert config.compute_s_per_step == compute_s
    assert config.loader.shuffle == shuffle


def test_what_show_prints_is_a_configuration_that_loads(tmp_path, capsys):
    assert cli.main(["bench", "--show", "unet3d"]) == 0
    path, text = tmp_path / "mine.yaml", capsys.readouterr().out
    path.write_text(text)
    assert load(str(path), []) == dataclasses.replace(load("unet3d", []), name="mine")
    left_out = dict(re.findall("^#   ([a-z_.]+): (.*)$", text, re.M))
    assert left_out["loader.window_blocks"] == "1"
    assert not left_out.keys() & {"data.files", "loader.shuffle", "description"}
    settings = [f"{key}={value}" for key, value in left_out.items() if key != "name"]
    settings = [setting.replace('"', "") for setting in settings if "range_engine" not in setting]
    assert load("unet3d", settings) == load("unet3d", [])


def test_a_configuration_survives_the_way_into_another_process():
    for name in NAMES:
        config = load(name, ["storage.pool.capacity=3", "storage.pool.buffer_size=1 GiB"])
        assert from_mapping(BenchConfig, to_mapping(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "epoch does not exist; did you mean epochs?"),
        ("storage: {dept: 3}", r"storage.dept does not exist; did you mean storage\.depth\?"),
        ("storage: {pool: {capactiy: 3}}", r"capactiy .*; did you mean storage\.pool\.capacity\?"),
        (
            "storage: {zzz: 3}",
            "storage.zzz does not exist; there are: storage.type, storage.direct",
        ),
        ("batch_size: 4", r"batch_size does not exist; did you mean loader\.batch_size\?"),
        ("loader: {direct: off}", r"loader\.direct does not .*; did you mean storage\.direct_io\?"),
        ("data: {buffer_size: 1}", r"did you mean storage\.pool\.buffer_size\?"),
        ("loader: {block_records: 0, shuffle: block}", "loader.block_records must be at least 1"),
        ("loader: {block_records: x, shuffle: block}", "loader.block_records must be an integer"),
        (
            "loader: {window_blocks: null, shuffle: block}",
            "loader.window_blocks must be an integer",
        ),
        ("loader: {block_records: 4}", "loader.block_records is for loader.shuffle block"),
        ("loader: {window_blocks: 4, shuffle: true}", "window_blocks is for loader.shuffle block"),
        ("page_cache: warm\nstorage: {direct_io: require}", "page_cache warm has no effect with"),
        ('name: "a\\0b"', "name must be"),
        ('data: {folder: "a\\0b"}', "data.folder: .* NUL"),
        ('data: {folder: "\\uD800"}', "data.folder: the locale cannot express"),
        ("epochs: many", "epochs must be an integer, or a size"),
        ("epochs: 1.5", "epochs must be an integer"),
        ("epochs: true", "epochs must be an integer"),
        ("epochs: 0", "epochs must be at least 1"),
        ("storage: {type: tape}", "storage.type must be one of 'file'"),
        ("storage: {direct_io: yes please}", "storage.direct_io must be one of"),
        ("storage: {engine: aio}", "storage.engine must be one of"),
        ("storage: {pool: large}", "storage.pool must be one of: auto, null, keys and values"),
        ("storage: [1]", "storage must hold keys and values"),
        ("loader: {shuffle: 3}", "loader.shuffle must be one of: block, true, false"),
        ("page_cache: hot", "page_cache must be one of"),
        ("compute_s_per_step: -1", "compute_s_per_step must be seconds"),
        ("compute_s_per_step: .nan", "compute_s_per_step must be seconds"),
        ("compute_s_per_step: slow", "compute_s_per_step must be a number"),
        ("data: {record_bytes: 4 KiBi}", "data.record_bytes must be an integer, or a size"),
        ("data: {record_bytes: 0.3 KiB}", "data.record_bytes must be a whole number"),
        ("data: {files: 10000000000}", "data.files must be at most"),
        ("name: a/b", "a text without slashes"),
        ("name: ..", "name must be the name of a folder"),
        ("loader: {batch_size: 65, drop_last: true}", r"drop_last leaves no batch: data\.files=64"),
        ("data: {record_bytes: %s GiB}" % ("9" * 400), "data.record_bytes is too large"),
        ("compute_s_per_step: %s" % ("9" * 400), "compute_s_per_step is too large"),
        ("profile: 1", "profile must be true or false"),
    ],
)
def test_what_cannot_work_is_refused_by_the_name_of_its_key(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("storage: {range_engine: {chunk_size: 4096}}", "storage.range_engine"),
        ("loader: {concurrent_files: 4}", "loader.concurrent_files"),
        ("loader: {reader: files}\nstorage: {depth: 8}", "storage.depth"),
        ("loader: {reader: files, shuffle: block}", "loader.shuffle"),
        ("loader: {reader: files}\ndata: {records_per_file: 2}", "records_per_file"),
    ],
)
def test_a_setting_that_the_reader_does_not_have_is_refused(text, name):
    with pytest.raises(ConfigError, match=name):
        parse(text)


def test_sizes_may_be_written_with_units():
    assert parse("data: {record_bytes: 1TiB}").data.record_bytes == 1 << 40
    config = parse("data: {record_bytes: 256 KiB}\nstorage: {pool: {buffer_size: 1.5 MB}}")
    assert config.data.record_bytes == 256 * 1024
    assert config.storage.pool == BufferPoolConfig(buffer_size=1_500_000)
    assert parse("data: {record_bytes: 7b}").data.record_bytes == 7
    assert parse("compute_s_per_step: 1").compute_s_per_step == 1.0


def test_settings_of_the_command_line_come_last():
    settings = ["storage.depth=7", "loader.workers=2", "storage.pool=null", "name=mine"]
    config = load("resnet50", settings)
    assert (config.storage.depth, config.loader.workers, config.name) == (7, 2, "mine")
    assert config.storage.pool is None
    assert config.loader.batch_size == 400
    config = load("files-8mib", ["storage.range_engine.chunk_size=1 MiB"])
    assert config.storage.range_engine == RangeEngineConfig(
        chunk_size=1 << 20, max_concurrent_ranges=32, min_split_size=1 << 20
    )


@pytest.mark.parametrize("setting", ["storage.depth", "=3", " =3"])
def test_a_setting_without_a_key_or_a_value_is_wrong_usage(setting, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "resnet50", "--set", setting, "2"])
    assert ended.value.code == 2
    assert f"{setting} is not KEY=VALUE, as in loader.workers=2" in capsys.readouterr().err


def test_names_and_paths_of_the_command_line_are_taken_as_they_are():
    config = load("resnet50", ["data.folder=/a: b #\n c", "name= yes", "description=[1"])
    assert (config.data.folder, config.name, config.description) == ("/a: b #\n c", " yes", "[1")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loader.batch_size.x=3", "holds no keys"),
        ("storage.dept=3", "did you mean storage.depth"),
        ("epochs=[", "no YAML"),
        ("epochs=2001-99-99", "no YAML"),
        ("epochs=" + "{[" * 30_000, "50 brackets are open"),
        ("data={files: 2, files: 3}", "files is there twice"),
    ],
)
def test_a_setting_of_the_command_line_that_cannot_work_is_one_line(setting, message, capsys):
    assert cli.main(["bench", "resnet50", "--set", "data.files=1", "--set", setting]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_names_and_files_that_are_not_there_are_one_line(tmp_path, capsys):
    for name, meant in (
        ("vgg", "no configuration is named vgg: there are: cosmoflow, "),
        ("resnet", r"no configuration is named resnet: did you mean resnet50\?"),
        (f"{tmp_path}/resnet50.yaml", r"there is no such file; did you mean resnet50\?"),
        (f"{tmp_path}/mine", r"did you mean the file .*/mine\.yaml\?"),
        (f"{tmp_path}/other.txt", r"the name of a file with one ends in \.yaml or \.yml"),
    ):
        (tmp_path / "mine.yaml").touch()
        (tmp_path / "other.txt").touch()
        with pytest.raises(NotFoundError, match=meant):
            load(name, [])
    assert cli.main(["bench", "seed-metric"]) == 1
    assert "or the command seed-metrics?" in capsys.readouterr().err
    with pytest.raises(NotFoundError, match="no configuration is named"):
        shipped_text("../config")
    broken = tmp_path / "x.yaml"
    broken.write_text("a: [")
    with pytest.raises(ConfigError, match="is no YAML"):
        load(str(broken), [])
    broken.write_text("loader:\n  workers: 1\n  workers: 2\n")
    with pytest.raises(ConfigError, match=r"x\.yaml: workers is there twice"):
        load(str(broken), [])
    broken.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8 text"):
        load(str(broken), [])
    broken.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="keys and values"):
        load(str(broken), [])
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench"])
    assert ended.value.code == 2
    assert "CONFIG is missing" in capsys.readouterr().err


def test_sizes_add_up():
    data = DataConfig(files=3, records_per_file=5, record_bytes=7)
    assert (data.file_bytes, data.total_bytes) == (35, 105)
    config = parse("data: {files: 3, records_per_file: 5}\nloader: {batch_size: 4}")
    assert config.step_count == 4
    assert parse("loader: {batch_size: 7, drop_last: true}").step_count == 64 // 7


def test_results_that_cannot_be_written_are_refused_before_anything_is_measured(disk, capsys):
    (disk / "file").touch()
    for option, command in (
        ("--output", ["bench", "resnet50", "--output", str(disk / "file" / "out")]),
        ("--json", ["bench", "seed-metrics", "resnet50", "--json", str(disk / "file" / "x.json")]),
    ):
        small = ["--set", f"data.folder={disk}/data", "--set", "data.files=1",
                 "--set", "data.records_per_file=400", "--set", "data.record_bytes=10"]  # fmt: skip
        assert cli.main([*command, *small]) == 1
        captured = capsys.readouterr()
        assert f"{option}: cannot make {disk / 'file'}" in captured.err
        assert len(captured.err.splitlines()) == 1
        assert os.listdir(disk) == ["file"]
