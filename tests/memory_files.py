"""A store whose objects lie in memory: what a store is, made in a test. Paths are memory://NAME.

Its C++ side is tests/cpp/memory_store.h: reads come back in any order, fail, or never come.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import subprocess
import sysconfig
from collections.abc import Iterable
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from torch_s3io import _C, NotFoundError
from torch_s3io.store.access import Access, Reading
from torch_s3io.store.store import FileOrder, Found, Identity, Inspected, Store
from torch_s3io.store.stores import register_store

TOP = Path(__file__).parents[1]
SOURCE = TOP / "tests/cpp/modules/memory_store_module.cpp"


@cache
def core() -> Any:
    """The compiled module."""
    library = (
        TOP / f"build/memory_store-torch{torch.__version__}-{sysconfig.get_config_var('SOABI')}.so"
    )
    library.parent.mkdir(exist_ok=True)
    with FileLock(f"{library}.lock"):
        read = [SOURCE, SOURCE.parents[1] / "memory_store.h", *(TOP / "csrc/store").glob("*.h")]
        newest = max(file.stat().st_mtime for file in (*read, Path(_C.__file__)))
        if not library.exists() or library.stat().st_mtime < newest:
            sources = [SOURCE, *sorted((TOP / "csrc/base").glob("*.cpp"))]
            unit = "".join(f'#include "{source}"\n' for source in sources)  # headers are read once
            subprocess.run(_command(library), input=unit, text=True, check=True, timeout=300)
    loader = ExtensionFileLoader("memory_store", str(library))
    spec = spec_from_loader("memory_store", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def _command(library: Path) -> list[str]:
    includes = [TOP / "csrc", TOP / "tests/cpp"]
    systems = [Path(torch.__file__).parent / "include", sysconfig.get_paths()["include"]]
    return [
        *shlex.split(os.environ.get("CXX", "g++")),
        *("-std=c++20", "-O0", "-fPIC", "-shared", "-fvisibility=hidden"),
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
        *(f"-I{folder}" for folder in includes),
        *(argument for folder in systems for argument in ("-isystem", str(folder))),
        *("-x", "c++", "-", "-o", str(library)),
    ]


class MemoryFiles(Store):
    """Of this process, and of those that were forked from it."""

    def __init__(self) -> None:
        self.clear()

    def clear(self, **options: Any) -> None:
        """No objects; ``options`` are those of the C++ store, by which reads fail."""
        self._objects: dict[str, bytes] = {}
        self._versions: dict[str, int] = {}
        self._options = {
            **{"block_bytes": 1, "max_open": 4, "slowness_ms": 0},
            **{"failing_read": -1, "lost_reads_from": -1},
            **options,
        }
        self._core: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_core": None}

    def put(self, path: str, data: bytes) -> None:
        """Takes the place of an object that is there."""
        self._objects[path] = data
        self._versions[path] = self._versions.get(path, 0) + 1
        if self._core is not None:
            self._core[1].put(path, data)

    def core_store(self) -> Any:
        if self._core is None or self._core[0] != os.getpid():
            store = core().MemoryStore(**self._options)
            for path, data in self._objects.items():
                for _ in range(self._versions[path]):  # each is a version more
                    store.put(path, data)
            self._core = os.getpid(), store
        return self._core[1]

    def absolute(self, path: str) -> str:
        return path

    def is_folder(self, path: str) -> bool:
        return any(name.startswith(path.rstrip("/") + "/") for name in self._objects)

    def has(self, path: str) -> bool:
        return path in self._objects

    def matches(self, path: str, order: FileOrder) -> list[str]:
        return [path] if self.is_folder(path) else [found.path for found in self.find(path, order)]

    def find(self, path: str, order: FileOrder) -> list[Found]:
        names = sorted(fnmatch.filter(self._objects, path))
        if not names:
            raise NotFoundError(f"{path}: is not there")
        fixed = os.path.dirname(re.split(r"[*?[]", path)[0])
        return [Found(name, os.path.relpath(name, fixed)) for name in names]

    def below(self, folder: str) -> Iterable[str]:
        return [name for name in self._objects if name.startswith(folder.rstrip("/") + "/")]

    def inspect(self, paths: list[str]) -> list[Inspected]:
        return [
            Inspected(Identity(0, 0, len(self.read(path)), self._versions[path]), 0)
            for path in paths
        ]

    def read(self, path: str, begin: int = 0, end: int | None = None) -> memoryview:
        if path not in self._objects:
            raise NotFoundError(f"{path}: is not there")
        return memoryview(self._objects[path])[begin:end]

    def access(self, reading: Reading) -> Access:
        return MemoryAccess(self, self._options["block_bytes"])


class MemoryAccess(Access):
    def __init__(self, files: MemoryFiles, block_bytes: int) -> None:
        self._files = files
        self.alignment = block_bytes

    def make_store(self) -> _C.Store:
        store: _C.Store = self._files.core_store()
        return store

    def check(self) -> None:
        """All is well."""

    def facts(self, engine_in_use: str) -> dict[str, str]:
        return {"engine": engine_in_use or "none yet", "direct": "memory"}


MEMORY = MemoryFiles()
register_store("memory", MEMORY)
