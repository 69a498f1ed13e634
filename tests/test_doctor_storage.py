"""doctor: what it finds out by reading, and where the storage is attached."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from examinations import EXAMINE, by_topic
from programs import run_program
from support import MIB, random_bytes, write_file

from torch_s3io import _C, DataError, cli
from torch_s3io.doctor import devices, examine, storage


def test_a_folder_is_read_and_left_as_it_was(disk, capsys):
    (disk / "small.bin").write_bytes(b"123")
    status = cli.main(["doctor", str(disk), "--quick", "--json"])
    report = json.loads(capsys.readouterr().out)
    findings = {finding["topic"]: finding for finding in report["findings"]}
    assert status in (0, 3)
    assert os.listdir(disk) == ["small.bin"]
    reads = findings["reads"]["data"]
    assert reads["direct"] is True
    assert "temporary" in reads["origin"]
    measured = {(speed["block_bytes"], speed["depth"]) for speed in reads["measured"]}
    assert measured == set(storage.points(True, 128 << 20))
    assert reads["best"] in reads["measured"]
    assert all(speed["gb_per_s"] > 0 for speed in reads["measured"])
    alignment = findings["direct reads"]["data"]["alignment_bytes"]
    assert alignment in (512, 1024, 2048, 4096)


def test_a_file_that_is_named_is_the_one_that_is_read(disk):
    path = disk / "x.bin"
    path.write_bytes(random_bytes(32 << 20))
    os.sync()
    findings = by_topic(examine(path, quick=True))
    assert findings["reads"].data["origin"] == "the file that was named"


def test_a_file_system_without_direct_reads_is_said_to_cost(tmp_path, capsys, monkeypatch):
    """Which file systems these are changes from kernel to kernel, so the answer is given here."""
    monkeypatch.setattr(_C, "direct_alignment", lambda path, direct: 0)
    file = tmp_path / "x.bin"
    file.write_bytes(random_bytes(32 << 20))
    status = cli.main(["doctor", str(file), "--quick", "--json"])
    findings = {f["topic"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert status == 3
    assert findings["direct reads"]["status"] == "costs"
    assert "refuses O_DIRECT" in findings["direct reads"]["found"]
    assert "page cache" in findings["direct reads"]["cost"]
    assert "ext4, XFS" in findings["direct reads"]["fix"]
    assert findings["reads"]["data"]["direct"] is False


def test_storage_that_cannot_be_read_is_said_to_cost(tmp_path, monkeypatch):
    def measure(*arguments, **options):
        raise DataError("x.bin: Input/output error")

    monkeypatch.setattr(storage, "measure", measure)
    file = write_file(tmp_path / "x.bin", bytes(MIB))
    (finding,) = storage.read_speed(file, "the file", True, lambda text: None)
    assert (finding.topic, finding.status) == ("reads", "costs")
    assert finding.found == "reading failed: x.bin: Input/output error"
    assert "a data set there fails" in finding.cost
    assert "dmesg" in finding.fix


@pytest.mark.parametrize("name", ["missing", "tiny"])
def test_a_path_that_cannot_be_read_is_one_line(name, tmp_path, capsys):
    (tmp_path / "tiny").write_bytes(b"1234")
    assert cli.main(["doctor", str(tmp_path / name), "--quick"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    *steps, error = captured.err.splitlines()
    assert steps == ["looking at the machine"] * (name == "tiny")
    assert error.startswith(f"python -m torch_s3io: {tmp_path / name}: ")
    assert "name a file" in error or "name a folder or file" in error


def test_a_folder_that_may_not_be_written_to_is_one_line(public_folder, needs_root):
    source = (
        EXAMINE
        + """
    become_nobody()
    sys.exit(cli.main(["doctor", sys.argv[1], "--quick"]) - 1)
    """
    )
    run_program(source, public_folder)


def test_the_points_of_a_sweep_fit_into_the_buffers_and_the_file():
    for quick in (True, False):
        for block, depth in storage.points(quick, 64 << 10):
            assert block <= 64 << 10
            assert block * depth <= 128 << 20
    assert storage.points(False, 1 << 30)


def speed(block, depth, gb_per_s):
    return storage.ReadSpeed(
        block_bytes=block, depth=depth, engine="uring", gb_per_s=gb_per_s, requests_per_s=1,
        cpu_s_per_gb=0,
    )  # fmt: skip


def test_the_best_is_the_smallest_that_is_nearly_the_fastest():
    speeds = [speed(4096, 8, 0.4), speed(1 << 20, 8, 1.98), speed(1 << 20, 128, 2.0)]
    assert storage.best_of(speeds) is speeds[1]
    assert storage.best_of(speeds[:1]) is speeds[0]


@pytest.mark.parametrize(
    ("fast_depth", "factor", "status"), [(8, 2.0, "costs"), (8, 1.1, "ok"), (32, 2.0, "ok")]
)
def test_a_depth_that_is_faster_than_the_default_is_named(
    fast_depth, factor, status, tmp_path, monkeypatch
):
    def measure(file, block, depth, seconds, **options):
        return speed(block, depth, factor if depth == fast_depth else 1.0)

    monkeypatch.setattr(storage, "measure", measure)
    speeds = [measure(None, 1 << 20, depth, 0) for depth in (1, 8, 32)]
    (finding,) = storage._against_defaults(tmp_path, speeds, True, lambda text: None)
    assert finding.status == status
    assert finding.fix == ("RecordDataset(..., depth=8)" if status == "costs" else "")
    assert storage._against_defaults(tmp_path, [speed(4096, 8, 1)], True, print) == []


def make_machine(root: Path, nodes: dict[int, str], device: str, device_node: int) -> None:
    """A /sys of a machine with these nodes, and a block device on one of them."""
    for number, cpus in nodes.items():
        folder = root / f"sys/devices/system/node/node{number}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(cpus + "\n")
    disk = root / "sys/devices/pci0000:00/0000:00:05.0/nvme/nvme0/nvme0n1/nvme0n1p1"
    disk.mkdir(parents=True)
    (root / "sys/devices/pci0000:00/0000:00:05.0/numa_node").write_text(f"{device_node}\n")
    links = root / "sys/dev/block"
    links.mkdir(parents=True)
    (links / device).symlink_to(disk)


def test_a_process_away_from_its_storage_is_told_where_to_go(tmp_path):
    cpu = min(os.sched_getaffinity(0))
    device = os.stat(tmp_path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    make_machine(tmp_path, {0: "0-1023", 1: "5000-5007"}, name, device_node=1)
    finding = devices.numa(tmp_path, root=tmp_path)
    assert finding is not None
    assert finding.status == "costs"
    assert "numactl --cpunodebind=1 --membind=1" in finding.fix
    assert finding.data == {"nodes": 2, "process": [0], "storage": 1}
    assert cpu in devices.numa_nodes(tmp_path)[0]


def test_a_process_beside_its_storage_is_fine_and_one_node_is_not_mentioned(tmp_path):
    device = os.stat(tmp_path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    make_machine(tmp_path, {0: "0-1023", 1: "5000-5007"}, name, device_node=0)
    finding = devices.numa(tmp_path, root=tmp_path)
    assert finding is not None
    assert finding.status == "ok"
    (tmp_path / "sys/devices/system/node/node1/cpulist").write_text("\n")  # memory alone
    assert devices.numa(tmp_path, root=tmp_path) is None


def test_lists_of_processors_are_read_as_the_kernel_writes_them():
    assert devices.parse_cpu_list("0-3,8,10-11") == {0, 1, 2, 3, 8, 10, 11}
    assert devices.parse_cpu_list("") == set()
