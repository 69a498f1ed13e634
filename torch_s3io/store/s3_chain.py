"""Credentials and settings by botocore, which reads profiles, SSO, and the roles of containers and
instances."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

import botocore.credentials
import botocore.exceptions
import botocore.session

from ..errors import ConfigError
from .aws_files import state_of_aws_files
from .s3_renewal import Keys

_MOST_S = 60.0  # of a look-up: a program, or a server, that gives keys may hang
_Result = TypeVar("_Result")


class Chain:
    """What botocore finds for a profile; for None, the usual one.

    Note: botocore renews temporary credentials whenever it is asked for them and they end soon.
    Those that are refused before, or may have changed in the files of ~/.aws, are looked up by a
    new session, which remembers nothing.
    """

    def __init__(self, profile: str | None) -> None:
        self._profile = profile or None
        self._looking: Future[Keys | None] | None = None
        self._begin()

    def _begin(self) -> None:
        self._files = state_of_aws_files()
        self._session: Any = botocore.session.Session(profile=self._profile)
        self._credentials: Any = None

    def current(self) -> Keys | None:
        """None: it finds none.

        Raises:
            ConfigError: There is no such profile, or those who give credentials do not answer, or
                not in time.
        """
        if self._looking is None:  # else one hangs: another would, too
            self._looking = _begun(self._look_up)
        looking = self._looking
        wait([looking], _MOST_S)
        if not looking.done():
            raise ConfigError(
                f"no credentials for s3:// within {_MOST_S:g} s: botocore still waits for "
                f"{self.places()}. A credential_process may hang, or a server that gives them not "
                "answer; the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY do without both"
            )
        self._looking = None
        return looking.result()

    def _look_up(self) -> Keys | None:
        try:
            if self._credentials is None:
                self._credentials = self._session.get_credentials()
            if self._credentials is None:
                return None
            frozen = self._credentials.get_frozen_credentials()
        except botocore.exceptions.BotoCoreError as error:
            raise ConfigError(
                f"botocore cannot get credentials for s3://: {type(error).__name__}: {error}"
            ) from None
        # Only those that it renews say when they end, and only there.
        ends = getattr(self._credentials, "_expiry_time", None)
        expires_s = 0.0 if ends is None else ends.timestamp()
        return Keys(frozen.access_key, frozen.secret_key, frozen.token or "", expires_s)

    def again(self, *, is_refused: bool) -> Keys:
        if is_refused or state_of_aws_files() != self._files:
            self._begin()
        keys = self.current()
        if keys is None:
            raise ConfigError(f"botocore finds none any more in {self.places()}")
        return keys

    def places(self) -> str:
        """Where it looks."""
        name = self._profile or os.environ.get("AWS_PROFILE") or "default"
        return f"the profile {name!r} of ~/.aws, SSO, or the role of a container or an instance"

    def setting(self, name: str) -> str:
        """Of the profile; empty where it says nothing.

        Raises:
            ConfigError: There is no such profile.
        """
        try:
            return str(self._session.get_scoped_config().get(name) or "")
        except botocore.exceptions.BotoCoreError as error:
            raise ConfigError(f"botocore cannot read the profile: {error}") from None


def _begun(work: Callable[[], _Result]) -> Future[_Result]:
    """In a thread that nobody has to wait for."""
    done: Future[_Result] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="s3io-look-up", daemon=True).start()
    return done
