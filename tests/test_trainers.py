"""Programs of other people that drive our loader: several ranks, killed, resumed."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import textwrap
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from order_check import write_numbers
from support import IMPORT_PATH, program_env, run_program

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_ddp.py"
RECORDS = 450

needs_lightning = pytest.mark.skipif(
    find_spec("lightning") is None, reason="NEEDS LIGHTNING: the README's snippet is not tested"
)
needs_accelerate = pytest.mark.skipif(
    find_spec("accelerate") is None, reason="NEEDS ACCELERATE: the README's snippet is not tested"
)


def torchrun(folder: Path, ranks: int, *command: object) -> tuple[int, str]:
    """Exit status and output of a program under torchrun, over gloo."""
    options = ("--standalone", f"--nproc-per-node={ranks}")
    return run_machines(folder, [{"CUDA_VISIBLE_DEVICES": ""}], *options, *command)


def on_two_machines(folder: Path, backend: str, *command: object) -> tuple[int, str]:
    """Two torchruns that meet as the README's on two machines do.

    With nccl both use the same GPU, which it allows to ranks of different hosts alone.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    options = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d")
    options += (f"--rdzv-endpoint={endpoint}", "--rdzv-id=run1")
    gpus = {"gloo": "", "nccl": "0"}[backend]
    machines = [{"CUDA_VISIBLE_DEVICES": gpus, "NCCL_HOSTID": f"host{n}"} for n in range(2)]
    return run_machines(folder, machines, *options, *command)


def run_machines(
    folder: Path, environments: list[dict[str, str]], *command: object
) -> tuple[int, str]:
    """A torchrun for each environment: their exit status, which must be one, and all outputs."""
    with contextlib.ExitStack() as at_end:
        machines = []
        outputs = [folder / f"output-{number}" for number in range(len(environments))]
        for env, output in zip(environments, outputs, strict=True):
            machine = subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *map(str, command)],
                cwd=folder,
                env={**program_env(), "PYTHONPATH": IMPORT_PATH, **env},
                stdout=at_end.enter_context(output.open("w")),
                stderr=subprocess.STDOUT,
            )
            at_end.callback(end, machine)
            machines.append(machine)
        statuses = {machine.wait(timeout=300) for machine in machines}
    text = "".join(output.read_text() for output in outputs)
    assert len(statuses) == 1, text
    return statuses.pop(), text


def end(machine: subprocess.Popen[bytes]) -> None:
    """Of a test that failed: asked to end, torchrun ends its ranks, which have sessions of their
    own."""
    machine.terminate()
    try:
        machine.wait(timeout=60)
    except subprocess.TimeoutExpired:
        machine.kill()
        machine.wait()


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


def log_of(path: Path) -> list[list[int]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


LIGHTNING = """
    import json, sys
    import lightning as L
    import torch
    import torch_s3io as s3io
    from lightning.pytorch.callbacks import ModelCheckpoint

    path, folder, log, crash_at, num_workers, ranks = sys.argv[1:]

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch, _):
            rows, index = batch
            if self.global_step == int(crash_at):
                raise SystemExit(3)
            with open(f"{log}-{self.global_rank}", "a") as file:
                print(json.dumps(index.tolist()), file=file)
            return self.layer(rows[:, :1].float()).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-9)

    dataset = s3io.RecordDataset(
        path, dtype="i8", shape=2, batch_size=10, shuffle=True, return_index=True
    )
    loader = s3io.DataLoader(dataset, num_workers=int(num_workers))
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=int(ranks),
        strategy="ddp" if int(ranks) > 1 else "auto",  # over gloo
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, filename="last", every_n_train_steps=7)],
    )
    trainer.fit(Module(), loader, ckpt_path=f"{folder}/last.ckpt" if crash_at == "-1" else None)
"""


@needs_lightning
@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_lightning_keeps_the_loaders_place_in_its_checkpoints(tmp_path, num_workers):
    path = write_numbers(tmp_path / "numbers.bin", RECORDS)
    log = tmp_path / "log"
    with pytest.raises(AssertionError):
        run_program(LIGHTNING, path, tmp_path, log, 31, num_workers, 1)
    first = log_of(tmp_path / "log-0")
    assert len(first) == 31
    (tmp_path / "log-0").unlink()
    run_program(LIGHTNING, path, tmp_path, log, -1, num_workers, 1)
    read = first[:28] + log_of(tmp_path / "log-0")  # saved after step 28
    assert len(read) == 90
    for epoch in (read[:45], read[45:]):
        assert sorted(record for batch in epoch for record in batch) == list(range(RECORDS))
    assert read[:45] != read[45:]


@needs_lightning
@pytest.mark.slow
def test_lightning_on_two_ranks_reads_every_record_once(tmp_path):
    path = write_numbers(tmp_path / "numbers.bin", RECORDS)
    program = tmp_path / "program.py"  # which Lightning starts once more, as the second rank
    program.write_text(textwrap.dedent(LIGHTNING))
    arguments = (path, tmp_path, tmp_path / "log", -2, 1, 2)
    process = subprocess.run(
        [sys.executable, program, *map(str, arguments)],
        env=program_env(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    logs = [log_of(tmp_path / f"log-{rank}") for rank in range(2)]
    for epoch in (slice(0, 23), slice(23, 46)):
        batches = [batch for log in logs for batch in log[epoch]]
        assert sorted(record for batch in batches for record in batch) == list(range(RECORDS))
    assert [len(log) for log in logs] == [46, 46]


ACCELERATE = """
    import json, os, sys
    import torch
    import torch_s3io as s3io
    from accelerate import Accelerator

    path, folder, log, crash_at = sys.argv[1:]
    accelerator = Accelerator(cpu=True)
    dataset = s3io.RecordDataset(
        path, dtype="i8", shape=2, batch_size=10, shuffle=True, return_index=True
    )
    loader = s3io.DataLoader(dataset, num_workers=1)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    # Not the loader: it has its share of the records already.
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(loader)
    if os.path.isdir(folder):
        accelerator.load_state(folder)

    step = 0
    for epoch in range(loader.epoch, 2):
        for rows, index in s3io.DevicePrefetcher(loader, accelerator.device):
            if step == int(crash_at):
                os._exit(3)
            with open(f"{log}-{accelerator.process_index}", "a") as file:
                print(json.dumps(index.tolist()), file=file)
            loss = model(rows[:, :1].float()).square().mean()
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if step == 28 and int(crash_at) >= 0:
                accelerator.save_state(folder)
    accelerator.end_training()
"""


@needs_accelerate
@pytest.mark.slow
def test_accelerate_keeps_the_loaders_place_and_does_not_share_it_out_again(tmp_path):
    path = write_numbers(tmp_path / "numbers.bin", RECORDS)
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(ACCELERATE))
    log, saved = tmp_path / "log", tmp_path / "saved"
    status, output = torchrun(tmp_path, 2, program, path, saved, log, 31)
    assert status != 0
    logs = [tmp_path / "log-0", tmp_path / "log-1"]
    first = [log_of(one)[:28] for one in logs]
    assert [len(one) for one in first] == [28, 28], output
    for one in logs:
        one.unlink()
    status, output = torchrun(tmp_path, 2, program, path, saved, log, -1)
    assert status == 0, output
    batches = [batch for part in (*first, *map(log_of, logs)) for batch in part]
    counts = Counter(record for batch in batches for record in batch)
    assert counts == Counter({record: 2 for record in range(RECORDS)})
