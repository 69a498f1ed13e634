"""Importing the package does nothing but define names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from programs import run_program

import torch_s3io


def test_importing_starts_no_thread_opens_no_file_and_touches_no_device():
    source = """
        import os, sys, warnings
        import torch  # its own effects are not the subject

        def now():
            files = {}
            for name in os.listdir("/proc/self/fd"):
                try:
                    files[name] = os.readlink("/proc/self/fd/" + name)
                except FileNotFoundError:
                    pass
            files = {n: t for n, t in files.items() if not t.startswith("/proc/")}
            maps = open("/proc/self/maps").read()
            children = open(f"/proc/self/task/{os.getpid()}/children").read()
            return (files, sorted(os.listdir("/proc/self/task")), "memfd:torch_s3io" in maps,
                    children, dict(os.environ), torch.cuda.is_initialized())

        before = now()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            import torch_s3io
        assert now() == before, (before, now())
        assert not torch.cuda.is_initialized()
        print("done")
    """
    assert run_program(source, env={}) == "done\n"


def test_the_source_without_its_extension_says_what_to_do(tmp_path):
    package = Path(torch_s3io.__file__).parent
    shutil.copytree(package, tmp_path / "torch_s3io", ignore=shutil.ignore_patterns("*.so"))
    program = """
        import sys
        # An editable install would find the extension elsewhere.
        sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in repr(one).lower()]
        try:
            import torch_s3io
        except ImportError as error:
            print(error)
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.startswith(f"{tmp_path}/torch_s3io is the source of torch_s3io")
    assert "make setup" in process.stdout


def test_making_configs_stores_and_data_sets_starts_nothing():
    source = """
        import os, tempfile
        import numpy as np
        import torch_s3io
        from leaks import Resources
        from support import pool_mappings
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(1000))
            file.flush()
            before = Resources.now()
            store = torch_s3io.FileStore(torch_s3io.FileSystemConfig(direct_io="off"))
            dataset = torch_s3io.RecordDataset(file.name, dtype="u1", shape=10)
            iterator = iter(dataset)
            after = Resources.now()
            assert after == before, (before, after)
        print("done")
    """
    assert run_program(source) == "done\n"


def test_every_public_name_exists_and_the_version_is_one():
    for name in torch_s3io.__all__:
        assert getattr(torch_s3io, name) is not None
    assert torch_s3io.__all__ == sorted(torch_s3io.__all__)
    assert torch_s3io._C.__version__ == torch_s3io.__version__


def test_public_names_are_documented():
    for name in torch_s3io.__all__:
        if name != "__version__":
            assert getattr(torch_s3io, name).__doc__, name
