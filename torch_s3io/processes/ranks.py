"""Which of how many ranks this process is, and whether all of them are at the same place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch.distributed as dist

from ..config import check_int
from ..errors import ConfigError, DataError
from .meeting import meetings_of_default_group


@dataclass(frozen=True)
class Ranks:
    """Rank ``rank`` of ``world_size``.

    Attributes:
        source: Who said so. Only ranks of ``"torch.distributed"`` can be asked where they are.
            ``"accelerate"``: that shares out what this rank reads, which is everything.
    """

    rank: int
    world_size: int
    source: Literal["arguments", "torch.distributed", "environment", "default", "accelerate"]


def check_ranks(rank: Any, world_size: Any) -> None:
    """Raises ConfigError for arguments that name no rank."""
    if (rank is None) != (world_size is None):
        raise ConfigError(f"rank={rank} and world_size={world_size}: give both, or neither")
    if rank is None:
        return
    check_int("world_size", world_size, 1)
    check_int("rank", rank, 0)
    if rank >= world_size:
        raise ConfigError(
            f"rank {rank} of world_size {world_size} does not exist: ranks are 0 to world_size - 1"
        )


def find_ranks(rank: int | None, world_size: int | None) -> Ranks:
    """What was given; else torch.distributed where it is initialised; else torchrun's environment
    (RANK, WORLD_SIZE); else the only rank.

    Raises:
        ConfigError: The environment names no rank, or half of one.
    """
    if rank is not None and world_size is not None:
        return Ranks(rank, world_size, "arguments")
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size(), "torch.distributed")
    texts = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if texts == (None, None):
        return Ranks(0, 1, "default")
    if texts[0] is None or texts[1] is None:
        there, missing = ("WORLD_SIZE", "RANK") if texts[0] is None else ("RANK", "WORLD_SIZE")
        raise ConfigError(
            f"the environment says {there}={os.environ[there]!r} but has no {missing}: set both, "
            "unset both, or give rank= and world_size="
        )
    try:
        numbers = int(texts[0]), int(texts[1])
        check_ranks(*numbers)
    except ValueError:
        raise ConfigError(
            f"the environment says RANK={texts[0]!r} and WORLD_SIZE={texts[1]!r}, which is no rank "
            "of a world; unset them, or give rank= and world_size="
        ) from None
    return Ranks(*numbers, "environment")


def refuse_other_ranks(then: Ranks, now: Ranks) -> None:
    """Raises ConfigError where workers read for another rank than this process has become."""
    if (then.rank, then.world_size) != (now.rank, now.world_size):
        raise ConfigError(
            f"the workers read as rank {then.rank} of {then.world_size}, but this process is now "
            f"rank {now.rank} of {now.world_size} ({now.source}): make the DataLoader anew, or "
            "initialise torch.distributed before the first epoch"
        )


def read_everything(ranks: Ranks) -> Ranks:
    """What a rank reads of which accelerate makes shares.

    Raises:
        ConfigError: The data set was told to make them.
    """
    if ranks.source == "arguments" and ranks.world_size > 1:
        raise ConfigError(
            f"rank={ranks.rank}, world_size={ranks.world_size} in the data set, and accelerate "
            "shares out what it yields once more, so that most records would never come: leave "
            "rank= and world_size= out, or do not prepare() the loader"
        )
    return Ranks(0, 1, "accelerate")


def find_local_ranks(world_size: int) -> tuple[int, int]:
    """Which of how many of these ranks on this machine, as torchrun's environment says (LOCAL_RANK,
    LOCAL_WORLD_SIZE); the only one where it says nothing that makes sense, or where fewer ranks
    read than are here."""
    try:
        rank, local = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    except (KeyError, ValueError):
        return 0, 1
    return (rank, local) if 0 <= rank < local <= world_size else (0, 1)


def compare_ranks(
    ranks: Ranks,
    epoch: int,
    start: int,
    summary: Mapping[str, str | bytes],
    timeout_s: float,
) -> None:
    """With ranks of torch.distributed: raises where not all are about to begin the same thing.

    Every rank must come here, and is waited for.

    Args:
        summary: Of the settings and the data: texts, and digests of what is too long to say.

    Raises:
        DataError: On every rank, with who is where and what differs.
        ReadTimeoutError: Not all ranks came; the text names those that did not.
    """
    if ranks.source != "torch.distributed" or ranks.world_size == 1:
        return
    said = {"epoch": str(epoch), "record": str(start), **summary}
    meetings = meetings_of_default_group()
    if meetings is not None:
        everyone = meetings.meet(epoch, said, timeout_s)
    else:  # as long as the process group waits
        everyone = [said] * ranks.world_size
        dist.all_gather_object(everyone, said)
    if all(one == everyone[0] for one in everyone):
        return
    names = dict.fromkeys(name for one in everyone for name in one)
    differing = [_by_value(name, [one.get(name, "not set") for one in everyone]) for name in names]
    raise DataError(
        f"the ranks would not read the same epoch: {'; '.join(filter(None, differing))}. Make the "
        "data set with the same settings over the same files, and call set_epoch() and "
        "load_state_dict() with the same values, on every rank; a data set that one rank alone "
        "reads needs rank=0, world_size=1"
    )


def _by_value(name: str, values: list[Any]) -> str:
    """Which ranks have which value; nothing where it is the same on all."""
    on: dict[Any, str] = {}
    for value in dict.fromkeys(values):
        first, others = values.index(value), values.count(value) - 1
        on[value] = f"rank {first}" + (f" and {others} more" if others else "")
    if len(on) == 1:
        return ""
    if any(isinstance(value, bytes) for value in on):
        return f"{name}: one on {', another on '.join(on.values())}"
    return f"{name} {', '.join(f'{value} on {where}' for value, where in on.items())}"
