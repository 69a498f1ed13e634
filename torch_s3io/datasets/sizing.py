"""How large ``pool="auto"`` makes a pool. Pure arithmetic."""

from __future__ import annotations

from ..config import MIB, PAGE_BYTES, BufferPoolConfig
from ..errors import ConfigError

# Enough in flight to keep an NVMe device busy, and no more: reads into the same few megabytes again
# and again are faster (docs/design.md).
_TARGET_BYTES = 8 * MIB
_MOST_BUFFERS = 64
_PREFERRED_BUFFERS = 6
_FEWEST_BUFFERS = 3  # one with the training loop, one ready, one being read
_MOST_BYTES = 4096 * MIB
_WHAT_COUNTS = "page cache and swap counted, within the limits of cgroups"


def auto_pool(
    batch_bytes: int,
    alignment: int,
    num_workers: int,
    available_bytes: int,
    most_bytes: int,
    least_bytes: int | None = None,
) -> BufferPoolConfig:
    """A pool for batches of ``batch_bytes`` (over-read included), for each of ``num_workers``.

    As many buffers as make 8 MiB, at least 6, at most 64; at most half of the available memory and
    4 GiB over all workers, but never fewer than 3 buffers. These are as large as ``batch_bytes``;
    where memory is short, as ``least_bytes``.

    Raises:
        ConfigError: 3 buffers per worker are more than ``most_bytes``, swap included.
    """
    workers = max(1, num_workers)
    most_of_worker = min(_MOST_BYTES, available_bytes // 2) // workers
    if least_bytes is not None:
        batch_bytes = max(least_bytes, min(batch_bytes, most_of_worker // _FEWEST_BUFFERS))
    fewest = _FEWEST_BUFFERS * batch_bytes * workers
    if fewest > most_bytes:
        raise ConfigError(
            f"a batch needs a buffer of {batch_bytes} bytes, and {_FEWEST_BUFFERS} buffers for "
            f"each of {workers} processes make {fewest} bytes, but only {most_bytes} bytes of "
            f"memory are available ({_WHAT_COUNTS}); lower batch_size or num_workers"
        )
    wanted = min(_MOST_BUFFERS, max(_PREFERRED_BUFFERS, _TARGET_BYTES // batch_bytes))
    affordable = most_of_worker // batch_bytes
    return BufferPoolConfig(
        capacity=max(_FEWEST_BUFFERS, min(wanted, affordable)),
        buffer_size=batch_bytes,
        alignment=max(alignment, PAGE_BYTES),
    )


def check_pool(config: BufferPoolConfig, num_workers: int, most_bytes: int) -> None:
    """Raises ConfigError if the pools of all workers are more than ``most_bytes``, swap
    included."""
    workers = max(1, num_workers)
    total = config.total_bytes * workers
    if total > most_bytes:
        raise ConfigError(
            f"the pool has {config.capacity} buffers of {config.buffer_size} bytes for each of "
            f"{workers} processes, {total} bytes in all, but only {most_bytes} bytes of "
            f"memory are available ({_WHAT_COUNTS}); lower BufferPoolConfig.capacity or "
            "buffer_size"
        )
