"""Texts and numbers from elsewhere: each is understood, or an error that names its file and that
can be printed; none is evaluated, warned of, or takes more than its own size."""

from __future__ import annotations

import json
import sys
import tracemalloc
import warnings

import numpy as np
import pytest

from torch_s3io import (
    ConfigError,
    DataError,
    DataLoader,
    Error,
    FileStore,
    RangeError,
    RecordDataset,
    RecordWriter,
    record_generator,
)
from torch_s3io.bench.fio import figures
from torch_s3io.bench.load import load
from torch_s3io.bench.result import read as read_result
from torch_s3io.bench.runner import mounted
from torch_s3io.cli import main
from torch_s3io.doctor.devices import parse_cpu_list
from torch_s3io.format.manifest import read_manifest
from torch_s3io.writing.pack_run import run_pack
from torch_s3io.writing.packing import PackJob
from torch_s3io.writing.record_folder import JOURNAL_PREFIX
from torch_s3io.writing.sources import find_sources

ENDLESS = 10**5000  # has no text: Python refuses to make one of so many digits


def each(name: str, *values):
    """One test for each value; numbered, as pytest would put the texts into their names."""
    return pytest.mark.parametrize(name, values, ids=[str(index) for index in range(len(values))])


def refused(call, *kinds: type[Error], naming: str = "") -> None:
    """That ``call`` raises one of the kinds, with a text that can be printed and is not long."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kinds) as caught:
            call()
    text = str(caught.value)
    assert naming in text
    assert len(text) < 2000
    text.encode()


def npy_file(path, descr: str, shape: str = "(2,)", body: bytes = bytes(8)):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    path.write_bytes(b"\x93NUMPY\x02\0" + len(header).to_bytes(4, "little") + header + body)
    return path


@each("descr", "',f4'", "'<04'", "'f4,'", "'f4,u1'", "'2f4'", "'(2,3)f4'", "'(f4'", "'a5'", "'0f4'",
        "('<f4', 1)", "('<f4',)", "[('a', '<f4', 1)]", "[('a',)]", "[[]]", "()", "None", "3",
        "[('a', '<f4', (4611686018427387904,))]", "'<U4611686018427387904'", "'\\\\d'",
        "'" + "f" * 100_000 + "'", "[" * 5000, "[" * 20 + "]" * 20, "-1", "1+1", "f()", "b",
)  # fmt: skip
def test_a_descr_that_numpy_stumbles_over_or_warns_of_is_a_data_error(disk, descr):
    path = npy_file(disk / "x.npy", descr)
    refused(lambda: RecordDataset.from_npy(path), DataError, naming=str(path))


def test_structures_in_several_dimensions_are_a_data_error(disk):
    path = npy_file(disk / "x.npy", "[('a', [('b', '<u2')])]", "(2, 2)")
    refused(lambda: RecordDataset.from_npy(path), DataError, naming=str(path))


@each("shape", "2", "(-1,)", "(2.0,)", "(True,)", "(1_0,)", "(" + "1," * 99)
def test_what_is_no_shape_is_a_data_error(disk, shape):
    path = npy_file(disk / "x.npy", "'<f4'", shape)
    refused(lambda: RecordDataset.from_npy(path), DataError, naming=str(path))


def test_python_2s_numbers_and_every_way_to_write_a_text_are_read(disk):
    path = npy_file(disk / "x.npy", "[(u'a', b'<u2'), (\"b\\x31\", '<u2')]", "(2L,)")
    (batch,) = RecordDataset.from_npy(path, batch_size=2)
    assert list(batch) == ["a", "b1"]


def test_a_header_takes_no_more_memory_than_its_text(disk):
    path = npy_file(disk / "x.npy", "'<f4'", "(" + "1," * 100_000 + ")")
    tracemalloc.start()
    try:
        refused(lambda: RecordDataset.from_npy(path), DataError, naming=str(path))
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


@each("dtype", ",f4", "<04", "(2,3", "f4,,u1", "f" * 100_000, [[]], ENDLESS)
def test_a_dtype_that_numpy_stumbles_over_is_a_config_error(disk, dtype):
    (disk / "x.bin").write_bytes(bytes(8))
    refused(lambda: RecordDataset(disk / "x.bin", dtype=dtype), ConfigError)


def test_numbers_that_have_no_text_are_config_errors(disk):
    (disk / "x.bin").write_bytes(bytes(8))
    for options in ({"batch_size": ENDLESS}, {"seed": -ENDLESS}, {"depth": -ENDLESS}):
        refused(lambda o=options: RecordDataset(disk / "x.bin", dtype="u1", **o), ConfigError)
    refused(lambda: record_generator(0, ENDLESS, 0), ConfigError)
    refused(lambda: DataLoader([1], num_workers=ENDLESS), ConfigError)
    refused(lambda: FileStore().get_range(disk / "x.bin", ENDLESS, 1), RangeError)
    refused(lambda: FileStore().get_range(disk / "x.bin", "0" * 100_000, 1), ConfigError)


@pytest.fixture
def folder(disk):
    with RecordWriter(disk / "set", dtype="u1") as writer:
        writer.write(np.zeros(5, "u1"))
    return disk / "set"


@each("key, value", ("dtype", "onnx"), ("dtype", "x" * 100_000), ("byte_order", "\ud800" * 9000),
        ("shape", [0, 1 << 40, 1 << 40]), ("shape", [1] * 65), ("shape", [[[[[]]]]] * 5000),
        ("name", "\ud800"), ("offset", 10**4000),)  # fmt: skip
def test_a_field_of_a_manifest_that_cannot_be_is_a_data_error(folder, key, value):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["fields"][0][key] = value
    path.write_text(json.dumps(manifest))
    imported = set(sys.modules)
    refused(lambda: RecordDataset(folder), DataError, naming=str(path))
    assert set(sys.modules) == imported  # torch imports on demand what is named after its modules


@each("text", "x" * 100_000, '{"format": ' + '"a' * 50_000, "[" * 100_000)
def test_what_is_no_manifest_is_quoted_in_part(folder, text):
    (folder / "manifest.json").write_text(text)
    refused(lambda: read_manifest(str(folder)), DataError, naming="manifest.json")


def test_a_state_that_differs_in_everything_is_told_in_part(disk):
    (disk / "x.bin").write_bytes(bytes(8))
    dataset = RecordDataset(disk / "x.bin", dtype="u1", shuffle=True)
    for part in ("order", "data"):
        state = dataset.state_dict()
        state[part] |= {"\ud800" * number: ENDLESS for number in range(500)}
        refused(lambda s=state: dataset.load_state_dict(s), DataError, ConfigError)
    state = dataset.state_dict()
    state["data"] = {"": {}, **{key: {"": None} for key in state["data"]}}
    refused(lambda: dataset.load_state_dict(state), DataError)
    assert len(dataset.state_dict()["data"]) < 50  # what was changed was the loop's own copy


def test_a_finished_shard_of_other_records_than_the_jobs_is_packed_anew(disk):
    np.save(disk / "x.npy", np.arange(8, dtype="u1"))
    job = PackJob.of(
        find_sources([str(disk / "x.npy")], str(disk / "out")), str(disk / "out"), 4, None
    )
    wanted = run_pack(job, 1, lambda count: None).manifest
    shard = wanted.shards[0]
    (disk / "out" / shard.name).write_bytes(bytes([0, 1]))
    line = {"name": shard.name, "num_records": 2, "size_bytes": 2}
    line["crc32c"] = f"{FileStore().checksum(disk / 'out' / shard.name):08x}"
    (disk / "out" / "manifest.json").unlink()
    journal = disk / "out" / f"{JOURNAL_PREFIX}{job.fingerprint()[:32]}.jsonl"
    journal.write_text(json.dumps(line) + "\n")
    assert run_pack(job, 1, lambda count: None).manifest == wanted
    assert main(["verify", str(disk / "out")]) == 0


BILLION = "a: &a [x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)


@each("text", BILLION, "data: &a {folder: *a}", "epochs: 0x" + "f" * 9000, "epochs: " + "9" * 9000,
        "0x" + "f" * 9000 + ": 1", "name: \"\\ud800\"", "data: {folder: \"\\ud800\"}",
        "x" * 60_000 + ": 1", "epochs: " + "[" * 9000, "- " * 5000, "a: 1\n" * 20_000,
        "data: {folder: \"a\\0b\"}", "epochs: 1:" + ":".join(["59"] * 3000), "? [a]\n: 1",
        "epochs: !!python/object/apply:os.system [exit]", "compute_s_per_step: 2001-14-01",
)  # fmt: skip
def test_a_configuration_that_cannot_be_is_refused_in_no_time(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    refused(lambda: load(str(path), []), ConfigError, naming=str(path))


@each(
    "text",
    '{"config": ' + '{"a": ' * 400 + "1" + "}" * 400 + ', "epochs": [{}]}',
    '{"config": {}, "epochs": [{"gb_per_s": NaN}]}',
    '{"config": {}, "epochs": [{"gb_per_s": -1}, {"gb_per_s": 1}]}',
    '{"config": {}, "epochs": [{"gb_per_s": "1"}]}',
    '{"config": {}, "epochs": [{"gb_per_s": 1e400}]}',
)
def test_figures_of_a_result_that_cannot_be_are_refused(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text)
    refused(lambda: read_result(path), DataError, naming=str(path))


@each("report", "", "{", "{}", '{"jobs": []}', "x" * 9000, "{" * 90_000)
def test_a_report_of_fio_that_says_nothing_is_a_data_error(report):
    refused(lambda: figures(report), DataError, naming="fio")


def test_what_the_kernel_would_never_say_is_left_out():
    assert parse_cpu_list("0-1,x,,-,5-4,7-,-8,²,10-99999999999,3") == {0, 1, 3}
    assert mounted("\n - \n1 2\n1 2 8:1 - ext4\n9 9 8:1 / /x - xfs /dev/\udcff a", "8:1").isascii()
