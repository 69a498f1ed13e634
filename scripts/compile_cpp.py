"""Compiles ``csrc/`` and the C++ tests: in parallel, and only what changed.

    python scripts/compile_cpp.py cpptest|asan|tsan  the C++ tests, as build/NAME/run
    python scripts/compile_cpp.py fuzz               the fuzz targets, as build/fuzz/NAME
    python scripts/compile_cpp.py tidy               what clang-tidy says of the part without torch

``setup.py`` takes the extension's objects from here. The part without torch, which is all but
``csrc/bindings``, is compiled once: the extension, with io_uring and S3 or without, and
``cpptest`` share it. ``asan`` and ``fuzz`` share theirs.

The files of a folder are compiled together, as one unit that includes them. Most of the time goes
into headers, which so are read once per folder. Names that a file keeps to itself therefore must be
unique in its folder.

Environment:
    TORCH_S3IO_NO_URING=1   leave io_uring out: the thread engine alone, no liburing needed
    TORCH_S3IO_NO_S3=1      leave csrc/http out, and its tests: no libcurl or OpenSSL needed
    TORCH_S3IO_WERROR=1     compiler warnings are errors (CI)
    MAX_JOBS                compilers that run at once (default: one per CPU)
    CXX, CXXFLAGS, LDFLAGS  as everywhere. By default g++, for asan and fuzz clang++: it takes half
                            the time. All warnings are g++'s.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def is_on(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


USE_URING = not is_on("TORCH_S3IO_NO_URING")
USE_S3 = not is_on("TORCH_S3IO_NO_S3")
WERROR = is_on("TORCH_S3IO_WERROR")

STANDARD = "-std=c++20"
RELEASE = ["-O3", "-DNDEBUG", "-fPIC", "-fvisibility=hidden"]
# To optimize the tests themselves takes longer than they run; ThreadSanitizer's gain by a little.
UNOPTIMIZED, HARDLY_OPTIMIZED = ["-O0", "-g1"], ["-Og", "-g1"]
TSAN_FLAGS = ["-O1", "-g1", "-fno-omit-frame-pointer"]
# To optimize the core takes three times what the tests under AddressSanitizer gain.
ASAN_FLAGS = [*UNOPTIMIZED, "-fno-omit-frame-pointer"]
ADDRESS = "-fsanitize=address"
ASAN = "-fsanitize=address,undefined,float-cast-overflow"
SANITIZERS = {
    "cpptest": [],  # what is shipped
    "asan": [ASAN, "-fno-sanitize-recover=all"],
    "tsan": ["-fsanitize=thread"],
}
# Tests that have one thread: nothing for ThreadSanitizer.
THREADLESS = (
    *("epoch_plan", "order", "permutation", "placement", "record_layout", "sample_places"),
    *("base", "cgroup", "direct_file", "page_cache", "window_readahead"),
    *("tar_chain", "checksum_text", "crc32c", "http_url", "http_head", "s3_signing", "s3_xml"),
    *("s3_allocations", "s3_client", "s3_etag", "s3_list", "s3_upload"),
)
SEEN_BY_FUZZER = "-fsanitize=fuzzer-no-link"


def fail(message: str) -> None:
    sys.exit(f"\ntorch_s3io: {message}\n")


# Units --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """Sources that are compiled together, into one object."""

    target: Path
    sources: list[str]
    command: list[str]

    def source_bytes(self) -> int:
        return sum(Path(source).stat().st_size for source in self.sources)

    def write_source(self) -> Path:
        source = self.target.with_suffix(".cpp")
        write(source, "".join(f'#include "{path}"\n' for path in self.sources))
        return source

    def compile(self) -> str:
        source, depfile = self.write_source(), self.target.with_suffix(".d")
        inputs = [str(source)]
        if depfile.exists():  # "object: source header header \ ..."
            inputs = depfile.read_text().replace("\\\n", " ").split(":", 1)[1].split()
        steps = ["-MMD", "-MF", str(depfile), "-c", str(source), "-o", str(self.target)]
        make(self.target, [*self.command, *steps], inputs)
        return str(self.target)


def core_units(folder: Path, flags: list[str], with_s3: bool = False) -> list[Unit]:
    """All of ``csrc`` that needs no torch, the largest first; ``csrc/http`` where asked for."""
    command = compiler(*flags)
    left_out = {"bindings", "http"}
    layers = sorted(path for path in Path("csrc").iterdir() if path.name not in left_out)
    one_of = {True: "csrc/io/uring_engine.cpp", False: "csrc/io/no_uring.cpp"}
    units = [
        Unit(folder / f"{layer.name}.o", sources, command)
        for layer in layers
        if (sources := [path for path in sources_in(layer) if path not in one_of.values()])
    ]
    if with_s3:
        http = sources_in(Path("csrc/http"))
        units.append(Unit(folder / "http.o", http, [*command, *s3_flags("--cflags")]))
    if USE_URING:
        command = [*command, *liburing_flags("--cflags")]
    name = Path(one_of[USE_URING]).stem
    units.append(Unit(folder / f"{name}.o", [one_of[USE_URING]], command))
    return sorted(units, key=Unit.source_bytes, reverse=True)


def binding_units(folder: Path, command: list[str]) -> list[Unit]:
    """``csrc/bindings``. Those of S3 are by themselves: the others are the same without them."""
    parts: dict[str, list[str]] = {"s3": [], "no_s3": [], "": []}
    for path in sources_in(Path("csrc/bindings")):
        stem = Path(path).stem
        parts["s3" if stem.startswith("s3") else stem if stem in parts else ""].append(path)
    name = "s3" if USE_S3 else "no_s3"
    # As two units they would take a third more: both instantiate what pybind11 is made of.
    return [
        Unit(folder / "bindings.o", parts[""], command),
        Unit(folder / f"bindings_{name}.o", parts[name], command),
    ]


def units_of_equal_size(
    count: int, target: Path, sources: list[str], command: list[str]
) -> list[Unit]:
    """The sources in so many units, ``target`` with a number."""
    parts: list[list[str]] = [[] for _ in range(count)]
    sizes = [0] * count
    for source in sorted(sources, key=lambda path: Path(path).stat().st_size, reverse=True):
        smallest = sizes.index(min(sizes))
        parts[smallest].append(source)
        sizes[smallest] += Path(source).stat().st_size
    return [
        Unit(target.with_name(f"{target.name}_{number}.o"), part, command)
        for number, part in enumerate(parts)
    ]


def sources_in(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.cpp"))


def compile_units(units: list[Unit]) -> list[str]:
    """The objects. Units that take longest should come first."""
    return in_parallel(Unit.compile, units)


def in_parallel(act: Callable[[Unit], Result], units: list[Unit]) -> list[Result]:
    with ThreadPoolExecutor(most_jobs()) as pool:
        return list(pool.map(act, units))


def most_jobs() -> int:
    return int(os.environ.get("MAX_JOBS") or len(os.sched_getaffinity(0)))


# Commands -----------------------------------------------------------------------------------------


def compiler(*flags: str) -> list[str]:
    clang = ASAN in flags or ADDRESS in flags
    command = shlex.split(os.environ.get("CXX") or ("clang++" if clang else "g++"))
    warnings = ["-Wall"] if clang else ["-Wall", "-Wextra", "-Wshadow", "-Wconversion"]
    command += [STANDARD, "-pthread", *warnings, *(["-Werror"] if WERROR else [])]
    return [*command, "-I.", "-Icsrc", *flags, *shlex.split(os.environ.get("CXXFLAGS", ""))]


def uncollected() -> list[str]:
    """For large units full of templates: g++ otherwise spends a fifth of the time on finding out
    which of its memory is free, a quarter of it."""
    if any("clang" in word for word in compiler()):
        return []
    memory_kib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    return ["--param", f"ggc-min-heapsize={min(4_000_000, memory_kib // 4)}"]


def liburing_flags(option: str) -> list[str]:
    return package_flags(
        option,
        ["liburing >= 2.3"],
        "liburing 2.3 or newer is missing. Debian, Ubuntu: apt install liburing-dev. "
        "Fedora: dnf install liburing-devel. TORCH_S3IO_NO_URING=1 builds without io_uring.",
    )


def s3_flags(option: str) -> list[str]:
    return package_flags(
        option,
        ["libcurl >= 7.80", "libcrypto"],
        "libcurl 7.80 or newer, or OpenSSL, is missing. Debian, Ubuntu: apt install "
        "libcurl4-openssl-dev libssl-dev. Fedora: dnf install libcurl-devel openssl-devel. "
        "TORCH_S3IO_NO_S3=1 builds without object storage.",
    )


def package_flags(option: str, packages: list[str], if_missing: str) -> list[str]:
    if not shutil.which("pkg-config"):
        fail(
            "pkg-config is missing. Debian, Ubuntu: apt install pkg-config. "
            "Fedora: dnf install pkgconf."
        )
    result = subprocess.run(["pkg-config", option, *packages], capture_output=True, text=True)
    if result.returncode != 0:
        fail(f"{if_missing}\npkg-config says: {result.stderr.strip()}")
    return shlex.split(result.stdout.replace("-I", "-isystem "))


def link(target: Path, objects: list[str], command: list[str], libraries: list[str]) -> None:
    libraries = [*libraries, *(liburing_flags("--libs") if USE_URING else [])]
    extra = shlex.split(os.environ.get("LDFLAGS", ""))
    make(target, [*command, *objects, "-o", str(target), *libraries, *extra], objects)


def make(target: Path, command: list[str], inputs: list[str]) -> None:
    if is_current(target, command, inputs):
        return
    record = Path(f"{target}.cmd")
    record.unlink(missing_ok=True)
    print(f"  building {target}\n", end="", flush=True)  # one write: threads
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(result.stdout, end="", flush=True)
    if result.returncode != 0:
        fail(f"the compiler failed on {target}")
    write(record, shlex.join(command))


def is_current(target: Path, command: list[str], inputs: list[str]) -> bool:
    """True if `target` was made by this very command and is newer than everything it came from."""
    record = Path(f"{target}.cmd")
    if not (target.exists() and record.exists() and record.read_text() == shlex.join(command)):
        return False
    built_at = target.stat().st_mtime_ns
    return all(Path(path).exists() and Path(path).stat().st_mtime_ns <= built_at for path in inputs)


def write(path: Path, text: str) -> None:
    """The file keeps its time where it has that text already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (path.exists() and path.read_text() == text):
        path.write_text(text)


# The C++ tests ------------------------------------------------------------------------------------


def release_folder(*names: str) -> Path:
    return Path("build") / "-".join(["release", *names, *(["werror"] if WERROR else [])])


def build_tests(name: str) -> None:
    folder, sanitizer = Path("build") / name, SANITIZERS[name]
    flags = HARDLY_OPTIMIZED if name == "tsan" else UNOPTIMIZED
    rounds = ["-DS3IO_FEW_ROUNDS"] if sanitizer else []
    own = [ADDRESS] if name == "asan" else sanitizer  # what is undefined is looked for in csrc/
    command, main = compiler(*flags, *own, *rounds), "tests/cpp/main.cpp"
    tests = [path for path in sources_to_run(Path("tests/cpp")) if path != main]
    if name == "tsan":
        # An exception in a CHECK then ends its test: what can be caught takes a fifth of the time.
        command.append("-DDOCTEST_CONFIG_NO_TRY_CATCH_IN_ASSERTS")
        tests = [path for path in tests if Path(path).stem.removesuffix("_test") not in THREADLESS]
    units = units_of_equal_size(min(4, most_jobs()), folder / "tests", tests, command)
    units.append(Unit(folder / "main.o", [main], command))  # doctest's own code
    if name == "asan":
        units += asan_core()
    elif name == "tsan":
        units += core_units(folder, [*TSAN_FLAGS, *sanitizer], USE_S3)
    else:
        units += core_units(release_folder(), RELEASE, USE_S3)
    link(folder / "run", compile_units(units), compiler(*sanitizer), s3_libraries())


def sources_to_run(folder: Path) -> list[str]:
    """Without those of ``csrc/http`` where that is left out."""
    return [
        path
        for path in sources_in(folder)
        if USE_S3
        or not re.search('#include "(http/|scripted_transport|range_fetch)', Path(path).read_text())
    ]


def s3_libraries() -> list[str]:
    return s3_flags("--libs") if USE_S3 else []


# Fuzz targets -------------------------------------------------------------------------------------


def asan_core() -> list[Unit]:
    # clang-tidy's check of reserved identifiers takes a sixth of its time.
    flags = [*ASAN_FLAGS, *SANITIZERS["asan"], SEEN_BY_FUZZER, "-Wreserved-identifier"]
    return core_units(Path("build/asan"), flags, USE_S3)


def build_fuzzers() -> None:
    folder, flags = Path("build/fuzz"), [*ASAN_FLAGS, *SANITIZERS["asan"]]
    # fuzz/run.py asks which functions of a target are reached: none may vanish into others.
    command = compiler(*flags, SEEN_BY_FUZZER, "-fno-inline", "-Ifuzz")
    targets = sources_to_run(Path("fuzz/targets"))
    core = asan_core()
    units = [*core, *(Unit(folder / f"{Path(one).stem}.o", [one], command) for one in targets)]
    objects = compile_units(units)
    for unit in units[len(core) :]:
        parts = [str(unit.target), *objects[: len(core)]]
        command = compiler(*flags, "-fsanitize=fuzzer")
        link(unit.target.with_suffix(""), parts, command, s3_libraries())


# clang-tidy ---------------------------------------------------------------------------------------


def tidy() -> None:
    units = core_units(Path("build/tidy"), [], USE_S3)
    if not all(in_parallel(is_tidy, units)):
        fail("clang-tidy has found what is above")


def is_tidy(unit: Unit) -> bool:
    checks = "--checks=-bugprone-suspicious-include"  # which units are made of
    flags = unit.command[unit.command.index(STANDARD) :]  # without the compiler
    command = ["clang-tidy", "--quiet", checks, str(unit.write_source()), "--", *flags]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = result.stdout.splitlines(keepends=True)
    print("".join(line for line in lines if "generated" not in line), end="", flush=True)
    return result.returncode == 0


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name == "tidy":
        tidy()
    elif name == "fuzz":
        build_fuzzers()
    elif name in SANITIZERS:
        build_tests(name)
    else:
        fail(f"usage: python scripts/compile_cpp.py {'|'.join(SANITIZERS)}|fuzz|tidy")
