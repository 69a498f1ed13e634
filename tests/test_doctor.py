"""doctor: what it finds is what the kernel does, also where things are forbidden or scarce."""

from __future__ import annotations

import inspect
import json
import os
import re
import resource
import subprocess
from pathlib import Path

import pytest
from support import (
    IO_URING_ENTER,
    IO_URING_SETUP,
    open_files,
    random_bytes,
    run_program,
    write_file,
)

import torch_s3io
from torch_s3io import _C, FileStore, FileSystemConfig, cli
from torch_s3io.doctor import devices, examine, storage, system
from torch_s3io.doctor.finding import in_bytes, process_status

CAP_SYS_RESOURCE = 24

TOPICS = ["kernel", "build", "io_uring", "huge pages", "locked memory", "open files", "memory",
          "CUDA"]  # fmt: skip

EXAMINE = """
    import json, os, resource, sys
    from support import become_nobody, forbid_system_call
    from torch_s3io import cli

    cli.make_parser()  # imports all that is needed

    def findings_and_status(*arguments):
        import contextlib, io
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            status = cli.main(["doctor", "--json", *arguments])
        return {f["topic"]: f for f in json.loads(output.getvalue())["findings"]}, status
"""


def by_topic(examination) -> dict[str, object]:
    return {finding.topic: finding for finding in examination.findings}


def test_without_a_path_it_looks_at_the_machine(capsys):
    status = cli.main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    found = [finding["topic"] for finding in report["findings"]]
    assert [topic for topic in found if topic != "NUMA"] == TOPICS
    assert report["torch_s3io"] == torch_s3io.__version__
    assert status == (3 if report["costs"] else 0)
    assert report["costs"] == sum(f["status"] == "costs" for f in report["findings"])


def test_a_path_that_is_neither_file_nor_folder_is_refused(tmp_path, capsys):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/null")):
        assert cli.main(["doctor", "--quick", str(path)]) == 1
        assert capsys.readouterr().err.endswith("name a folder or file that lies on it\n")


def test_every_finding_that_costs_says_what_and_how_to_change_it(capsys):
    cli.main(["doctor"])
    text = capsys.readouterr().out
    for finding in examine().findings:
        assert finding.found
        assert (finding.status == "costs") == bool(finding.cost) == bool(finding.fix)
        assert finding.topic in text


@pytest.mark.parametrize("call", [IO_URING_SETUP, IO_URING_ENTER])
@pytest.mark.parametrize("error_number", [1, 38])
def test_a_seccomp_filter_that_forbids_io_uring_is_named(call, error_number, needs_uring):
    source = (
        EXAMINE
        + """
    forbid_system_call(int(sys.argv[1]), int(sys.argv[2]))
    findings, status = findings_and_status()
    assert status == 3
    assert findings["io_uring"]["status"] == "costs"
    print(findings["io_uring"]["found"])
    print(findings["io_uring"]["fix"])
    """
    )
    found, fix = run_program(source, call, error_number).splitlines()
    assert "seccomp" in found
    assert ("io_uring_setup" if call == IO_URING_SETUP else "io_uring_enter") in found
    assert "seccomp=unconfined" in fix


@pytest.mark.parametrize(("value", "text"), [("2", "for everybody"), ("1", "group")])
def test_a_sysctl_that_forbids_io_uring_is_named(value, text, tmp_path, monkeypatch):
    """The setting of the whole machine is left alone: the answer to it is looked at."""
    setting = tmp_path / "io_uring_disabled"
    setting.write_text(value + "\n")
    monkeypatch.setattr(system, "_IO_URING_DISABLED", setting)
    monkeypatch.setattr(system, "_try_io_uring_setup", lambda: 1)
    monkeypatch.setattr(_C, "uring_unavailable_reason", lambda: "not available: EPERM")
    finding = system.io_uring()
    assert finding.status == "costs"
    assert text in finding.found
    assert "kernel.io_uring_disabled=0" in finding.fix


def test_a_low_limit_of_locked_memory_is_named(needs_root):
    source = (
        EXAMINE
        + """
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
    become_nobody()
    findings, status = findings_and_status()
    assert status == 3
    finding = findings["locked memory"]
    assert finding["data"]["limit_bytes"] == 1 << 20
    assert "ulimit -l" in finding["fix"] and "1 MiB" in finding["found"]
    print(finding["status"])
    """
    )
    assert run_program(source) == "costs\n"


def doctor_with_limits(monkeypatch, soft: int, hard: int, files_at_path: int):
    with monkeypatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda which: (soft, hard))
        return system.open_files(files_at_path)


@pytest.mark.parametrize("hard", [64, 2000])
def test_what_is_advised_for_more_open_files_keeps_them_open(hard, tmp_path, monkeypatch):
    for number in range(93):
        (tmp_path / f"{number}.bin").touch()
    finding = doctor_with_limits(monkeypatch, 64, hard, storage.count_files(tmp_path))
    assert finding.status == "costs"
    assert finding.found.endswith("8 files stay open, but PATH has 93")
    assert "opened again" in finding.cost
    assert ("LimitNOFILE=744" in finding.fix) == ("ulimit -Hn" in finding.fix) == (hard == 64)
    advice = re.split("[,;]", finding.fix)[0]
    may_raise = int(process_status("CapEff"), 16) >> CAP_SYS_RESOURCE & 1
    limits = f"ulimit -Hn {hard if may_raise else max(hard, 744)}; ulimit -Sn 64"
    script = f'sudo() {{ "$@"; }}; {limits}; {advice}; ulimit -n'
    limit = int(subprocess.run(["bash", "-c", script], check=True, capture_output=True).stdout)
    assert limit == 93 * 8
    assert doctor_with_limits(monkeypatch, limit, limit, 93).status == "ok"
    assert doctor_with_limits(monkeypatch, limit - 1, limit, 93).status == "costs"


@pytest.mark.parametrize("limit", [400, 8192 + 800])
def test_as_many_files_stay_open_as_it_says(limit, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < limit:
        pytest.skip(f"ONLY {hard} FILES MAY BE OPEN: not tested")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        store = FileStore(FileSystemConfig(direct_io="off"), engine="threads")
        for number in range(1200):
            store.get(write_file(tmp_path / f"{number}.bin", b"x"))
        kept = {target for target in open_files().values() if target.startswith(str(tmp_path))}
        finding = system.open_files(1200)
        del store
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert finding.data["kept_open"] == len(kept)
    assert f"{len(kept)} files stay open, but PATH has 1200" in finding.found
    assert finding.status == "costs"
    assert "torch_s3io pack" in finding.fix  # no limit keeps so many open


def test_a_count_that_was_not_finished_is_not_given_for_the_number(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_FILES_COUNTED", 5)
    monkeypatch.setattr(system, "MOST_FILES_COUNTED", 5)
    for number in range(5):
        (tmp_path / f"{number}.bin").touch()
    all_counted = doctor_with_limits(monkeypatch, 8, 8, storage.count_files(tmp_path))
    assert all_counted.found.endswith("PATH has 5")
    (tmp_path / "folder").mkdir()
    for number in range(4):
        (tmp_path / f"folder/{number}.bin").touch()
    more = doctor_with_limits(monkeypatch, 8, 8, storage.count_files(tmp_path))
    assert more.found.endswith("PATH has more than 5")
    assert (all_counted.data["counted_all"], more.data["counted_all"]) == (True, False)
    assert all_counted.data["files_at_path"] == more.data["files_at_path"] == 5


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
    assert findings["reads"]["data"]["direct"] is False


@pytest.mark.parametrize("name", ["missing", "tiny"])
def test_a_path_that_cannot_be_read_is_one_line(name, tmp_path, capsys):
    (tmp_path / "tiny").write_bytes(b"1234")
    assert cli.main(["doctor", str(tmp_path / name), "--quick"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert str(tmp_path / name) in captured.err


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


def test_the_smallest_limit_of_the_groups_counts(tmp_path):
    path = Path("/proc/self/cgroup").read_text()
    group = next((line.split(":", 2)[2] for line in path.splitlines() if line[:2] == "0:"), None)
    if group is None:
        pytest.skip("NO CGROUP V2 HERE")
    folder = tmp_path / group.strip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text("max\n")
    assert system.cgroup_limit_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000000\n")
    assert system.cgroup_limit_bytes(tmp_path) == 1_000_000


def test_sizes_are_written_as_people_read_them():
    assert [in_bytes(n) for n in (512, 4096, 1 << 20, 3 << 29)] == [
        "512 B", "4 KiB", "1 MiB", "1.5 GiB"
    ]  # fmt: skip


def test_what_doctor_takes_for_the_defaults_are_the_defaults():
    default = inspect.signature(torch_s3io.RecordDataset).parameters["depth"].default
    assert default == storage.DATASET_DEPTH


@pytest.mark.needs_cuda
def test_with_a_gpu_a_buffer_is_page_locked_in_place():
    finding = devices.cuda()
    assert finding.status == "ok"
    assert finding.data["pins_in_place"] is True
    assert finding.data["devices"]
