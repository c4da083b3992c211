"""A program for the tests of the fork server: tells how it was started, then ends or waits."""

import json
import os
import signal
import sys
import threading
from contextlib import suppress

_MOST = 256


def is_open(descriptor: int) -> bool:
    with suppress(OSError):
        os.fstat(descriptor)
        return True
    return False


if __name__ == "__main__":
    told = {
        "name": __name__,
        "argv": sys.argv[1:],
        "word": os.environ.get("WORD"),
        "inherited": os.environ.get("INHERITED"),
        "session": os.getsid(0) == os.getpid(),
        "descriptors": [number for number in range(_MOST) if is_open(number)],
        "imported": "api_shim.app" in sys.modules,
        "sigterm": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
    }
    print(json.dumps(told), flush=True)
    if sys.argv[1] == "wait":
        threading.Event().wait()
    sys.exit(int(sys.argv[1]))
