"""How a bucket is reached, and what C++ has for that in each process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from .. import _C
from .aws_files import state_of_aws_files
from .s3_config import S3Config, check_endpoint
from .s3_connections import connections_here
from .s3_credentials import Place, S3Credentials, place_of

SCHEME = "s3://"
_READ_DEPTH = 16  # parts of one read
_VARIABLES = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_CA_BUNDLE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
)


class Bucket:
    """By a config, and by the variables as they were when this was made. Several buckets may have
    the same one.

    Args:
        credentials: None: those of the config.
    """

    def __init__(self, config: S3Config, credentials: S3Credentials | None = None) -> None:
        self.config = config
        self._credentials = credentials or S3Credentials(config)
        self._surroundings = _surroundings()
        self._cores: dict[int, Core] = {}  # by process

    @cached_property
    def place(self) -> Place:
        return place_of(self.config)

    @property
    def is_elsewhere(self) -> bool:
        """Whether it comes from another process, and its config has no keys therefore."""
        return self._credentials.is_elsewhere

    @property
    def is_inherited(self) -> bool:
        """Whether it came with the credentials of the process that started this one."""
        return self._credentials.is_inherited

    @property
    def is_outdated(self) -> bool:
        """Whether variables or files that it may have been made of say something else by now."""
        return not self.is_inherited and self._surroundings != _surroundings()

    def core(self, etags: Iterable[str]) -> Core:
        """Of this process.

        Args:
            etags: What a new one knows of.
        """
        core = self._cores.get(os.getpid())
        if core is None:
            made = Core(self.config, self.place, self._credentials)
            made.objects.know_etags(list(etags))
            core = self._cores.setdefault(os.getpid(), made)
        return core

    def know_etags(self, etags: Iterable[str]) -> None:
        core = self._cores.get(os.getpid())
        if core is not None:
            core.objects.know_etags(list(etags))

    def __reduce__(self) -> Any:
        return Bucket, (self.config, self._credentials)


class Core:
    """What C++ has for one config, in one process."""

    def __init__(self, config: S3Config, place: Place, credentials: S3Credentials) -> None:
        if place.endpoint:
            check_endpoint("AWS_ENDPOINT_URL, or AWS_ENDPOINT_URL_S3,", place.endpoint)
        self.objects = _C.S3Objects(
            endpoint=place.endpoint,
            region=place.region,
            ca_file=place.ca_file,
            addressing=config.addressing,
            requester_pays=config.requester_pays,
            connect_timeout_s=config.connect_timeout_s,
            stall_timeout_s=config.stall_timeout_s,
            max_idle_s=3,
            max_attempts=config.max_attempts,
            retry_timeout_s=config.retry_timeout_s,
            retries_per_s=config.retries_per_s,
            part_bytes=config.part_bytes,
            connections=connections_here(config.connections),
            credentials=credentials.source(),
        )
        self.reads = _C.S3Reads(objects=self.objects, buffer_pool=None, depth=_READ_DEPTH)


def _surroundings() -> int:
    """A number that tells values of the variables apart, and does not tell them; and states of the
    files of ~/.aws."""
    return hash((*map(os.environ.get, _VARIABLES), state_of_aws_files()))
