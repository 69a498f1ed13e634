"""The thread that renews temporary credentials, for all processes that use them."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from .. import _C

_LOOK_S = 60.0  # botocore renews what ends within 15 minutes whenever it is asked
_IN_VAIN_S = 5.0  # nobody is asked for so long, after giving those again that were refused
_ONE_RING = (1).to_bytes(8, sys.byteorder)  # as an eventfd counts


class Keys(NamedTuple):
    """Credentials. Their text does not show them.

    Attributes:
        session_token: Empty: they stay valid.
        expires_s: Seconds since 1970; 0: nobody knows.
    """

    access_key: str
    secret_key: str
    session_token: str = ""
    expires_s: float = 0.0

    def say(self, board: _C.CredentialBoard, *, is_renewed: bool, problem: str = "") -> None:
        board.say(**self._asdict(), is_renewed=is_renewed, problem=problem)

    def __repr__(self) -> str:
        return "Keys(...)"


class Renewal:
    """Looks for newer keys from time to time, and when somebody rings, which each of many requests
    may do. It belongs to the process that starts it; there may be forked ones, which ring."""

    def __init__(self, board: _C.CredentialBoard, again: Callable[..., Keys], keys: Keys) -> None:
        self._board, self._again, self._keys = board, again, keys
        self._is_over, self._pid = False, os.getpid()
        self._problem, self._in_vain_until_s = "", 0.0

    def start(self) -> None:
        # A daemon: it may wait for a server that does not answer, and nobody waits for it.
        threading.Thread(target=self._run, name="s3io-credentials", daemon=True).start()

    def end(self) -> None:
        if os.getpid() != self._pid:  # a forked child has no such thread, but the same bell
            return
        self._is_over = True
        with contextlib.suppress(OSError):
            os.write(self._board.bell_fd, _ONE_RING)

    def _run(self) -> None:
        bell = select.poll()
        bell.register(self._board.bell_fd, select.POLLIN)
        while not self._is_over:
            is_rung = bool(bell.poll(_LOOK_S * 1000))
            if is_rung:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._board.bell_fd, len(_ONE_RING))
            if not self._is_over:
                self._renew(is_rung)

    def _renew(self, is_rung: bool) -> None:
        known = self._keys
        if not (is_rung and time.monotonic() < self._in_vain_until_s):
            self._look(is_rung)
        if is_rung or self._keys != known:
            self._keys.say(self._board, is_renewed=True, problem=self._problem)

    def _look(self, is_rung: bool) -> None:
        known, self._problem = self._keys, ""
        try:
            self._keys = self._again(is_refused=is_rung)
        except Exception as error:  # of whatever kind: it is told to those who wait
            self._problem = f"{type(error).__name__}: {error}"[:1000]
        if is_rung and self._keys == known:
            self._in_vain_until_s = time.monotonic() + _IN_VAIN_S
