"""A bounded set of reusable aligned buffers."""

from __future__ import annotations

from . import _C
from .config import BufferPoolConfig
from .errors import ConfigError

AlignedBuf = _C.AlignedBuf


class BufferPool(_C.BufferPool):
    """Aligned buffers on huge pages, taken and given back instead of allocated and freed.

    Thread-safe. Belongs to the process that makes it: after fork, make another one. Uses no
    physical memory until a buffer is taken for the first time; then each costs about 0.2 ms per
    MiB, once.

    ``take(size_bytes=None, *, timeout_s=30.0)`` returns an ``AlignedBuf`` of at least
    ``size_bytes`` (default: a whole buffer). It waits for a buffer at most ``timeout_s`` seconds
    and then raises PoolTimeoutError. More bytes than ``buffer_size`` get an allocation of their
    own, counted as ``oversize``. ``give(buffer)`` returns it; dropping the last reference does so,
    too. ``AlignedBuf.tensor()`` gives a uint8 tensor [size] that views the buffer and gives it back
    when its last view dies.

    ``stats()`` is a dict: ``taken``, ``waited`` (takes that had to wait), ``wait_s``, ``in_use``,
    ``peak``, ``oversize``, ``huge_pages`` and ``small_pages`` (2 MiB units of the pool in use,
    backed by huge pages or by 4 KiB pages).
    """

    def __init__(self, config: BufferPoolConfig | None = None) -> None:
        config = BufferPoolConfig() if config is None else config
        if not isinstance(config, BufferPoolConfig):
            raise ConfigError(f"config must be a BufferPoolConfig, not {config!r}")
        super().__init__(
            capacity=config.capacity,
            buffer_size=config.buffer_size,
            alignment=config.alignment,
        )
