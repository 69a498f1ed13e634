"""The commands on any terminal: names of any bytes, any encoding, pipes and streams that close."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from programs import CLI, Running, program_env
from support import DEADLINE_S

from torch_s3io import cli

PROGRAM = """
import json, os, sys
from torch_s3io import cli

commands, statuses = json.load(open(sys.argv[1])), []
for arguments in commands:
    arguments = [os.fsdecode(word.encode("latin-1")) for word in arguments]
    try:
        statuses.append(cli.main(arguments))
    except SystemExit as end:
        statuses.append(end.code)
    if "reader leaves" in sys.argv:  # from the second command on nobody reads
        read_end, write_end = os.pipe()
        os.close(read_end)
        os.dup2(write_end, 1)
json.dump(statuses, open(sys.argv[2], "w"))
if "reader leaves" in sys.argv:  # what is left of the output goes nowhere
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
"""

# A name, and how it is shown: in UTF-8, in ASCII, and where names are taken to be ASCII.
BYTES = b"\xff\x1b[31m\xfe"
NAME = "数据\nset ".encode() + BYTES
SHOWN = [
    shown + r" \xff\x1b[31m\xfe"
    for shown in (r"数据\nset", r"\u6570\u636e\nset", r"\xe6\x95\xb0\xe6\x8d\xae\nset")
]

LOCALES = {
    "utf-8": {"PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"},
    "ascii output": {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1", "COLUMNS": "1"},
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "20"},
}


def commands_in(folder: bytes) -> list[tuple[list[bytes], int]]:
    """Every command with names in this folder, and its exit status."""
    os.mkdir(folder)
    np.save(os.fsdecode(folder + b"/x.npy"), np.arange(2_100_000).reshape(100, -1))
    out, missing = folder + b"/out", folder + b"/missing"
    config, results = folder + b"/of mine.yaml", folder + b"/results"
    with open(config, "wb") as file:
        file.write(b"data: {files: 2, record_bytes: 4096}\nepochs: 2\ncompute_s_per_step: 0.001\n")
    return [
        ([b"pack", folder + b"/x.npy", b"--output", out], 0),
        ([b"info", out], 0),
        ([b"info", out, b"--json"], 0),
        ([b"verify", out, missing], 1),
        ([b"info", missing], 1),
        ([b"pack", missing, b"--output", folder + b"/other"], 1),
        ([b"doctor", b"--quick", folder + b"/x.npy"], 0),
        ([b"doctor", b"--quick", b"--json", folder + b"/x.npy"], 0),
        ([b"doctor", missing], 1),
        ([b"bench", config, b"--set", b"data.folder=" + folder, b"--output", results], 0),
        ([b"bench", b"compare", results, results], 0),
        ([b"bench", b"--list"], 0),
        ([b"bench", b"--show", missing], 1),
        ([b"bench", missing + b".yaml"], 1),
        ([missing], 2),
        ([b"info", out, missing], 2),
        *(([command.encode(), b"--help"], 0) for command in cli.COMMANDS),
        ([b"--help"], 0),
    ]


def run_all(tmp_path: Path, commands, *arguments: str, env=None, closed=()):
    """Runs the commands in one process; their exit statuses, and what was printed."""
    wanted = [[word.decode("latin-1") for word in words] for words, _ in commands]
    (tmp_path / "commands.json").write_text(json.dumps(wanted))
    files = [str(tmp_path / "commands.json"), str(tmp_path / "statuses.json")]
    with (tmp_path / "stdout").open("w+b") as stdout, (tmp_path / "stderr").open("w+b") as stderr:
        streams, drawing = {"stdout": stdout, "stderr": stderr}, {"MPLCONFIGDIR": str(tmp_path)}
        if env is None and not closed:
            done = Running(PROGRAM, *files, *arguments, env=drawing, **streams).ended()
        else:  # streams are looked at as a Python begins
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, *files, *arguments],
                env=program_env({**drawing, **(env or {})}),
                preexec_fn=lambda: [os.close(number) for number in closed],
                timeout=2 * DEADLINE_S,
                **streams,
            )
        printed = [(stream.seek(0), stream.read())[1] for stream in streams.values()]
    assert done.returncode == 0, (done, printed)
    statuses = json.loads((tmp_path / "statuses.json").read_text())
    # doctor's depends on the machine: 3 where something costs
    assert [0 if status == 3 else status for status in statuses] == [s for _, s in commands]
    return printed


@pytest.mark.parametrize(("index", "locale"), list(enumerate(LOCALES)))
def test_a_name_of_any_bytes_is_shown_on_one_line_in_any_encoding(index, locale, disk, tmp_path):
    folder = os.fsencode(disk) + b"/" + NAME
    commands = commands_in(folder)
    stdout, stderr = run_all(tmp_path, commands, env=LOCALES[locale])
    encoding = "utf-8" if locale == "utf-8" else "ascii"
    lines = stdout.decode(encoding).splitlines()
    errors = stderr.decode(encoding).splitlines()
    for text in (
        "  records      100",
        "all as they were written",
        "out: 100 records of 168000 bytes",
        "/of mine.yaml' --set ",
        "written: ",
    ):
        assert any(text in line for line in lines), text
    for line in [*lines, *errors]:
        assert line.isprintable(), line
        if "/missing" in line or "/out:" in line or "written: " in line:
            assert SHOWN[index] in line
    refused = [line for line in errors if re.match("python -m torch_s3io( info)?: ", line)]
    assert len(refused) == sum(status != 0 for _, status in commands) - 1  # one is verify's

    place = os.fsdecode(folder)  # what programs read has the names as they are
    report = stdout.decode(encoding).partition('\n{\n "torch_s3io"')[2].partition("\n}\n")[0]
    result = json.loads(Path(place, "results", "result.json").read_text())
    path = json.loads(f'{{"torch_s3io"{report}}}')["path"]
    if locale != "ascii":  # or as this process would have to encode them to be there
        assert path == f"{place}/x.npy"
        assert result["config"]["data"]["folder"] == place
    assert "of mine" in Path(place, "results", "table.md").read_text("utf-8")


@pytest.mark.parametrize("closed", [(0, 1, 2), (2,)])
def test_streams_that_are_closed_lead_nowhere_and_into_no_file(closed, disk, tmp_path):
    commands = commands_in(os.fsencode(disk) + b"/" + BYTES)
    if 1 not in closed:  # what bench starts has no stderr either where all are closed
        commands = [command for command in commands if command[0][0] != b"bench"]
    stdout, stderr = run_all(tmp_path, commands, closed=closed)
    assert (b"100 records" in stdout) == (1 not in closed)
    assert stderr == b""


def test_what_a_child_inherits_for_a_closed_stream_is_no_file_of_ours(tmp_path):
    source = """
import os, subprocess, sys
from torch_s3io.console import open_standard_streams
open_standard_streams()
data = open(sys.argv[1], "w")
target = "import os, sys; print(os.readlink('/proc/self/fd/1'), file=sys.stderr)"
command = [sys.executable, "-S", "-c", target]
assert subprocess.run(command, stderr=subprocess.PIPE, text=True).stderr == "/dev/null\\n"
os.write(1, b"what a library prints")
"""
    subprocess.run(
        [sys.executable, "-c", source, str(tmp_path / "data")],
        env=program_env(), check=True, preexec_fn=lambda: os.close(1),
    )  # fmt: skip
    assert (tmp_path / "data").read_bytes() == b""


def test_a_reader_that_has_seen_enough_ends_each_command_quietly(disk, tmp_path):
    folder = os.fsencode(disk) + b"/" + BYTES
    printing = [(arguments, 141) for arguments, status in commands_in(folder) if status == 0]
    first = ([b"bench", b"--list"], 0)
    _, stderr = run_all(tmp_path, [first, *printing], "reader leaves")
    assert b"rror" not in stderr
    assert os.path.exists(folder + b"/out/manifest.json")  # what was to be done is done


@pytest.mark.parametrize(
    ("arguments", "broken"),
    [
        (["bench", "--list"], "stdout"),
        (["--version"], "stdout"),
        (["info", "missing"], "stderr"),
    ],
)
def test_a_program_whose_reader_is_gone_ends_as_others_do(arguments, broken):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed:
        done = Running(CLI, *arguments, **{broken: closed}).ended()
    assert done.returncode == (141 if broken == "stdout" else 1)
    assert not done.stdout
    assert not done.stderr


def test_output_that_cannot_be_written_is_an_error_of_one_line():
    with open("/dev/full", "w") as full:
        done = Running(CLI, "bench", "--list", stdout=full).ended()
    assert done.returncode == 1
    assert done.stderr == (
        "python -m torch_s3io: stdout: cannot write the output: No space left on device\n"
    )
