"""What a command does when it is told to end, wherever Python is at that moment."""

from __future__ import annotations

import pytest
from programs import Running

PROGRAM = """
    import os, signal, sys, time, weakref
    from torch_s3io.processes.lifetime import cleaning_up_on_sigterm

    signal.signal(signal.SIGINT, signal.default_int_handler)
    number = int(sys.argv[1])

    class Held:
        pass

    def told(reference):
        signal.raise_signal(number)

    class Dropped:
        def __del__(self):
            signal.raise_signal(number)

    def lose_it():
        if sys.argv[2] == "weak reference":
            held = Held()
            reference = weakref.ref(held, told)
            del held
        elif sys.argv[2] == "__del__":
            Dropped()
        else:
            signal.raise_signal(number)

    try:
        with cleaning_up_on_sigterm():
            try:
                lose_it()
                time.sleep(60)
            finally:
                print("cleaned up")
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("where", ["weak reference", "__del__", "nowhere special"])
@pytest.mark.parametrize(("number", "status"), [(2, 130), (15, 143)])
def test_a_signal_is_not_lost_where_python_drops_what_its_handler_raises(where, number, status):
    ended = Running(PROGRAM, number, where).ended()
    assert (ended.returncode, ended.stdout) == (status, "cleaned up\n")
