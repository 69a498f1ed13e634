"""Tensors of workers that lie in no pool: torch's shared memory, without its descriptors."""

from __future__ import annotations

import textwrap

import pytest
from programs import printed_by, run_file, run_program
from support import write_records

PROGRAM = """
    import os, resource, sys, warnings
    from pathlib import Path
    import numpy as np
    import torch
    import torch.utils.data
    import torch_s3io as s3io
    from support import open_files

    path = Path(sys.argv[1]) / "x.bin"
    array = np.fromfile(path, np.uint8).reshape(-1, 100)

    def make(**options):
        return s3io.RecordDataset(path, dtype="u1", shape=100, **options)

    def limit_files(count):
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, resource.getrlimit(7)[1]))

    def new(rows):
        return rows.clone()

    def in_workers(dataset, **options):
        return s3io.DataLoader(dataset, num_workers=2, **options)
"""


@pytest.fixture
def folder(disk):
    write_records(disk / "x.bin", 2000, 100)
    return disk


@pytest.mark.parametrize(
    ("case", "context"),
    [
        *((case, "fork") for case in ("transform", "no pool", "spilled", "stacked")),
        ("transform", "forkserver"),
        ("stacked", "spawn"),
    ],
)
def test_every_batch_may_be_kept_under_a_small_limit_of_descriptors(folder, case, context):
    source = """
    if __name__ == "__main__":
        options = {
            "transform": {"batch_size": 8, "transform": new},
            "no pool": {"batch_size": 8, "pool": None},
            "spilled": {"batch_size": 8},
            "stacked": {"batch_size": None},
        }[sys.argv[2]]
        dataset = make(**options)
        limit_files(128)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loader = in_workers(dataset, multiprocessing_context=sys.argv[3])
            if sys.argv[2] == "stacked":
                loader = torch.utils.data.DataLoader(
                    dataset, batch_size=8, num_workers=2, multiprocessing_context=sys.argv[3]
                )
            before = len(open_files())
            kept = list(loader)
        assert len(kept) == 250
        print(len(open_files()) <= before + 16)  # of the loader
        rows = torch.cat(kept).numpy()
        assert sorted(map(bytes, rows)) == sorted(map(bytes, array))
    """
    program = folder / "program.py"
    text = run_as_file(program, PROGRAM + source, folder, case, context)
    assert text == "True\n"


def run_as_file(program, source, *arguments):
    """As a script, which a spawned worker can import."""
    program.write_text(textwrap.dedent(source))
    return printed_by(run_file(program, *arguments, spawns=True))


@pytest.mark.parametrize("strategy", ["file_descriptor", "file_system"])
def test_tensors_over_the_same_memory_share_it_here_too(folder, strategy):
    source = """
    torch.multiprocessing.set_sharing_strategy(sys.argv[2])

    def with_views(rows):
        fresh = rows.clone()
        return fresh, fresh[1:, 3], torch.empty(0), fresh.to(torch.float64)

    count = 0
    for batch, part, empty, other in in_workers(make(batch_size=8, transform=with_views)):
        wanted = batch.numpy().copy()
        assert np.array_equal(part.numpy(), wanted[1:, 3])
        assert np.array_equal(other.numpy(), wanted)
        part.fill_(7)
        wanted[1:, 3] = 7
        assert np.array_equal(batch.numpy(), wanted)
        assert empty.numel() == 0
        assert np.array_equal(other.numpy()[1:, :3], wanted[1:, :3])
        count += 1
    print(count)
    """
    assert run_program(PROGRAM + source, folder, strategy) == "250\n"


def test_memory_goes_back_with_the_last_tensor(folder):
    source = """
    from torch_s3io import _C
    kept = list(in_workers(make(batch_size=8, transform=new)))
    rows = [batch[0] for batch in kept]
    assert _C.mapped_files() == 250
    del kept
    assert _C.mapped_files() == 250
    del rows[100:]
    assert _C.mapped_files() == 100
    del rows
    print(_C.mapped_files())
    """
    assert run_program(PROGRAM + source, folder) == "0\n"


def test_when_very_many_are_kept_new_ones_are_copied_which_is_said_once(folder):
    source = """
    from torch_s3io import _C
    file = os.memfd_create("test")
    os.ftruncate(file, 4096)
    mapped = [_C.open_shared(fd=file, offset=0, length=64)[0] for _ in range(16384)]
    os.close(file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches = list(in_workers(make(batch_size=8, transform=new)))
    (text,) = [str(warning.message) for warning in caught]
    assert "16384 tensors" in text and "Keep fewer batches" in text, text
    assert _C.mapped_files() == 16384
    assert np.array_equal(torch.cat(batches).numpy(), array)
    print("copied")
    """
    assert run_program(PROGRAM + source, folder) == "copied\n"


@pytest.mark.filterwarnings("ignore:the batches")
def test_batches_that_a_worker_keeps_do_not_use_up_its_descriptors(folder):
    source = """
    warnings.simplefilter("ignore")
    kept = []

    def keep(rows):
        kept.append(rows)
        return torch.tensor([len(kept), len(open_files())])

    loader = s3io.DataLoader(make(batch_size=8, transform=keep), num_workers=1)
    found = torch.stack(list(loader))
    assert found[:, 0].tolist() == list(range(1, 251))
    print(int(found[:, 1].max()) - int(found[0, 1]) <= 64 + 16)
    """
    assert run_program(PROGRAM + source, folder) == "True\n"


def test_without_a_descriptor_the_error_names_both_ways_out(folder):
    source = """
    batches = iter(in_workers(make(batch_size=8, transform=new)))
    next(batches)
    limit_files(len(open_files()))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    try:
        list(batches)
    except RuntimeError as error:
        assert isinstance(error, s3io.OutOfMemoryError), error
        assert not isinstance(error, ValueError)
        print("ulimit -n 65536" in str(error), "set_sharing_strategy('file_system')" in str(error))
    for fd in taken:
        os.close(fd)
    """
    assert run_program(PROGRAM + source, folder) == "True True\n"
