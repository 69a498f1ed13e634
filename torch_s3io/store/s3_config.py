"""How buckets are reached, as a frozen value that is checked once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from ..config import MIB, check_bool, check_choice, check_int, check_seconds
from ..errors import ConfigError
from ..keywords import checks_keywords
from ..wording import short

AddressingKind = Literal["auto", "path", "virtual"]
EncryptionKind = Literal["AES256", "aws:kms"]

_SECRETS = ("access_key", "secret_key", "session_token")
_TEXTS = ("endpoint", "region", "profile", *_SECRETS, "ca_file", "sse_kms_key_id")
_SENT = ("region", *_SECRETS, "sse_kms_key_id")  # in headers of requests
_WORD = re.compile("[!-~]+")
_ENDPOINT = re.compile("https?://[^/?#@\\s]+/?", re.IGNORECASE)
_LEAST_PART, _MOST_PART = 64 << 10, 1 << 30
_MOST_CONNECTIONS = 1024
_LEAST_RETRIES_PER_S = 0.001


def check_endpoint(name: str, endpoint: str) -> None:
    """Raises ConfigError for what is no server."""
    if _ENDPOINT.fullmatch(endpoint):
        return
    shown = "an address with a user's name or password" if "@" in endpoint else short(endpoint)
    raise ConfigError(f"{name} must be a server, as 'http://localhost:9000', not {shown}")


@checks_keywords
@dataclass(frozen=True, kw_only=True)
class S3Config:
    """How a bucket is reached, and how fast. Keys are in no text that it shows, and in no pickle.

    Attributes:
        endpoint: The server, as in ``"http://localhost:9000"``; None: what AWS_ENDPOINT_URL_S3 or
            AWS_ENDPOINT_URL says, else AWS's of the region.
        region: Of the bucket; None: what AWS_REGION or AWS_DEFAULT_REGION says, else
            ``"us-east-1"``. A bucket of AWS that is in another one is found there, for a request
            more.
        addressing: ``"virtual"``: the bucket is a part of the host's name. ``"path"``: of the
            path. ``"auto"``: the first for AWS, the second where there is an ``endpoint``.
        anonymous: Requests are not signed: for public buckets.
        profile: Of ~/.aws, by botocore, whatever the variables say. None: AWS_PROFILE's, where
            nothing else names keys.
        access_key, secret_key, session_token: Of requests; None: what AWS_ACCESS_KEY_ID,
            AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN say, else what botocore finds.
        ca_file: PEM file of the certificates that may vouch for the server's, in place of the
            system's; None: what AWS_CA_BUNDLE says, else the system's.
        part_bytes: A longer range is read in parts of this size, several at once; and a longer
            object is written so, in parts of 5 MiB at least.
        connections: Open at once, of all buckets with as many; those over ``http://`` and
            ``https://`` count by themselves. The ranks of a machine
            (LOCAL_WORLD_SIZE) and their workers share them, and each has one at least.
        upload_checksums: A CRC-32C goes with all that is written, for the server to compare. False
            for servers that refuse that.
        sse: How what is written is encrypted: ``"AES256"`` or ``"aws:kms"``; None: as the bucket
            says.
        sse_kms_key_id: The key of ``"aws:kms"``; None: the account's own.
        requester_pays: This account pays for what it reads: for buckets that ask for that.
        connect_timeout_s: Longest wait for a connection.
        stall_timeout_s: Longest time in which less than a KiB a second comes.
        max_attempts: Of a request, the first one included.
        retry_timeout_s: After a failure, requests are repeated for so long.
        retries_per_s: Repeated requests of a process and bucket, all together; 0.001 at least.
    """

    endpoint: str | None = None
    region: str | None = None
    addressing: AddressingKind = "auto"
    anonymous: bool = False
    profile: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    part_bytes: int = 8 * MIB
    connections: int = 64
    upload_checksums: bool = True
    sse: EncryptionKind | None = None
    sse_kms_key_id: str | None = None
    requester_pays: bool = False
    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 20.0
    max_attempts: int = 12
    retry_timeout_s: float = 60.0
    retries_per_s: float = 50.0

    def __post_init__(self) -> None:
        for name in _TEXTS:
            value = getattr(self, name)
            if value is None:
                continue
            shown = "something else" if name in _SECRETS else short(value)
            if not isinstance(value, str) or not value:
                raise ConfigError(f"S3Config.{name} must be a text or None, not {shown}")
            if name in _SENT and not _WORD.fullmatch(value):
                raise ConfigError(
                    f"S3Config.{name} must have no blank, no line break, and no letter beyond "
                    f"ASCII, unlike {shown}"
                )
        if self.endpoint is not None:
            check_endpoint("S3Config.endpoint", self.endpoint)
        check_choice("S3Config.addressing", self.addressing, AddressingKind)
        check_bool("S3Config.anonymous", self.anonymous)
        check_bool("S3Config.requester_pays", self.requester_pays)
        check_bool("S3Config.upload_checksums", self.upload_checksums)
        if self.sse is not None:
            check_choice("S3Config.sse", self.sse, EncryptionKind)
        if self.sse_kms_key_id is not None and self.sse != "aws:kms":
            raise ConfigError("S3Config.sse_kms_key_id is the key of sse='aws:kms'")
        self._check_keys()
        for name, least, most in (
            ("part_bytes", _LEAST_PART, _MOST_PART),
            ("connections", 1, _MOST_CONNECTIONS),
            ("max_attempts", 1, 1000),
        ):
            if check_int(f"S3Config.{name}", getattr(self, name), least) > most:
                raise ConfigError(
                    f"S3Config.{name} must be at most {most}, not {getattr(self, name)}"
                )
        for name in ("connect_timeout_s", "stall_timeout_s", "retry_timeout_s", "retries_per_s"):
            check_seconds(f"S3Config.{name}", getattr(self, name))
        if self.retries_per_s < _LEAST_RETRIES_PER_S:
            raise ConfigError(
                f"S3Config.retries_per_s must be at least {_LEAST_RETRIES_PER_S}, "
                f"not {short(self.retries_per_s)}"
            )

    def _check_keys(self) -> None:
        given = [name for name in _SECRETS if getattr(self, name) is not None]
        if given and self.profile:
            raise ConfigError(f"S3Config: profile= names the keys: leave {given[0]}= out")
        if self.profile and self.anonymous:
            raise ConfigError("S3Config: anonymous=True signs nothing: leave profile= out")
        if given and self.anonymous:
            raise ConfigError(f"S3Config: anonymous=True signs nothing: leave {given[0]}= out")
        if given and not {"access_key", "secret_key"} <= set(given):
            raise ConfigError(
                "S3Config: access_key= and secret_key= belong together: one of them is missing"
            )

    def object_headers(self) -> list[tuple[str, str]]:
        """Of requests that make an object."""
        name = "x-amz-server-side-encryption"
        values = {name: self.sse, f"{name}-aws-kms-key-id": self.sse_kms_key_id}
        return [(name, value) for name, value in values.items() if value is not None]

    def __copy__(self) -> S3Config:
        return self  # it is frozen, and a copy by way of a pickle would have no keys

    def __deepcopy__(self, memo: dict[int, Any]) -> S3Config:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, **dict.fromkeys(_SECRETS)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def without_keys(config: S3Config) -> S3Config:
    """As it comes to another process."""
    return replace(config, access_key=None, secret_key=None, session_token=None)


def differences(known: S3Config, given: S3Config) -> str:
    """What another config says otherwise, but no key."""
    texts = [
        f"{name} is {getattr(given, name)!r} here, and {getattr(known, name)!r} there"
        for name in (one.name for one in fields(S3Config) if one.repr)
        if getattr(given, name) != getattr(known, name)
    ]
    has_other_keys = any(getattr(given, name) != getattr(known, name) for name in _SECRETS)
    return ", ".join([*texts, *(["it has other keys"] if has_other_keys else [])])
