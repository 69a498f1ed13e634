"""Builds ``torch_s3io._C`` from ``csrc/``; everything else about the package is in pyproject.toml.

How and with which environment variables is in scripts/compile_cpp.py.
"""

import runpy
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, __version__, setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, "scripts")
import compile_cpp as cpp

VERSION = runpy.run_path("torch_s3io/_version.py")["__version__"]


def check_setuptools():
    if int(__version__.split(".")[0]) < 77:  # older ones cannot read pyproject.toml
        cpp.fail(
            f"building needs setuptools 77 or newer, this is {__version__}. Please run\n"
            "    pip install 'setuptools>=77'\n"
            "    pip install --no-build-isolation ."
        )


def import_torch():
    try:
        import torch
    except ImportError as error:
        cpp.fail(
            f"building needs an installed PyTorch ({error}). Install one first and build without "
            "isolation, so that the extension is built against the PyTorch it will run with:\n"
            "    pip install torch==2.13.0\n"
            "    pip install --no-build-isolation ."
        )
    return torch


def compiler(torch):
    """The compiler for the bindings. Other people's headers are -isystem: they give no warnings."""
    torch_include = Path(torch.__file__).parent / "include"
    system_includes = [
        torch_include,
        torch_include / "torch/csrc/api/include",
        sysconfig.get_path("include"),
        sysconfig.get_path("platinclude"),
    ]
    version = f'-DS3IO_VERSION="{VERSION}"'
    return cpp.compiler(
        *release_flags(torch), *(f"-isystem{path}" for path in system_includes), version
    )


def release_flags(torch):
    old_strings = [] if torch.compiled_with_cxx11_abi() else ["-D_GLIBCXX_USE_CXX11_ABI=0"]
    return [*cpp.RELEASE, *old_strings]


def torch_libraries(torch):
    torch_lib = Path(torch.__file__).parent / "lib"
    flags = [f"-L{torch_lib}", "-ltorch_python", "-ltorch_cpu", "-ltorch", "-lc10"]
    return [*flags, f"-Wl,-rpath,$ORIGIN/../torch/lib:{torch_lib}"]  # side by side; editable


class BuildExt(build_ext):
    """Compiles in parallel and only what changed, in build/, also when pip calls."""

    def build_extension(self, ext):
        torch = import_torch()
        folder = cpp.release_folder(f"{sys.implementation.cache_tag}-torch{torch.__version__}")
        bindings = cpp.sources_in(Path("csrc/bindings"))
        units = cpp.units_of_equal_size(2, folder / "bindings", bindings, compiler(torch))
        core = cpp.release_folder(*([] if torch.compiled_with_cxx11_abi() else ["abi0"]))
        units += cpp.core_units(core, release_flags(torch))
        library = folder / ("_C.so" if cpp.USE_URING else "_C_no_uring.so")
        objects = cpp.compile_units(units)
        cpp.link(library, objects, [*compiler(torch), "-shared"], torch_libraries(torch))
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        output.unlink(missing_ok=True)  # a running process may have the old one mapped
        shutil.copyfile(library, output)


check_setuptools()
sources = [str(path) for path in sorted(Path("csrc").rglob("*.cpp"))]
setup(ext_modules=[Extension("torch_s3io._C", sources)], cmdclass={"build_ext": BuildExt})
