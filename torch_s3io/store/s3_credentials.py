"""Where the credentials of object storage come from, and how worker processes get them.

They lie on a board: memory that the process which looked them up shares with those that it starts.
Forked ones inherit it, spawned ones get its descriptors. Temporary credentials are renewed there by
a thread of the first process.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple

from .. import _C
from ..errors import ConfigError
from .s3_config import S3Config
from .s3_renewal import Keys, Renewal


class Place(NamedTuple):
    """Empty texts where nobody says: AWS's endpoint, the system's certificates."""

    endpoint: str
    region: str
    ca_file: str


class Found(NamedTuple):
    """Credentials, and how to ask for them later: None where they stay the same."""

    keys: Keys
    again: Callable[..., Keys] | None


class S3Credentials:
    """The credentials of one ``S3Config``. They are looked up when a source is first asked for.

    Pickled while a process is being spawned, it takes its board along; pickled otherwise, nothing:
    who unpickles it looks them up anew, where it is.

    Attributes:
        is_elsewhere: They come from another process.
        is_inherited: From the one that started this one, with its board.
    """

    def __init__(self, config: S3Config) -> None:
        self._config = config
        self.is_elsewhere = self.is_inherited = False
        self._start()

    def _start(self) -> None:
        self._board: _C.CredentialBoard | None = None
        self._lock, self._pid = threading.Lock(), os.getpid()

    def source(self) -> _C.CredentialSource:
        """For this process: made for each caller.

        Raises:
            ConfigError: There are none; the text says where they were looked for.
        """
        if self._config.anonymous:
            return _C.fixed_credentials(access_key="", secret_key="", session_token="")
        if self._board is not None:
            return self._board.source()
        if self._pid != os.getpid():  # the parent may have had the lock when it forked
            self._start()
        with self._lock:
            if self._board is None:
                self._board = self._make_board()
            return self._board.source()

    def _make_board(self) -> _C.CredentialBoard:
        keys, again = find_keys(self._config, os.environ, is_elsewhere=self.is_elsewhere)
        board = _C.CredentialBoard()
        keys.say(board, is_renewed=again is not None)
        if again is not None:
            renewal = Renewal(board, again, keys)
            weakref.finalize(self, renewal.end).atexit = False
            renewal.start()
        return board

    def __getstate__(self) -> dict[str, Any]:
        is_spawning = get_spawning_popen() is not None
        if is_spawning and self._board is None and not self._config.anonymous:
            with contextlib.suppress(ConfigError):  # then the process says so that needs them
                self.source()
        board = self._board if is_spawning else None
        fds = None if board is None else (DupFd(board.fd), DupFd(board.bell_fd))
        return {"config": self._config, "fds": fds}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._config = state["config"]
        self.is_elsewhere, self.is_inherited = True, state["fds"] is not None
        self._start()
        if state["fds"] is not None:
            page, bell = state["fds"]
            self._board = _C.CredentialBoard.adopt(fd=page.detach(), bell_fd=bell.detach())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


def find_keys(
    config: S3Config, environment: Mapping[str, str], *, is_elsewhere: bool = False
) -> Found:
    """Those of the config, of the environment, or of botocore's chain: the first that there are.

    Args:
        is_elsewhere: The config comes from another process, without its keys.

    Raises:
        ConfigError: There are none, or half of them.
    """
    if config.access_key or config.secret_key or config.session_token:
        keys = Keys(config.access_key or "", config.secret_key or "", config.session_token or "")
        return Found(_complete(keys, "access_key= and secret_key= of S3Config"), None)
    if not config.profile:
        named = _of_environment(environment)
        if named is not None:
            return Found(named, _again(config, environment) if named.session_token else None)
    if importlib.util.find_spec("botocore") is None:
        raise ConfigError(_text_of_missing(config, environment, None, is_elsewhere))
    chain = importlib.import_module("torch_s3io.store.s3_chain").Chain(config.profile)
    found: Keys | None = chain.current()
    if found is None:
        looked = chain.places()
        raise ConfigError(_text_of_missing(config, environment, looked, is_elsewhere))
    return Found(found, chain.again)


def _again(config: S3Config, environment: Mapping[str, str]) -> Callable[..., Keys]:
    def again(*, is_refused: bool) -> Keys:
        return find_keys(config, environment).keys

    return again


def _of_environment(environment: Mapping[str, str]) -> Keys | None:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    access_key, secret_key, token = (environment.get(name, "") for name in names)
    if not access_key and not secret_key:
        return None
    return _complete(Keys(access_key, secret_key, token), f"{names[0]} and {names[1]}")


def _complete(keys: Keys, names: str) -> Keys:
    if not keys.access_key or not keys.secret_key:
        raise ConfigError(f"{names} belong together: one of them is missing")
    return keys


def _text_of_missing(
    config: S3Config, environment: Mapping[str, str], looked: str | None, is_elsewhere: bool
) -> str:
    profile = config.profile or environment.get("AWS_PROFILE")
    places = [] if config.profile else ["AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"]
    if looked is not None:
        places.append(f"botocore found none in {looked}")
    else:
        needs = f"the profile {profile!r}" if profile else "~/.aws, SSO and roles"
        places.append(f"{needs} cannot be read, as botocore is not installed")
    lost = (
        " (keys that S3Config was given stay in the process that was given them)"
        if is_elsewhere
        else ""
    )
    ways = ["Set these variables", "pass S3Config(access_key=..., secret_key=...)"]
    ways += ["pip install 'torch_s3io[s3]'"] if looked is None else ["run `aws configure`"]
    return (
        f"no credentials for s3://: {', and '.join(places)}{lost}. {', '.join(ways)}, or read a "
        "public bucket with S3Config(anonymous=True)"
    )


def place_of(config: S3Config, environment: Mapping[str, str] | None = None) -> Place:
    """Where a bucket is asked for: as the config says, else the variables AWS_ENDPOINT_URL_S3,
    AWS_ENDPOINT_URL, AWS_REGION, AWS_DEFAULT_REGION and AWS_CA_BUNDLE, else the profile, where
    botocore reads it."""
    environment = os.environ if environment is None else environment

    def first(value: str | None, *names: str) -> str:
        return value or next((environment[name] for name in names if environment.get(name)), "")

    endpoint = first(config.endpoint, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    region = first(config.region, "AWS_REGION", "AWS_DEFAULT_REGION")
    ca_file = first(config.ca_file, "AWS_CA_BUNDLE")
    if not (endpoint and region) and importlib.util.find_spec("botocore") is not None:
        chain = importlib.import_module("torch_s3io.store.s3_chain").Chain(config.profile)
        endpoint, region = (
            endpoint or chain.setting("endpoint_url"),
            region or chain.setting("region"),
        )
        ca_file = ca_file or chain.setting("ca_bundle")
    return Place(endpoint, region or "us-east-1", ca_file)
