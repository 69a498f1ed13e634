"""docs/frameworks.md: its recipes, as they stand there, train on every record once and resume."""

from __future__ import annotations

import ast
import itertools
import json
import os
import shutil
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lazily import is_there
from pages import ROOT, Key, Page
from programs import Running
from support import end_workers
from torchruns import torchrun
from warm_python import RUN_FILE

import torch_s3io as s3io

PAGE = Page("docs/frameworks.md")
RECORD = np.dtype([("x", "f4"), ("n", "i8")])
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning", "ignore:This DataLoader will create"
)


def needs(package: str) -> Any:
    return pytest.mark.skipif(
        not is_there(package), reason=f"NEEDS {package.upper()}: its recipe is not run"
    )


def test_every_recipe_is_run():
    PAGE.check()


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_records(path: str, count: int, first: int = 0) -> None:
    records = np.zeros(count, RECORD)
    records["n"] = np.arange(first, first + count)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    records.tofile(path)


def check_epochs(numbers: list[int], epochs: int, count: int) -> None:
    """Every record once in each epoch, in another order."""
    parts = np.reshape(numbers, (epochs, count))
    assert [sorted(part) for part in parts.tolist()] == [list(range(count))] * epochs
    assert epochs == 1 or parts[0].tolist() != parts[1].tolist()


class Interrupted(Exception):
    pass


class Steps:
    """The steps of a training run that ends after some, when it has saved three before."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.batches: list[list[int]] = []

    def step(self, batch: Any) -> None:
        if len(self.batches) == self.stop_after:
            raise Interrupted
        self.batches.append(batch["n"].tolist())

    def time_to_save(self) -> bool:
        return self.stop_after is not None and len(self.batches) == self.stop_after - 3


def run_twice(block: Key, stop_after: int, names: dict[str, Any]) -> list[int]:
    """What is trained on by a run that is interrupted, and one that goes on."""
    first, second = Steps(stop_after), Steps()
    for steps in (first, second):
        run_names = {**names, "os": os, "step": steps.step, "time_to_save": steps.time_to_save}
        try:
            PAGE.run(block, run_names)
        except Interrupted:
            end_workers(getattr(run_names.get("loader"), "_iterator", None))
    return [*itertools.chain(*first.batches[: stop_after - 3], *second.batches)]


def a_model() -> Any:
    return SimpleNamespace(state_dict=dict)


@PAGE.runs("Plain PyTorch", "python")
def test_plain_pytorch_goes_on_where_it_saved(block):
    write_records("a.bin", 100)
    names = {"paths": "a.bin", "record": RECORD, "model": a_model()}
    check_epochs(run_twice(block, 7 + 6, names), 3, 100)


@needs("torchdata")
@PAGE.runs("torchdata's StatefulDataLoader", "python")
def test_torchdatas_loader_goes_on_where_it_saved(block):
    from torchdata.stateful_dataloader import StatefulDataLoader

    write_records("a.bin", 100)
    names = {"paths": "a.bin", "record": RECORD, "StatefulDataLoader": StatefulDataLoader}
    check_epochs(run_twice(block, 7 + 6, names), 3, 100)


@PAGE.runs("Files staged to a node-local disk", "python")
def test_a_job_that_stages_its_files_goes_on_where_another_one_was(block, tmp_path, monkeypatch):
    for number in range(4):
        folder = "more" if number == 3 else "train"
        write_records(f"nfs/{folder}/{number}.bin", 25, 25 * number)
    read: list[list[int]] = []
    state = None
    for job in range(2):
        monkeypatch.setenv("TMPDIR", str(tmp_path / f"job{job}"))
        names = {"os": os, "shutil": shutil, "dist": torch.distributed, "record": RECORD}
        PAGE.run(block, names, replaced={"/nfs/": f"{tmp_path}/nfs/"})
        dataset = names["dataset"].with_options(batch_size=10, shuffle=True)
        if state is not None:
            dataset.load_state_dict(state)
        read += [b["n"].tolist() for b in itertools.islice(iter(dataset), None if job else 4)]
        state = dataset.state_dict()
    check_epochs([*itertools.chain(*read)], 1, 100)


# ---- Programs.

PRELUDE = """
    import itertools, json, os, shutil, sys, tempfile
    import numpy as np
    import torch
    import torch.distributed as dist
    import torch_s3io as s3io
    from torch.nn.parallel import DistributedDataParallel

    crash_after = int(sys.argv[1])  # and save three steps before
    record = np.dtype([("x", "f4"), ("n", "i8")])
    paths = "a.bin"
    model = torch.nn.Linear(1, 1)
    read, evaluated = [], []

    def note(batch):
        if len(read) == crash_after:
            os._exit(3)
        read.append(batch["n"].tolist())
        rank = dist.get_rank() if dist.is_initialized() else 0
        with open(f"read-{rank}", "w") as file:
            json.dump(read, file)

    def step(batch):
        note(batch)
        model(batch["x"][:, None]).mean().backward()

    def evaluate(model, dataset):
        evaluated.append(sum((batch["n"].tolist() for batch in dataset), []))

    def time_to_save():
        return len(read) == crash_after - 3
"""


def program(block: Key, before: str = "", after: str = "") -> Path:
    """The recipe between what it refers to and what the test asks for."""
    path = Path("program.py").absolute()
    parts = (PRELUDE, before, PAGE.blocks()[block], after)
    path.write_text("\n".join(map(textwrap.dedent, parts)))
    return path


def read_by(ranks: int, steps: int | None = None) -> list[list[list[int]]]:
    """What each rank has noted in its first steps; forgotten then."""
    logs = [Path(f"read-{rank}") for rank in range(ranks)]
    read = [json.loads(log.read_text())[:steps] for log in logs]
    for log in logs:
        log.unlink()
    return read


def together(*runs: list[list[list[int]]]) -> list[int]:
    """Of several runs, the records of all ranks, step by step."""
    steps = [step for run in runs for step in zip(*run, strict=True)]
    return [record for step in steps for batch in step for record in batch]


@pytest.mark.slow
@PAGE.runs("torchrun and DDP", "python")
def test_rank_0_evaluates_alone_while_two_ranks_train(block):
    write_records("train.bin", 200)
    write_records("test.bin", 50)
    after = """
        assert len(evaluated) == (8 if dist.get_rank() == 0 else 0), evaluated
        assert all(numbers == list(range(50)) for numbers in evaluated)
        dist.destroy_process_group()
    """
    status, output = torchrun(Path.cwd(), 2, program(block, after=after), -1)
    assert status == 0, output
    check_epochs(together(read_by(2)), 2, 200)


@pytest.mark.slow
@needs("accelerate")
@PAGE.runs("Accelerate", "python")
def test_accelerate_keeps_the_loaders_place(block):
    before = """
        from accelerate import Accelerator
        accelerator = Accelerator(cpu=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
        dataset = s3io.RecordDataset(paths, dtype=record, batch_size=10, shuffle=True)
    """
    write_records("a.bin", 200)
    path = program(block, before, "accelerator.end_training()")
    status, output = torchrun(Path.cwd(), 2, path, 16, imported=("accelerate",))
    assert status != 0, output
    first = read_by(2, 13)
    status, output = torchrun(Path.cwd(), 2, path, -1, imported=("accelerate",))
    assert status == 0, output
    check_epochs(together(first, read_by(2)), 2, 200)


LIGHTNING = """
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch, _):
            note(batch)
            return self.layer(batch["x"][:, None]).mean()

        def configure_optimizers(self):
            steps = self.trainer.estimated_stepping_batches
            optimizer = torch.optim.SGD(self.parameters(), lr=1e-9)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-9, total_steps=steps)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    dataset = s3io.RecordDataset(paths, dtype=record, batch_size=10, shuffle=True)
    module = Module()
    ranks = int(sys.argv[2])
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",  # over gloo
        logger=False,
        enable_progress_bar=False,
        callbacks=[ModelCheckpoint("saved", save_last=True, save_on_train_epoch_end=True)],
    )
    path_or_none = "saved/last.ckpt" if os.path.exists("saved/last.ckpt") else None
"""


@pytest.mark.slow
@needs("lightning")
@pytest.mark.parametrize("ranks", [1, 2])
@PAGE.runs("Lightning", "python")
def test_lightning_goes_on_after_the_last_epoch_that_it_saved(block, ranks):
    """Lightning starts the second rank itself."""
    write_records("a.bin", 200)
    path = program(block, LIGHTNING)
    steps = 20 // ranks
    run_alone("lightning", path, steps + 3, ranks, fails=True, how=RUN_LIGHTNING)
    first = read_by(ranks, steps)
    run_alone("lightning", path, -1, ranks, how=RUN_LIGHTNING)
    check_epochs(together(first, read_by(ranks)), 2, 200)


RUN_LIGHTNING = "import sys, forked_lightning; forked_lightning.main(sys.argv[1:])"


def run_alone(
    imported: str, path: Path, *arguments: object, fails: bool = False, how: str = RUN_FILE
) -> None:
    process = Running(how, path, *arguments, imported=(imported,)).ended(timeout_s=300)
    assert (process.returncode != 0) == fails, process.stdout + process.stderr


TRAINER = """
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainerCallback
    from transformers import TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    class Model(PreTrainedModel):
        config_class = PretrainedConfig

        def __init__(self):
            super().__init__(PretrainedConfig())
            self.layer = torch.nn.Linear(1, 1)
            self.post_init()

        def _init_weights(self, module):
            pass

        def forward(self, x, n):
            note({"n": n})
            return {"loss": self.layer(x[:, None]).mean()}

    model = Model()
    arguments = TrainingArguments(
        "output", per_device_train_batch_size=4, num_train_epochs=2, learning_rate=1e-9,
        save_steps=7, report_to=[], disable_tqdm=True, use_cpu=True,
    )
    path_or_none = get_last_checkpoint("output") if os.path.isdir("output") else None
"""


@pytest.mark.slow
@needs("transformers")
@PAGE.runs("Hugging Face Trainer", "python", 0)
def test_trainer_resumes_a_data_set_of_samples(block):
    check_trainer(block)


@pytest.mark.slow
@needs("transformers")
@PAGE.runs("Hugging Face Trainer", "python", 1)
def test_trainer_resumes_a_loader_of_ones_own(block):
    check_trainer(block)


def check_trainer(block: Key) -> None:
    """Two ranks with 10 steps an epoch save after 14, and end after 16."""
    write_records("a.bin", 80)
    path = program(block, TRAINER, "trainer.accelerator.end_training()")
    imported = ("transformers.trainer",)
    status, output = torchrun(Path.cwd(), 2, path, 16, imported=imported)
    assert status != 0, output
    first = read_by(2, 14)
    status, output = torchrun(Path.cwd(), 2, path, -1, imported=imported)
    assert status == 0, output
    check_epochs(together(first, read_by(2)), 2, 80)


SAMPLES = """
    folder = "samples"
    if not os.path.exists(folder):
        fields = {"tokens": (np.uint16, (None,)), "label": np.int64}
        with s3io.SampleWriter(folder, fields=fields) as writer:
            for number in range(80):
                writer.write({"tokens": np.full(number, number, "u2"), "label": number})

    class Model(Model):
        def forward(self, input_ids, labels):
            for row, number in zip(input_ids.tolist(), labels.tolist()):
                assert row == [number] * number + [0] * (len(row) - number)
            return super().forward(labels.float(), labels)

    model = Model()
"""


@pytest.mark.slow
@needs("transformers")
@PAGE.runs("Samples that differ in length", "python")
def test_trainer_resumes_a_data_set_of_samples_that_differ_in_length(block):
    path = program(block, TRAINER + SAMPLES)
    run_alone("transformers.trainer", path, 26, fails=True)  # 20 steps an epoch, saved after 21
    first = read_by(1, 21)
    run_alone("transformers.trainer", path, -1)
    check_epochs(together(first, read_by(1)), 2, 80)


RAY = """
    import ray
    import ray.train.torch

    folder = os.getcwd()

    attempts = []

    def step(batch):
        if not attempts:
            attempts.append(2 if os.path.exists(f"{folder}/failed") else 0)
        read.append(batch["n"].tolist())
        rank = ray.train.get_context().get_world_rank()
        with open(f"{folder}/read-{rank + attempts[0]}", "w") as file:
            json.dump(read, file)
        if len(read) == 13 and attempts == [0]:
            open(f"{folder}/failed", "w").close()
            raise RuntimeError("this attempt only")
"""
RUN_ON_RAY = """
    ray.init(num_cpus=3, include_dashboard=False, object_store_memory=100 << 20)
    ray.train.torch.TorchTrainer(
        train_loop_per_worker,
        train_loop_config={"paths": f"{folder}/a.bin"},
        scaling_config=ray.train.ScalingConfig(num_workers=2),
        run_config=ray.train.RunConfig(
            storage_path=f"{folder}/ray",
            failure_config=ray.train.FailureConfig(max_failures=1),
        ),
    ).fit()
"""


@pytest.mark.slow
@needs("ray")
@PAGE.runs("Ray Train", "python")
def test_ray_goes_on_after_the_epoch_that_it_saved(block):
    """Ray starts the ranks itself, also once more."""
    write_records("a.bin", 320)  # 10 steps of two ranks an epoch
    path = program(block, RAY, RUN_ON_RAY)
    run_alone("ray", path, 0)
    *first, third, fourth = read_by(4)
    check_epochs(together([log[:10] for log in first], [third, fourth]), 2, 320)


def test_the_page_quotes_what_the_package_says():
    sources = Path(s3io.__file__).parent.rglob("*.py")
    nodes = itertools.chain(*(ast.walk(ast.parse(source.read_text())) for source in sources))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    page = " ".join((ROOT / PAGE.name).read_text().split())
    for quoted in (
        " has waited ",
        " s to begin epoch ",
        " has not begun",
        "the ranks would not read the same epoch",
        "accelerate shares out what it yields once more",
        "makes batches and shares of samples",
        "does not say which epoch",
        "the files are taken for copies",
    ):
        assert any(isinstance(said, str) and quoted in said for said in texts), quoted
        assert quoted in page
