"""Programs under torchrun: several ranks, on one machine or as on several."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

from support import IMPORT_PATH, Running, program_env

FORKED = """
    import os, sys, forked_torchrun
    os.dup2(1, 2)
    forked_torchrun.main(sys.argv[1:])
"""


def torchrun(
    folder: Path, ranks: int, *command: object, imported: tuple[str, ...] = ()
) -> tuple[int, str]:
    """Exit status and output of a program under torchrun, over gloo.

    Its ranks are forked from a Python that has imported these modules, and PyTorch.
    """
    options = ("--standalone", f"--nproc-per-node={ranks}")
    no_gpu = {"CUDA_VISIBLE_DEVICES": ""}
    texts = (*options, *command)
    running = Running(FORKED, *texts, imported=imported, env=no_gpu, folder=folder)
    process = running.ended(timeout_s=300)
    return process.returncode, process.stdout


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
