"""Where the ranks of a process group meet before an epoch: each says what it is about to read, and
none waits for ever.

Note: why no collective. A rank that never comes leaves the others in it without a word, until the
process group gives up; and with nccl it needs a device. The store is where the ranks found each
other, with every backend. It counts on request, so a meeting costs each rank a few requests,
however many ranks there are.
"""

from __future__ import annotations

import hashlib
import json
import time
import weakref
from collections.abc import Mapping
from typing import Any

import torch.distributed as dist

from ..errors import ReadTimeoutError
from ..torch_internals.process_groups import default_store
from ..warning import warn

_RANKS_PER_COUNTER = 32  # each has a bit of it
_MOST_NAMED = 8
_LONGEST_PAUSE_S = 0.25
_WARN_AFTER = 0.1  # of the timeout

Said = Mapping[str, "str | bytes"]


class Meetings:
    """The meetings of one process group, as one of its ranks has them.

    Args:
        store: The group's; a torch.distributed.Store.
    """

    def __init__(self, store: Any, rank: int, world_size: int) -> None:
        self._store = store
        self._rank = rank
        self._world_size = world_size
        # A group that is made once more over the same store must not find what was said before.
        self._prefix = store.add(f"{rank} joined", 1)
        self._number = 0
        self._has_been_seen = False  # in this meeting, possibly to give up waiting
        self._last_digest: str | None = None  # of what this rank said in the meeting before

    def meet(self, epoch: int, said: Said, timeout_s: float) -> list[Said]:
        """What every rank has said; only this rank's where all have said the same.

        Args:
            epoch: That this rank is about to begin.
            said: Texts, and digests of what is too long to say.

        Raises:
            ReadTimeoutError: Not all ranks came in time; the text names those that did not. This
                rank has then not come either, and may come again.
        """
        text = json.dumps({k: v if isinstance(v, str) else [v.decode()] for k, v in said.items()})
        digest = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        self._store.set(self._key(f"said {self._rank}"), text)
        self._add(digest, 1)
        if not self._has_been_seen:
            self._has_been_seen = True
            self._add(_counter_of(self._rank), _bit_of(self._rank))
        if self._add("came", 1) == self._world_size:
            self._add("all", 1)
        try:
            self._wait_for_all(epoch, timeout_s)
        except ReadTimeoutError:
            if self._leave(digest):
                raise
        except KeyboardInterrupt:
            self._leave(digest)
            raise
        everyone = [said]
        if self._add(digest, 0) < self._world_size:
            everyone = [self._said_by(rank) for rank in range(self._world_size)]
        self._forget_last()
        self._number += 1
        self._has_been_seen = False
        self._last_digest = digest
        return everyone

    def _wait_for_all(self, epoch: int, timeout_s: float) -> None:
        began = time.monotonic()
        has_warned = False
        while not self._add("all", 0):
            waited_s = time.monotonic() - began
            if waited_s > timeout_s:
                raise ReadTimeoutError(self._describe(epoch, waited_s))
            if waited_s > _WARN_AFTER * timeout_s and not has_warned:
                has_warned = True
                text = (
                    f"{self._describe(epoch, waited_s)}. It goes on waiting, {timeout_s:g} s in all"
                )
                warn(text)
            # As long as it has waited so far: it ends late by as much again at most.
            time.sleep(min(_LONGEST_PAUSE_S, max(0.001, waited_s)))

    def _leave(self, digest: str) -> bool:
        """False where it is too late, since the last rank has just come."""
        # Others that are too late may have taken themselves off the number for a moment.
        if self._add("came", -1) == self._world_size - 1 or self._add("all", 0):
            self._add("came", 1)
            return False
        self._add(digest, -1)
        return True

    def _said_by(self, rank: int) -> Said:
        said = json.loads(self._store.get(self._key(f"said {rank}")))
        return {k: v if isinstance(v, str) else v[0].encode() for k, v in said.items()}

    def _describe(self, epoch: int, waited_s: float) -> str:
        ranks = range(self._world_size)
        missing = [rank for rank in ranks if not self._add(_counter_of(rank), 0) & _bit_of(rank)]
        return (
            f"rank {self._rank} has waited {waited_s:.3g} s to begin epoch {epoch}, which "
            f"{_named(missing)}. With torch.distributed each rank reads its share of an "
            "epoch, and begins it together with the others. A data set that one rank reads alone, "
            "for an evaluation for instance, needs rank=0, world_size=1; ranks that come later "
            "than this need a longer rank_timeout_s"
        )

    def _forget_last(self) -> None:
        """The meeting before this one: all ranks have left it, as all came to this one."""
        if self._last_digest is None:
            return
        names = {f"said {self._rank}"}
        if self._rank == 0:
            names |= {"came", "all", self._last_digest}
            names |= {_counter_of(rank) for rank in range(self._world_size)}
        for name in names:
            self._store.delete_key(self._key(name, self._number - 1))

    def _add(self, name: str, count: int) -> int:
        return int(self._store.add(self._key(name), count))

    def _key(self, name: str, number: int | None = None) -> str:
        return f"{self._prefix}/{self._number if number is None else number}/{name}"


def _counter_of(rank: int) -> str:
    return f"ranks {rank // _RANKS_PER_COUNTER}"


def _bit_of(rank: int) -> int:
    return 1 << rank % _RANKS_PER_COUNTER


def _named(missing: list[int]) -> str:
    if not missing:
        return "others no longer wait to begin"
    if len(missing) == 1:
        return f"rank {missing[0]} has not begun"
    named, more = ", ".join(map(str, missing[:_MOST_NAMED])), len(missing) - _MOST_NAMED
    return f"ranks {named}{f' and {more} more' if more > 0 else ''} have not begun"


_meetings: weakref.WeakKeyDictionary[Any, Meetings] = weakref.WeakKeyDictionary()


def meetings_of_default_group() -> Meetings | None:
    """This process's, in torch.distributed's default group; None where that has no store (MPI)."""
    group, store = dist.group.WORLD, default_store("torch_s3io")
    if store is None:
        return None
    if group not in _meetings:
        _meetings[group] = Meetings(store, dist.get_rank(), dist.get_world_size())
    return _meetings[group]
