"""doctor: what it finds is what the kernel does, also where things are forbidden or scarce."""

from __future__ import annotations

import errno
import inspect
import json
import os
import platform
import re
import resource
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from examinations import EXAMINE
from programs import IO_URING_ENTER, IO_URING_SETUP, run_program
from support import MIB, open_files, write_file

import torch_s3io
from torch_s3io import _C, FileStore, FileSystemConfig, cli
from torch_s3io.doctor import Examination, Finding, devices, examine, storage, system
from torch_s3io.doctor.finding import in_bytes, process_status

CAP_SYS_RESOURCE = 24

TOPICS = ["kernel", "build", "io_uring", "system calls", "huge pages", "locked memory",
          "open files", "memory", "CUDA"]  # fmt: skip


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


@pytest.fixture
def poor_machine(tmp_path, monkeypatch):
    """A machine that lacks everything that is looked for."""
    monkeypatch.setattr(platform, "release", lambda: "5.0.0-7-generic")
    monkeypatch.setattr(_C, "built_with_uring", False)
    monkeypatch.setattr(_C, "uring_unavailable_reason", lambda: "this build has none")
    monkeypatch.setattr(_C, "available_memory_bytes", lambda: 100 << 20)
    monkeypatch.setattr(_C, "refused_calls", lambda: [("statx", 1), ("memfd_create", 1)])
    monkeypatch.setattr(_C, "BufferPool", lambda **options: PoolOnSmallPages())
    monkeypatch.setattr(system, "_THP", tmp_path / "no_huge_pages")
    monkeypatch.setattr(system, "process_status", lambda key: "0")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (64 << 10, 64 << 10))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(devices, "_NVIDIA_CONTROL", tmp_path / "nvidiactl")


class PoolOnSmallPages:
    def take(self):
        return None

    def give(self, buffer):
        pass

    def stats(self):
        return {"huge_pages": 1, "small_pages": 2048 - 512}


def test_every_finding_that_costs_says_what_and_how_to_change_it(poor_machine, capsys):
    assert cli.main(["doctor"]) == 3
    text = capsys.readouterr().out
    examination = examine()
    costly = [topic for topic in TOPICS if topic != "open files"]
    assert [f.topic for f in examination.costs if f.topic != "NUMA"] == costly
    for finding in examination.findings:
        assert finding.found
        assert (finding.status == "costs") == bool(finding.cost) == bool(finding.fix)
        words = " ".join(text.split())
        for part in (finding.topic, finding.found, finding.cost, finding.fix):
            assert part in words
    assert text.count("COSTS ") == len(examination.costs)
    assert f"cost something: {', '.join(f.topic for f in examination.costs)}." in text


def test_a_machine_where_nothing_costs_is_told_so():
    rich = Examination(path=None, findings=[Finding(topic="kernel", found="x")])
    assert rich.as_text().endswith(
        "\nNothing here costs performance. Storage was not read: doctor FOLDER does that."
    )
    read = Examination(path=Path("/data/\nset"), findings=rich.findings)
    assert read.as_text().splitlines()[1] == r"storage: /data/\nset"
    assert read.as_text().endswith("\nNothing here costs performance.")


URING = "io_uring (Linux 5.1)"
RINGS = "rings for one thread, which cost the least (Linux 6.0)"
SHARED = "huge pages in shared memory, and the alignment of direct reads (Linux 6.1)"
CACHE = "asking what is in the page cache (Linux 6.5)"


@pytest.mark.parametrize(
    ("release", "missing"),
    [
        ("4.18.0-553.el8", [URING, RINGS, SHARED, CACHE]),
        ("5.1.0", [RINGS, SHARED, CACHE]),
        ("5.15.167.4-microsoft", [RINGS, SHARED, CACHE]),
        ("6.0", [SHARED, CACHE]),
        ("6.4.16", [CACHE]),
        ("6.5.0-rc1", []),
        ("6.18.44", []),
        ("10.0.1", []),
    ],
)
def test_what_an_old_kernel_lacks_is_named(release, missing, monkeypatch):
    monkeypatch.setattr(platform, "release", lambda: release)
    finding = system.kernel()
    assert release in finding.found
    assert [part for part in (URING, RINGS, SHARED, CACHE) if part in finding.found] == missing
    assert finding.status == ("costs" if missing else "ok")
    assert bool(finding.cost) == bool(missing)
    assert finding.fix == ("boot a newer kernel" if missing else "")


def test_a_build_without_io_uring_is_named(monkeypatch):
    monkeypatch.setattr(_C, "uring_unavailable_reason", lambda: "this build has none")
    for built_with_uring, status in ((True, "ok"), (False, "costs")):
        monkeypatch.setattr(_C, "built_with_uring", built_with_uring)
        finding = system.build()
        assert (finding.status, _C.__version__ in finding.found) == (status, True)
    assert "threads read instead" in finding.cost
    assert "liburing-dev" in finding.fix
    assert "TORCH_S3IO_NO_URING" in finding.fix
    assert system.io_uring().fix == "build torch_s3io anew, as it says under build"


@pytest.mark.parametrize("cgroup", [None, 512 << 20])
def test_little_memory_is_named(cgroup, monkeypatch):
    monkeypatch.setattr(_C, "memory_limit_bytes", lambda: cgroup)
    text = "no cgroup limit" if cgroup is None else "within a cgroup of 512 MiB"
    for mib, shown, status in ((1024, "1 GiB", "ok"), (1023, "1023 MiB", "costs")):
        monkeypatch.setattr(_C, "available_memory_bytes", lambda mib=mib: mib * MIB)
        finding = system.memory()
        assert finding.status == status
        assert finding.found == f"{shown} available, {text}"
        assert finding.data == {"available_bytes": mib * MIB, "cgroup_limit_bytes": cgroup}
    assert "page cache" in finding.cost
    assert "--memory=" in finding.fix


@pytest.mark.parametrize(
    ("release", "shared", "found", "fix"),
    [
        ("6.8.0", None, "has no transparent huge pages", "boot a kernel with them"),
        ("6.8.0", "deny", "shmem_enabled is deny", "echo never | sudo tee {}/shmem_enabled"),
        ("6.8.0", "never", "fragmented", "echo 1 | sudo tee /proc/sys/vm/compact_memory"),
        ("5.15.0", "deny", "before Linux 6.1", "echo advise | sudo tee {}/shmem_enabled"),
        ("5.15.0", "never", "before Linux 6.1", "echo advise | sudo tee {}/shmem_enabled"),
        ("5.15.0", "advise", "fragmented", "echo 1 | sudo tee /proc/sys/vm/compact_memory"),
    ],
)
def test_who_forbids_huge_pages_is_named(release, shared, found, fix, tmp_path, monkeypatch):
    folder = tmp_path / "transparent_hugepage"
    if shared is not None:
        folder.mkdir()
        choices = "always within_size advise never deny force"
        (folder / "shmem_enabled").write_text(choices.replace(shared, f"[{shared}]") + "\n")
    monkeypatch.setattr(system, "_THP", folder)
    monkeypatch.setattr(platform, "release", lambda: release)
    monkeypatch.setattr(_C, "BufferPool", lambda **options: PoolOnSmallPages())
    finding = system.huge_pages()
    assert finding.status == "costs"
    assert "a buffer of 8 MiB lies on 1536 small pages" in finding.found
    assert found in finding.found
    assert "pins 512 times more pages" in finding.cost
    assert finding.fix == fix.format(folder)
    assert finding.data == {"huge_pages": 1, "small_pages": 1536}


UNKNOWN_REASON = "please report it with what doctor --json prints: the reason is not a known one"


@pytest.mark.parametrize(
    ("error_number", "found", "fix"),
    [
        (errno.ENOMEM, "locked memory", "ulimit -l unlimited"),
        (errno.ENOSYS, "built without it", "boot a kernel with CONFIG_IO_URING"),
        (errno.EPERM, "security module", "allow io_uring in its policy"),
        (errno.EACCES, "security module", "allow io_uring in its policy"),
        (errno.EINVAL, "not available: EINVAL", UNKNOWN_REASON),
    ],
)
def test_what_else_forbids_io_uring_is_named(error_number, found, fix, tmp_path, monkeypatch):
    monkeypatch.setattr(system, "_IO_URING_DISABLED", tmp_path / "none")
    monkeypatch.setattr(system, "_try_io_uring_setup", lambda: error_number)
    monkeypatch.setattr(system, "process_status", lambda key: "0")
    reason = f"not available: {errno.errorcode[error_number]}"
    monkeypatch.setattr(_C, "built_with_uring", True)
    monkeypatch.setattr(_C, "uring_unavailable_reason", lambda: reason)
    finding = system.io_uring()
    assert (finding.status, finding.fix) == ("costs", fix)
    assert found in finding.found
    assert "threads read instead" in finding.cost
    assert finding.data == {"reason": reason}


@pytest.mark.parametrize(
    ("limit", "capabilities", "status"),
    [
        (256 * MIB, 0, "ok"),
        (256 * MIB - 1, 0, "costs"),
        (0, 1 << 14, "ok"),  # CAP_IPC_LOCK
        (0, ~(1 << 14) & (1 << 41) - 1, "costs"),
        (resource.RLIM_INFINITY, 0, "ok"),
    ],
)
def test_locked_memory_is_scarce_with_a_low_limit_and_no_exemption(
    limit, capabilities, status, monkeypatch
):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    monkeypatch.setattr(system, "process_status", lambda key: f"{capabilities:016x}")
    finding = system.locked_memory()
    assert finding.status == status
    assert ("pins its own pages" in finding.cost) == (status == "costs")
    assert ("LimitMEMLOCK=infinity" in finding.fix) == (status == "costs")


def test_a_gpu_that_torch_cannot_use_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(devices, "_NVIDIA_CONTROL", tmp_path / "nvidiactl")
    assert devices.cuda().status == "ok"
    (tmp_path / "nvidiactl").touch()
    finding = devices.cuda()
    assert finding.status == "costs"
    assert "built without CUDA" in finding.found
    assert "https://pytorch.org/get-started" in finding.fix


@pytest.mark.parametrize("code", [0, 2])
def test_a_buffer_that_cuda_refuses_to_page_lock_is_named(code, monkeypatch):
    runtime = SimpleNamespace(
        cudaHostRegister=lambda address, size, flags: code, cudaHostUnregister=lambda address: 0
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "H100")
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: True)
    finding = devices.cuda()
    assert finding.data == {"devices": ["H100"], "pins_in_place": code == 0}
    assert finding.status == ("ok" if code == 0 else "costs")
    assert (f"failed with error {code}" in finding.found) == (code != 0)
    assert ("copied into page-locked memory" in finding.cost) == (code != 0)
    assert ("ulimit -l unlimited" in finding.fix) == (code != 0)


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
        return system.open_files(files_at_path, Path("/data/set"))


@pytest.mark.parametrize("hard", [64, 2000])
def test_what_is_advised_for_more_open_files_keeps_them_open(hard, tmp_path, monkeypatch):
    for number in range(93):
        (tmp_path / f"{number}.bin").touch()
    finding = doctor_with_limits(monkeypatch, 64, hard, storage.count_files(tmp_path))
    assert finding.status == "costs"
    assert finding.found.endswith("8 files stay open, but there are 93 in /data/set")
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
        finding = system.open_files(1200, tmp_path)
        del store
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert finding.data["kept_open"] == len(kept)
    assert f"{len(kept)} files stay open, but there are 1200 in {tmp_path}" in finding.found
    assert finding.status == "costs"
    assert "torch_s3io pack" in finding.fix  # no limit keeps so many open


def test_a_count_that_was_not_finished_is_not_given_for_the_number(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_FILES_COUNTED", 5)
    monkeypatch.setattr(system, "MOST_FILES_COUNTED", 5)
    for number in range(5):
        (tmp_path / f"{number}.bin").touch()
    all_counted = doctor_with_limits(monkeypatch, 8, 8, storage.count_files(tmp_path))
    assert all_counted.found.endswith("there are 5 in /data/set")
    (tmp_path / "folder").mkdir()
    for number in range(4):
        (tmp_path / f"folder/{number}.bin").touch()
    more = doctor_with_limits(monkeypatch, 8, 8, storage.count_files(tmp_path))
    assert more.found.endswith("there are more than 5 in /data/set")
    assert (all_counted.data["counted_all"], more.data["counted_all"]) == (True, False)
    assert all_counted.data["files_at_path"] == more.data["files_at_path"] == 5


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
