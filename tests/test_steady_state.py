"""Once under way, a batch costs no allocation in the core, a few in torch, and no page fault:
counted by an interposed allocator and by the kernel."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from programs import run_program
from sample_sets import Lengths
from support import make_warm, random_bytes, write_file
from token_files import write_megatron

SOURCE = Path(__file__).with_name("interposer.c")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def build_library(source: Path, folder: Path) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "a C compiler is needed, as for the package itself"
    library = folder / f"{source.stem}.so"
    command = [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-ldl"]
    subprocess.run([*command, str(source), "-o", str(library)], check=True, timeout=60)
    return library


@pytest.fixture(scope="module")
def interposer(tmp_path_factory) -> Path:
    return build_library(SOURCE, tmp_path_factory.mktemp("interposer"))


MEASURE = """
    import ctypes, gc, itertools, json, resource, sys
    import numpy as np
    import torch
    from torch_s3io import RecordDataset, SampleDataset, TokenDataset

    path, folder, tokens, engine = sys.argv[2:]
    counter = ctypes.CDLL(sys.argv[1])
    for name in ("allocations_of_this_thread", "allocations_of_other_threads"):
        getattr(counter, name).restype = ctypes.c_long
    layouts = {
        "plain": {"dtype": "u1", "shape": 4096},
        "structured": {"dtype": np.dtype([("a", "u1", (96,)), ("b", "u1", (4000,))])},
        "converted": {"dtype": ">i4", "shape": 1024},
        "indexed": {"dtype": "u1", "shape": 4096, "return_index": True},
    }

    def now():
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        others = counter.allocations_of_other_threads()
        return others, counter.allocations_of_this_thread(), faults

    def measure(dataset):
        number, before, after = 0, now(), None
        for batch in dataset:
            number += 1
            if number == 100:
                before = now()
            if number == 200:
                after = now()
        assert number == 256, number
        assert dataset.stats()["engine"] == engine
        others, mine, faults = (late - early for early, late in zip(before, after))
        return {"others": others, "mine": mine, "faults": faults}

    def measure_epochs(direct, kind):
        options = {"batch_size": 16, "engine": engine, "direct": direct}
        if kind == "samples":
            dataset = SampleDataset(folder, shuffle=True, **options)
        elif kind == "windows":
            dataset = TokenDataset(tokens, window=513, shuffle=True, **options)
        elif kind == "masked windows":
            options["return_documents"] = True
            dataset = TokenDataset(tokens, window=513, shuffle=True, **options)
        else:
            dataset = RecordDataset(path, **options, **layouts[kind])
        return {"what": (direct, kind), "epochs": [measure(dataset) for _ in range(3)]}

    gc.disable()
    kinds = [*layouts, "samples", "windows", "masked windows"]
    combinations = itertools.product(("auto", "require", "off"), kinds)
    print(json.dumps([measure_epochs(*what) for what in combinations]))
    assert counter.allocations_of_other_threads() > 0, "the allocator is not interposed"
"""
BATCHES = 100
TENSORS = {"plain": 1, "structured": 2, "converted": 1, "indexed": 2}
TENSORS |= {"samples": 4}  # numbers, and values, starts and lengths
TENSORS |= {"windows": 1, "masked windows": 5}
MOST_PER_TENSOR = 12  # a storage, its tensor, and what torch and Python hang on them
THREADS = 16  # of the thread engine


def test_a_batch_allocates_nothing_in_the_core_and_faults_in_no_page(disk, interposer, engine):
    """With threads, one that has not read before may have its first turn while we count: it then
    allocates its thread-local storage, and faults in its stack. Far less than once per batch."""
    path = write_file(disk / "x.bin", random_bytes(16 << 20))
    make_warm(path)
    lengths = np.random.default_rng(0).lognormal(7, 0.7, 4096).astype(int)
    folder = Lengths(disk / "set", lengths).folder
    documents = np.split(np.arange(4096 * 512 + 1), np.arange(0, 4096 * 512, 700)[1:])
    tokens = write_megatron(disk / "tokens", [one % 60_000 for one in documents], "<u2")
    arguments = interposer, path, folder, tokens, engine
    output = run_program(MEASURE, *arguments, env={"LD_PRELOAD": str(interposer)})
    measured = json.loads(output)
    assert len(measured) == 21
    most = 0 if engine == "uring" else THREADS
    for combination in measured:
        tensors, epochs = TENSORS[combination["what"][1]], combination["epochs"]
        # The first epoch may still use a buffer for the first time, which faults in one huge page,
        # and any epoch may see what the kernel does to the heap of Python.
        assert min(counted["others"] for counted in epochs) <= most, combination
        assert min(counted["faults"] for counted in epochs) <= 3 * most, combination
        for counted in epochs:
            assert 0 < counted["mine"] <= BATCHES * tensors * MOST_PER_TENSOR, combination
            assert counted["others"] < BATCHES / 2, combination
            assert counted["faults"] < BATCHES / 2 + 3 * most, combination


COUNT_BY_CALLER = """
    import json, sys
    sys.path.insert(0, sys.argv[1])
    from count_per_read import Symbols, batches, count, store_reads

    readers = {
        "batch": batches(sys.argv[2], 4096, 16, pooled=True),
        "large batch": batches(sys.argv[2], 1 << 20, 2, pooled=True),
        "range": store_reads(sys.argv[2], 1 << 16, pooled=True),
        "large range": store_reads(sys.argv[2], 8 << 20, pooled=True),  # split
        "range without a pool": store_reads(sys.argv[2], 1 << 16, pooled=False),
    }
    for reader in readers.values():
        for _ in range(40):
            next(reader)
    symbols = Symbols()
    counts = {name: [] for name in readers}
    for _ in range(12):
        for name, reader in readers.items():
            counts[name].append(count(lambda: next(reader), 4, symbols))
    print(json.dumps(counts))
"""


def test_neither_side_allocates_in_the_core_for_a_batch_or_a_range_of_a_store(disk, tmp_path):
    """By the code that calls the allocator, in the reading and in the calling thread."""
    if shutil.which("nm") is None:
        pytest.skip("NM IS NOT INSTALLED: allocations are not counted by caller")
    library = build_library(BENCHMARKS / "count_allocations.c", tmp_path)
    path = write_file(disk / "x.bin", random_bytes(32 << 20))
    source = COUNT_BY_CALLER
    output = run_program(source, BENCHMARKS, path, env={"LD_PRELOAD": str(library)})
    counts = json.loads(output)
    for name, rounds in counts.items():
        assert min(counted["bindings"] + counted["torch"] for counted in rounds) > 0, name
        # A round may see the start of an epoch, which makes a thread and its ring.
        least = min(rounds, key=lambda counted: counted["core"])
        assert (least["core"] > 0) == (name == "range without a pool"), (name, least)


def test_sync_writes_decides_whether_put_waits_for_the_device(disk, interposer):
    source = """
        import ctypes, sys
        from torch_s3io import FileStore, FileSystemConfig

        counter = ctypes.CDLL(sys.argv[1])
        counter.fsync_calls.restype = ctypes.c_long
        for sync in (True, False):
            before = counter.fsync_calls()
            FileStore(FileSystemConfig(sync_writes=sync)).put(sys.argv[2], b"abc")
            print(counter.fsync_calls() - before)
    """
    output = run_program(source, interposer, disk / "x.bin", env={"LD_PRELOAD": str(interposer)})
    assert output == "2\n0\n"  # the file and its folder
