"""Programs of other people that drive our loader: several ranks, killed, resumed."""

from __future__ import annotations

import json
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
    """Exit status and output of a program under torchrun."""
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={ranks}",
            *map(str, command),
        ],
        cwd=folder,
        env={**program_env(), "PYTHONPATH": IMPORT_PATH, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return process.returncode, process.stdout + process.stderr


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
