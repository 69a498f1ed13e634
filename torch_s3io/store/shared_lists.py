"""A list of a bucket that one rank of torch.distributed asks for, and the others get from it.

The n-th list of one and the same prefix is the same one in all ranks, as long as it is new: they
make the same data sets. Nobody has to come: the first rank waits for none, and one that waits in
vain asks the server itself.
"""

from __future__ import annotations

import hashlib
import json
import time
import weakref
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch.utils.data import get_worker_info

from ..torch_internals.process_groups import default_store
from ..warning import warn

# Path, version (see _C.s3_version), and the ETag where that does not tell it.
Listed = tuple[str, tuple[int, int, int, int], str]

_NEW_S = 300.0  # by clocks of several machines
_LONGEST_WAIT_S, _WARN_AFTER_S = 600.0, 30.0
_LONGEST_PAUSE_S = 0.25
_MOST_BYTES = 64 << 20  # of what the store of the group is given
_OWN = b"-"  # each rank lists for itself

_counts: weakref.WeakKeyDictionary[Any, Counter[str]] = weakref.WeakKeyDictionary()


def listed_once(name: str, ask: Callable[[], list[Listed]]) -> list[Listed]:
    """What ``ask`` gives one rank of the default group. By itself, and in a worker, what it gives
    this process.

    Args:
        name: Of the list: another one is another list.
    """
    is_alone = not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1
    store = None if is_alone or get_worker_info() is not None else default_store("torch_s3io")
    if store is None:
        return ask()
    counts = _counts.setdefault(dist.group.WORLD, Counter())
    counts[name] += 1
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    key = f"list {digest} {counts[name]}"
    if store.add(f"{key} asked", 1) == 1:
        return _published(store, key, ask)
    return _received(store, key, name) or ask()


def _published(store: Any, key: str, ask: Callable[[], list[Listed]]) -> list[Listed]:
    said = _OWN
    try:
        found = ask()
        text = zlib.compress(json.dumps([time.time(), found]).encode(), 1)
        said = text if len(text) <= _MOST_BYTES else _OWN
        return found
    finally:  # also where it failed, or was interrupted: nobody waits for it then
        store.set(key, said)


def _received(store: Any, key: str, name: str) -> list[Listed] | None:
    """None: this rank has to ask by itself."""
    begun, is_told = time.monotonic(), False
    while not store.check([key]):
        waited_s = time.monotonic() - begun
        if waited_s > _WARN_AFTER_S and not is_told:
            is_told = True
            warn(
                f"{name}: another rank lists it, for {waited_s:.3g} s so far. This one waits for "
                f"{_LONGEST_WAIT_S:g} s in all, then it asks the server itself"
            )
        if waited_s > _LONGEST_WAIT_S:
            return None
        time.sleep(min(_LONGEST_PAUSE_S, max(0.001, waited_s)))
    said = bytes(store.get(key))
    if said == _OWN:
        return None
    asked_s, found = json.loads(zlib.decompress(said))
    if abs(time.time() - asked_s) > _NEW_S:
        return None
    return [(path, tuple(version), etag) for path, version, etag in found]
