"""The example under torchrun: several ranks, killed, and resumed by other ranks; and over nccl."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from order_check import write_numbers
from torchruns import on_two_machines, run_machines, torchrun

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_ddp.py"
RECORDS = 450


@pytest.mark.slow
def test_the_example_ends_with_every_record_whatever_the_ranks_before_and_after(tmp_path):
    options = ("--records", 1003, "--batch-size", 8, "--save-every", 10)
    status, output = torchrun(tmp_path, 2, EXAMPLE, *options, "--stop-after", 25)
    assert status != 0
    assert "killed in step 25" in output
    status, output = torchrun(tmp_path, 3, EXAMPLE, *options, "--stop-after", 75, "--workers", 0)
    assert status != 0
    assert "going on after step 20, in epoch 0, on 3 ranks" in output
    status, output = torchrun(tmp_path, 1, EXAMPLE, *options)
    assert status == 0, output
    assert "going on after step 70, in epoch 1, on 1 ranks" in output
    assert "every record was read 2 times; padding: 0 of 1003" in output


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["gloo", pytest.param("nccl", marks=pytest.mark.needs_cuda)])
def test_the_example_on_two_machines_is_killed_and_goes_on_on_one(tmp_path, backend):
    options = ("--records", 1003, "--batch-size", 8, "--save-every", 10)
    status, output = on_two_machines(tmp_path, backend, EXAMPLE, *options, "--stop-after", 75)
    device = {"gloo": "cpu", "nccl": "cuda"}[backend]
    assert f"2 ranks over {backend}, the model on {device}" in output
    assert "epoch 0: loss" in output
    assert "killed in step 75" in output
    assert status != 0
    status, output = torchrun(tmp_path, 3, EXAMPLE, *options)
    assert status == 0, output
    assert "going on after step 70, in epoch 1, on 3 ranks" in output
    assert "every record was read 2 times" in output
    assert "NOT every" not in output


@pytest.mark.needs_cuda
@pytest.mark.slow
def test_the_example_on_a_gpu(tmp_path):
    command = ("--standalone", "--nproc-per-node=1", EXAMPLE, "--records", 1003, "--batch-size", 8)
    status, output = run_machines(tmp_path, [{}], *command, "--stop-after", 75)
    assert status != 0
    assert "killed in step 75" in output
    status, output = run_machines(tmp_path, [{}], *command)
    assert status == 0, output
    assert "1 ranks over nccl, the model on cuda" in output
    assert "going on after step 60, in epoch 0, on 1 ranks" in output
    assert "every record was read 2 times; padding: 0 of 1003" in output


DIFFERENT_RANKS = """
    import os, sys
    import torch
    import torch.distributed as dist
    import torch_s3io as s3io

    torch.cuda.set_device(0)
    dist.init_process_group("nccl")
    dataset = s3io.RecordDataset(sys.argv[1], dtype="i8", shape=2, batch_size=10)
    loader = s3io.DataLoader(dataset, num_workers=1)
    print("equal:", sum(len(batch) for batch in loader), flush=True)
    loader.set_epoch(5 + dist.get_rank())
    list(loader)
"""


@pytest.mark.needs_cuda
@pytest.mark.slow
def test_ranks_that_differ_are_told_so_over_nccl(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(DIFFERENT_RANKS))
    path = write_numbers(tmp_path / "numbers.bin", RECORDS)
    status, output = on_two_machines(tmp_path, "nccl", program, path)
    assert status != 0
    assert output.count(f"equal: {RECORDS // 2}") == 2, output
    assert "the ranks would not read the same epoch: epoch 5 on rank 0, 6 on rank 1" in output
