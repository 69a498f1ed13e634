"""What a server of objects does not promise, said once by each process, before its first batch."""

from __future__ import annotations

import ipaddress
import urllib.parse

from ..warning import warn


class Servers:
    """Those that data sets of this process read."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def warn_if_nothing_verifies(self, endpoint: str) -> None:
        """Where bytes come without a checksum, and without TLS, from another machine."""
        if not is_plain(endpoint) or endpoint in self._warned:
            return
        self._warned.add(endpoint)
        warn(
            f"{endpoint}: nothing but TCP verifies what is read from there: over http:// a bit may "
            "flip, or somebody may change the data, unnoticed. Use an https:// endpoint, or write "
            "samples by SampleWriter and read them with verify=True; "
            "stats()['unverified_bytes'] counts what nothing covers"
        )


def is_plain(endpoint: str) -> bool:
    """Whether it is another machine's, without TLS. (An empty one is AWS's, which has it.)"""
    parts = urllib.parse.urlsplit(endpoint)
    host = parts.hostname or ""
    if parts.scheme != "http" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True  # a name
