"""Runs a benchmark in a process of its own, with the allocation counter where it can be had."""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from .. import errors
from .._version import __version__
from ..console import CommandError, note, on_terminal, progress
from ..processes.interrupts import uninterrupted
from ..store.s3_config import S3Config, without_keys
from ..store.s3_credentials import place_of
from ..wording import count_of, one_line, size_text
from . import bucket, child, data
from .config import BenchConfig, DataConfig
from .parse import to_mapping

NOT_COUNTED = "allocator calls are not counted: {}"


def make_data(config: BenchConfig) -> None:
    """Makes the files that are missing."""
    tempfile.gettempdir()  # found by a file in it, which an interrupt later on might leave
    if config.data.is_in_bucket:
        _make_objects(config.data)
        return
    data.check_space(config.data)
    wanted = data.missing(config.data)
    if not wanted:
        return
    files = f"{count_of(len(wanted), 'file')} of {size_text(config.data.file_bytes)}"
    text = f"making {files} in {data.folder_of(config.data)}"
    if not on_terminal():
        note(text)
    data.make(config.data, progress(wanted, len(wanted), text, "file"))


def _make_objects(config: DataConfig) -> None:
    wanted = bucket.missing(config)
    text = f"making {count_of(len(wanted), 'object')} in {config.folder}"
    if wanted and not on_terminal():
        note(text)
    bucket.make(config, progress(wanted, len(wanted), text, "object"))


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """Gone at the end, wherever an interrupt comes."""
    folder = os.path.join(tempfile.gettempdir(), f"torch-s3io-{secrets.token_hex(8)}")
    try:
        os.mkdir(folder, 0o700)
        yield folder
    finally:
        uninterrupted(partial(shutil.rmtree, folder, ignore_errors=True))


@contextmanager
def allocation_counter() -> Iterator[tuple[dict[str, str], str]]:
    """Environment that preloads the counter, and "", or no environment and why there is none."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        yield {}, NOT_COUNTED.format("no C compiler (cc) is installed")
        return
    with _temporary_folder() as folder:
        source = Path(folder) / "allocation_counter.c"
        source.write_bytes((resources.files(__package__) / source.name).read_bytes())
        library = source.with_suffix(".so")
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]
        own = {**os.environ, "TMPDIR": folder}  # what it leaves when it is killed goes with that
        built = subprocess.run(command, env=own, capture_output=True, text=True, errors="replace")
        if built.returncode != 0:
            yield {}, NOT_COUNTED.format(f"the compiler says: {built.stderr.strip()[:200]}")
            return
        others = os.environ.get("LD_PRELOAD", "")
        yield {"LD_PRELOAD": f"{library} {others}".strip()}, ""


def run(
    config: BenchConfig,
    store: S3Config | None = None,
    *,
    show: bool = True,
    trace: Path | None = None,
) -> dict[str, Any]:
    """The result of a benchmark, as its JSON has it; the data must be there.

    Args:
        config: What to run.
        store: How a bucket is reached; its keys do not come to the measured process, which finds
            them in the environment. None: as the environment says.
        show: Show progress on a terminal.
        trace: Where the trace of ``profile`` goes.

    Raises:
        Error: What the measured process raised.
        CommandError: It ended otherwise.
    """
    with _temporary_folder() as folder, allocation_counter() as more:
        environment, note = more
        request, answer = Path(folder) / "request.json", Path(folder) / "result.json"
        request.write_text(
            json.dumps(
                {
                    "config": to_mapping(config),
                    "store": None if store is None else to_mapping(without_keys(store)),
                    "show": show,
                    "parent": os.getpid(),
                }
            )
        )
        package = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
        status = subprocess.run(
            [sys.executable, "-m", "torch_s3io.bench.child", str(request), str(answer)],
            env={**os.environ, **environment, "PYTHONPATH": paths, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            preexec_fn=_ignore_interrupts,
        ).returncode
        if status != 0 or not answer.exists():
            raise CommandError(f"the measured process ended with status {status}: see above")
        measured = json.loads(answer.read_text())
        if "error" in measured:
            raise getattr(errors, measured["class"], CommandError)(measured["error"])
        if config.profile and trace is not None:
            shutil.copyfile(Path(folder) / child.TRACE_NAME, trace)
    if not measured["allocations_counted"] and not note:
        note = NOT_COUNTED.format("the C library is not glibc")
    return {
        "config": to_mapping(config),
        "store": reached(store or S3Config()) if config.data.is_in_bucket else {},
        "machine": machine(config.data),
        "notes": [note] if note else [],
        **measured,
    }


def reached(store: S3Config) -> dict[str, Any]:
    """How a bucket was reached: the endpoint and region in use, and settings other than the
    defaults; none that says who asks."""
    place = place_of(store)
    hidden = {"profile", "ca_file", "sse_kms_key_id"}
    shown = {
        field.name: field.default
        for field in fields(S3Config)
        if field.repr and field.name not in hidden
    }
    values = {name: getattr(store, name) for name in shown}
    values |= {"endpoint": place.endpoint or None, "region": place.region}
    return {name: value for name, value in values.items() if value != shown[name]}


def _ignore_interrupts() -> None:
    """Ctrl-C goes to all processes of a terminal: this one ends the measured one, without a word
    from that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def machine(config: DataConfig) -> dict[str, str]:
    """Processor, memory, kernel, file system and software."""
    lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "processor": f"{models[0] if models else platform.machine()}, {os.cpu_count()} processors",
        "memory": f"{memory / (1 << 30):.0f} GiB",
        "kernel": platform.release(),
        "file_system": (
            one_line(config.folder) if config.is_in_bucket else file_system(data.folder_of(config))
        ),
        "software": f"torch_s3io {__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }


def file_system(folder: Path) -> str:
    """Its kind and source, of the last mount that holds the folder's device."""
    status = folder.stat()
    mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    return mounted(mounts, f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}")


def mounted(mounts: str, device: str) -> str:
    """The same of a device "major:minor", as /proc/self/mountinfo says it."""
    found = "unknown"
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2:3] == [device]:
            found = one_line(" on ".join(rest.split()[:2]))
    return found
