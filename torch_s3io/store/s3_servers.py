"""What a server of objects does not promise, said once by each process, before its first batch."""

from __future__ import annotations

import contextlib
import ipaddress
import multiprocessing
import os
import urllib.parse
from collections.abc import Callable

import torch.distributed as dist
from torch.utils.data import get_worker_info

from ..errors import Error
from ..warning import warn


class Servers:
    """Those that data sets of this process read."""

    def __init__(self) -> None:
        self._warned: set[str] = set()
        self._asked: set[str] = set()

    def warn_if_nothing_verifies(self, endpoint: str) -> None:
        """Where bytes come without a checksum, and without TLS, from another machine."""
        if not is_plain(endpoint) or endpoint in self._warned or not _is_first():
            return
        self._warned.add(endpoint)
        warn(
            f"{endpoint}: nothing but TCP verifies what is read from there: over http:// a bit may "
            "flip, or somebody may change the data, unnoticed. Use an https:// endpoint, or write "
            "samples by SampleWriter and read them with verify=True; "
            "stats()['unverified_bytes'] counts what nothing covers"
        )

    def warn_if_versions_are_ignored(self, endpoint: str, asks: Callable[[], bool]) -> None:
        """By one request for each server, of the first rank alone. AWS is known.

        Args:
            asks: The server, whether it refuses to send another version than is asked for. What is
                wrong with the reply is told by the first read.
        """
        if not endpoint or endpoint in self._asked or not _is_first():
            return
        self._asked.add(endpoint)
        heeds = True
        with contextlib.suppress(Error):
            heeds = asks()
        if not heeds:
            warn(
                f"{endpoint}: the server ignores If-Match: where an object is overwritten while it "
                "is read, it sends the new version. The ETag of each reply is compared, so that is "
                "an ObjectChangedError all the same. Give new data new names, or use a server that "
                "heeds If-Match"
            )


def _is_first() -> bool:
    """Whether this process is the first rank, and nobody's child: no worker, and none of `pack`."""
    if get_worker_info() is not None:
        return False
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    if multiprocessing.parent_process() is not None:
        return False
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "SLURM_PROCID"))


def is_plain(endpoint: str) -> bool:
    """Whether it is another machine's, without TLS. (An empty one is AWS's, which has it.)"""
    parts = urllib.parse.urlsplit(endpoint)
    host = parts.hostname or ""
    if parts.scheme != "http" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return True  # a name
    address = getattr(address, "ipv4_mapped", None) or address
    return not (address.is_loopback or address.is_unspecified)
