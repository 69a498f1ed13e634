#!/usr/bin/env python3
"""Runs fuzz targets: each reads mutated inputs for some seconds, and is right or raises an Error.

    python fuzz/run.py --seconds 60 npy manifest     two targets
    python fuzz/run.py npy --input FILE              one input, as it was reported
    python fuzz/run.py npy --seed 7                  the same mutations once more

A target is a file of ``fuzz/targets``: .py, read by ``fuzz/engine``, or .cpp, built with libFuzzer.
Each begins with ``fuzz/corpus/NAME`` and with what earlier runs found (``build/fuzz/corpus/NAME``).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FUZZ = Path(__file__).resolve().parent
TARGETS, CORPUS, BUILD = FUZZ / "targets", FUZZ / "corpus", FUZZ.parent / "build" / "fuzz"
_NO_PROGRESS_S = 60
_END_S = 60  # that a target may take beyond its time


@dataclass
class Run:
    """One target at work, or what became of it."""

    path: Path
    pid: int
    log: Path
    report: Path
    begun: float = field(default_factory=time.monotonic)
    current: Any = None
    seen: tuple[int, float] = (0, 0.0)
    cpu_s: float = 0.0
    wall_s: float = 0.0
    status: int = 0

    @property
    def name(self) -> str:
        return self.path.stem

    def is_whole_cpp(self, options: argparse.Namespace) -> bool:
        """Whether it is a C++ target that read its whole corpus, without harm."""
        return self.path.suffix == ".cpp" and self.status == 0 and not options.input

    def poll(self, seconds: float) -> bool:
        """Whether it has ended. One that hangs is ended."""
        self._end_hang(seconds)
        pid, status, used = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return False
        self.status = status
        self.cpu_s = used.ru_utime + used.ru_stime
        self.wall_s = time.monotonic() - self.begun
        return True

    def _end_hang(self, seconds: float) -> None:
        now = time.monotonic()
        if self.current is not None and self.current.count != self.seen[0]:
            self.seen = self.current.count, now
        is_late = now - self.begun > seconds + _END_S + _NO_PROGRESS_S
        is_stuck = self.current is not None and now - max(self.seen[1], self.begun) > _NO_PROGRESS_S
        if is_late or is_stuck:
            os.kill(self.pid, signal.SIGABRT)  # faulthandler says where it is
            time.sleep(0.5)
            os.kill(self.pid, signal.SIGKILL)


def start_python(path: Path, options: argparse.Namespace) -> Run:
    from engine.loop import Current, read_corpus, run_in_fork

    import torch_s3io

    new = BUILD / "corpus" / path.stem
    log, report = BUILD / f"{path.stem}.log", BUILD / f"{path.stem}.json"
    given = [file.read_bytes() for file in options.input]
    details = {
        "inputs": given or read_corpus(CORPUS / path.stem, new),
        "new": new,
        "seed": options.seed,
        "seconds": 0 if given else options.seconds,
        "report": report,
    }
    report.unlink(missing_ok=True)
    current = Current()
    with redirected(log):
        package = Path(torch_s3io.__file__).parent
        pid = run_in_fork(path, package, torch_s3io.Error, details, current)
    return Run(path, pid, log, report, current=current)


class redirected:
    """Output of this process, and of those it forks meanwhile, goes to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._saved = os.dup(1), os.dup(2)
        with self._path.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)

    def __exit__(self, *_: Any) -> None:
        for saved, fd in zip(self._saved, (1, 2), strict=True):
            os.dup2(saved, fd)
            os.close(saved)


def start_cpp(path: Path, options: argparse.Namespace) -> Run:
    program, new = BUILD / path.stem, BUILD / "corpus" / path.stem
    if not program.exists():
        sys.exit(f"{program} is not built: make fuzz builds it (with clang++ and libFuzzer)")
    command: list[Any] = [program, f"-seed={options.seed}", "-rss_limit_mb=2048", "-timeout=20"]
    if options.input:
        command += options.input
    else:
        how_long = f"-max_total_time={options.seconds}" if options.seconds else "-runs=0"
        command += [how_long, f"-artifact_prefix={BUILD}/artifacts/{path.stem}-", "-max_len=4096"]
        command += ["-print_final_stats=1", new, CORPUS / path.stem]
    log = BUILD / f"{path.stem}.log"
    (CORPUS / path.stem).mkdir(exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    process.returncode = 0  # it is waited for here, with what it used
    return Run(path, process.pid, log, BUILD / f"{path.stem}.json")


def result_of(run: Run) -> dict[str, Any]:
    """Figures of a target that has ended."""
    log = run.log.read_text(errors="replace")
    figures: dict[str, Any] = {"target": run.path.name, "cpu_s": run.cpu_s, "wall_s": run.wall_s}
    if run.path.suffix == ".py":
        figures |= {"executions": run.current.count, "coverage": 0}
        if run.report.exists():
            figures |= json.loads(run.report.read_text())
    else:
        executions = re.findall(r"number_of_executed_units: (\d+)|^#(\d+)\s", log, re.MULTILINE)
        edges = re.findall(r"\bcov: (\d+)", log)
        figures["executions"] = max((int(a or b) for a, b in executions), default=0)
        figures["coverage"] = int(edges[-1]) if edges else 0
    figures["inputs"] = len(list((BUILD / "corpus" / run.name).iterdir()))
    figures["ended_well"] = run.status == 0
    return figures


def unreached(path: Path) -> list[str]:
    """Functions of a C++ target that its committed corpus does not reach: what they check would be
    checked by luck alone, in the few seconds that CI gives."""
    command: list[Any] = [BUILD / path.stem, "-runs=0", "-print_coverage=1", CORPUS / path.stem]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
    lines = [line for line in ran.stderr.splitlines() if f"fuzz/targets/{path.name}:" in line]
    if not lines:
        sys.exit("which functions were reached is not known: llvm-symbolizer is missing")
    places = [line.rpartition("/")[2] for line in lines if line.startswith("UNCOVERED_FUNC")]
    return [f"the function at fuzz/targets/{place}" for place in places]


def describe_failure(run: Run, seconds: int) -> None:
    """What was found, and how to see it again."""
    print(f"\n==== {run.path.name} failed, status {run.status}; the end of {run.log}:")
    lines = run.log.read_text(errors="replace").splitlines()
    told = [line for line in lines if not re.match(r"#\d|\s*NEW_FUNC|stat::|INFO:", line)]
    print("\n".join(line[:200] for line in told[-40:]))
    if run.current is not None:
        artifact = BUILD / "artifacts" / f"{run.name}-{run.current.count}"
        artifact.write_bytes(run.current.data)
    artifacts = sorted((BUILD / "artifacts").glob(f"{run.name}-*"), key=os.path.getmtime)
    if artifacts:
        again = f"ARGS='{run.name} --input {artifacts[-1]}'"
        print(f"See it again, as it was built: make fuzz FUZZ_SECONDS={seconds} {again}")
        print(f"Keep it, once it is mended: cp {artifacts[-1]} {CORPUS / run.name}/")


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| target | CPU s | wall s | executions | coverage | inputs kept |",
        "|---|---|---|---|---|---|",
    ]
    for one in results:
        unit = "lines" if one["target"].endswith(".py") else "edges"
        lines.append(
            f"| {one['target']}{'' if one['ended_well'] else ' FAILED'} | {one['cpu_s']:.0f} | "
            f"{one['wall_s']:.0f} | {one['executions']:,} | {one['coverage']:,} {unit} | "
            f"{one['inputs']:,} |"
        )
    return "\n".join(lines)


def run_all(paths: list[Path], options: argparse.Namespace) -> list[dict[str, Any]]:
    waiting, running, results = list(paths), [], []
    while waiting or running:
        while waiting and len(running) < options.jobs:
            path = waiting.pop(0)
            (BUILD / "corpus" / path.stem).mkdir(parents=True, exist_ok=True)
            start = start_python if path.suffix == ".py" else start_cpp
            running.append(start(path, options))
        for run in [run for run in running if run.poll(options.seconds)]:
            running.remove(run)
            results.append(result_of(run))
            missed = unreached(run.path) if run.is_whole_cpp(options) else []
            if missed:
                results[-1]["ended_well"] = False
                print(f"\n==== {CORPUS / run.name} does not reach:", *missed, sep="\n")
            if run.status != 0:
                describe_failure(run, options.seconds)
            elif options.input:
                print(f"{run.name}: {len(options.input)} inputs read, nothing wrong")
        time.sleep(0.05)
    return results


def parsed_arguments(known: dict[str, Path]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="by default all")
    parser.add_argument("--seconds", type=int, default=5, help="for each; 0: its corpus alone")
    parser.add_argument("--seed", type=int, default=None, help="of the mutations")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="targets at a time")
    parser.add_argument("--input", type=Path, action="append", default=[], help="read this alone")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    unknown = [name for name in options.targets if name not in known]
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(known)}")
    if options.input and len(options.targets) != 1:
        parser.error("--input goes with one target")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1, 1 << 31)
    return options


def main() -> int:
    found = sorted([*TARGETS.glob("*.py"), *TARGETS.glob("*.cpp")], key=lambda path: path.stem)
    known = {path.stem: path for path in found}
    options = parsed_arguments(known)
    paths = [known[name] for name in options.targets or known]
    (BUILD / "artifacts").mkdir(parents=True, exist_ok=True)
    print(f"{len(paths)} targets, {options.seconds} s each, --seed {options.seed}", flush=True)
    results = run_all(paths, options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if not options.input:
        print(f"\n{table(results)}")
    return 0 if all(one["ended_well"] for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
