"""pack, verify and info: what is packed comes back, also after a kill; damage is found."""

from __future__ import annotations

import json
import os
import re
import signal
import tarfile

import numpy as np
import pytest
import torch
from programs import CLI, Running, until_nobody_has_it
from record_sets import check_clean
from support import holds_soon, random_bytes

from torch_s3io import RecordDataset, WriteError
from torch_s3io.cli import main
from torch_s3io.wording import size_text
from torch_s3io.writing.packing import PackJob


def pack(*arguments: object) -> None:
    assert main(["pack", *map(str, arguments)]) == 0


def everything(folder, name: str | None = None) -> np.ndarray:
    dataset = RecordDataset(folder, batch_size=100, pool=None)
    return torch.cat([batch if name is None else batch[name] for batch in dataset]).numpy()


@pytest.mark.parametrize("processes", [1, 3])
def test_arrays_come_back_whatever_the_shards(disk, processes, capsys):
    arrays = [
        np.frombuffer(random_bytes(n * 3000, n), ">u2").reshape(n, 50, 30) for n in (7, 1, 300)
    ]
    for number, array in enumerate(arrays):
        np.save(disk / f"{number}.npy", array)
    pack(disk / "*.npy", "-o", disk / "out", "--shard-mib", 0.1, "--processes", processes)
    assert "308 records of 3000 bytes" in capsys.readouterr().out
    np.testing.assert_array_equal(everything(disk / "out"), np.concatenate(arrays))
    manifest = json.loads((disk / "out" / "manifest.json").read_text())
    assert len(manifest["shards"]) > 5
    assert manifest["fields"][0]["byte_order"] == "big"
    check_clean(disk / "out")


def test_a_folder_of_equal_files_is_a_record_each_in_the_order_of_names(disk):
    (disk / "in" / "b").mkdir(parents=True)
    contents = {}
    for number in (3, 1, 2):
        for name in (f"{number}.raw", f"b/{number}.raw"):
            contents[name] = random_bytes(5000, len(contents))
            (disk / "in" / name).write_bytes(contents[name])
    (disk / "in" / ".hidden").write_bytes(b"no record")
    pack(disk / "in", "-o", disk / "out", "--align", "4096")
    expected = b"".join(contents[name] for name in sorted(contents))
    assert everything(disk / "out").tobytes() == expected
    (disk / "in" / "4.raw").write_bytes(b"shorter")
    assert main(["pack", str(disk / "in"), "-o", str(disk / "out")]) == 1
    assert everything(disk / "out").tobytes() == expected


def test_what_was_packed_into_a_source_folder_is_no_source(disk, capsys):
    (disk / "in" / "sub").mkdir(parents=True)
    contents = [random_bytes(5000, number) for number in range(3)]
    for content, name in zip(contents, ("1.raw", "2.raw", "sub/3.raw"), strict=True):
        (disk / "in" / name).write_bytes(content)
    (disk / "in" / ".hidden").mkdir()
    (disk / "in" / ".hidden" / "4.raw").write_bytes(b"no record")
    packed = disk / "in" / "packed"
    for options in ([], ["--overwrite"]):
        pack(disk / "in", "-o", packed, *options)
        assert everything(packed).tobytes() == b"".join(contents)
    (packed / "manifest.json").unlink()  # as a killed run leaves it
    pack(disk / "in", "-o", packed)
    for name in ("manifest.json", ".s3io-pack-0.jsonl"):
        pack(disk / "in", "-o", disk / "out", "--dtype", "f4", "--shape", 1250, "--overwrite")
        assert everything(disk / "out").tobytes() == b"".join(contents)
        (packed / "manifest.json").rename(packed / name)
    assert main(["pack", str(disk / "in"), "-o", str(disk / "in")]) == 1
    assert "is packed into itself" in capsys.readouterr().err
    assert main(["pack", str(disk / "out"), "-o", str(disk / "other")]) == 1
    assert "is packed already" in capsys.readouterr().err


def test_cifar10_is_known_by_its_names(disk, monkeypatch):
    data = random_bytes(3073 * 200)
    for number in (1, 2):
        part = data[3073 * 100 * (number - 1) : 3073 * 100 * number]
        (disk / f"data_batch_{number}.bin").write_bytes(part)
    monkeypatch.chdir(disk)  # relative names and patterns
    pack("data_batch_*.bin", "-o", "out")
    rows = np.frombuffer(data, np.uint8).reshape(200, 3073)
    np.testing.assert_array_equal(everything(disk / "out", "label"), rows[:, 0])
    np.testing.assert_array_equal(
        everything(disk / "out", "image"), rows[:, 1:].reshape(200, 3, 32, 32)
    )


@pytest.mark.parametrize("stride", [None, 16, 40])
def test_tokens_become_windows(disk, stride):
    tokens = np.frombuffer(random_bytes(20_002), np.uint16)
    tokens.tofile(disk / "corpus.bin")
    options = [] if stride is None else ["--stride", stride]
    pack(disk / "corpus.bin", "-o", disk / "out", "--format", "tokens", "--window", 33, *options)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, 33)[:: stride or 33]
    np.testing.assert_array_equal(everything(disk / "out"), windows)


def test_raw_records_have_the_layout_that_is_given(disk):
    values = np.frombuffer(random_bytes(4 * 6 * 50), "<i4").reshape(50, 2, 3)
    (disk / "raw").write_bytes(b"header!!" + values.tobytes())
    layout = ["--format", "records", "--dtype", "int32", "--shape", "2,3", "--header-bytes", 8]
    pack(disk / "raw", "-o", disk / "out", *layout)
    np.testing.assert_array_equal(everything(disk / "out"), values)


def test_what_cannot_be_packed_is_one_line_and_status_1(disk, capsys):
    (disk / "x.bin").write_bytes(bytes(1000))
    np.save(disk / "x.npy", np.zeros((10, 3), "u1"))
    (disk / "empty").mkdir()
    for arguments in (
        [disk / "x.bin"],
        [disk / "missing.npy"],
        [disk / "empty"],
        [disk / "x.bin", "--format", "npy"],
        [disk / "x.bin", "--format", "cifar10"],
        [disk / "x.bin", "--format", "tokens"],
        [disk / "x.bin", "--format", "records"],
        [disk / "x.bin", "--format", "records", "--dtype", "f4", "--shape", 7],
        [disk / "x.bin", "--format", "files", "--align", 3],
        [disk / "x.bin", "--format", "files", "--window", 3],
        [disk / "x.bin", "--format", "files", "--shape", 1000],
        [disk / "x.bin", "--format", "files", "--header-bytes", 1],
        [disk / "x.bin", "--format", "tokens", "--window", 3, "--shape", 3],
        [disk / "x.bin", "--format", "records", "--dtype", "u1", "--stride", 3],
        [disk / "x.npy", "--dtype", "f4"],
        [disk / "x.npy", "--shape", 3],
        [disk / "x.npy", "--header-bytes", 3],
        [disk / "x.npy", "--window", 3],
    ):
        assert main([*map(str, ["pack", *arguments, "-o", disk / "out"])]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.count("\n") == 1
    assert not (disk / "out" / "manifest.json").exists()
    for option, value in (
        ("--shape", "3,a"), ("--processes", "0"), ("--shard-mib", "inf"), ("--shard-mib", "1e308"),
        ("--header-bytes", "-1"), ("--window", "0"), ("--align", "x"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main(["pack", "x", "-o", "y", option, value])
        assert ended.value.code == 2
        assert f"{option}: {value} is " in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_pack_goes_on_where_it_was(disk, capsys):
    array = np.frombuffer(random_bytes(40_000_000), np.uint8).reshape(-1, 10_000)
    np.save(disk / "x.npy", array)
    arguments = ["pack", disk / "x.npy", "-o", disk / "out", "--shard-mib", 1, "--processes", 2]
    finished = lambda: sum(  # noqa: E731
        name.startswith("records-") for name in os.listdir(disk / "out")
    )
    with until_nobody_has_it() as output:
        killed = Running(CLI, *arguments, stdout=output)
        assert holds_soon(lambda: (disk / "out").exists() and finished() >= 5)
        os.kill(killed.program.pid, signal.SIGKILL)
    assert killed.ended().returncode == -signal.SIGKILL
    assert not (disk / "out" / "manifest.json").exists()
    journal = next(path for path in (disk / "out").iterdir() if path.name.startswith(".s3io-pack"))
    kept = [json.loads(line)["name"] for line in journal.read_text().splitlines()]
    assert kept
    times = {name: (disk / "out" / name).stat().st_mtime_ns for name in kept}
    with open(journal, "a") as file:  # torn, and hostile
        file.write(
            '{"name": "../x.npy", "num_records": 1, "size_bytes": 1, "crc32c": "00000000"}\n'
        )
        file.write('{"name": "records-')
    damaged = disk / "out" / kept[0]
    content = bytearray(damaged.read_bytes())
    content[1000] ^= 1
    damaged.write_bytes(content)
    # The dead processes' lock is gone when the kernel is done with their writes.
    assert holds_soon(lambda: main([*map(str, arguments)]) == 0)
    there = len(kept) - 1
    said = f"; {there} shard{'' if there == 1 else 's'} there before"
    assert (said in capsys.readouterr().out) == (there > 0)
    for name in kept[1:]:
        assert (disk / "out" / name).stat().st_mtime_ns == times[name]
    np.testing.assert_array_equal(everything(disk / "out"), array)
    check_clean(disk / "out")
    assert (disk / "x.npy").exists()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_the_error_of_one_process_comes_through_while_another_one_hangs(disk, monkeypatch, capsys):
    np.save(disk / "x.npy", np.zeros((100, 1000), "u1"))
    arguments = ["pack", disk / "x.npy", "-o", disk / "out", "--shard-mib", 0.01]

    def pack_shard(job, number, on_bytes):
        if number == 1:
            raise WriteError("the disk is dead")
        while True:
            signal.pause()

    with monkeypatch.context() as patch:
        patch.setattr(PackJob, "pack_shard", pack_shard)
        assert main([*map(str, arguments), "--processes", "2"]) == 1
    assert "the disk is dead" in capsys.readouterr().err
    pack(*arguments[1:])  # the folder is free
    check_clean(disk / "out")


def test_sources_that_changed_are_packed_anew(disk):
    np.save(disk / "x.npy", np.zeros((50, 100), "u1"))
    pack(disk / "x.npy", "-o", disk / "out")
    np.save(disk / "x.npy", np.ones((60, 100), "u1"))
    pack(disk / "x.npy", "-o", disk / "out", "--overwrite")
    assert everything(disk / "out").sum() == 6000
    check_clean(disk / "out")


def test_a_folder_that_holds_a_data_set_is_refused_unless_it_is_to_be_replaced(disk, capsys):
    np.save(disk / "x.npy", np.zeros((50, 100), "u1"))
    np.save(disk / "y.npy", np.ones((60, 100), "u1"))
    pack(disk / "x.npy", "-o", disk / "out")
    assert "replaced" not in capsys.readouterr().out
    for name in ("y.npy", "x.npy"):
        assert main(["pack", f"{disk}/{name}", "-o", f"{disk}/out"]) == 1
        error = capsys.readouterr().err
        assert "holds a data set of 50 records in 1 shard already; --overwrite replaces it" in error
    assert everything(disk / "out").sum() == 0
    pack(disk / "y.npy", "-o", disk / "out", "--overwrite")
    assert "replaced: 50 records of 100 bytes in 1 shard" in capsys.readouterr().out
    assert everything(disk / "out").sum() == 6000
    check_clean(disk / "out")


def test_photos_of_different_sizes_are_told_the_next_step(disk, capsys):
    (disk / "photos").mkdir()
    for number in range(3):
        (disk / "photos" / f"{number}.jpg").write_bytes(random_bytes(1000 + number))
    assert main(["pack", f"{disk}/photos", "-o", f"{disk}/out"]) == 1
    error = capsys.readouterr().err
    assert "1.jpg: has 1001 bytes" in error
    assert "decode them to arrays of one shape" in error
    assert "RecordWriter" in error
    for path in (disk / "photos").iterdir():
        path.rename(path.with_suffix(".dat"))
    assert main(["pack", f"{disk}/photos", "-o", f"{disk}/out"]) == 1
    assert "--format records" in capsys.readouterr().err


def test_verify_finds_damage_and_says_where(disk, capsys):
    np.save(disk / "x.npy", np.arange(10_000, dtype="i4").reshape(100, 100))
    pack(disk / "x.npy", "-o", disk / "out", "--shard-mib", 0.01)
    capsys.readouterr()
    assert main(["verify", str(disk / "out")]) == 0
    assert "all as they were written" in capsys.readouterr().out
    shards = [
        shard["name"] for shard in json.loads((disk / "out/manifest.json").read_text())["shards"]
    ]
    first, second, third = (disk / "out" / name for name in shards[:3])
    content = bytearray(first.read_bytes())
    content[-1] ^= 0x80
    first.write_bytes(content)
    with open(second, "ab") as file:
        file.write(b"x")
    third.unlink()
    assert main(["verify", str(disk / "out")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"{first}: DAMAGED: its checksum is")
    assert lines[1].startswith(f"{second}: DAMAGED: has ")
    assert lines[2].startswith(f"UNREADABLE: {third}: ")
    assert "3 of them damaged or missing" in lines[3]


def test_verify_of_a_single_file_uses_what_it_keeps(disk, capsys):
    np.save(disk / "x.npy", np.zeros((4, 4), "u1"))
    assert main(["verify", str(disk / "x.npy")]) == 1
    assert capsys.readouterr().out.startswith(f"NOT VERIFIED: {disk / 'x.npy'}: keeps no checksum")
    pack(disk / "x.npy", "-o", disk / "out")
    assert main(["verify", str(disk / "out" / "manifest.json")]) == 0
    text = (disk / "out" / "manifest.json").read_text()
    (disk / "out" / "manifest.json").write_text(text.replace("uint8", "uint9"))
    capsys.readouterr()
    assert main(["verify", str(disk / "out" / "manifest.json")]) == 1
    assert "DAMAGED" in capsys.readouterr().out


def test_verify_says_that_archives_have_nothing_to_compare(disk, capsys):
    (disk / "tars").mkdir()
    with tarfile.open(disk / "tars" / "0.tar", "w"):
        pass
    for path in ("tars", "tars/*.tar"):
        assert main(["verify", str(disk / path)]) == 1
        said = capsys.readouterr().out
        assert said.startswith(f"NOT VERIFIED: {disk / path}: ")
        assert "tar archives have no checksums of ours to compare" in said
    (disk / "tars" / "0.tar").rename(disk / "tars" / "[0].tar")
    assert main(["verify", str(disk / "tars" / "[0].tar")]) == 1
    assert "keeps no checksum" in capsys.readouterr().out


def test_verify_goes_on_after_what_it_cannot_verify_and_counts_it(disk, capsys):
    np.save(disk / "x.npy", np.zeros((4, 4), "u1"))
    for name in ("damaged", "whole"):
        pack(disk / "x.npy", "-o", disk / name)
    (disk / "damaged" / "manifest.json").write_text("{")
    (disk / "empty").mkdir()
    bad = [disk / name for name in ("damaged", "missing", "x.npy", "empty")]
    capsys.readouterr()
    assert main([*map(str, ["verify", *bad, disk / "whole", *bad])]) == 1
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert output.err == ""
    for line, path in zip(lines[:4], bad, strict=True):
        assert line.startswith(f"NOT VERIFIED: {path}")
    assert lines[4].startswith(f"{disk / 'whole'}: 2 files, ")
    assert lines[5:9] == lines[:4]
    assert lines[9:] == ["damaged, missing or not verified: 8 of 9 paths"]
    assert main([*map(str, ["verify", disk / "whole", disk / "whole"])]) == 0
    assert capsys.readouterr().out.endswith(": 0 of 2 paths\n")


def test_info_prints_layout_and_counts(disk, capsys):
    (disk / "data_batch_1.bin").write_bytes(random_bytes(3073 * 10))
    pack(disk / "data_batch_1.bin", "-o", disk / "out")
    capsys.readouterr()
    assert main(["info", str(disk / "out")]) == 0
    text = capsys.readouterr().out
    for part in ("records      10", "3073 bytes", "label: uint8 []", "image: uint8 [3, 32, 32]"):
        assert part in text
    assert main(["info", "--json", str(disk / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["num_records"] == 10
    assert main(["info", str(disk)]) == 1
    assert "no manifest" in capsys.readouterr().err


def test_sizes_and_counts_are_told_as_people_say_them(disk, capsys):
    np.save(disk / "x.npy", np.zeros((4, 600), "u1"))
    pack(disk / "x.npy", "-o", disk / "one", "--align", "none")
    assert main(["info", str(disk / "one")]) == 0
    assert main(["verify", str(disk / "one")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{disk / 'one'}: 4 records of 600 bytes in 1 shard, packed as npy"
    assert re.fullmatch(r"2\.40 kB in [\d.]+ s, [\d.]+ (bytes|kB|MB)/s", lines[1])
    assert "  shards       1, 2.40 kB" in lines
    assert re.search(r"one: 2 files, [\d.]+ kB: all as they were written", lines[-1])
    assert [size_text(number) for number in (0, 1, 999.4, 999.7, 1000, 2_345_678)] == [
        "0 bytes", "1 byte", "999 bytes", "1.00 kB", "1.00 kB", "2.35 MB",
    ]  # fmt: skip
    assert [size_text(number) for number in (999_994, 999_995, 10**9, 7 * 10**15)] == [
        "999.99 kB", "1.00 MB", "1.00 GB", "7000.00 TB",
    ]  # fmt: skip


def test_what_is_no_file_is_called_what_it_is(disk, capsys):
    (disk / "x").mkdir()
    os.mkfifo(disk / "x" / "p")
    assert main(["pack", str(disk / "x"), "-o", str(disk / "out")]) == 1
    assert "x/p: is a FIFO" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_not_asked_what_is_in_it(disk, capsys):
    for name in ("x", "x.bin", "x.npy"):
        assert main(["pack", str(disk / name), "-o", str(disk / "out")]) == 1
        assert f"{disk / name}: is not there" in capsys.readouterr().err
    (disk / "x.bin").write_bytes(b"x")
    assert main(["pack", str(disk / "x.bin"), "-o", str(disk / "out")]) == 1
    assert "what is in it?" in capsys.readouterr().err
