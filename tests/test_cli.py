"""The command line as such: help, version, wrong usage, errors as one line, exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from programs import CLI, Running, program_env

import torch_s3io
from torch_s3io import cli, console


def run_command(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torch_s3io", *map(str, arguments)],
        env=program_env(),
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def test_help_names_every_command_and_shows_examples():
    result = run_command("--help")
    assert result.returncode == 0
    assert "examples:" in result.stdout
    for command in cli.COMMANDS:
        assert f"\n    {command} " in result.stdout


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: python -m torch_s3io {command}" in capsys.readouterr().out


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"torch_s3io {torch_s3io.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["doctor", "--no-such-option"]])
def test_wrong_usage_is_status_2_and_says_so_on_stderr(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage:" in captured.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["docter"], "there is no docter: did you mean doctor?"),
        (["zzz"], "there is no zzz: there are: doctor, pack, index, info, verify, uploads, bench"),
        (["--verson"], "there is no option --verson: did you mean --version?"),
        (["pack", "x", "--otput", "y"], "there is no option --otput: did you mean --output?"),
        (["pack", "x", "-output", "y"], "there is no option -output: did you mean --output?"),
        (["pack", "x", "-x"], "there is no option -x: there are: -h, --help, -o, --output, "),
        (["pack", "x", "-o", "y", "--format", "token"], "no token: did you mean tokens?"),
        (["doctor", "--jsn=1"], "there is no option --jsn: did you mean --json?"),
        (["doctor", "a", "b c"], "more arguments than it takes: 'b c'"),
    ],
)
def test_what_is_misspelt_is_said_with_what_may_be_meant(arguments, text, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert text in captured.err
    command = arguments[0] if arguments[0] in cli.COMMANDS else ""
    assert captured.err.startswith(f"usage: python -m torch_s3io {command}".strip())
    assert captured.err.splitlines()[-1].endswith("--help has examples")


@pytest.mark.parametrize("option", ["--output", "--out", "-o"])
def test_the_beginning_of_an_option_its_letter_and_numbers_are_taken(option, tmp_path, capsys):
    command = ["pack", str(tmp_path / "x"), option, str(tmp_path / "y")]
    assert cli.main(command) == 1
    assert f"{tmp_path / 'x'}: " in capsys.readouterr().err
    for number in ("-1", "-.5", "0.5", "x"):
        with pytest.raises(SystemExit):
            cli.main([*command, "--processes", number])
        wanted = f"argument --processes: {number} is no whole number from 1 on"
        assert wanted in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (torch_s3io.DataError("x.bin: cut"), 1, "python -m torch_s3io: x.bin: cut\n"),
        (KeyboardInterrupt(), 130, "python -m torch_s3io: interrupted\n"),
    ],
)
def test_an_error_is_one_line_on_stderr(error, status, text, capsys, monkeypatch):
    def fail(args):
        raise error

    monkeypatch.setattr("torch_s3io.cli.doctor.run", fail)
    assert cli.main(["doctor"]) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", text)


def test_an_error_that_is_no_finding_of_ours_keeps_its_traceback(monkeypatch):
    def fail(args):
        raise ZeroDivisionError

    monkeypatch.setattr("torch_s3io.cli.doctor.run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


def test_a_reader_that_has_seen_enough_gets_no_traceback():
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed:
        result = Running(CLI, "doctor", stdout=closed).ended()
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


def test_a_package_that_is_missing_is_named_with_its_command():
    with pytest.raises(console.CommandError) as caught:
        console.optional_package("no_such_module", "no-such-package", "bench", "plotting")
    assert "plotting needs no-such-package" in str(caught.value)
    assert "pip install 'torch-s3io[bench]'" in str(caught.value)
    assert isinstance(caught.value, torch_s3io.Error)
