"""Commands that Ctrl-C or SIGTERM stops: a short line, the status that a shell has for it, no
traceback of any process, and nothing left behind."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import shutil
import signal

import numpy as np
import pytest
from programs import CLI, IN_A_GROUP, program_env, warm_python
from support import DEADLINE_S, holds_soon
from tar_files import write_headers

from torch_s3io import cli

SMALL = ["--set", "data.files=4", "--set", "data.record_bytes=100 KB"]
FOR_EVER = ["--set", "epochs=1000000"]

# A command; what its output has when it is at work, or which file it has made then; what may be
# left of it.
COMMANDS = {
    "pack": (
        ["pack", "{disk}/x.npy", "-o", "{disk}/out", "--shard-mib", "1", "--processes", "2"],
        "out/*.bin",
        {"x.npy", "out"},
    ),
    "pack of samples": (
        ["pack", "--from", "sample_sets:endless_samples", "-o", "{disk}/out", "--shard-mib", "8"],
        "out/*.bin",
        {"x.npy"},
    ),
    "verify": (["verify", *["{disk}/x.npy"] * 3000], "NOT VERIFIED", {"x.npy"}),
    "index": (["index", "{disk}/tars"], "tars/.*.lock", {"x.npy", "tars"}),
    "doctor": (["doctor", "{disk}", "--quick"], "making a file of", {"x.npy"}),
    "bench": (
        ["bench", "cosmoflow", *SMALL, *FOR_EVER, "--set", "data.folder={disk}/data"],
        "epoch 1 of",
        {"x.npy", "data"},
    ),
    "bench with workers": (
        ["bench", "cosmoflow", *SMALL, *FOR_EVER, "--set", "loader.workers=2",
         "--set", "data.folder={disk}/data"],
        "epoch 1 of",
        {"x.npy", "data"},
    ),
    "bench that makes data": (
        ["bench", "cosmoflow", "--set", "data.files=1", "--set", "data.record_bytes={much}",
         "--set", "data.folder={disk}/data"],
        "data/*/0.partial",
        {"x.npy"},
    ),
    "seed-metrics": (
        ["bench", "seed-metrics", "cosmoflow", *SMALL, "--rounds", "5",
         "--set", "data.folder={disk}/data", "--json", "{disk}/json/x.json"],
        "round 1 of",
        {"x.npy", "data"},
    ),
}  # fmt: skip


UNBUFFERED = """
    import sys
    sys.stdout.reconfigure(write_through=True)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_stopped_says_so_and_leaves_nothing(name, number, status, disk):
    arguments, at_work, may_stay = COMMANDS[name]
    np.save(disk / "x.npy", np.zeros((400, 1 << 20), "u1") if name == "pack" else np.zeros(9))
    if name == "index":
        (disk / "tars").mkdir()
        first = write_headers(disk / "tars" / "0.tar", 10_000)
        for count in range(1, 1000):
            os.link(first, disk / "tars" / f"{count}.tar")
    temporary = disk / "tmp"
    temporary.mkdir()
    output = disk / "output"
    much = min(30 << 30, shutil.disk_usage(disk).free // 4)  # it is stopped long before the end
    with output.open("w") as file:
        process = warm_python().start(
            IN_A_GROUP + UNBUFFERED + CLI,
            [argument.format(disk=disk, much=much) for argument in arguments],
            program_env({"TMPDIR": str(temporary)}),
            file.fileno(),
            file.fileno(),
            disk,
        )
    try:
        begun = lambda: at_work in output.read_text() or any(disk.glob(at_work))  # noqa: E731
        assert holds_soon(lambda: begun() or process.poll() is not None)
        assert process.poll() is None, output.read_text()
        # Ctrl-C goes to all processes of the terminal, kill to one.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        process.wait(DEADLINE_S)
        assert process.returncode == status, output.read_text()
        assert holds_soon(lambda: not group_lives(process.pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    text = output.read_text()
    assert "Traceback" not in text
    last = text.splitlines()[-1] if text else ""
    assert last.startswith("python -m torch_s3io: interrupted") == (number == signal.SIGINT)
    assert os.listdir(temporary) == []
    output.unlink()
    temporary.rmdir()
    assert set(os.listdir(disk)) == may_stay
    left = ("partial", "tmp", ".torch_s3io")
    assert not [path for path in disk.rglob("*") if any(part in path.name for part in left)]


def group_lives(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_pack_that_is_stopped_says_how_it_goes_on(monkeypatch, tmp_path, capsys):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    np.save(tmp_path / "x.npy", np.zeros((4, 4)))
    monkeypatch.setattr("torch_s3io.cli.pack.run_pack", stop)
    assert cli.main(["pack", str(tmp_path / "x.npy"), "-o", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == (
        "python -m torch_s3io: interrupted; the same command goes on with what is finished\n"
    )


def test_ctrl_c_while_pack_waits_for_its_processes_leaves_no_lock_of_theirs(monkeypatch, tmp_path):
    """`wait` takes a lock of every future. Interrupted there, it would keep some."""
    waited = []

    def wait_and_interrupt(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        waited.append(concurrent.futures.wait(*arguments, **options))
        return waited[-1]

    np.save(tmp_path / "x.npy", np.zeros((4, 1 << 20), "u1"))
    monkeypatch.setattr("torch_s3io.writing.pack_run.wait", wait_and_interrupt)
    command = ["pack", str(tmp_path / "x.npy"), "-o", str(tmp_path / "out")]
    assert cli.main([*command, "--shard-mib", "1", "--processes", "2"]) == 130
    assert len(waited) == 1
