"""Programs under torchrun: several ranks, on one machine or as on several."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

from programs import IMPORT_PATH, Running, program_env

# What every rank imports as it makes its model parallel, or begins a checkpoint: for seconds.
FOR_RANKS = ("torch._dynamo", "torch.distributed.checkpoint.state_dict")

FORKED = """
    import os, sys, forked_torchrun
    os.dup2(1, 2)
    forked_torchrun.main(sys.argv[1:])
"""


def torchrun(
    folder: Path, ranks: int, *command: object, imported: tuple[str, ...] = FOR_RANKS
) -> tuple[int, str]:
    """Exit status and output of a program under torchrun, over gloo.

    Its ranks are forked from a Python that has imported these modules, and PyTorch.
    """
    options = ("--standalone", f"--nproc-per-node={ranks}")
    return run_forked(folder, 1, *options, *command, imported=imported)


def run_forked(
    folder: Path, machines: int, *command: object, imported: tuple[str, ...] = FOR_RANKS
) -> tuple[int, str]:
    """So many torchruns at the same time: their exit status, which must be one, and all outputs."""
    no_gpu = {"CUDA_VISIBLE_DEVICES": ""}
    running = [
        Running(FORKED, *command, imported=imported, env=no_gpu, folder=folder)
        for _ in range(machines)
    ]
    ended = [one.ended(timeout_s=300) for one in running]
    statuses, text = {one.returncode for one in ended}, "".join(one.stdout for one in ended)
    assert len(statuses) == 1, text
    return statuses.pop(), text


def on_two_machines(folder: Path, backend: str, *command: object) -> tuple[int, str]:
    """Two torchruns that meet as the README's on two machines do.

    With nccl both use the same GPU, which it allows to ranks of different hosts alone. Nothing of
    it is forked.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    options = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d")
    options += (f"--rdzv-endpoint={endpoint}", "--rdzv-id=run1")
    if backend == "gloo":
        return run_forked(folder, 2, *options, *command)
    machines = [{"CUDA_VISIBLE_DEVICES": "0", "NCCL_HOSTID": f"host{n}"} for n in range(2)]
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
