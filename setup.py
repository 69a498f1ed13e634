"""Builds ``torch_s3io._C`` from ``csrc/``; everything else about the package is in pyproject.toml.

How and with which environment variables is in scripts/compile_cpp.py.
"""

import runpy
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
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


@dataclass(frozen=True)
class Torch:
    """The PyTorch to build against, by its files: importing it may need a GPU's libraries."""

    folder: Path
    version: str
    old_strings: bool  # libstdc++'s of before 2015, as in the wheels before 2.7

    @classmethod
    def find(cls):
        spec = find_spec("torch")
        if spec is None or spec.origin is None:
            cpp.fail(
                "building needs an installed PyTorch. Install one first and build without "
                "isolation, so that the extension is built against the PyTorch it will run with:\n"
                "    pip install torch==2.13.0\n"
                "    pip install --no-build-isolation ."
            )
        folder = Path(spec.origin).parent
        version = runpy.run_path(str(folder / "version.py"))["__version__"]
        settings = folder / "share/cmake/Torch/TorchConfig.cmake"
        old_strings = settings.exists() and "_GLIBCXX_USE_CXX11_ABI=0" in settings.read_text()
        return cls(folder, version, old_strings)

    def release_flags(self):
        return [*cpp.RELEASE, *(["-D_GLIBCXX_USE_CXX11_ABI=0"] if self.old_strings else [])]

    def compiler(self):
        """The bindings' compiler. Other people's headers are -isystem: they give no warnings.

        The bindings do little but call: with -O3, which takes a quarter longer, they are no faster.
        """
        system_includes = [
            self.folder / "include",
            self.folder / "include/torch/csrc/api/include",
            sysconfig.get_path("include"),
            sysconfig.get_path("platinclude"),
        ]
        version = f'-DS3IO_VERSION="{VERSION}"'
        includes = (f"-isystem{path}" for path in system_includes)
        return cpp.compiler(*self.release_flags(), "-O1", *cpp.uncollected(), *includes, version)

    def libraries(self):
        lib = self.folder / "lib"
        flags = [f"-L{lib}", "-ltorch_python", "-ltorch_cpu", "-ltorch", "-lc10"]
        return [*flags, f"-Wl,-rpath,$ORIGIN/../torch/lib:{lib}"]  # side by side; editable


class BuildExt(build_ext):
    """Compiles in parallel and only what changed, in build/, also when pip calls."""

    def build_extension(self, ext):
        torch = Torch.find()
        folder = cpp.release_folder(f"{sys.implementation.cache_tag}-torch{torch.version}")
        bindings = cpp.binding_units(folder, torch.compiler())
        core_folder = cpp.release_folder(*(["abi0"] if torch.old_strings else []))
        core = cpp.core_units(core_folder, torch.release_flags(), cpp.USE_S3)
        left_out = "_no_uring" * (not cpp.USE_URING) + "_no_s3" * (not cpp.USE_S3)
        library = folder / f"_C{left_out}.so"
        objects = cpp.compile_units([*bindings, *core])
        # Of a function that several have, the first stays: the core's, which is optimized.
        core_first = objects[len(bindings) :] + objects[: len(bindings)]
        cpp.link(
            library,
            core_first,
            [*torch.compiler(), "-shared"],
            [*torch.libraries(), *cpp.s3_libraries()],
        )
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        output.unlink(missing_ok=True)  # a running process may have the old one mapped
        shutil.copyfile(library, output)


check_setuptools()
sources = [str(path) for path in sorted(Path("csrc").rglob("*.cpp"))]
setup(ext_modules=[Extension("torch_s3io._C", sources)], cmdclass={"build_ext": BuildExt})
