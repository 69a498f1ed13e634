"""GPUs and NUMA nodes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from .. import _C
from ..config import MIB
from .finding import Finding, read_text, whole_number

_PINNED_BYTES = 4 * MIB
_CPU_RANGE = re.compile("([0-9]{1,5})(?:-([0-9]{1,5}))?")
_NVIDIA_CONTROL = Path("/dev/nvidiactl")


def cuda() -> Finding:
    """Whether there is a GPU, and whether CUDA can page-lock a pool's buffer in place."""
    if torch.cuda.is_available():
        return _pinning()
    if torch.version.cuda is None and _NVIDIA_CONTROL.exists():
        return Finding(
            topic="CUDA",
            status="costs",
            found=f"an NVIDIA GPU, but torch {torch.__version__} was built without CUDA",
            cost="the GPU is not used",
            fix="install a CUDA build of PyTorch: https://pytorch.org/get-started/locally",
        )
    return Finding(topic="CUDA", found="PyTorch finds no GPU; batches need no page-locking")


def _pinning() -> Finding:
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    pool = _C.BufferPool(capacity=1, buffer_size=_PINNED_BYTES, alignment=4096)
    tensor: torch.Tensor = pool.take().tensor()
    cudart = torch.cuda.cudart()
    code = int(cudart.cudaHostRegister(tensor.data_ptr(), _PINNED_BYTES, 0))
    pinned = code == 0 and tensor.is_pinned()
    if code == 0:
        cudart.cudaHostUnregister(tensor.data_ptr())
    data = {"devices": names, "pins_in_place": pinned}
    if pinned:
        return Finding(
            topic="CUDA",
            found=f"{', '.join(names)}; buffers can be page-locked in place",
            data=data,
        )
    return Finding(
        topic="CUDA",
        status="costs",
        found=f"{', '.join(names)}, but page-locking a buffer failed with error {code}",
        cost="every batch is copied into page-locked memory on its way to the GPU",
        fix="ulimit -l unlimited (docker run --ulimit memlock=-1)",
        data=data,
    )


def numa(path: Path | None, root: Path = Path("/")) -> Finding | None:
    """Where the process, the storage below ``path`` and the GPUs are; None with a single node.

    Args:
        path: A file or folder on the storage, or None.
        root: Where /sys lies; tests make their own.
    """
    nodes = numa_nodes(root)
    if len(nodes) < 2:
        return None
    try:
        cpus = os.sched_getaffinity(0)
    except OSError as error:  # a container's filter
        return Finding(topic="NUMA", found=f"{len(nodes)} nodes; this process: {error.strerror}")
    running_on = {node for node, node_cpus in nodes.items() if cpus & node_cpus}
    wanted: dict[str, int] = {}
    if path is not None and (node := device_node(path.stat().st_dev, root)) >= 0:
        wanted["storage"] = node
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        node = _gpu_node(index, root)
        if node >= 0:
            wanted[f"GPU {index}"] = node
    parts = ", ".join(f"{name}: node {node}" for name, node in wanted.items()) or "storage: unknown"
    found = f"{len(nodes)} nodes; this process: {sorted(running_on)}; {parts}"
    data = {"nodes": len(nodes), "process": sorted(running_on), **wanted}
    best = wanted.get("GPU 0", wanted.get("storage"))
    if best is None or running_on == {best}:
        return Finding(topic="NUMA", found=found, data=data)
    return Finding(
        topic="NUMA",
        status="costs",
        found=found,
        cost="buffers may lie on another node than the device that reads or writes them",
        fix=f"numactl --cpunodebind={best} --membind={best} python ...",
        data=data,
    )


def numa_nodes(root: Path) -> dict[int, set[int]]:
    """The processors of every node that has some."""
    nodes = {}
    for folder in (root / "sys/devices/system/node").glob("node[0-9]*"):
        cpus = parse_cpu_list(read_text(folder / "cpulist"))
        if cpus:
            nodes[int(folder.name[4:])] = cpus
    return nodes


def parse_cpu_list(text: str) -> set[int]:
    """The numbers of a list as the kernel writes it: "0-3,8" is 0, 1, 2, 3, 8. What is no number or
    range is left out."""
    cpus: set[int] = set()
    for part in text.split(","):
        if match := _CPU_RANGE.fullmatch(part):
            first, last = int(match[1]), int(match[2] or match[1])
            cpus.update(range(first, last + 1))
    return cpus


def device_node(device: int, root: Path) -> int:
    """The node that a block device hangs on; -1 where nobody says."""
    link = root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
    if not link.exists():
        return -1
    place = link.resolve()
    for folder in (place, *place.parents):
        text = read_text(folder / "device/numa_node") or read_text(folder / "numa_node")
        node = whole_number(text)
        if node is not None and node >= 0:
            return node
    return -1


def _gpu_node(index: int, root: Path) -> int:
    properties = torch.cuda.get_device_properties(index)
    if not hasattr(properties, "pci_bus_id"):  # torch before 2.8
        return -1
    domain, bus, device = (
        int(getattr(properties, f"pci_{part}_id")) for part in ("domain", "bus", "device")
    )
    address = f"{domain:04x}:{bus:02x}:{device:02x}.0"
    text = read_text(root / f"sys/bus/pci/devices/{address}/numa_node")
    node = whole_number(text)
    return -1 if node is None else node
