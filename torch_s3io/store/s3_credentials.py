"""Where the credentials of object storage come from, and where its server is."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from .. import _C
from ..errors import ConfigError
from .s3_config import S3Config


class Place(NamedTuple):
    """Empty texts where nobody says: AWS's endpoint, the system's certificates."""

    endpoint: str
    region: str
    ca_file: str


class S3Credentials:
    """Those of one S3Config. In another process they are looked up anew."""

    def __init__(self, config: S3Config) -> None:
        self._config = config

    def source(self) -> _C.CredentialSource:
        """For this process.

        Raises:
            ConfigError: There are none; the text says where they were looked for.
        """
        config = self._config
        if config.anonymous:
            return _C.fixed_credentials(access_key="", secret_key="", session_token="")
        keys = [config.access_key, config.secret_key, config.session_token]
        if config.access_key is None:
            names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
            keys = [os.environ.get(name) for name in names]
        access_key, secret_key, session_token = keys
        if not access_key or not secret_key:
            raise ConfigError(
                "no credentials for s3://: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, pass "
                "store=S3Config(access_key=..., secret_key=...), or read a public bucket with "
                "store=S3Config(anonymous=True)"
            )
        return _C.fixed_credentials(
            access_key=access_key, secret_key=secret_key, session_token=session_token or ""
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"_config": self._config}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


def place_of(config: S3Config) -> Place:
    """Where a bucket is asked for: as the config says, else the environment."""

    def first(value: str | None, *names: str) -> str:
        return value or next((os.environ[name] for name in names if os.environ.get(name)), "")

    region = first(config.region, "AWS_REGION", "AWS_DEFAULT_REGION")
    return Place(
        first(config.endpoint, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        region or "us-east-1",
        first(config.ca_file, "AWS_CA_BUNDLE"),
    )
