"""Builds ``torch_s3io._C`` from ``csrc/``; everything else about the package is in pyproject.toml.

Environment:
    TORCH_S3IO_NO_URING=1   leave io_uring out: the thread engine alone, no liburing needed
    TORCH_S3IO_WERROR=1     compiler warnings are errors (CI)
    MAX_JOBS                compilers that run at once (default: one per CPU)
    CXX, CXXFLAGS, LDFLAGS  as everywhere
"""

import os
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from setuptools import Extension, __version__, setup
from setuptools.command.build_ext import build_ext

VERSION = runpy.run_path("torch_s3io/_version.py")["__version__"]
USE_URING = os.environ.get("TORCH_S3IO_NO_URING", "0") in ("", "0")
WERROR = os.environ.get("TORCH_S3IO_WERROR", "0") not in ("", "0")
URING_SOURCE = "csrc/io/uring_engine.cpp"


def fail(message):
    sys.exit(f"\ntorch_s3io: {message}\n")


def check_setuptools():
    if int(__version__.split(".")[0]) < 77:  # older ones cannot read pyproject.toml
        fail(
            f"building needs setuptools 77 or newer, this is {__version__}. Please run\n"
            "    pip install 'setuptools>=77'\n"
            "    pip install --no-build-isolation ."
        )


def import_torch():
    try:
        import torch
    except ImportError as error:
        fail(
            f"building needs an installed PyTorch ({error}). Install one first and build without "
            "isolation, so that the extension is built against the PyTorch it will run with:\n"
            "    pip install torch==2.13.0\n"
            "    pip install --no-build-isolation ."
        )
    return torch


def liburing_flags(option):
    if not shutil.which("pkg-config"):
        fail(
            "pkg-config is missing. Debian, Ubuntu: apt install pkg-config. "
            "Fedora: dnf install pkgconf."
        )
    command = ["pkg-config", option, "liburing >= 2.3"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        fail(
            "liburing 2.3 or newer is missing. Debian, Ubuntu: apt install liburing-dev. "
            "Fedora: dnf install liburing-devel. TORCH_S3IO_NO_URING=1 builds without io_uring.\n"
            f"pkg-config says: {result.stderr.strip()}"
        )
    return shlex.split(result.stdout.replace("-I", "-isystem "))


def compiler_command(torch):
    """The compiler with all flags. Other people's headers are -isystem: they give no warnings."""
    torch_include = Path(torch.__file__).parent / "include"
    system_includes = [
        torch_include,
        torch_include / "torch/csrc/api/include",
        sysconfig.get_path("include"),
        sysconfig.get_path("platinclude"),
    ]
    command = shlex.split(os.environ.get("CXX", "g++"))
    command += ["-std=c++20", "-O3", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", "-pthread"]
    command += ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", *(["-Werror"] if WERROR else [])]
    command += ["-Icsrc", *(f"-isystem{path}" for path in system_includes)]
    command += [f'-DS3IO_VERSION="{VERSION}"']
    command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    if USE_URING:
        command += ["-DS3IO_HAVE_URING=1", *liburing_flags("--cflags")]
    return command + shlex.split(os.environ.get("CXXFLAGS", ""))


def link_flags(torch):
    torch_lib = Path(torch.__file__).parent / "lib"
    flags = [f"-L{torch_lib}", "-ltorch_python", "-ltorch_cpu", "-ltorch", "-lc10"]
    flags += [f"-Wl,-rpath,$ORIGIN/../torch/lib:{torch_lib}"]  # installed side by side; editable
    if USE_URING:
        flags += liburing_flags("--libs")
    return flags + shlex.split(os.environ.get("LDFLAGS", ""))


def is_current(target, command, inputs):
    """True if `target` was made by this very command and is newer than everything it came from."""
    record = Path(f"{target}.cmd")
    if not (target.exists() and record.exists() and record.read_text() == shlex.join(command)):
        return False
    built_at = target.stat().st_mtime_ns
    return all(Path(path).exists() and Path(path).stat().st_mtime_ns <= built_at for path in inputs)


def make(target, command, inputs):
    if is_current(target, command, inputs):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    record = Path(f"{target}.cmd")
    record.unlink(missing_ok=True)
    print(f"  building {target}\n", end="", flush=True)  # one write: threads
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(result.stdout, end="", flush=True)
    if result.returncode != 0:
        fail(f"the compiler failed on {target}")
    record.write_text(shlex.join(command))


def compile_object(source, folder, compiler):
    target = folder / Path(source).with_suffix(".o")
    depfile = target.with_suffix(".d")
    inputs = [source]
    if depfile.exists():  # "object: source header header \ ..."
        inputs = depfile.read_text().replace("\\\n", " ").split(":", 1)[1].split()
    make(target, [*compiler, "-MMD", "-MF", str(depfile), "-c", source, "-o", str(target)], inputs)
    return str(target)


def build_folder(torch):
    name = f"ext-{sys.implementation.cache_tag}-torch{torch.__version__}"
    name += "" if USE_URING else "-no-uring"
    name += "-werror" if WERROR else ""
    return Path("build") / name


class BuildExt(build_ext):
    """Compiles in parallel and only what changed, in build/ext-*, also when pip calls."""

    def build_extension(self, ext):
        torch = import_torch()
        compiler = compiler_command(torch)
        folder = build_folder(torch)
        jobs = int(os.environ.get("MAX_JOBS") or len(os.sched_getaffinity(0)))
        with ThreadPoolExecutor(jobs) as pool:
            compiling = partial(compile_object, folder=folder, compiler=compiler)
            objects = list(pool.map(compiling, ext.sources))
        library = folder / "_C.so"
        linker = [*compiler, "-shared", *objects, "-o", str(library), *link_flags(torch)]
        make(library, linker, objects)
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        output.unlink(missing_ok=True)  # a running process may have the old one mapped
        shutil.copyfile(library, output)


check_setuptools()
sources = sorted(str(path) for path in Path("csrc").rglob("*.cpp"))
if not USE_URING:
    sources.remove(URING_SOURCE)
setup(ext_modules=[Extension("torch_s3io._C", sources)], cmdclass={"build_ext": BuildExt})
