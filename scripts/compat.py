"""Builds and tries the package with every PyTorch that it claims to work with: `make compat`.

    python scripts/compat.py [--keep] [--pytest="-n2 -x"] [VERSION ...]

Every minor version is built against, from a copy of this tree. The oldest, one in the middle and
the newest are installed with all that they need, and the test suite runs. The others come without
their dependencies: where they can be imported nevertheless, as builds for the CPU can, a file is
read; where not, every symbol that the extension takes from PyTorch must be among those that its
libraries have. A table at the end says which it was.

Downloads 1 GB for a version and 3 GB for one that runs the tests; less where pip is given builds
for the CPU (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu). All goes to build/compat;
a version's folder is removed after its turn unless --keep is given.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

VERSIONS = [
    *("2.4.0", "2.4.1", "2.5.1", "2.6.0", "2.7.1", "2.8.0"),
    *("2.9.1", "2.10.0", "2.11.0", "2.12.1", "2.13.0"),
]
TESTED = {"2.4.1", "2.8.0", "2.13.0"}

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build/compat"
SOURCE = FOLDER / "source"
PYTHON = ROOT / ".venv/bin/python"
GB = 10**9
NEEDED_BYTES = {False: 5 * GB, True: 12 * GB}  # by whether the tests run
INSTALL = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-cache-dir"]

READ_A_FILE = """
import pathlib
import torch_s3io

path = pathlib.Path("records.bin")
path.write_bytes(bytes(range(256)) * 256)
dataset = torch_s3io.RecordDataset(path, dtype="u1", shape=512, batch_size=16)
for workers in (0, 1):
    loader = torch_s3io.DataLoader(dataset, num_workers=workers)
    assert b"".join(batch.numpy().tobytes() for batch in loader) == path.read_bytes()
"""
TORCH_SYMBOL = re.compile(r"c10|N2at|5torch|^THP")


class Failure(Exception):
    """What did not work, in a few words for the table."""


@dataclass
class Row:
    version: str
    built: str = ""
    read: str = "-"
    tests: str = "-"
    failed: bool = False


@dataclass(frozen=True)
class Environment:
    """A Python that sees one PyTorch."""

    python: Path
    torch: Path
    variables: dict[str, str]
    log: Path

    def run(self, *command: str | Path, cwd: Path = SOURCE) -> str:
        """Its output, which goes to the log as well; Failure with its last line."""
        with self.log.open("a+") as log:
            log.write(f"\n$ {shlex.join(map(str, command))}\n")
            begin = log.tell()
            status = subprocess.run(
                [self.python, *command], cwd=cwd, stdout=log, stderr=log, env=self.variables
            ).returncode
            log.seek(begin)
            output = log.read().strip()
        if status != 0:
            raise Failure(output.rpartition("\n")[2].strip("= ") or f"exit status {status}")
        return output


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("versions", nargs="*", metavar="VERSION", default=VERSIONS)
    parser.add_argument("--keep", action="store_true", help="keep what was installed")
    parser.add_argument(
        "--pytest",
        default=f"-n{(os.cpu_count() or 1) + 2} --dist worksteal",
        metavar="ARGS",
        help="what pytest is given (default: %(default)s)",
    )
    options = parser.parse_args()
    if shutil.which("nm") is None:
        sys.exit("torch_s3io: nm is missing, which is part of binutils")
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = []
    for version in options.versions:
        copy_tree()
        rows.append(try_version(version, shlex.split(options.pytest)))
        if not options.keep:
            shutil.rmtree(FOLDER / version, ignore_errors=True)
        print_table(rows)
    return int(any(row.failed for row in rows))


def try_version(version: str, pytest: list[str]) -> Row:
    print(f"== PyTorch {version}", flush=True)
    row, tested = Row(version), version in TESTED
    try:
        environment = install(version, tested)
        build(environment)
        row.built = "yes"
        row.read = read_a_file(environment)
        if tested:
            if row.read != "yes":
                raise Failure("not importable")
            row.tests = run_tests(environment, pytest)
    except Failure as failure:
        row.failed = True
        stage = "tests" if row.read == "yes" else "read" if row.built else "built"
        setattr(row, stage, f"NO: {failure}")
    return row


def copy_tree() -> None:
    """This tree as it is, not as it was committed; what was compiled there is used again."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    shutil.rmtree(SOURCE, ignore_errors=True)
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, SOURCE / name)
    (FOLDER / "objects").mkdir(exist_ok=True)
    (SOURCE / "build").symlink_to(FOLDER / "objects")


def install(version: str, tested: bool) -> Environment:
    folder, log = FOLDER / version, FOLDER / f"{version}.log"
    log.write_text("")
    variables = dict(os.environ)
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would compile PyTorch's
    if tested:
        python, packages = folder / "bin/python", folder / "lib" / python_folder() / "site-packages"
    else:
        python, packages = PYTHON, folder
        variables["PYTHONPATH"] = str(folder)
    environment = Environment(python, packages / "torch", variables, log)
    if not (folder / ".ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        free = shutil.disk_usage(FOLDER).free
        if free < NEEDED_BYTES[tested]:
            needed = NEEDED_BYTES[tested] // GB
            raise Failure(f"needs {needed} GB in {FOLDER}, where {free // GB} GB are free")
        if tested:
            subprocess.run([PYTHON, "-m", "venv", folder], check=True)
            environment.run(*INSTALL, f"torch=={version}", "setuptools>=77")
            # With the version once more, or else a package may bring another one.
            environment.run(
                *INSTALL, "--no-build-isolation", "-e", ".[dev,trainers]", f"torch=={version}"
            )
        else:
            target = ["--no-deps", "--target", folder]
            environment.run(*INSTALL, *target, f"torch=={version}")
        (folder / ".ready").touch()
    return environment


def python_folder() -> str:
    command = [PYTHON, "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def build(environment: Environment) -> None:
    """The extension, in the copy of the tree; nothing that it needs may be missing in PyTorch."""
    environment.run("setup.py", "-q", "build_ext", "--inplace")
    (library,) = (SOURCE / "torch_s3io").glob("_C.*.so")
    libraries = [environment.torch / f"lib/lib{name}.so" for name in ("c10", "torch_cpu")]
    libraries.append(environment.torch / "lib/libtorch_python.so")
    needed = {name for name in symbols("--undefined-only", library) if TORCH_SYMBOL.search(name)}
    missing = needed - symbols("--defined-only", *libraries)
    if missing or not needed:
        raise Failure(f"{len(missing)} of {len(needed)} symbols are missing: {sorted(missing)[:3]}")


def symbols(kind: str, *libraries: Path) -> set[str]:
    command = ["nm", "-D", "--format=just-symbols", kind, *map(str, libraries)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {line.partition("@")[0] for line in output.split("\n")}


def read_a_file(environment: Environment) -> str:
    try:
        environment.run("-c", "import torch")
    except Failure as failure:
        library = re.search(r"lib\w+\.so", str(failure))
        if library is None:
            raise
        return f"not tried: PyTorch does not find {library[0]}"
    environment.run("-c", READ_A_FILE)
    return "yes"


def run_tests(environment: Environment, arguments: list[str]) -> str:
    """How many passed."""
    output = environment.run("-m", "pytest", "-q", *arguments)
    return output.rpartition("\n")[2].strip("= ")


def print_table(rows: list[Row]) -> None:
    print("\n| PyTorch | built | read | tests |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.version} | {row.built} | {row.read} | {row.tests} |")
    print(f"\nLogs: {FOLDER}/VERSION.log\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
