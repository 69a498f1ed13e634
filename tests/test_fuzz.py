"""The fuzzer finds what it is there for, and what it once found is read without harm."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from programs import run_program

FUZZ = Path(__file__).parents[1] / "fuzz"

# Reads inputs with the target in argv[2], in a process of its own; says how that ended, and with
# which input.
ONE_RUN = """
    import os, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from engine.loop import Current, run_in_fork

    current, folder = Current(), Path(sys.argv[2]).parent
    options = {"inputs": [b"seed"], "new": folder, "seed": 1, "seconds": 60}
    options["report"] = folder / "report.json"
    pid = run_in_fork(Path(sys.argv[2]), folder, ValueError, options, current)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(status, current.data.hex())
"""


@pytest.mark.parametrize(
    "harm",
    [
        "raise KeyError",
        "raise ValueError('x' * 5000)",
        "raise ValueError('a\\x1b[2J')",
        "raise ValueError('\\ud800')",
        "assert False",
        "warnings.warn('of a foreign text', DeprecationWarning)",
        "os.system('true')",
        "eval('1')",
        "bytearray(400 << 20)",
        "[os.dup(0) for _ in range(100)]",
        "os.abort()",
        "os._exit(7)",
    ],
)
def test_an_input_that_does_harm_is_found_and_known(tmp_path, harm):
    target = tmp_path / "target.py"
    target.write_text(
        "import os, warnings\n"
        "def make(folder):\n"
        "    def read(data):\n"
        "        if data != b'seed':\n"
        f"            {harm}\n"
        "    return read\n"
    )
    status, data = run_program(ONE_RUN, FUZZ, target).split()
    assert int(status) != 0
    assert bytes.fromhex(data) != b"seed"


def test_mutations_of_a_seed_are_the_same_ones():
    source = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from engine.mutation import Mutator
        corpus = [b'{"a": [1, {"b": "x"}]}', b"abc 12"]
        one, same, other = (Mutator(seed, [b"token"]) for seed in (1, 1, 2))
        made = [one.mutated(corpus) for _ in range(300)]
        assert made == [same.mutated(corpus) for _ in range(300)]
        assert made != [other.mutated(corpus) for _ in range(300)]
        assert len(set(made)) > 200
    """
    run_program(source, FUZZ)


def test_what_was_found_before_is_read_without_harm():
    names = sorted(path.stem for path in (FUZZ / "targets").glob("*.py"))
    command = [sys.executable, FUZZ / "run.py", "--seconds", "0", "--jobs", "2", *names]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "FAILED" not in ran.stdout


def test_every_target_has_a_corpus_and_all_are_small():
    found = [path for path in (FUZZ / "targets").iterdir() if path.suffix in (".py", ".cpp")]
    corpora = sorted(path.name for path in (FUZZ / "corpus").iterdir())
    assert sorted(path.stem for path in found) == corpora  # so no two have one name
    inputs = filter(Path.is_file, (FUZZ / "corpus").rglob("*"))
    assert sum(path.stat().st_size for path in inputs) < 100_000


def test_what_a_corpus_does_not_reach_of_its_target_is_said(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("fuzz_run", FUZZ / "run.py")
    run = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fuzz_run", run)
    spec.loader.exec_module(run)
    monkeypatch.setattr(run, "BUILD", tmp_path)
    program = tmp_path / "x"

    def unreached(*lines):
        program.write_text("#!/bin/sh\ncat >&2 <<END\n" + "\n".join(lines) + "\nEND\n")
        program.chmod(0o755)
        return run.unreached(FUZZ / "targets" / "x.cpp")

    reached = "COVERED_FUNC: hits: 3 edges: 1/2 read(Input&) /a/fuzz/targets/x.cpp:7"
    foreign = "UNCOVERED_FUNC: hits: 0 edges: 0/2 other() /a/csrc/base/other.cpp:7"
    missed = "UNCOVERED_FUNC: hits: 0 edges: 0/2 check(long, long) /a/fuzz/targets/x.cpp:9"
    assert unreached(reached, foreign) == []
    assert unreached(missed, reached) == ["the function at fuzz/targets/x.cpp:9"]
    with pytest.raises(SystemExit, match="llvm-symbolizer"):
        unreached("UNCOVERED_FUNC: hits: 0 edges: 0/2 (/a/build/fuzz/x+0x1234)")
