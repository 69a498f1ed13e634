"""The kernel and the limits of this process: io_uring, huge pages, locked memory, files, memory."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
from pathlib import Path

from .. import _C
from ..config import MIB
from .finding import Finding, chosen, in_bytes, process_status, read_text
from .storage import MOST_FILES_COUNTED

_IO_URING_SETUP = 425  # the same number on all architectures
_CAP_IPC_LOCK = 14
_SLAB_BYTES = 8 * MIB
_PLENTY_OF_MEMORY = 1 << 30
# How many files a data set or store keeps open (csrc/store/file_cache.cpp).
_DESCRIPTORS_A_FILE = 8
_MOST_FILES_KEPT_OPEN = 1024
_THP = Path("/sys/kernel/mm/transparent_hugepage")
_IO_URING_DISABLED = Path("/proc/sys/kernel/io_uring_disabled")

_SECCOMP_FIX = (
    "docker run --security-opt seccomp=unconfined, or a seccomp profile that allows "
    "io_uring_setup, io_uring_enter and io_uring_register"
)


def kernel() -> Finding:
    release = platform.release()
    version = _kernel_version(release)
    missing = [
        f"{what} (Linux {major}.{minor})"
        for (major, minor), what in (
            ((5, 1), "io_uring"),
            ((6, 0), "rings for one thread, which cost the least"),
            ((6, 1), "huge pages in shared memory, and the alignment of direct reads"),
            ((6, 5), "asking what is in the page cache"),
        )
        if version < (major, minor)
    ]
    if not missing:
        return Finding(topic="kernel", found=f"Linux {release} has all that is used")
    return Finding(
        topic="kernel",
        status="costs",
        found=f"Linux {release} lacks: {'; '.join(missing)}",
        cost="everything works without, but slower; direct='auto' cannot see the page cache",
        fix="boot a newer kernel",
    )


def _kernel_version(release: str) -> tuple[int, ...]:
    numbers = release.split("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())


def build() -> Finding:
    if _C.built_with_uring:
        return Finding(topic="build", found=f"torch_s3io {_C.__version__}, with liburing")
    return Finding(
        topic="build",
        status="costs",
        found=f"torch_s3io {_C.__version__}, built without liburing",
        cost="no io_uring at all: up to 16 threads read instead",
        fix="apt install liburing-dev, then pip install --no-build-isolation --force-reinstall "
        "--no-deps . without TORCH_S3IO_NO_URING",
    )


def io_uring() -> Finding:
    """Whether a read through io_uring works, and if not, who forbids it."""
    reason = _C.uring_unavailable_reason()
    if not reason:
        return Finding(topic="io_uring", found="works: a file was read through it")
    found, fix = _who_forbids_io_uring(reason)
    return Finding(
        topic="io_uring",
        status="costs",
        found=found,
        cost="up to 16 threads read instead: the same bytes, for more processor time per GB, and "
        "slower where requests are small",
        fix=fix,
        data={"reason": reason},
    )


_WITHOUT = {
    "statx": "direct reads are aligned to 4 KiB, whatever the device needs",
    "memfd_create": "batches from workers lie in /dev/shm, which must be large enough for them",
    "cachestat": "direct='auto' cannot see what is in the page cache",
    "preadv2": "one thread alone copies out of the page cache",
}


def system_calls() -> Finding:
    """Whether a container's filter refuses calls that have a substitute."""
    refused = _C.refused_calls()
    seccomp = process_status("Seccomp") == "2"
    # A kernel that has no such call says so in the same way: `kernel` names those.
    names = [name for name, number in refused if seccomp or number != errno.ENOSYS]
    if not names:
        return Finding(topic="system calls", found="none is refused")
    filtered = "a seccomp filter" if seccomp else "a security module"
    return Finding(
        topic="system calls",
        status="costs",
        found=f"{filtered} refuses {', '.join(names)}",
        cost="; ".join(_WITHOUT[name] for name in names),
        fix=f"a seccomp profile that allows {', '.join(names)} (docker run --security-opt "
        "seccomp=profile.json)",
        data={"refused": names},
    )


def _who_forbids_io_uring(reason: str) -> tuple[str, str]:
    if not _C.built_with_uring:
        return "this build has none", "build torch_s3io anew, as it says under build"
    error_number = _try_io_uring_setup()
    seccomp = process_status("Seccomp") == "2"
    disabled = read_text(_IO_URING_DISABLED)
    if error_number == errno.ENOMEM:
        return (
            "the ring itself does not fit into the locked memory that is allowed",
            "ulimit -l unlimited",
        )
    if seccomp and disabled in ("", "0"):
        call = "io_uring_setup" if error_number else "io_uring_enter or io_uring_register"
        return f"a seccomp filter forbids {call}, as containers often do", _SECCOMP_FIX
    if error_number == errno.ENOSYS:
        return "the kernel was built without it", "boot a kernel with CONFIG_IO_URING"
    if disabled == "2":
        return (
            "sysctl kernel.io_uring_disabled is 2: forbidden for everybody",
            "sudo sysctl -w kernel.io_uring_disabled=0",
        )
    if disabled == "1":
        return (
            "sysctl kernel.io_uring_disabled is 1: forbidden but for one group of users",
            "sudo sysctl -w kernel.io_uring_disabled=0, or add this user to the group of "
            "sysctl kernel.io_uring_group",
        )
    if error_number in (errno.EPERM, errno.EACCES):
        return "a security module (SELinux, AppArmor) forbids it", "allow io_uring in its policy"
    return reason, "please report it with what doctor --json prints: the reason is not a known one"


def _try_io_uring_setup() -> int:
    """errno of io_uring_setup(2); 0 where it gives a ring."""
    libc = ctypes.CDLL(None, use_errno=True)
    parameters = ctypes.create_string_buffer(120)  # struct io_uring_params
    fd = libc.syscall(_IO_URING_SETUP, 1, parameters)
    if fd < 0:
        return ctypes.get_errno()
    os.close(fd)
    return 0


def huge_pages() -> Finding:
    """Whether a small slab, made as any pool is, lies on 2 MiB pages."""
    pool = _C.BufferPool(capacity=1, buffer_size=_SLAB_BYTES, alignment=4096)
    pool.give(pool.take())
    stats = pool.stats()
    huge, small = stats["huge_pages"], stats["small_pages"]
    data = {"huge_pages": huge, "small_pages": small}
    if small == 0:
        return Finding(
            topic="huge pages",
            found=f"work: a buffer of {in_bytes(_SLAB_BYTES)} lies on {huge} pages of 2 MiB",
            data=data,
        )
    found, fix = _who_forbids_huge_pages()
    return Finding(
        topic="huge pages",
        status="costs",
        found=f"a buffer of {in_bytes(_SLAB_BYTES)} lies on {small} small pages: {found}",
        cost="every direct read pins 512 times more pages, and buffers cost more to make",
        fix=fix,
        data=data,
    )


def _who_forbids_huge_pages() -> tuple[str, str]:
    shared = chosen(read_text(_THP / "shmem_enabled"))
    if not _THP.exists():
        return "this kernel has no transparent huge pages", "boot a kernel with them"
    if shared in ("never", "deny") and _kernel_version(platform.release()) < (6, 1):
        return (
            "before Linux 6.1 shared memory gets them only where the system says so",
            f"echo advise | sudo tee {_THP}/shmem_enabled",
        )
    if shared == "deny":
        return (
            "transparent_hugepage/shmem_enabled is deny",
            f"echo never | sudo tee {_THP}/shmem_enabled",
        )
    return (
        "free memory is too fragmented, or a cgroup limit is too tight",
        "echo 1 | sudo tee /proc/sys/vm/compact_memory",
    )


def locked_memory() -> Finding:
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    exempt = int(process_status("CapEff") or "0", 16) >> _CAP_IPC_LOCK & 1
    data = {"limit_bytes": None if limit == resource.RLIM_INFINITY else limit}
    if limit == resource.RLIM_INFINITY or exempt:
        why = "" if limit == resource.RLIM_INFINITY else ", of which this user is exempt"
        return Finding(topic="locked memory", found=f"no limit (ulimit -l){why}", data=data)
    if limit >= 256 * MIB:
        found = f"{in_bytes(limit)} may be locked (ulimit -l)"
        return Finding(topic="locked memory", found=found, data=data)
    return Finding(
        topic="locked memory",
        status="costs",
        found=f"only {in_bytes(limit)} may be locked (ulimit -l)",
        cost="buffers beyond that are not registered with io_uring: each read pins its own pages",
        fix="ulimit -l unlimited; docker run --ulimit memlock=-1; LimitMEMLOCK=infinity for "
        "systemd; a memlock line in /etc/security/limits.conf for logins",
        data=data,
    )


def open_files(files_at_path: int = 0, path: Path = Path()) -> Finding:
    """Whether all files at the path stay open; if not, they are opened again. ``files_at_path``: as
    storage.count_files counts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = max(1, min(soft // _DESCRIPTORS_A_FILE, _MOST_FILES_KEPT_OPEN))
    counted_all = files_at_path <= MOST_FILES_COUNTED
    data = {
        "limit": soft,
        "kept_open": kept,
        "files_at_path": min(files_at_path, MOST_FILES_COUNTED),
        "counted_all": counted_all,
    }
    found = f"{soft} descriptors (ulimit -n): {kept} files stay open"
    if files_at_path <= kept:
        return Finding(topic="open files", found=found, data=data)
    count = f"{files_at_path}" if counted_all else f"more than {MOST_FILES_COUNTED:,}"
    return Finding(
        topic="open files",
        status="costs",
        found=f"{found}, but there are {count} in {path}",
        cost="files are closed and opened again during an epoch, if all are read",
        fix=_how_more_stay_open(files_at_path, hard),
        data=data,
    )


def _how_more_stay_open(files_at_path: int, hard: int) -> str:
    if files_at_path > _MOST_FILES_KEPT_OPEN:
        return (
            f"no limit keeps more than {_MOST_FILES_KEPT_OPEN} open: pack them into fewer, larger "
            "files, as python -m torch_s3io pack does"
        )
    wanted = _DESCRIPTORS_A_FILE * files_at_path
    if hard == resource.RLIM_INFINITY or wanted <= hard:
        return f"ulimit -n {wanted}"
    return (
        f"sudo prlimit --pid $$ --nofile={wanted}:{wanted}, as the hard limit (ulimit -Hn) is "
        f"{hard}; docker run --ulimit nofile={wanted}; LimitNOFILE={wanted} for systemd; a nofile "
        "line in /etc/security/limits.conf for logins"
    )


def memory() -> Finding:
    available = _C.available_memory_bytes()
    limit = _C.memory_limit_bytes()
    text = f"{in_bytes(available)} available"
    text += f", within a cgroup of {in_bytes(limit)}" if limit is not None else ", no cgroup limit"
    data = {"available_bytes": available, "cgroup_limit_bytes": limit}
    if available >= _PLENTY_OF_MEMORY:
        return Finding(topic="memory", found=text, data=data)
    return Finding(
        topic="memory",
        status="costs",
        found=text,
        cost="pools get few buffers, and no data set is kept in the page cache",
        fix="raise the cgroup's limit (docker run --memory=, resources.limits.memory), or end what "
        "uses the memory",
        data=data,
    )
