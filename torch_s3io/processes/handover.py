"""How batches get from worker processes to the main process without being copied.

The main process owns an ``Arena``, shared memory with room for a pool per worker. In a worker,
tensors that lie there are pickled as handles of about a hundred bytes; unpickling makes the same
tensor over the main process's mapping of that memory. What does not lie there goes torch's own way,
but that it keeps no descriptors (torch_internals/shared_storage.py).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import sys
import threading
import weakref
from collections import deque
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import Any

import torch

from .. import _C
from ..config import BufferPoolConfig
from ..errors import ConfigError, DataError, Error
from ..torch_internals.lost_tensors import lose_tensor
from ..torch_internals.pinning import pins
from ..torch_internals.shared_storage import pickled
from ..torch_internals.unsent_batches import report_unsent
from ..warning import warn
from ..wording import one_line
from . import new_tensors
from .ranks import Ranks, find_ranks, refuse_other_ranks


class Arena:
    """Shared memory for the pools of one data set's workers. Belongs to the process that makes it.

    Reaches workers by fork, or pickled while they are being spawned.
    """

    def __init__(self, config: BufferPoolConfig) -> None:
        self.owner = os.getpid()
        self._config = config
        self._core = _C.Arena(
            capacity=config.capacity, buffer_size=config.buffer_size, alignment=config.alignment
        )
        self.pin = False
        self._start()

    def _start(self) -> None:
        self._pinned: list[int] = []
        self._pin_lock = threading.Lock()
        self._warned: set[str] = set()
        _arenas[self._core.id] = self
        # Takes the core along: memory must be mapped until it is no longer registered.
        finalizer = weakref.finalize(self, _unpin, self._core, self._pinned, self.owner)
        finalizer.atexit = False

    def __getstate__(self) -> dict[str, Any]:
        assert get_spawning_popen() is not None
        return {
            "owner": self.owner,
            "config": self._config,
            "id": self._core.id,
            "fd": DupFd(self._core.fd),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.owner = state["owner"]
        self._config = config = state["config"]
        self._core = _C.Arena.adopt(
            fd=state["fd"].detach(),
            id=state["id"],
            capacity=config.capacity,
            buffer_size=config.buffer_size,
            alignment=config.alignment,
        )
        self.pin = False

    def claim(self, worker: int, config: BufferPoolConfig) -> _C.BufferPool | None:
        """A pool for this worker process; None when there is no room for one more."""
        ForkingPickler.register(torch.Tensor, _reduce)
        expect_unsent()
        try:
            pool = self._core.claim(preferred=worker, capacity=config.capacity)
        except Error as error:
            warn(f"{error}: batches are copied on their way")
            return None
        if pool is not None:
            _end_with_parent()
        return pool

    @property
    def backed_bytes(self) -> int:
        """Memory that it takes by now, for all workers."""
        return self._core.backed_bytes

    def stats(self) -> dict[str, Any]:
        """What came from the workers, see RecordDataset.stats."""
        return dict(self._core.stats())

    def pin_new_segments(self) -> None:
        """Registers with CUDA what is mapped and not registered yet. Never raises."""
        with self._pin_lock:
            try:
                segments = self._core.prepared_segments()
                for address, size in segments:
                    if address not in self._pinned:
                        _register(address, size)
                        self._pinned.append(address)
                self._core.guard_device_copies()
            except Exception as error:
                self._warn_once("pin", f"batches from workers are not pinned: {error}")

    def warn_of_copies(self) -> None:
        """Says once that batches are copied out of the pool, and why."""
        if "copies" not in self._warned and self._core.stats()["held_out_tensors"]:
            self._warn_once(
                "copies",
                "the batches that are still referenced hold nearly all buffers of a worker's pool: "
                "batches are copied out of it from here on, which is slower. Drop batches earlier, "
                "or raise BufferPoolConfig.capacity (pool=BufferPoolConfig(...))",
            )

    def _warn_once(self, topic: str, text: str) -> None:
        if topic in self._warned:
            return
        self._warned.add(topic)
        # Unpickling must not raise, not even where warnings are errors.
        with contextlib.suppress(Exception):
            warn(text)


_arenas: weakref.WeakValueDictionary[int, Arena] = weakref.WeakValueDictionary()
_events_seen = 0
_watcher: threading.Thread | None = None  # in a worker, like what follows
_said_not_shared = False
_announced: deque[Ranks] = deque(maxlen=1)  # made in a worker's main thread, sent by another
_pickled: deque[bytes] = deque(maxlen=4096)  # handles of tensors of the batch that is sent now


def _register(address: int, size: int) -> None:
    code = torch.cuda.cudart().cudaHostRegister(address, size, 0)
    if int(code) != 0:
        raise DataError(f"cudaHostRegister of {size} bytes failed with {code}")


def _unpin(core: _C.Arena, addresses: list[int], owner: int) -> None:
    if os.getpid() != owner or not addresses:
        return
    with contextlib.suppress(Exception):
        cudart = torch.cuda.cudart()
        for address in addresses:
            cudart.cudaHostUnregister(address)


def _end_with_parent() -> None:
    """Ends this worker as soon as the main process is gone.

    Issue: pytorch/pytorch#6606. torch's workers look at the number of their parent process, which
    under forkserver is the server; and that lives as long as they do.
    """
    global _watcher
    parent = multiprocessing.parent_process()
    if parent is None or _watcher is not None:
        return

    def watch(sentinel: int) -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    _watcher = threading.Thread(
        target=watch, args=(parent.sentinel,), name="torch_s3io-parent", daemon=True
    )
    _watcher.start()


def announce(ranks: Ranks) -> None:
    """In a worker that begins a pass: the next tensor to leave it says for which rank it was read.

    Note: persistent workers keep the rank that they were started with, and under torch's own loader
    nothing else of ours runs in the main process when they begin once more.
    """
    if ranks.source not in ("arguments", "accelerate"):  # those cannot change
        _announced.append(ranks)
        ForkingPickler.register(torch.Tensor, _reduce)


def expect_unsent() -> None:
    """In a worker, before it sends anything: the loop is told of batches that cannot be pickled."""
    report_unsent(_pickled.clear, _cannot_be_sent)


def _cannot_be_sent(error: Exception) -> Exception:
    """What the loop is told. What was pickled of the batch keeps its buffer no longer."""
    while _pickled:
        _C.take_back_tensor(_pickled.popleft())
    if isinstance(error, Error):
        return error
    return ConfigError(
        f"a worker cannot send this batch to the loop, for it cannot be pickled: "
        f"{type(error).__name__}: {one_line(str(error))}. Let transform= return tensors, arrays, "
        "numbers, texts, and what consists of these; generators, open files and functions that are "
        "defined in others stay in the worker"
    )


def _reduce(tensor: torch.Tensor) -> Any:
    """In a worker: how the main process gets this tensor."""
    how, what = _reduced(tensor)
    try:
        return _receive_for, (_announced.popleft(), how, what)
    except IndexError:
        return how, what


def _reduced(tensor: torch.Tensor) -> Any:
    """A handle for a tensor in the worker's pool, else torch's own way."""
    if tensor.is_nested:  # of four storages, of which torch might share some before one fails
        return pickle.loads, (pickle.dumps(tensor),)
    if tensor.is_conj() or tensor.is_neg():  # neither way carries what is still to be done
        tensor = tensor.resolve_conj().resolve_neg()
    sent = _C.send_tensor(tensor)
    if sent is not None:
        _pickled.append(sent)
        return _receive, (sent,)
    if tensor.numel() == 0:  # torch would move all that has the same storage
        return _through_the_pipe(tensor)
    reason = _why_not_shared(tensor)
    if reason is None:
        try:
            return _receive_new, (pickled(tensor),)
        except OSError as error:  # no descriptor is left
            reason = str(error)
    _say_not_shared(reason)
    return _through_the_pipe(tensor)


def _through_the_pipe(tensor: torch.Tensor) -> Any:
    is_plain = tensor.device.type == "cpu" and tensor.layout is torch.strided
    if not is_plain or tensor.requires_grad or tensor.is_quantized:
        return pickle.loads, (pickle.dumps(tensor),)
    # As bytes: torch's pickle does not know the newer dtypes, uint16 among them.
    rows = tensor.contiguous().reshape(-1).view(torch.uint8)
    return _from_bytes, (rows.numpy().tobytes(), tensor.dtype, tuple(tensor.shape))


def _from_bytes(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


def _say_not_shared(reason: str) -> None:
    global _said_not_shared
    if _said_not_shared:
        return
    _said_not_shared = True
    with contextlib.suppress(Exception):  # where warnings are errors the batch is not lost either
        warn(
            f"torch cannot share the memory of a new tensor ({reason}): its bytes go through a "
            "pipe, which is slower. Make room in /dev/shm (docker run --shm-size=8g), or raise the "
            f"limit of open files: {new_tensors.descriptor_hint()}"
        )


def _why_not_shared(tensor: torch.Tensor) -> str | None:
    """Moves the tensor into torch's own shared memory, unless others can map where it lies; the
    reason where that fails.

    Issue: pytorch/pytorch#142884. If that failed a little later, where torch does it, torch would
    lose the batch without an error.
    """
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        return None
    try:
        if tensor.untyped_storage().nbytes() > 0 and not new_tensors.is_shared(tensor):
            tensor.share_memory_()
            os.close(os.open(os.devnull, os.O_RDONLY))  # torch needs one more descriptor
    except (OSError, RuntimeError) as error:
        return str(error)
    return None


def _receive(sent: bytes) -> Any:
    """In the main process. Never raises: that would hang torch's DataLoader."""
    global _events_seen
    try:
        tensor = _C.receive_tensor(sent)
        if _C.handover_events() != _events_seen:
            _events_seen = _C.handover_events()
            _on_event()
        return tensor
    except Exception as error:
        return lose_tensor(str(error))


def _receive_new(sent: bytes) -> Any:
    """A tensor that lay in no pool. Never raises, either."""
    try:
        return new_tensors.received(sent)
    except Error as error:
        return lose_tensor(str(error), type(error))


def _receive_for(ranks: Ranks, how: Any, what: tuple[Any, ...]) -> Any:
    """The first tensor of a worker's pass, unless it was read for another rank. Never raises what
    ``how`` does not."""
    tensor = how(*what)
    try:
        refuse_other_ranks(ranks, find_ranks(None, None))
        return tensor
    except Error as error:
        return lose_tensor(str(error), type(error))
    except ValueError:  # torch.distributed ended meanwhile: no rank to compare with
        return tensor


def _on_event() -> None:
    is_pinning = pins(sys._getframe())
    for arena in list(_arenas.values()):
        arena.pin = arena.pin or is_pinning
        if arena.pin:
            arena.pin_new_segments()
        arena.warn_of_copies()
